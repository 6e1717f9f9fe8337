"""Clone, push and pull: what travels, what does not, and what is refused."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.backend import Backend, open_backend
from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.digest import Data
from dmlpipe.storage.errors import ConflictError, DmlpipeError, ErrorCode, InvalidInputError
from dmlpipe.storage.gc.run import collect
from dmlpipe.storage.ledger.checkpoint import checkpoint_key
from dmlpipe.storage.ledger.ledger import entry_key
from dmlpipe.storage.objects.condemned import SweepList, encode_list
from dmlpipe.storage.records import CommitDrop, Dropped, GcSweep
from dmlpipe.storage.store import Store
from dmlpipe.storage.sync import Transfer, clone, pull, push, relate
from dmlpipe.storage.sync.reach import changed
from dmlpipe.storage.sync.relation import compare
from dmlpipe.storage.testing.faults import Stopped, StoppingBackend, WrappedBackend
from tests.storage.engine import Engine

_numbers = itertools.count()


def url() -> str:
    return f"memory://sync-{next(_numbers)}"


@pytest.fixture
def source(tmp_path: Path) -> Store:
    return Store.init(url(), cache_dir=tmp_path / "cache", actor="ann@host")


def same(one: Store, other: Store) -> None:
    """Assert that all that a reader can see is equal."""
    assert other.repo_id == one.repo_id
    here, there = one.refresh(), other.refresh()
    assert (there.n, there.chain) == (here.n, here.chain)
    assert list(there.scan(b"")) == list(here.scan(b""))
    for repo, _ in here.repos():
        for head in here.history(repo):
            mine, theirs = one[f"{repo}@{head.commit}"], other[f"{repo}@{head.commit}"]
            assert mine.body == theirs.body
            assert [(info.path, info.size) for info in mine.ls(recursive=True)] == [
                (info.path, info.size) for info in theirs.ls(recursive=True)
            ]
            for info in theirs.ls(recursive=True):
                assert theirs.read_bytes(info.path) == mine.read_bytes(info.path)
    assert other.fsck().ok


def fill(store: Store) -> None:
    store.put("images", ("a.bin", os.urandom(3000)), ("b.txt", "b" * 200), ("tiny", "t"))
    store.put("images", ("a.bin", os.urandom(3000)))
    store.put("big", ("loose.bin", os.urandom(1 << 20)), ("pieces.bin", os.urandom((16 << 20) + 5)))
    store.create_tag("images", "first", "images@master^")
    store.create_branch("images", "side", "images@master^")


def opened(store: Store, place: str) -> Store:
    return Store.open(place, cache_dir=store.cache_dir)


class Spy(WrappedBackend):
    """Notes every object that is read or written."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.read: list[str] = []
        self.wrote: list[str] = []

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        self.read.append(key)
        return super().get(key, start, end)

    def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
        self.wrote.append(key)
        return super().put_if_absent(key, data, durable=durable)


def kinds(keys: Iterable[str]) -> Counter[str]:
    return Counter(key.partition("/")[0] for key in keys)


# --- what a clone is ---


def test_a_clone_is_the_same_store(source: Store) -> None:
    fill(source)
    place = url()
    done = clone(source.backend, place, cache_dir=source.cache_dir)
    copy = opened(source, place)
    same(source, copy)
    assert (done.entries, done.last, done.chain) == (source.state.n + 1, source.state.n, source.state.chain)
    assert done.size_bytes == sum(size for key, size in copy.backend.list() if not key.endswith(".json")) + sum(
        size for key, size in copy.backend.list() if key.startswith("ledger/0")
    )
    assert copy.fsck().orphans == 0


def test_a_clone_of_an_empty_store(source: Store) -> None:
    place = url()
    assert clone(source.backend, place, cache_dir=source.cache_dir).last == -1
    same(source, opened(source, place))


def test_a_clone_has_what_jobs_made_and_why(source: Store) -> None:
    engine = Engine(source)
    source.put("images", ("a.txt", "a"), ("b.txt", "b"))
    engine.pipeline("labels", [{"type": "files", "name": "images", "repo": "images", "glob": "/*"}], {"c": 1})
    outputs = {"a.json": (b"a.txt", b"A" * 300, 1), "b.json": (b"b.txt", b"B" * 300, 1)}
    engine.job("labels", 1, {"images": "data"}, ("images",), outputs)
    place = url()
    clone(source.backend, place, cache_dir=source.cache_dir)
    copy = opened(source, place)
    same(source, copy)
    assert copy.why("labels:/a.json").to_dict() == source.why("labels:/a.json").to_dict()


