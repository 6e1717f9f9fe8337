"""Pipelines and commits to several repos: what was committed together is seen together."""

from __future__ import annotations

import itertools

from dmlpipe.scheduler.inputs.combine import cross
from dmlpipe.scheduler.inputs.leaf import files
from dmlpipe.scheduler.pipelines.spec import Options, PipelineSpec
from dmlpipe.scheduler.store import Store
from dmlpipe.storage.objects.value import decode_value
from dmlpipe.worker.job import CommandTransform, Datum, JobSpec
from tests.scheduler.fake_executor import FakeExecutor

_names = itertools.count()


def test_a_pipeline_runs_once_for_commits_that_were_made_together() -> None:
    store = Store.init(f"memory://transactions-{next(_names)}")
    seen: list[bytes] = []

    def compute(spec: JobSpec, datum: Datum) -> dict[str, bytes]:
        del spec
        seen.append(b"".join(store.objects.read(decode_value(item.value)) for item in datum.items))
        if len(seen) == 1:
            # While a run is under way: the next one must see both, or neither.
            with store.transaction() as both:
                both.commit("images").write("a", "2")
                both.commit("labels").write("a", "2")
        return {"out": seen[-1]}

    with store.transaction() as both:
        both.commit("images").write("a", "1")
        both.commit("labels").write("a", "1")
    pair = cross(image=files("images", "/*"), label=files("labels", "/*"))
    store.submit(
        [
            PipelineSpec(
                name="pairs",
                input=pair,
                transform=CommandTransform(argv=("true",)),
                code_id="1",
                options=Options(),
            )
        ]
    )
    summary = store.run(executor=FakeExecutor(store, compute))
    assert summary.ok
    assert seen == [b"11", b"22"]
    assert len(summary.jobs) == 2
    assert store["pairs"].read_bytes("out") == b"22"
