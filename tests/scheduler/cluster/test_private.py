"""Slots of one run's own: threads of its process at first, a process of their own once a job is large."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dmlpipe.scheduler.cluster.head_start import begin_zygote
from dmlpipe.scheduler.cluster.private import PrivateExecutor
from dmlpipe.scheduler.errors import ClusterError
from dmlpipe.scheduler.leases.executor import (
    Event,
    ExecutorFailed,
    JobFinished,
    JobOffer,
    SegmentStored,
    WorkersChanged,
)
from dmlpipe.scheduler.store import Store
from dmlpipe.storage.digest import from_hex
from dmlpipe.storage.errors import InvalidInputError
from dmlpipe.storage.objects.pack import read_rows
from dmlpipe.storage.objects.segment import Row, decode_rows
from dmlpipe.worker.job import JobSpec, encode_block, encode_spec
from tests.worker.bench import file_datums, parameter, put, python, spec, varying

LIMIT_S = 60.0
DATUMS = 12

DAG = """
import os
import time
from pathlib import Path

import dmlpipe as dml

dag = dml.DAG("private")


def grandparent() -> int:
    # The zygote's parent: whoever serves the slot.
    stat = Path(f"/proc/{os.getppid()}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


@dag.pipeline(dml.files("words", "/{stem}"))
def shouted(words: bytes, stem: str, *, log: str = "") -> dml.Files:
    with open(log, "a") as calls:
        calls.write(f"{grandparent()}\\n")
    while stem == os.environ.get("GATED") and not os.path.exists(os.environ["GATE"]):
        time.sleep(0.01)
    return {stem: words.upper()}
"""

GATED = """
import os, time

def f(x):
    folder = os.environ["GATES"]
    server = open(f"/proc/{os.getppid()}/stat").read().rpartition(")")[2].split()[1]
    with open(f"{folder}/began-{x.name}", "w") as began:
        began.write(f"{server} {os.path.exists(folder + '/open-gated-a')}")
    while x.name.startswith("gated") and not os.path.exists(f"{folder}/open-{x.name}"):
        time.sleep(0.005)
    return {x.name: ""}
"""


def wait_for(happened: Callable[[], object]) -> None:
    until = time.monotonic() + LIMIT_S
    while not happened():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


def children() -> set[int]:
    """Processes that this one started and that have not ended."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid() and fields[0] != "Z":
                found.add(int(entry.name))
    return found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")


@pytest.fixture
def start(store: Store, tmp_path: Path) -> Iterator[Callable[..., PrivateExecutor]]:
    """Start an executor of two slots for the store."""
    started = []
    before = children()

    def make(**options: Any) -> PrivateExecutor:
        options = {"slots": 2, "folder": tmp_path / "logs", "cache_dir": store.cache_dir, **options}
        slots = options.pop("slots")
        read = lambda block: store.nodes.get(from_hex(block))  # noqa: E731
        started.append(PrivateExecutor(store.url, slots, read, backend=store.backend, **options))
        return started[-1]

    yield make
    for executor in started:
        executor.close()
    assert children() == before


def fill(store: Store, tmp_path: Path, count: int = DATUMS) -> Path:
    """Data and the pipeline; return the file in which user code says who serves it."""
    with store.commit("words") as session:
        for number in range(count):
            session.write(f"w{number:03}", f"word{number:03}")
    (tmp_path / "dag.py").write_text(DAG)
    log = tmp_path / "served-by"
    store.submit(tmp_path / "dag.py", params={"shouted": {"log": str(log)}})
    return log


def served_by(log: Path) -> set[int]:
    return {int(line) for line in log.read_text().split()}


def test_a_small_job_is_computed_in_this_process_which_knows_nothing_of_dask(store: Store, tmp_path: Path) -> None:
    log = fill(store, tmp_path)
    script = f"""
import os, sys
from dmlpipe.scheduler.store import Store
summary = Store.open({store.url!r}, cache_dir={str(store.cache_dir)!r}).run(slots=2)
assert summary.ok and summary.jobs[0].counters.run == {DATUMS}, summary
assert not {{"dask", "distributed", "tornado", "numpy", "zarr", "s3fs"}} & set(sys.modules), sorted(sys.modules)
print(os.getpid())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=LIMIT_S)
    assert (done.returncode, done.stderr) == (0, "")
    assert served_by(log) == {int(done.stdout)}


def test_a_large_job_has_a_worker_process_and_gives_the_same_tree(
    store: Store, tmp_path: Path, start: Callable[..., PrivateExecutor]
) -> None:
    log = fill(store, tmp_path)
    other = Store.init(tmp_path / "other", cache_dir=tmp_path / "other-cache")
    fill(other, tmp_path)
    assert other.run(slots=2).ok
    assert served_by(log) == {os.getpid()}
    log.unlink()

    executor = start(here_max=DATUMS - 1)
    assert store.run(executor=executor).ok
    (worker,) = served_by(log)
    assert worker != os.getpid()
    assert store["shouted"].tree.root == other["shouted"].tree.root


def test_a_store_that_only_this_process_sees_is_served_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmlpipe.scheduler.cluster.private.HERE_MAX_DATUMS", 1)
    store = Store.init(f"memory://private-{os.getpid()}", cache_dir=tmp_path / "cache")
    log = fill(store, tmp_path)
    assert store.run(slots=2).ok
    assert served_by(log) == {os.getpid()}


def test_a_zygote_that_was_started_ahead_serves_the_slots_and_ends_with_them(
    store: Store, tmp_path: Path, start: Callable[..., PrivateExecutor]
) -> None:
    fill(store, tmp_path)
    zygote = begin_zygote(tmp_path / "logs")
    assert zygote is not None
    before = children()
    executor = start(zygote=zygote)
    assert store.run(executor=executor).ok
    assert zygote.pid in before
    assert children() == before - {zygote.pid}


@pytest.mark.parametrize("slots", [2, -1])
def test_a_zygote_that_nobody_needs_ends(store: Store, tmp_path: Path, slots: int) -> None:
    fill(store, tmp_path)
    before = children()
    if slots > 0:
        PrivateExecutor(store.url, 2, lambda block: b"", folder=tmp_path, zygote=begin_zygote(tmp_path)).close()
    else:
        with pytest.raises(InvalidInputError, match="at least one slot"):
            store.run(slots=slots)
    assert children() == before


def test_no_slots_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="at least one slot"):
        PrivateExecutor(str(tmp_path), 0, lambda block: b"", folder=tmp_path)


@pytest.mark.parametrize("here_max", [0, 100], ids=["apart", "here"])
def test_a_worker_that_cannot_start_fails_the_run_with_the_reason(tmp_path: Path, here_max: int) -> None:
    # There is no store at that place.
    nowhere = str(tmp_path / "no-store")
    with PrivateExecutor(nowhere, 1, lambda block: b"", folder=tmp_path / "logs", here_max=here_max) as executor:
        executor.offer(JobOffer(job="j", spec="00", pipeline="p"))
        executor.add_block("j", "00", 1)
        (failed,) = events_until([executor], ExecutorFailed)[-1:]
    assert isinstance(failed, ExecutorFailed)
    assert "the worker of this run has failed" in failed.message
    assert "no-store" in failed.message


def test_what_a_job_needs_and_nobody_here_has_is_said(store: Store, start: Callable[..., PrivateExecutor]) -> None:
    executor = start()
    executor.offer(JobOffer(job="j", spec="00", pipeline="p", resources={"licence": 1.0}))
    executor.add_block("j", "00", 1)
    (failed,) = events_until([executor], ExecutorFailed)[-1:]
    assert isinstance(failed, ExecutorFailed)
    assert "licence" in failed.message


def test_an_error_that_nobody_foresaw_ends_the_run(
    store: Store, tmp_path: Path, start: Callable[..., PrivateExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object) -> None:
        raise RuntimeError("no such machine")

    monkeypatch.setattr("dmlpipe.scheduler.cluster.private.find_equipment", broken)
    fill(store, tmp_path)
    with pytest.raises(ClusterError, match="RuntimeError: no such machine"):
        store.run(executor=start())


def test_a_request_that_cannot_be_answered_costs_the_worker_process(
    store: Store, tmp_path: Path, start: Callable[..., PrivateExecutor]
) -> None:
    fill(store, tmp_path)
    executor = start(here_max=0)
    answer, refused = executor._let_in, itertools.count()

    async def once(request: Any) -> Any:
        if next(refused) == 0:
            raise RuntimeError("once")
        return await answer(request)

    executor._let_in = once  # type: ignore[method-assign]
    assert store.run(executor=executor).ok
    assert next(refused) > 1


# -- a worker process takes over


def events_until(executors: Sequence[PrivateExecutor], *kinds: type[Event]) -> list[Event]:
    events: list[Event] = []
    until = time.monotonic() + LIMIT_S
    while not any(isinstance(event, kinds) for event in events):
        assert time.monotonic() < until, f"none of {kinds}, only {events[-5:]}"
        for executor in executors:
            events += executor.poll(0.5)
    return events


class Jobs:
    """Jobs of gated code, offered to an executor one by one."""

    def __init__(self, store: Store, executor: PrivateExecutor, gates: Path) -> None:
        self.store = store
        self.executor = executor
        self.gates = gates
        self.segments: dict[str, list[str]] = {}
        self.finished: set[str] = set()
        self.workers = self.slots = 0

    def offer(self, *names: str, **needs: Any) -> JobSpec:
        tree = put(self.store, f"in{len(self.segments)}", dict.fromkeys(names, b""))
        job = spec(python(self.store, GATED, "f", parameter("x")), varying("x", tree))
        self.segments[job.job] = []
        node = self.store.nodes.put(encode_spec(job)).hex()
        block = self.store.nodes.put(encode_block(file_datums(tree))).hex()
        self.executor.offer(JobOffer(job=job.job, spec=node, pipeline="p", **needs))
        self.executor.add_block(job.job, block, len(names))
        self.executor.end_blocks(job.job)
        return job

    def until(self, happened: Callable[[], object]) -> None:
        end = time.monotonic() + LIMIT_S
        while not happened():
            assert time.monotonic() < end, "it did not happen in time"
            for event in self.executor.poll(0.1):
                match event:
                    case SegmentStored():
                        self.segments[event.job].append(event.key)
                    case JobFinished():
                        self.finished.add(event.job)
                    case WorkersChanged():
                        self.workers, self.slots = event.workers, event.slots
                    case ExecutorFailed():
                        raise AssertionError(event.message)

    def began(self, name: str) -> bool:
        return (self.gates / f"began-{name}").exists()

    def open(self, name: str) -> None:
        (self.gates / f"open-{name}").touch()

    def rows(self, job: JobSpec) -> list[Row]:
        keys = self.segments[job.job]
        return [row for key in keys for row in decode_rows(read_rows(self.store.backend, key)[0])]


@pytest.fixture
def jobs(store: Store, tmp_path: Path, start: Callable[..., PrivateExecutor], monkeypatch: pytest.MonkeyPatch) -> Jobs:
    (tmp_path / "gates").mkdir()
    monkeypatch.setenv("GATES", str(tmp_path / "gates"))
    monkeypatch.setenv("DMLPIPE_FLUSH_S", "0.1")
    return Jobs(store, start(here_max=5), tmp_path / "gates")


def take_over(jobs: Jobs, **needs: Any) -> tuple[JobSpec, JobSpec]:
    """Offer a job of two gated datums, which the slots here begin, and a large one, which brings a worker process."""
    slow = jobs.offer("gated-a", "gated-b", **needs)
    jobs.until(lambda: jobs.began("gated-a") and jobs.began("gated-b"))
    assert jobs.executor.worker_pid is None
    many = jobs.offer(*[f"n{number}" for number in range(30)], **needs)
    jobs.until(lambda: jobs.workers == 2)
    assert jobs.slots == 2
    return slow, many


def test_a_slot_of_the_process_waits_for_the_one_here_that_is_still_at_work(jobs: Jobs) -> None:
    slow, many = take_over(jobs)
    assert not list(jobs.gates.glob("began-n*"))
    jobs.open("gated-b")
    jobs.until(lambda: many.job in jobs.finished)
    assert {path.read_text() for path in jobs.gates.glob("began-n*")} == {f"{jobs.executor.worker_pid} False"}
    (freed,) = {row.slot for row in jobs.rows(many)}
    assert slow.job not in jobs.finished
    jobs.open("gated-a")
    jobs.until(lambda: slow.job in jobs.finished)
    assert {row.key: row.slot for row in jobs.rows(slow)} == {b"gated-a": 1 - freed, b"gated-b": freed}
    # From now on even a small job is the process's.
    small = jobs.offer("a", "b")
    jobs.until(lambda: small.job in jobs.finished)
    assert jobs.workers == 1
    assert (jobs.gates / "began-a").read_text() == f"{jobs.executor.worker_pid} True"


def test_a_job_that_needs_more_than_slots_waits_until_nothing_runs_here(jobs: Jobs) -> None:
    slow, many = take_over(jobs, memory_bytes=1)
    jobs.open("gated-b")
    # Time enough for one that does not wait.
    until = time.monotonic() + 0.5
    jobs.until(lambda: time.monotonic() > until)
    jobs.open("gated-a")
    jobs.until(lambda: {slow.job, many.job} <= jobs.finished)
    assert {path.read_text() for path in jobs.gates.glob("began-n*")} == {f"{jobs.executor.worker_pid} True"}


def test_a_job_is_stopped_while_its_datums_run_in_slots_that_retire(jobs: Jobs) -> None:
    slow, many = take_over(jobs)
    jobs.executor.cancel(slow.job)
    jobs.until(lambda: {slow.job, many.job} <= jobs.finished)
    assert jobs.rows(slow) == []


def test_what_a_retiring_slot_has_not_begun_is_computed_by_the_process(jobs: Jobs) -> None:
    held = jobs.offer("gated-b")
    jobs.until(lambda: jobs.began("gated-b"))
    # One lease of all: a batch is not cut. No slot is idle, which would ask for some of it.
    first = jobs.offer("gated-a", "x1", "x2", "x3", batch=4)
    jobs.until(lambda: jobs.began("gated-a"))
    many = jobs.offer(*[f"n{number}" for number in range(30)])
    jobs.until(lambda: jobs.workers == 2)
    jobs.open("gated-b")
    jobs.until(lambda: {held.job, many.job} <= jobs.finished)
    jobs.until(lambda: len(list(jobs.gates.glob("began-x*"))) == 3)
    jobs.open("gated-a")
    jobs.until(lambda: first.job in jobs.finished)
    assert Counter(row.key for row in jobs.rows(first)) == Counter([b"gated-a", b"x1", b"x2", b"x3"])
    servers = {path.read_text().split()[0] for path in jobs.gates.glob("began-x*")}
    assert servers == {str(jobs.executor.worker_pid)}


# -- what is killed


def zygotes() -> set[int]:
    found = set()
    for pid in children():
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"dmlpipe.worker.child.zygote" in words:
            found.add(pid)
    return found


def test_a_killed_zygote_costs_what_was_not_stored(jobs: Jobs) -> None:
    # Tests of other files share one for as long as this process lives.
    others = zygotes()
    job = jobs.offer("gated-a", "gated-b", "x1", "x2")
    jobs.until(lambda: jobs.began("gated-a"))
    (zygote,) = zygotes() - others
    os.kill(zygote, signal.SIGKILL)
    jobs.open("gated-a")
    jobs.open("gated-b")
    jobs.until(lambda: job.job in jobs.finished)
    assert sorted(row.key for row in jobs.rows(job)) == [b"gated-a", b"gated-b", b"x1", b"x2"]
    assert zygote not in zygotes()


def test_a_worker_process_that_is_killed_again_and_again_ends_the_run(
    store: Store, tmp_path: Path, start: Callable[..., PrivateExecutor]
) -> None:
    fill(store, tmp_path)
    before = children()

    class Struck(PrivateExecutor):
        def poll(self, timeout_s: float) -> list[Event]:
            if self.worker_pid is not None:
                # It may have been struck already, and reaped just now.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.worker_pid, signal.SIGKILL)
            return super().poll(timeout_s)

    read = lambda block: store.nodes.get(from_hex(block))  # noqa: E731
    executor = Struck(store.url, 1, read, folder=tmp_path / "logs", cache_dir=store.cache_dir, here_max=0)
    with pytest.raises(ClusterError, match="by signal 9"):
        store.run(executor=executor)
    assert children() == before


RUN = """
import sys
from dmlpipe.scheduler.cluster import private
from dmlpipe.scheduler.store import Store
private.HERE_MAX_DATUMS = int(sys.argv[3])
Store.open(sys.argv[1], cache_dir=sys.argv[2]).run(slots=2)
"""
_marks = itertools.count()


def marked(mark: str) -> list[str]:
    """Processes that carry a variable of that value."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"MARKED={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return found


@pytest.mark.parametrize("here_max", [0, 1000], ids=["apart", "here"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_a_run_that_was_ended_and_its_results_are_kept(
    store: Store, tmp_path: Path, number: signal.Signals, here_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMLPIPE_FLUSH_S", "0.1")
    monkeypatch.setenv("GATED", "w000")
    monkeypatch.setenv("GATE", str(tmp_path / "gate"))
    log = fill(store, tmp_path)
    mark = f"{os.getpid()}-{next(_marks)}"
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, store.url, str(store.cache_dir), str(here_max)],
        env={**os.environ, "MARKED": mark},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def stored() -> int:
        keys = [key for key, _ in store.backend.list("results") if key.endswith(".seg")]
        return sum(len(decode_rows(read_rows(store.backend, key)[0])) for key in keys)

    wait_for(lambda: stored() == DATUMS - 1)
    assert len(marked(mark)) >= 3  # the run, a zygote, a child at least
    os.killpg(process.pid, number)
    process.wait(LIMIT_S)
    wait_for(lambda: not marked(mark))

    log.unlink()
    (tmp_path / "gate").touch()
    summary = store.run(slots=2)
    assert summary.ok
    assert len(log.read_text().split()) == 1  # only the one that was under way
    assert len(list(store["shouted"].ls("/"))) == DATUMS
