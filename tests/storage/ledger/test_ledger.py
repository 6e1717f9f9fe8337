from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.backend import Backend, Properties, open_backend
from dmlpipe.storage.backend.local import LocalBackend
from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.digest import Data
from dmlpipe.storage.errors import BackendError, ConflictError, CorruptError, ErrorCode, FormatError, ReadOnlyError
from dmlpipe.storage.ledger import checkpoint
from dmlpipe.storage.ledger.heads import RememberedHead
from dmlpipe.storage.ledger.ledger import Ledger, decode_entry, encode_entry, entry_key
from dmlpipe.storage.objects.node import NodeStore
from dmlpipe.storage.records import Record, RepoCreate
from dmlpipe.storage.state import State

_numbers = itertools.count()


def memory() -> MemoryBackend:
    return MemoryBackend(f"ledger-{next(_numbers)}")


def ledger_on(backend: Backend, **options: object) -> Ledger:
    return Ledger(backend, NodeStore(backend), actor="test@host", **options)  # type: ignore[arg-type]


def repos(state: State) -> list[str]:
    return [name for name, _ in state.repos()]


class Faulty(Backend):
    """Passes everything on; loses responses, fails and counts as told."""

    def __init__(self, below: Backend) -> None:
        self.below = below
        self.lose_response: list[str] = []
        """Keys whose next create lands and then reports an error."""
        self.fail_create: list[str] = []
        """Keys whose next create does nothing and reports an error."""
        self.refuse: list[str] = []
        """Keys whose next create does nothing and says that there is such an object."""
        self.retryable = True
        self.calls: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return self.below.url

    @property
    def properties(self) -> Properties:
        return self.below.properties

    def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
        self.calls.append(("create durable" if durable else "create", key))
        if key in self.fail_create:
            self.fail_create.remove(key)
            raise BackendError("no answer", retryable=self.retryable)
        if key in self.refuse:
            self.refuse.remove(key)
            return False
        made = self.below.put_if_absent(key, data, durable=durable)
        if key in self.lose_response:
            self.lose_response.remove(key)
            raise BackendError("connection reset", retryable=True)
        return made

    def put(self, key: str, data: Data) -> None:
        self.below.put(key, data)

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        self.calls.append(("get", key))
        return self.below.get(key, start, end)

    def size(self, key: str) -> int | None:
        return self.below.size(key)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        self.calls.append(("list", prefix))
        return self.below.list(prefix)

    def list_folders(self, prefix: str = "") -> Sequence[str]:
        self.calls.append(("list", prefix))
        return self.below.list_folders(prefix)

    def delete_many(self, keys: Iterable[str]) -> None:
        self.below.delete_many(keys)

    def sync(self, keys: Iterable[str]) -> None:
        self.calls.extend(("sync", key) for key in keys)


def test_entries_are_numbered_and_chained() -> None:
    backend = memory()
    ledger = ledger_on(backend)
    for name in "abc":
        ledger.append([RepoCreate(repo=name)])
    links = list(ledger.entries())
    assert [entry.n for entry, _ in links] == [0, 1, 2]
    assert links[0][0].prev == "0" * 64
    assert [entry.prev for entry, _ in links[1:]] == [entry_hash for _, entry_hash in links[:2]]
    assert repos(ledger.state) == ["a", "b", "c"]
    assert [entry.n for entry, _ in ledger.entries(since=2)] == [2]


@given(st.lists(st.lists(st.text("abcdefgh", min_size=1, max_size=3), min_size=1, max_size=2), max_size=70))
def test_whoever_opens_at_any_time_sees_the_same_state(batches: list[list[str]]) -> None:
    backend = memory()
    writer, follower = ledger_on(backend), ledger_on(backend)
    model: set[str] = set()
    for index, names in enumerate(batches):
        recs = [RepoCreate(repo=name) for name in sorted(set(names) - model)]
        if recs:
            writer.append(recs)
            model.update(names)
        if index % 7 == 0:
            assert repos(follower.refresh()) == sorted(model)
    late = ledger_on(backend)
    assert repos(late.refresh()) == repos(follower.refresh()) == sorted(model)
    assert late.state.chain == writer.state.chain


def test_a_record_that_is_invalid_on_the_newest_state_is_refused_and_writes_nothing() -> None:
    backend = memory()
    ledger_on(backend).append([RepoCreate(repo="a")])
    with pytest.raises(ConflictError, match="exists already"):
        ledger_on(backend).append([RepoCreate(repo="a")])
    assert backend.size(entry_key(1)) is None