def test_a_clone_opens_from_a_checkpoint(source: Store) -> None:
    for number in range(70):
        source.create_repo(f"r{number}")
    place = url()
    clone(source.backend, place, cache_dir=source.cache_dir)
    copy = opened(source, place)
    assert copy.backend.get(checkpoint_key(63)) == source.backend.get(checkpoint_key(63))
    same(source, copy)


def test_orphans_and_checkpoints_do_not_travel(source: Store) -> None:
    fill(source)
    session = source.commit("images")
    session.put(("lost.bin", os.urandom(2 << 20)))
    session.abort()
    assert source.fsck().orphans == 1
    place = url()
    clone(source.backend, place, cache_dir=source.cache_dir)
    assert opened(source, place).fsck().orphans == 0


def test_links_stay_links(source: Store, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"x" * 5000)
    source.put("linked", tmp_path / "x.bin", link=True)
    place = url()
    clone(source.backend, place, cache_dir=source.cache_dir)
    assert opened(source, place)["linked"].read_bytes("/x.bin") == b"x" * 5000


# --- only what is missing ---


def test_a_push_sends_what_is_new_and_reads_no_more(source: Store) -> None:
    with source.commit("many") as session:
        for number in range(5000):
            session.write(f"d{number % 50:02d}/{number:05d}.bin", os.urandom(200))
    place = url()
    clone(source.backend, place, cache_dir=source.cache_dir)
    source.put("many", ("00042.bin", os.urandom(200)), dest="d42")
    source.put("many", ("00043.bin", os.urandom(200)), dest="d43")
    reader, writer = Spy(source.backend), Spy(open_backend(place))
    before = {key for key, _ in writer.list()}
    done = push_between(reader, writer, source)
    assert (done.entries, done.found) == (2, 0)
    sent = [key for key in writer.wrote if not key.startswith("ledger/")]
    assert not before & set(sent)
    assert len(sent) == len(set(sent)) == done.objects
    # Two commits with a leaf and a root each, two packs, two indexes.
    assert kinds(sent) == {"nodes": 6, "packs": 2, "index": 2}
    assert kinds(key for key in reader.read if key in before)["packs"] == 0
    assert len(reader.read) <= 20
    same(source, opened(source, place))


def push_between(reader: Backend, writer: Backend, store: Store) -> Transfer:
    from dmlpipe.storage.sync.transfer import _transfer

    return _transfer(reader, writer, cache_dir=store.cache_dir, progress=None)


def test_push_and_pull_in_turn(source: Store) -> None:
    fill(source)
    place = url()
    clone(source.backend, place, cache_dir=source.cache_dir)
    copy = opened(source, place)
    source.put("images", ("from-source.txt", "s" * 500))
    assert push(source, place).entries == 1
    copy.put("images", ("from-copy.txt", "c" * 500))
    behind = push(source, place)
    assert (behind.entries, behind.ahead, behind.objects) == (0, 1, 0)
    assert pull(source, place).entries == 1
    assert pull(source, place).entries == 0
    assert source["images"].read_text("/from-copy.txt") == "c" * 500
    same(source, copy)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.binary(max_size=300)), max_size=12))
def test_whoever_is_behind_catches_up(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, bytes]]
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    one = Store.init(url(), cache_dir=cache)
    place = url()
    clone(one.backend, place, cache_dir=cache)
    stores = {"a": one, "b": opened(one, place)}
    model: dict[str, bytes] = {}
    for who, name, content in steps:
        writer, reader = stores[who], stores["ba"["ab".index(who)]]
        writer.put("r", (name, content))
        model[name] = content
        assert push(writer, reader.url).ahead == 0
        assert {info.path[1:]: reader["r"].read_bytes(info.path) for info in reader["r"].ls()} == model
    assert one.refresh().chain == stores["b"].refresh().chain


# --- what is refused ---


