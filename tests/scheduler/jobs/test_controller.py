"""The controller over a memory store with a fake executor: what runs, what is reused, what survives."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from dmlpipe.scheduler.errors import JobFailed
from dmlpipe.scheduler.inputs.combine import cross
from dmlpipe.scheduler.inputs.leaf import array, files
from dmlpipe.scheduler.inputs.standing import cron
from dmlpipe.scheduler.jobs import controller as controller_module
from dmlpipe.scheduler.jobs.controller import Controller
from dmlpipe.scheduler.jobs.epoch import _driving
from dmlpipe.scheduler.leases.executor import Executor
from dmlpipe.scheduler.pipelines.spec import Options, PipelineSpec
from dmlpipe.scheduler.report import JobEnded
from dmlpipe.scheduler.store import Store
from dmlpipe.storage.errors import HeldError, InvalidInputError, NotFoundError
from dmlpipe.storage.objects.node import NodeStore
from dmlpipe.storage.objects.value import decode_value
from dmlpipe.worker.job import CommandTransform, Datum, JobSpec
from tests.scheduler.fake_executor import Compute, FakeExecutor, KilledError

_names = itertools.count()


def make_spec(name: str, source: Any, *, code: str = "1", **options: Any) -> PipelineSpec:
    return PipelineSpec(
        name=name,
        input=source,
        transform=CommandTransform(argv=("true",)),
        code_id=code,
        options=Options(**options),
    )


@pytest.fixture
def store() -> Store:
    return Store.init(f"memory://controller-{next(_names)}")


def copy_inputs(store: Store) -> Compute:
    """Each datum writes one file named after its key; constants are folded into the content."""

    def compute(spec: JobSpec, datum: Datum) -> dict[str, bytes]:
        content = b"".join(store.objects.read(decode_value(item.value)) for item in datum.items if item.kind == "f")
        for given in spec.inputs:
            if given.constant:
                content += given.tree.encode()
        if b"bad" in content:
            raise ValueError("bad content")
        name = datum.key.decode().replace("\0", "_") or "all"
        return {f"{name}.out": b"made of " + content + b" " * 200}

    return compute


def run(store: Store, **options: Any) -> tuple[Any, FakeExecutor]:
    executor = FakeExecutor(store, copy_inputs(store), **options)
    return store.run(executor=executor, check=False), executor


def tree_of(store: Store, repo: str) -> str:
    return store[repo].tree.root.hex()


def put(store: Store, repo: str, **contents: str) -> None:
    with store.commit(repo) as session:
        for path, text in contents.items():
            session.write(path, text)


def two_pipelines(store: Store) -> None:
    put(store, "training", t1="one", t2="two")
    put(store, "images", a="A", b="B", c="C")
    store.submit(
        [
            make_spec("model", files("training")),
            make_spec("predictions", cross(image=files("images", "/*"), model=files("model"))),
        ]
    )


def test_a_first_run_computes_every_datum_once(store: Store) -> None:
    two_pipelines(store)
    summary, executor = run(store)
    assert summary.ok
    assert [(job.pipeline, job.counters.run) for job in summary.jobs] == [("model", 1), ("predictions", 3)]
    assert len(executor.calls) == 4
    assert executor.closed
    assert [info.path for info in store["predictions"].ls("/")] == ["/a.out", "/b.out", "/c.out"]


def test_a_run_with_nothing_to_do_makes_no_executor_and_no_entry(store: Store) -> None:
    two_pipelines(store)
    run(store)
    before = store.refresh().n

    def refuse() -> Executor:
        raise AssertionError("nothing is to be computed")

    summary = Controller(store, refuse).run()
    assert summary.jobs == ()
    assert store.refresh().n == before


def test_new_files_run_and_the_rest_is_skipped(store: Store) -> None:
    two_pipelines(store)
    run(store)
    put(store, "images", d="D")
    summary, executor = run(store)
    (job,) = summary.jobs
    assert (job.counters.run, job.counters.skipped, job.counters.total) == (1, 3, 4)
    assert executor.calls == [("predictions", b"d")]


def test_content_that_goes_back_is_not_computed_again(store: Store) -> None:
    two_pipelines(store)
    run(store)
    first = tree_of(store, "predictions")
    put(store, "images", a="changed")
    _, executor = run(store)
    assert executor.calls == [("predictions", b"a")]
    put(store, "images", a="A")
    summary, executor = run(store)
    assert executor.calls == []
    assert summary.jobs[0].counters.skipped == 3
    assert tree_of(store, "predictions") == first


def test_removed_inputs_take_their_outputs_away(store: Store) -> None:
    two_pipelines(store)
    run(store)
    with store.commit("images") as session:
        session.delete("b")
    summary, executor = run(store)
    assert executor.calls == []
    assert summary.jobs[0].counters.removed == 1
    assert [info.path for info in store["predictions"].ls("/")] == ["/a.out", "/c.out"]


def test_a_controller_that_serves_ticks_as_time_comes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = ["2030-01-01T05:00:00Z"]
    monkeypatch.setattr(store, "_clock", lambda: now[0])
    monkeypatch.setattr(controller_module, "_IDLE_WAIT_S", 0.01)
    store.submit([make_spec("report", cron("0 6 * * *", name="tick", repo="ticks", start="2030-01-01T00:00:00Z"))])
    ended: list[JobEnded] = []

    def watch(report: object) -> None:
        if isinstance(report, JobEnded):
            ended.append(report)
            # A day later there is another tick; after the second one it is over.
            now[0] = "2030-01-02T06:00:01Z"
            if len(ended) == 2:
                controller.stop()

    controller = Controller(store, lambda: FakeExecutor(store, copy_inputs(store)), kind="up", observer=watch)
    now[0] = "2030-01-01T06:00:01Z"
    controller.serve()
    assert [(job.counters.run, job.counters.skipped) for job in ended] == [(1, 0), (1, 1)]
    assert [info.path for info in store["ticks"].ls("/")] == ["/2030-01-01T06:00:00Z", "/2030-01-02T06:00:00Z"]


def test_a_diamond_runs_its_bottom_once(store: Store) -> None:
    put(store, "src", x="1")
    store.submit(
        [
            make_spec("left", files("src", "/*")),
            make_spec("right", files("src", "/*")),
            make_spec("bottom", cross(files("left", "/*"), files("right", "/*"))),
        ]
    )
    summary, _ = run(store)
    assert sorted(job.pipeline for job in summary.jobs) == ["bottom", "left", "right"]
    put(store, "src", x="2")
    summary, executor = run(store)
    assert sorted(job.pipeline for job in summary.jobs) == ["bottom", "left", "right"]
    assert len(executor.calls) == 3


def test_revert_brings_old_results_back_without_a_datum_and_holds(store: Store) -> None:
    two_pipelines(store)
    run(store)
    good = tree_of(store, "predictions")
    put(store, "training", t1="worse")
    run(store)
    assert tree_of(store, "predictions") != good
    store.revert("model", "model@master^", why="worse")
    summary, executor = run(store)
    assert executor.calls == []
    assert [job.pipeline for job in summary.jobs] == ["predictions"]
    assert tree_of(store, "predictions") == good
    put(store, "training", t1="newest")
    summary, executor = run(store)
    assert executor.calls == []
    assert summary.jobs == ()
    assert store.status().pipelines[0].state == "held"
    put(store, "images", d="D")
    _, executor = run(store)
    assert executor.calls == [("predictions", b"d")]
    store.release("model")
    summary, executor = run(store)
    assert executor.calls[0] == ("model", b"")
    assert len(executor.calls) == 5


def test_release_starts_no_job_if_nothing_arrived(store: Store) -> None:
    two_pipelines(store)
    run(store)
    put(store, "training", t1="worse")
    run(store)
    store.revert("model", "model@master^")
    run(store)
    store.release("model")
    summary, executor = run(store)
    assert summary.jobs == ()
    assert executor.calls == []


def test_a_failed_datum_fails_the_job_and_keeps_the_others(store: Store) -> None:
    put(store, "images", a="A", b="bad", c="C")
    store.submit([make_spec("copy", files("images", "/*")), make_spec("next", files("copy"))])
    summary, executor = run(store)
    assert [(job.pipeline, job.state) for job in summary.jobs] == [("copy", "failed"), ("next", "unrunnable")]
    (failed, skipped) = summary.jobs
    assert failed.failures[0].path == "images:/b"
    assert "copy failed" in skipped.reason
    with pytest.raises(NotFoundError):
        store["copy"]
    put(store, "images", b="mended")
    summary, executor = run(store)
    assert executor.calls == [("copy", b"b"), ("next", b"")]
    assert summary.ok


def test_run_tries_failed_pipelines_again(store: Store) -> None:
    put(store, "images", a="A", b="bad")
    store.submit([make_spec("copy", files("images", "/*"))])
    run(store)
    _, executor = run(store)
    assert executor.calls == [("copy", b"b")]


def test_tolerated_failures_are_published_and_tried_again(store: Store) -> None:
    put(store, "images", a="A", b="bad", c="C")
    store.submit([make_spec("copy", files("images", "/*"), max_failures="50%")])
    summary, _ = run(store)
    assert summary.ok
    assert summary.jobs[0].counters.failed == 1
    assert [info.path for info in store["copy"].ls("/")] == ["/a.out", "/c.out"]
    put(store, "images", d="D")
    _, executor = run(store)
    assert sorted(executor.calls) == [("copy", b"b"), ("copy", b"d")]


def test_two_datums_writing_one_path_fail_and_are_named(store: Store) -> None:
    put(store, "images", a="A", b="B")
    store.submit([make_spec("copy", files("images", "/*"))])

    def same(spec: JobSpec, datum: Datum) -> dict[str, bytes]:
        return {"one": datum.key}

    summary = store.run(executor=FakeExecutor(store, same), check=False)
    assert summary.jobs[0].state == "failed"
    assert "copy:/one" in summary.jobs[0].reason
    assert "images:/a" in summary.jobs[0].reason
    assert "images:/b" in summary.jobs[0].reason


def test_a_file_where_another_wants_a_folder_fails(store: Store) -> None:
    put(store, "images", a="A", b="B")
    store.submit([make_spec("copy", files("images", "/*"))])

    def clash(spec: JobSpec, datum: Datum) -> dict[str, bytes]:
        return {"x": b"file"} if datum.key == b"a" else {"x/y": b"inside"}

    summary = store.run(executor=FakeExecutor(store, clash), check=False)
    assert summary.jobs[0].state == "failed"
    assert "file where the other needs a folder" in summary.jobs[0].reason


def test_a_renamed_pipeline_finds_its_results(store: Store) -> None:
    put(store, "images", a="A", b="B")
    store.submit([make_spec("copy", files("images", "/*"))])
    run(store)
    store.submit([make_spec("other", files("images", "/*"))])
    _, executor = run(store)
    assert executor.calls == []
    assert tree_of(store, "other") == tree_of(store, "copy")


def test_a_cosmetic_version_starts_no_job(store: Store) -> None:
    put(store, "images", a="A")
    store.submit([make_spec("copy", files("images", "/*"))])
    run(store)
    (submitted,) = store.submit([make_spec("copy", files("images", "/*"), tries=3)])
    assert submitted.status == "cosmetic"
    summary, _ = run(store)
    assert summary.jobs == ()


@pytest.mark.parametrize("segments_before_death", [1, 2, 3])
def test_a_killed_controller_is_resumed_without_computing_stored_datums(
    store: Store, segments_before_death: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMLPIPE_FOLD_SEGMENTS", "2")
    put(store, "images", **{f"f{number}": str(number) for number in range(10)})
    store.submit([make_spec("copy", files("images", "/*"))])
    undisturbed = Store.init(f"memory://undisturbed-{next(_names)}")
    put(undisturbed, "images", **{f"f{number}": str(number) for number in range(10)})
    undisturbed.submit([make_spec("copy", files("images", "/*"))])
    run(undisturbed)
    dying = FakeExecutor(store, copy_inputs(store), per_segment=2, die_after=segments_before_death)
    controller = Controller(store, lambda: dying)
    monkeypatch.setattr(controller, "_close", controller._epoch.let_go)
    with pytest.raises(KilledError):
        controller.run()
    summary, executor = run(store, per_segment=2)
    assert summary.ok
    assert len(executor.calls) == 10 - 2 * segments_before_death
    assert not set(executor.calls) & set(dying.calls)
    assert tree_of(store, "copy") == tree_of(undisturbed, "copy")
    assert summary.jobs[0].counters.run == 10


def test_run_raises_what_failed(store: Store) -> None:
    put(store, "images", b="bad")
    store.submit([make_spec("copy", files("images", "/*"))])
    with pytest.raises(JobFailed, match="copy: 1 of 1 datums failed") as caught:
        store.run(executor=FakeExecutor(store, copy_inputs(store)))
    assert caught.value.summary.jobs[0].state == "failed"


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (lambda: [make_spec("x", files("nowhere"))], "neither exists"),
        (lambda: [make_spec("a", files("b")), make_spec("b", files("a"))], "cycle|each other"),
        (lambda: [make_spec("images", files("images"))], "holds data|cycle"),
    ],
)
def test_wrong_submissions_are_refused_and_write_nothing(
    store: Store, specs: Callable[[], list[PipelineSpec]], message: str
) -> None:
    put(store, "images", a="A")
    before = store.refresh().n
    with pytest.raises((InvalidInputError, NotFoundError), match=message):
        store.submit(specs())
    assert store.refresh().n == before


def test_plan_tells_what_would_run_and_writes_nothing(store: Store) -> None:
    two_pipelines(store)
    plans = store.plan()
    assert plans["model"].status == "would run"
    assert plans["predictions"].status == "if"
    run(store)
    before = store.refresh().n
    assert not store.plan().would_run
    put(store, "images", d="D")
    plan = store.plan()["predictions"]
    assert (plan.run, plan.skipped, plan.total) == (1, 3, 4)
    assert plan.reasons[0][2] == "images:/d"
    assert store.refresh().n == before + 1


def test_a_job_record_counts_the_live_datums_of_each_origin(store: Store) -> None:
    put(store, "images", a="A", b="B", c="C")
    store.submit([make_spec("copy", files("images", "/*"))])
    first, _ = run(store)
    put(store, "images", a="changed", d="D")
    second, _ = run(store)
    record = store.job(second.jobs[0].job)[2]
    assert record is not None
    assert record.base_job == first.jobs[0].job
    assert record.origins == {first.jobs[0].job: 2, second.jobs[0].job: 2}
    put(store, "images", a="A")
    third, _ = run(store)
    record = store.job(third.jobs[0].job)[2]
    assert record is not None
    assert record.origins == {first.jobs[0].job: 3, second.jobs[0].job: 1}


def test_a_newer_version_stops_the_running_job_and_keeps_its_results(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller_module, "_LOOK_LOCAL_S", 0.0)
    put(store, "images", **{f"f{number}": str(number) for number in range(6)})
    store.submit([make_spec("copy", files("images", "/*"))])
    again: list[bytes] = []

    def compute(spec: JobSpec, datum: Datum) -> dict[str, bytes]:
        if not again:
            # Somebody submits while the first datums are computed.
            store.submit([make_spec("copy", files("images", "/*"), code="2")])
        again.append(datum.key)
        return copy_inputs(store)(spec, datum)

    summary = store.run(executor=FakeExecutor(store, compute, per_segment=2), check=False)
    assert [(job.state, job.pipeline) for job in summary.jobs] == [("stopped", "copy"), ("done", "copy")]
    assert "version 2" in summary.jobs[0].reason
    store.submit([make_spec("copy", files("images", "/*"), code="1")])
    _, executor = run(store)
    assert len(executor.calls) == 6 - again.index(b"f0", 1)


def test_a_controller_that_lost_its_epoch_publishes_nothing(store: Store) -> None:
    put(store, "images", a="A", b="B")
    store.submit([make_spec("copy", files("images", "/*"))])
    first = Controller(store, lambda: FakeExecutor(store, paused))
    second = Controller(store, lambda: FakeExecutor(store, copy_inputs(store)))

    def paused(spec: JobSpec, datum: Datum) -> dict[str, bytes]:
        # As if this process were stopped here, and another controller took over and finished.
        _driving.discard((store.backend.url, 1))
        if store.refresh().head("copy") is None:
            second.run()
        return copy_inputs(store)(spec, datum)

    with pytest.raises(HeldError, match="took over"):
        first.run()
    assert len(list(store.refresh().history("copy"))) == 1


def test_a_job_whose_inputs_are_not_what_it_declares_fails_alone(store: Store) -> None:
    put(store, "images", a="A")
    store.submit(
        [
            make_spec("chunks", array("images", "/missing")),
            make_spec("copy", files("images", "/*")),
            make_spec("after", files("chunks", "/*")),
        ]
    )
    summary, executor = run(store)
    states = {job.pipeline: job.state for job in summary.jobs}
    assert states == {"chunks": "failed", "copy": "done", "after": "unrunnable"}
    reason = next(job.reason for job in summary.jobs if job.pipeline == "chunks")
    assert "missing" in reason
    assert executor.calls == [("copy", b"a")]
    # It is tried again, and fails again, without disturbing the others.
    summary, executor = run(store)
    assert [(job.pipeline, job.state) for job in summary.jobs] == [("chunks", "failed"), ("after", "unrunnable")]


def test_why_takes_a_datum_by_its_id(store: Store) -> None:
    put(store, "images", a="A", b="bad")
    store.submit([make_spec("copy", files("images", "/*"), max_failures="1")])
    run(store)
    by_path = store.why("copy:/a.out")
    assert by_path.datum is not None
    assert store.why(by_path.datum.id[:6]).path == "/a.out"
    assert store.why(by_path.datum.id).path == "/a.out"
    with pytest.raises(NotFoundError, match="no datum"):
        store.why("0123abcd")


def test_jobs_of_one_entry_are_listed_in_their_order(store: Store) -> None:
    put(store, "src", a="1")
    names = ["d", "c", "b", "a"]
    store.submit([make_spec(name, files(above)) for name, above in zip(names, ["src", *names], strict=False)])
    run(store)
    put(store, "src", a="2")
    run(store)
    put(store, "src", a="1")
    summary, _ = run(store)
    assert summary.counters.run == 0
    newest = [job.pipeline for _, job in itertools.islice(store.refresh().jobs(), 4)]
    assert newest == ["a", "b", "c", "d"]


def test_folding_reads_trees_by_their_nodes_not_by_their_paths(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    datums = 2_000
    for text in ("1", "2"):
        put(store, "images", **{f"{number:04d}": f"{text} {number}" for number in range(datums)})
        store.submit([make_spec("copy", files("images", "/*"))])
        loads = 0
        load_many = NodeStore.load_many

        def counted(self: NodeStore, *args: Any, _load: Any = load_many, **options: Any) -> Any:
            nonlocal loads
            loads += 1
            return _load(self, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(NodeStore, "load_many", counted)
            run(store, per_segment=500)
    # All changed: before, each of the 2,000 was looked for on its own, in two trees.
    assert loads < datums
    assert store["copy"].body.files == datums