def test_a_loser_decides_again_on_the_newer_state() -> None:
    backend = memory()
    stale, other = ledger_on(backend), ledger_on(backend)
    stale.refresh()
    other.append([RepoCreate(repo="other")])
    seen: list[list[str]] = []

    def build(state: State) -> Sequence[Record]:
        seen.append(repos(state))
        return [RepoCreate(repo=f"r{len(repos(state))}")]

    entry = stale.append(build)
    assert entry.n == 1
    assert seen == [[], ["other"]]
    assert repos(stale.state) == ["other", "r1"]


def test_many_writers_lose_nothing() -> None:
    backend = memory()
    gate = threading.Barrier(6)
    errors: list[BaseException] = []

    def write(worker: int) -> None:
        try:
            ledger = ledger_on(backend)
            gate.wait(timeout=10)
            for index in range(12):
                ledger.append([RepoCreate(repo=f"w{worker}-{index}")])
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not errors
    reader = ledger_on(backend)
    assert len(repos(reader.refresh())) == 72
    assert [entry.n for entry, _ in reader.entries()] == list(range(72))
    assert not reader.notices


def test_a_lost_response_is_settled_by_reading_back() -> None:
    backend = Faulty(memory())
    ledger = ledger_on(backend)
    backend.lose_response = [entry_key(0)]
    assert ledger.append([RepoCreate(repo="a")]).n == 0
    assert [entry.n for entry, _ in ledger_on(backend).entries()] == [0]


def test_a_request_that_never_landed_is_sent_again() -> None:
    backend = Faulty(memory())
    ledger = ledger_on(backend)
    backend.fail_create = [entry_key(0)]
    assert ledger.append([RepoCreate(repo="a")]).n == 0


def test_a_lost_response_to_a_lost_race_is_a_lost_race() -> None:
    backend = Faulty(memory())
    ledger = ledger_on(backend)
    ledger.refresh()
    ledger_on(backend).append([RepoCreate(repo="other")])
    backend.lose_response = [entry_key(0)]
    assert ledger.append([RepoCreate(repo="mine")]).n == 1
    assert repos(ledger.state) == ["mine", "other"]


def test_an_entry_that_is_on_its_way_is_waited_for() -> None:
    backend = Faulty(memory())
    ledger = ledger_on(backend)
    ledger.refresh()
    backend.refuse = [entry_key(0)] * 2
    assert ledger.append([RepoCreate(repo="a")]).n == 0


def test_a_medium_that_refuses_for_ever_is_an_error() -> None:
    backend = Faulty(memory())
    ledger = ledger_on(backend, rng=random.Random(0))
    backend.fail_create = [entry_key(0)] * 20
    backend.retryable = False
    with pytest.raises(BackendError, match="no answer"):
        ledger.append([RepoCreate(repo="a")])
    assert len(backend.fail_create) == 19


def test_what_an_entry_refers_to_is_durable_before_the_entry_exists() -> None:
    backend = Faulty(memory())
    nodes = NodeStore(backend)
    ledger = Ledger(backend, nodes)
    name = nodes.put(b"x" * 100)
    ledger.append([RepoCreate(repo="a")], sync=["packs/p"])
    synced = [index for index, (kind, _) in enumerate(backend.calls) if kind == "sync"]
    created = backend.calls.index(("create durable", entry_key(0)))
    assert {key for kind, key in backend.calls if kind == "sync"} == {
        "packs/p",
        f"nodes/{name.hex()[:2]}/{name.hex()[2:]}",
    }
    assert max(synced) < created


def test_a_cold_open_reads_one_checkpoint_and_what_follows_it() -> None:
    backend = Faulty(memory())
    writer = ledger_on(backend)
    for index in range(70):
        writer.append([RepoCreate(repo=f"r{index:03d}")])
    backend.calls.clear()
    reader = ledger_on(backend)
    assert len(repos(reader.refresh())) == 70
    assert sum(kind == "list" for kind, _ in backend.calls) == 2
    read = [key for kind, key in backend.calls if kind == "get" and key.startswith("ledger/")]
    assert read == [checkpoint.checkpoint_key(63), *[entry_key(n) for n in range(64, 70)]]