def test_histories_that_grew_apart_are_refused_by_name_of_the_entry(source: Store) -> None:
    for name in ("a", "b"):
        source.create_repo(name)
    place = url()
    clone(source.backend, place, cache_dir=source.cache_dir)
    copy = Store.open(place, cache_dir=source.cache_dir, actor="bob@host")
    copy.create_repo("theirs")
    source.create_repo("mine")
    source.create_repo("more")
    before = dict(copy.backend.list())
    for transfer in (push, pull):
        with pytest.raises(ConflictError, match="grown apart at ledger entry 2") as caught:
            transfer(source, place)
        assert "by ann@host" in caught.value.message
        assert "by bob@host" in caught.value.message
    assert dict(copy.backend.list()) == before


def test_another_store_is_refused(source: Store, tmp_path: Path) -> None:
    other = Store.init(url(), cache_dir=tmp_path / "cache")
    with pytest.raises(ConflictError, match="is another store"):
        push(source, other.url)
    with pytest.raises(ConflictError, match="another store is at"):
        clone(source.backend, other.url)
    taken = MemoryBackend(f"taken-{next(_numbers)}")
    taken.put_if_absent("file", b"x")
    with pytest.raises(InvalidInputError) as caught:
        clone(source.backend, taken.url)
    assert caught.value.code == ErrorCode.EXISTS


def test_where_two_ledgers_part_is_found() -> None:
    chains = [
        [f"{number}" if number < fork else f"{number}{side}" for number in range(9)]
        for side, fork in (("", 9), ("x", 4))
    ]
    assert compare(8, 8, chains[0].__getitem__, chains[1].__getitem__).common == 3
    assert compare(8, 2, chains[0].__getitem__, chains[1].__getitem__).common == 2
    assert compare(-1, 8, chains[0].__getitem__, chains[1].__getitem__).common == -1


