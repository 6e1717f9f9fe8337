"""A garbage collection beside a running job: what is published stands, whatever was collected meanwhile."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from dmlpipe.scheduler.inputs.leaf import files
from dmlpipe.scheduler.store import Store
from dmlpipe.storage import records as r
from dmlpipe.storage.gc.run import collect as collect_all
from dmlpipe.storage.gc.sweep import Collector
from dmlpipe.storage.objects.value import decode_value
from dmlpipe.storage.store import Store as PlainStore
from dmlpipe.worker.job import Datum, JobSpec
from tests.scheduler.fake_executor import FakeExecutor
from tests.scheduler.jobs.test_controller import make_spec, put

_names = itertools.count()


def open_again(store: Store) -> PlainStore:
    return PlainStore(store.backend, store.info, cache_dir=store.cache_dir)


def collect(store: Store) -> int:
    other = open_again(store)
    return Collector(other.backend, other.nodes, other.objects, other.ledger, grace_s=0).collect().objects


def leave_garbage(store: Store, name: str, content: bytes) -> None:
    """Publish content and drop it again: it stays in the store, and nothing refers to it."""
    with store.commit("garbage") as session:
        session.write(name, content)
    first = store["garbage"].id
    with store.commit("garbage") as session:
        session.delete(name)
        session.write("stays", name)
    store.publish([r.CommitDrop(repo="garbage", commits=(r.Dropped(id=first),))])


@pytest.mark.parametrize("size", [200, 1 << 20], ids=["packed", "loose"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_collection_while_a_job_runs_costs_it_nothing_that_is_published(size: int, when: str, tmp_path: Path) -> None:
    store = Store.init(f"memory://collected-{next(_names)}", cache_dir=tmp_path)
    put(store, "images", a="A", b="B", c="C")
    store.submit([make_spec("out", files("images", "/*"))])
    contents = {key: key.encode() * size for key in "abc"}
    leave_garbage(store, "a", contents["a"])
    taken = []

    def compute(spec: JobSpec, datum: Datum) -> dict[str, bytes]:
        assert decode_value(datum.items[0].value).size == 1
        name = datum.key.decode()
        if when == "before":
            taken.append(collect(store))
        elif name == "b":
            # Right after a result was put that was found in the store, and before its segment is there.
            taken.append(collect(store))
        return {name: contents[name]}

    executor = FakeExecutor(store, compute)
    summary = store.run(executor=executor, check=False)
    assert sum(taken) > 0
    assert open_again(store).fsck().ok
    (job,) = summary.jobs
    again = FakeExecutor(store, lambda spec, datum: {datum.key.decode(): contents[datum.key.decode()]})
    if job.state == "failed":
        # What the collection took from under the job is named, and only that is computed by the next run.
        assert job.failures[0].failure.kind == "collected"
        assert store.run(executor=again).jobs[0].state == "done"
        assert len(again.calls) == job.counters.failed < 3
        assert when == "before" or again.calls == [("out", b"a")]
    else:
        assert when == "before"
    found = open_again(store)["out"]
    assert {info.path[1:]: found.read_bytes(info.path) for info in found.ls()} == contents
    assert open_again(store).fsck().ok


def test_memory_is_never_broken_by_a_collection(tmp_path: Path) -> None:
    store = Store.init(f"memory://collected-{next(_names)}", cache_dir=tmp_path)
    compute = lambda spec, datum: {datum.key.decode(): decode_value(datum.items[0].value).data * 300}  # type: ignore[union-attr]  # noqa: E731

    def work(a: str) -> int:
        put(store, "images", a=a, b="B")
        executor = FakeExecutor(store, compute)
        assert store.run(executor=executor).jobs[0].state == "done"
        return len(executor.calls)

    put(store, "images", a="0", b="B")
    store.submit([make_spec("out", files("images", "/*"))])
    assert [work("A"), work("A2")] == [2, 1]
    for repo in ("images", "out"):
        store.publish([r.KeepSet(repo=repo, last=1)])
    done = collect_all(open_again(store), grace_s=0)
    assert (done.dropped, done.swept.objects > 0) == (3, True)
    assert open_again(store).fsck().ok
    # A, A2, A: what was computed once is found, though every commit that had it is gone.
    assert work("A") == 0
    assert store["out"].read_bytes("a") == b"A" * 300
    collect_all(open_again(store), grace_s=0)
    assert work("A2") == 0
    assert work("A3") == 1
    why = store.why("out:/b")
    assert "dropped at entry" in str(why.to_dict())
    assert open_again(store).fsck().ok