@pytest.mark.parametrize("damage", ["missing", "torn", "of another ledger", "root missing"])
def test_a_bad_checkpoint_only_costs_time(damage: str) -> None:
    backend = memory()
    writer = ledger_on(backend)
    for index in range(40):
        writer.append([RepoCreate(repo=f"r{index:03d}")])
    key = checkpoint.checkpoint_key(31)
    good = checkpoint.read_checkpoint(backend, 31)
    assert good is not None
    if damage == "missing":
        backend.delete_many([key])
    elif damage == "torn":
        backend.put(key, backend.get(key)[:-3])
    elif damage == "of another ledger":
        backend.put(key, checkpoint.encode_checkpoint(checkpoint.Checkpoint(n=31, chain="f" * 64, state=good.state)))
    else:
        backend.put(key, checkpoint.encode_checkpoint(checkpoint.Checkpoint(n=31, chain=good.chain, state="e" * 64)))
    reader = ledger_on(backend)
    assert len(repos(reader.refresh())) == 40
    reader.append([RepoCreate(repo="more")])


def test_a_checkpoint_without_entries_after_it_is_checked_too() -> None:
    backend = memory()
    writer = ledger_on(backend)
    for index in range(32):
        writer.append([RepoCreate(repo=f"r{index:03d}")])
    good = checkpoint.read_checkpoint(backend, 31)
    assert good is not None
    assert len(repos(ledger_on(backend).refresh())) == 32
    forged = checkpoint.Checkpoint(n=31, chain="f" * 64, state=good.state)
    backend.put(checkpoint.checkpoint_key(31), checkpoint.encode_checkpoint(forged))
    assert len(repos(ledger_on(backend).refresh())) == 32


def test_checkpoints_of_two_writers_are_the_same_bytes() -> None:
    stores = [memory(), memory()]
    roots = []
    for backend, step in zip(stores, (1, 5), strict=True):
        ledgers = [ledger_on(backend, clock=lambda: "2026-11-23T00:00:00Z") for _ in range(step)]
        for index in range(32):
            ledgers[index % step].append([RepoCreate(repo=f"r{index:03d}")])
        found = checkpoint.read_checkpoint(backend, 31)
        assert found is not None
        roots.append(found.state)
    assert roots[0] == roots[1]


def test_a_reader_far_behind_jumps_to_a_checkpoint() -> None:
    backend = Faulty(memory())
    reader = ledger_on(backend)
    reader.refresh()
    writer = ledger_on(backend)
    for index in range(200):
        writer.append([RepoCreate(repo=f"r{index:03d}")])
    backend.calls.clear()
    assert len(repos(reader.refresh())) == 200
    assert len([key for kind, key in backend.calls if kind == "get" and key.endswith(".json")]) < 20


def test_a_state_that_was_handed_out_does_not_change() -> None:
    backend = memory()
    ledger = ledger_on(backend)
    before = ledger.refresh()
    ledger.append([RepoCreate(repo="a")])
    assert repos(before) == []
    assert repos(ledger.state) == ["a"]


@pytest.mark.parametrize("damage", ["cut", "rewritten"])
def test_a_rewritten_history_is_refused(tmp_path: Path, damage: str) -> None:
    backend = memory()
    head = RememberedHead(tmp_path / "seen" / "head.json")
    ledger = ledger_on(backend, head=head)
    for name in "abc":
        ledger.append([RepoCreate(repo=name)])
    if damage == "cut":
        backend.delete_many([entry_key(2)])
    else:
        other = memory()
        writer = ledger_on(other)
        for name in "xyz":
            writer.append([RepoCreate(repo=name)])
        for n in range(3):
            backend.put(entry_key(n), other.get(entry_key(n)))
    with pytest.raises(FormatError) as caught:
        ledger_on(backend, head=head).refresh()
    assert caught.value.code == ErrorCode.HISTORY_REWRITTEN
    assert str(head.file) in (caught.value.hint or "")
    assert len(repos(ledger_on(backend).refresh())) in (2, 3)


def test_what_a_process_beside_this_one_sees_meanwhile_is_no_rewriting(tmp_path: Path) -> None:
    head = RememberedHead(tmp_path / "head.json")
    below = memory()
    other = ledger_on(below, head=head)
    other.append([RepoCreate(repo="a")])

    class Busy(Faulty):
        def list_folders(self, prefix: str = "") -> Sequence[str]:
            found = list(super().list_folders(prefix))
            listed = list(super().list(f"{prefix}{found[-1]}/"))
            self.list = lambda prefix="": iter(listed)  # type: ignore[method-assign]
            other.append([RepoCreate(repo="b")])
            return found

    late = ledger_on(Busy(below), head=head)
    assert repos(late.refresh()) == ["a"]
    assert repos(late.refresh()) == ["a", "b"]