class Damaging(WrappedBackend):
    """Serves one object with a byte flipped."""

    def __init__(self, inner: Backend, key: str) -> None:
        super().__init__(inner)
        self.key = key

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        data = bytearray(self.inner.get(key))
        if key == self.key:
            data[len(data) // 3] ^= 1
        return bytes(data[start:end])


@pytest.mark.parametrize("kind", ["nodes/", "objects/", "packs/", "index/", "ledger/000000000/000000000002"])
def test_what_arrives_damaged_is_never_published(source: Store, kind: str) -> None:
    fill(source)
    key = next(key for key, _ in source.backend.list(kind))
    place = url()
    with pytest.raises(DmlpipeError):
        clone(Damaging(source.backend, key), place, cache_dir=source.cache_dir)
    copy = opened(source, place)
    assert copy.fsck().ok
    clone(source.backend, place, cache_dir=source.cache_dir)
    same(source, copy)


def test_what_is_missing_is_named(source: Store) -> None:
    fill(source)
    key = next(key for key, _ in source.backend.list("objects/"))
    source.backend.delete_many([key])
    with pytest.raises(DmlpipeError, match=key):
        clone(source.backend, url(), cache_dir=source.cache_dir)


# --- interruptions ---


def test_a_transfer_that_dies_at_any_write_goes_on_where_it_was(source: Store) -> None:
    source.put("images", ("a.bin", os.urandom(300)), ("b.bin", os.urandom(1 << 20)))
    source.put("images", ("c.bin", os.urandom(300)))
    source.put("images", ("a.bin", os.urandom(300)))
    writes = 0
    for after in (False, True):
        for writes in itertools.count():
            place = url()
            begin_clone(source, place)
            mortal = StoppingBackend(open_backend(place), writes, after=after)
            try:
                push_between(source.backend, mortal, source)
            except Stopped:
                pass
            else:
                assert not mortal.dead
                break
            copy = opened(source, place)
            assert copy.fsck().ok
            assert relate(source, copy).common == copy.refresh().n
            spy = Spy(open_backend(place))
            there = {key for key, _ in spy.list() if not key.startswith("nodes/")}
            push_between(source.backend, spy, source)
            assert not there & set(spy.wrote)
            same(source, opened(source, place))
        assert writes > 10


def begin_clone(source: Store, place: str) -> None:
    backend = open_backend(place)
    backend.put_if_absent("dmlpipe.json", source.backend.get("dmlpipe.json"))


def test_somebody_who_writes_to_the_copy_meanwhile_is_not_overwritten(source: Store) -> None:
    source.create_repo("mine")
    place = url()
    clone(source.backend, place, cache_dir=source.cache_dir)
    source.put("mine", ("a.txt", "a" * 300))

    class Racing(WrappedBackend):
        def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
            if key == entry_key(1):
                opened(source, place).create_repo("theirs")
            return super().put_if_absent(key, data, durable=durable)

    with pytest.raises(ConflictError, match=r"entry 1 of .* was written by somebody else"):
        push_between(source.backend, Racing(open_backend(place)), source)
    assert [name for name, _ in opened(source, place).refresh().repos()] == ["mine", "theirs"]


def test_what_changed_between_two_states() -> None:
    class Map:
        def __init__(self, pairs: dict[bytes, bytes]) -> None:
            self.pairs = pairs

        def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
            return ((key, self.pairs[key]) for key in sorted(self.pairs) if key.startswith(prefix))

    new = Map({b"k/a": b"1", b"k/b": b"2", b"k/d": b"4", b"x": b"9"})
    old = Map({b"k/a": b"1", b"k/b": b"0", b"k/c": b"3"})
    assert list(changed(new, old, "k/")) == [("k/b", b"2", b"0"), ("k/d", b"4", None)]  # type: ignore[arg-type]


# --- stores that give space back ---


def test_what_was_collected_does_not_travel_and_harms_no_clone(source: Store) -> None:
    contents = [os.urandom(1 << 20), os.urandom(3000), os.urandom(300)]
    for number in (0, 1, 2, 0, 1):
        source.put("images", ("a.bin", contents[number]), (f"{number}.bin", contents[number]), mirror=True)
    early = url()
    clone(source.backend, early, cache_dir=source.cache_dir)
    drop = [commit for commit in source.state.commits_by_prefix("images", "") if commit != source["images"].id]
    dropped = tuple(Dropped(commit, source.body(commit).parents) for commit in drop)
    source.publish([CommitDrop(repo="images", commits=dropped)])
    before = len(list(source.backend.list()))
    collect(source, grace_s=0)
    assert len(list(source.backend.list())) < before
    source.put("images", ("b.bin", contents[0]))  # what was collected comes back
    late = url()
    done = clone(source.backend, late, cache_dir=source.cache_dir)
    assert done.last == source.refresh().n
    for place in (early, late):
        push(source, place)
        same(source, opened(source, place))
    # A clone collects on its own, and whoever follows it has the same store.
    copy = opened(source, early)
    collect(copy, grace_s=0)
    pull(source, early)
    same(copy, source)


def test_what_stands_beside_a_name_that_a_sweep_holds_travels_under_its_own(source: Store) -> None:
    content = os.urandom(1 << 20)
    with source.commit("images") as session:
        session.write("lost.bin", content)
        session.abort()
    (key,) = (key for key, _ in source.backend.list("objects/"))
    swept = source.nodes.put(encode_list(SweepList(nonce=b"n" * 16, keys=(key,)))).hex()
    source.publish([GcSweep(list=swept)])
    source.put("images", ("kept.bin", content))
    places = sorted(found for found, _ in source.backend.list("objects/"))
    assert len(places) == 2
    place = url()
    begin_clone(source, place)
    open_backend(place).put_if_absent(key, content)  # what stands under the name itself does not count
    clone(source.backend, place, cache_dir=source.cache_dir)
    copy = opened(source, place)
    assert sorted(found for found, _ in copy.backend.list("objects/")) == places
    same(source, copy)
    # Its collector may die at any time after it deleted the name.
    copy.backend.delete_many([key])
    assert copy["images"].read_bytes("/kept.bin") == content


# --- a real server ---


@pytest.mark.s3
def test_to_s3_and_back(source: Store, s3_url: str, tmp_path: Path) -> None:
    fill(source)
    done = clone(source.backend, s3_url, cache_dir=source.cache_dir)
    remote = opened(source, s3_url)
    same(source, remote)
    # Each object is one request; the rest is opening both and probing the place.
    assert done.write_requests <= done.objects + done.entries + 15
    remote.put("images", ("remote.txt", "r" * 400))
    back = pull(source, s3_url)
    assert (back.entries, back.objects) == (1, 5 - 1)
    assert back.read_requests <= 45
    same(source, remote)
    again = str(tmp_path / "again")
    clone(remote.backend, again, cache_dir=source.cache_dir)
    same(source, opened(source, again))
