"""A run whose pipelines ask for more than a core: refused in words, or given what they asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmlpipe.scheduler.errors import ClusterError
from dmlpipe.scheduler.store import Store

DAG = """
import os
import time
import dmlpipe as dml

dag = dml.DAG("needs")


@dag.pipeline(dml.files("numbers", "/*"), gpus=1, resources={"licence": 1}, priority=3)
def seen(numbers: bytes) -> dml.Files:
    time.sleep(0.02)
    return {numbers.decode(): os.environ["CUDA_VISIBLE_DEVICES"]}


@dag.pipeline(dml.files("numbers", "/*"), memory="150MiB")
def hungry(numbers: bytes) -> dml.Files:
    if numbers == b"3":
        held = bytearray(300 << 20)
        held[::4096] = b"x" * len(held[::4096])
        time.sleep(60)
    return {numbers.decode(): os.environ["CUDA_VISIBLE_DEVICES"]}
"""


def test_what_is_not_there_is_named_and_what_is_there_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLPIPE_CACHE_DIR", str(tmp_path / "cache"))
    store = Store.init(tmp_path / "store")
    with store.commit("numbers") as session:
        for number in range(8):
            session.write(str(number), str(number))
    (tmp_path / "dag.py").write_text(DAG)
    store.submit(tmp_path / "dag.py")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(
        ClusterError, match=r"seen needs gpu: 1 \(the most that a worker has is 0\), licence: 1"
    ) as info:
        store.run(slots=2)
    assert info.value.hint

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    monkeypatch.setenv("DMLPIPE_RESOURCES", "licence=2")
    summary = store.run(slots=2, check=False)
    failures = [group.failure for job in summary.jobs for group in job.failures]
    assert [failure.kind for failure in failures] == ["memory"]
    assert "more than the 150 MiB of memory=" in failures[0].message
    store.refresh()
    found = {info.path: store["seen"].read_bytes(info.path) for info in store["seen"].ls("/")}
    assert set(found) == {f"/{number}" for number in range(8)}
    assert set(found.values()) == {b"GPU-a", b"GPU-b"}