def test_a_remembered_head_below_the_checkpoint_is_looked_up(tmp_path: Path) -> None:
    backend = memory()
    head = RememberedHead(tmp_path / "head.json")
    ledger_on(backend, head=head).append([RepoCreate(repo="a")])
    writer = ledger_on(backend)
    for index in range(40):
        writer.append([RepoCreate(repo=f"r{index}")])
    ledger_on(backend, head=head).refresh()
    seen = head.read()
    assert seen is not None
    assert seen.n == 40


def test_a_broken_chain_is_corrupt() -> None:
    backend = memory()
    ledger = ledger_on(backend)
    for name in "ab":
        ledger.append([RepoCreate(repo=name)])
    entry = decode_entry(backend.get(entry_key(1)), 1)
    forged = encode_entry(type(entry)(v=1, n=1, prev="f" * 64, ts="", nonce="", actor="", recs=entry.recs))
    backend.put(entry_key(1), forged)
    with pytest.raises(CorruptError, match="chain is broken: entry 1"):
        ledger_on(backend).refresh()


def test_a_gap_is_corrupt() -> None:
    backend = memory()
    ledger = ledger_on(backend)
    for name in "abc":
        ledger.append([RepoCreate(repo=name)])
    backend.delete_many([entry_key(1)])
    with pytest.raises(CorruptError, match="missing"):
        ledger_on(backend).refresh()


def test_a_record_of_a_later_version_asks_for_an_upgrade() -> None:
    backend = memory()
    ledger_on(backend).append([RepoCreate(repo="a")])
    raw = backend.get(entry_key(0)).replace(b'"repo.create"', b'"repo.conjure"')
    backend.put(entry_key(0), raw)
    with pytest.raises(FormatError) as caught:
        ledger_on(backend).refresh()
    assert caught.value.hint == "upgrade dmlpipe"


def test_a_read_only_ledger_takes_no_entries() -> None:
    with pytest.raises(ReadOnlyError):
        ledger_on(memory(), read_only=True).append([RepoCreate(repo="a")])


def test_wait_ends_when_an_entry_comes_and_when_time_is_up() -> None:
    backend = memory()
    ledger = ledger_on(backend)
    assert not ledger.wait(-1, timeout_s=0.02)
    thread = threading.Thread(target=lambda: ledger_on(backend).append([RepoCreate(repo="a")]))
    thread.start()
    assert ledger.wait(-1, timeout_s=10)
    thread.join(timeout=10)


def test_a_ledger_on_disk(tmp_path: Path) -> None:
    backend = open_backend(str(tmp_path / "store"))
    writer = ledger_on(backend)
    for index in range(35):
        writer.append([RepoCreate(repo=f"r{index}")])
    assert len(repos(ledger_on(open_backend(str(tmp_path / "store"))).refresh())) == 35
    assert (tmp_path / "store" / "ledger" / "000000000" / "000000000034.json").is_file()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_eight_processes_lose_few_races(tmp_path: Path) -> None:
    """Reading ahead and pausing after some losses keep tries from being wasted: about one for two entries."""
    processes, each = 8, 40
    begin_at, begin = os.pipe()
    counted, count = os.pipe()
    children = []
    for worker in range(processes):
        children.append(os.fork())
        if children[-1] == 0:
            code = 1
            try:
                os.close(begin)
                backend = LocalBackend(tmp_path / "store")
                ledger = Ledger(backend, NodeStore(backend))
                os.read(begin_at, 1)  # all begin when the last one is there
                for number in range(each):
                    ledger.append([RepoCreate(repo=f"w{worker}-{number}")])
                os.write(count, ledger.lost_races.to_bytes(4, "big"))
                code = 0
            finally:
                os._exit(code)
    os.close(begin_at)
    os.close(begin)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * processes
    lost = sum(int.from_bytes(os.read(counted, 4), "big") for _ in range(processes))
    for fd in (counted, count):
        os.close(fd)
    backend = LocalBackend(tmp_path / "store")
    entries = list(Ledger(backend, NodeStore(backend)).entries())
    assert len(entries) == processes * each
    assert lost <= 2 * len(entries), f"{lost} tries failed for {len(entries)} entries"
