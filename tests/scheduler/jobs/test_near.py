"""Which files make a host near to a job."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from dmlpipe.scheduler.jobs.near import NEAR_MAX, near_files
from dmlpipe.storage.objects.cache import content_name
from dmlpipe.storage.store import Store
from dmlpipe.worker.job import JobInput


def test_the_largest_files_of_constant_inputs(tmp_path: Path) -> None:
    store = Store.init(f"memory://{uuid.uuid4().hex}", cache_dir=tmp_path)
    sizes = {"small": 10, "big": 3 << 20, "deep/bigger": 4 << 20, "deep/x": 1 << 20}
    with store.commit("model") as commit:
        for name, size in sizes.items():
            commit.write(name, os.urandom(size))
    view = store["model"]
    tree = view.tree.root.hex()

    def named(*names: str) -> tuple[bytes, ...]:
        return tuple(content_name(view.value(name)) for name in names)

    def given(path: str, *, constant: bool = True) -> JobInput:
        return JobInput(name="m", kind="files", constant=constant, tree=tree, path=path)

    assert near_files(store, [given("")]) == named("deep/bigger", "big", "deep/x")
    assert near_files(store, [given("deep")]) == named("deep/bigger", "deep/x")
    assert near_files(store, [given("big")]) == named("big")
    assert near_files(store, [given("", constant=False), JobInput(name="v", kind="values", constant=True)]) == ()
    assert len(near_files(store, [given("")] * NEAR_MAX)) == NEAR_MAX
