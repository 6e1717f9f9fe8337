"""Many writers, few entries: nothing is lost, nothing is forked, and nobody answers for another's mistake."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.errors import BackendError, ConflictError, InvalidInputError
from dmlpipe.storage.ledger.group_commit import GroupCommit
from dmlpipe.storage.ledger.ledger import Build, Ledger
from dmlpipe.storage.records import Entry, Record, RepoCreate, TagSet
from dmlpipe.storage.state import State
from dmlpipe.storage.store import Store

_numbers = itertools.count()


def memory_store(tmp_path: Path) -> Store:
    return Store.init(f"memory://group-{next(_numbers)}", cache_dir=tmp_path / "cache")


def created(ledger: Ledger) -> list[str]:
    return [record.repo for entry, _ in ledger.entries() for record in entry.recs if isinstance(record, RepoCreate)]


class Gate:
    """A ledger whose first append waits until the test says go."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.inside = threading.Event()
        self.go = threading.Event()

    def try_append(self, build: Build, *, sync: Iterable[str] = ()) -> Entry | None:
        if not self.inside.is_set():
            self.inside.set()
            assert self.go.wait(30)
        return self.ledger.try_append(build, sync=sync)


def together(store: Store, builds: Sequence[Build | Sequence[Record]]) -> list[Entry | BaseException]:
    """Append one record alone, and `builds`, in their order, while that is under way."""
    gate = Gate(store.ledger)
    group = GroupCommit(gate)
    results: list[Entry | BaseException] = [InvalidInputError("not run")] * len(builds)

    def run(place: int) -> None:
        try:
            results[place] = group.append(builds[place])
        except Exception as error:  # noqa: BLE001  (looked at by the test)
            results[place] = error

    first = threading.Thread(target=lambda: group.append([RepoCreate(repo="first")]))
    first.start()
    assert gate.inside.wait(30)
    threads = []
    for place in range(len(builds)):
        threads.append(threading.Thread(target=run, args=(place,)))
        threads[-1].start()
        while len(group._waiting) <= place:
            threading.Event().wait(0.001)
    gate.go.set()
    for thread in (first, *threads):
        thread.join(30)
    return results


def test_who_waits_goes_together_into_the_next_entry(tmp_path: Path) -> None:
    store = memory_store(tmp_path)
    results = together(store, [[RepoCreate(repo=f"r{number}")] for number in range(20)])
    assert [entry.n for entry in results if isinstance(entry, Entry)] == [1] * 20
    assert store.refresh().n == 1
    assert created(store.ledger) == ["first", *(f"r{number}" for number in range(20))]


def test_each_caller_is_checked_on_what_stands_before_it(tmp_path: Path) -> None:
    store = memory_store(tmp_path)
    seen: list[bool] = []

    def build(state: State) -> Sequence[Record]:
        seen.append(state.repo("a") is not None)
        return [RepoCreate(repo="b" if seen[-1] else "none")]

    def wrong(state: State) -> Sequence[Record]:
        raise ZeroDivisionError

    made = [RepoCreate(repo="a")]
    results = together(
        store, [made, made, build, wrong, [TagSet(repo="none", tag="t", commit="")], [RepoCreate(repo="c")]]
    )
    assert [type(result) for result in results[1:2]] == [ConflictError]
    assert isinstance(results[3], ZeroDivisionError)
    assert isinstance(results[4], BaseException)
    assert [result.n for result in results if isinstance(result, Entry)] == [1, 1, 1]
    assert seen[-1]
    assert created(store.ledger) == ["first", "a", "b", "c"]


def test_a_branch_moves_once_per_entry(tmp_path: Path) -> None:
    store = memory_store(tmp_path)
    sessions = [store.commit(repo) for repo in ("x", "x", "y")]
    builds = []
    for number, session in enumerate(sessions):
        session.write(f"{number}.txt", "content")
        session.prepare()
        builds.append(session.plan)
    results = together(store, builds)
    assert sorted(result.n for result in results if isinstance(result, Entry)) == [1, 1, 2]
    assert [info.path for info in store["x"].ls()] == ["/0.txt", "/1.txt"]
    assert len(list(store.state.history("x"))) == 2
    assert store.fsck().ok


def test_a_failure_of_the_medium_is_told_to_all_and_ends(tmp_path: Path) -> None:
    class Broken:
        def try_append(self, build: Build, *, sync: Iterable[str] = ()) -> Entry | None:
            raise BackendError("disk full")

    group = GroupCommit(Broken())
    for _ in range(2):
        with pytest.raises(BackendError, match="disk full"):
            group.append([RepoCreate(repo="a")])


def test_no_records_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="at least one record"):
        GroupCommit(memory_store(tmp_path).ledger).append([])


def test_64_threads_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLPIPE_FSYNC", "commit")  # an entry that takes time lets others gather
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    group = GroupCommit(store.ledger)

    def work(thread: int) -> list[int]:
        return [group.append([RepoCreate(repo=f"r{thread}.{number}")]).n for number in range(10)]

    with ThreadPoolExecutor(64) as pool:
        numbers = [n for result in pool.map(work, range(64), timeout=60) for n in result]
    assert sorted(created(store.ledger)) == sorted(
        f"r{thread}.{number}" for thread in range(64) for number in range(10)
    )
    assert set(numbers) == set(range(store.refresh().n + 1))
    assert len(set(numbers)) < 640 / 2


def _write(place: str, cache: Path, who: int) -> None:
    store = Store.open(place, cache_dir=cache)
    group = GroupCommit(store.ledger)

    def work(number: int) -> None:
        with store.commit(f"p{who}", create=True) as session:
            session.write(f"{number}.txt", f"{who} {number}" * 40)
            keys = session.prepare()
            group.append(session.plan, sync=keys)
            session.abort()

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(work, range(25), timeout=60))


def test_8_processes_of_25_commits_lose_nothing(tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    store = Store.init(place, cache_dir=tmp_path / "cache")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write, args=(place, tmp_path / "cache", who)) for who in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0] * 8
    store.refresh()
    for who in range(8):
        found = {info.path: store[f"p{who}"].read_text(info.path) for info in store[f"p{who}"].ls()}
        assert found == {f"/{number}.txt": f"{who} {number}" * 40 for number in range(25)}
        assert len(list(store.state.history(f"p{who}"))) == 25
    assert store.fsck().ok


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3), min_size=1, max_size=12))
def test_whatever_is_grouped_the_state_is_that_of_some_order(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[str]]
) -> None:
    store = memory_store(tmp_path_factory.mktemp("group"))
    group = GroupCommit(store.ledger)
    outcomes: dict[int, bool] = {}

    def work(place: int) -> None:
        try:
            group.append([RepoCreate(repo=name) for name in batches[place]])
            outcomes[place] = True
        except ConflictError:
            outcomes[place] = False

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(len(batches)), timeout=60))
    names = [name for place, done in outcomes.items() if done for name in batches[place]]
    assert sorted(names) == [name for name, _ in store.refresh().repos()]
    taken = set(names)
    for place, done in outcomes.items():
        assert done or len(set(batches[place])) < len(batches[place]) or taken & set(batches[place])
