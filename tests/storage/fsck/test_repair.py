from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dmlpipe.storage.backend import Backend, open_backend
from dmlpipe.storage.errors import ConflictError, CorruptError, NotFoundError, ReadOnlyError
from dmlpipe.storage.fsck import FileRef, Mended
from dmlpipe.storage.gc.run import collect
from dmlpipe.storage.ledger.ledger import entry_key
from dmlpipe.storage.records import Damage, Repair
from dmlpipe.storage.store import Store
from dmlpipe.storage.sync import ArchiveBackend, clone, write_archive
from dmlpipe.storage.testing import Stopped, StoppingBackend
from tests.storage.engine import Engine

BIG = os.urandom(2 << 20)
HUGE = os.urandom((16 << 20) + 5)
SMALL = {f"s/{number}": os.urandom(3000) for number in range(5)}
FOLDERS = ("nodes/", "objects/", "packs/", "index/", "ledger/000000000/", "ledger/ckpt/")


def fill(store: Store) -> None:
    for index in range(33):
        store.put("r", (f"n/{index}", str(index).encode()))
    store.put("r", ("big", BIG), ("huge", HUGE), *SMALL.items())
    store.put("other", ("x", os.urandom(500)))


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that nobody writes to."""
    folder = tmp_path_factory.mktemp("origin")
    fill(Store.init(folder / "store", cache_dir=folder / "cache"))
    return folder / "store"


@pytest.fixture
def store(origin: Path, tmp_path: Path) -> Store:
    shutil.copytree(origin, tmp_path / "store")
    return Store.open(tmp_path / "store", cache_dir=tmp_path / "cache")


@pytest.fixture
def mirror(origin: Path) -> Backend:
    return open_backend(str(origin))


def keys(store: Store, prefix: str) -> list[str]:
    return [key for key, _ in store.backend.list(prefix)]


def spoil(store: Store, key: str, rng: random.Random) -> None:
    body = bytearray(store.backend.get(key))
    body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    store.backend.put(key, bytes(body))


def reopened(store: Store) -> Store:
    return Store.open(store.url, cache_dir=store.cache_dir)


def check_whole(store: Store) -> None:
    fresh = reopened(store)
    report = fresh.fsck()
    assert report.ok, report.problems
    view = fresh["r"]
    assert view.read_bytes("big") == BIG
    assert view.read_bytes("huge") == HUGE
    assert {path: view.read_bytes(path) for path in SMALL} == SMALL
    assert fresh.put("r", ("after", os.urandom(300))).parents == (view.id,)
    assert fresh.fsck().ok


def recorded(store: Store, kind: type[Damage] | type[Repair]) -> set[str]:
    """The objects that records of a kind name."""
    entries = reopened(store).ledger.entries()
    found = [record for entry, _ in entries for record in entry.recs if isinstance(record, kind)]
    return {key for record in found for key in record.objects}


def test_a_sound_store_is_left_as_it_is(store: Store) -> None:
    before = store.refresh().n
    mended = store.repair()
    assert mended == Mended((), (), (), (), ())
    assert store.refresh().n == before


@pytest.mark.parametrize("prefix", FOLDERS)
@pytest.mark.parametrize("how", ["flipped", "cut", "deleted"])
def test_what_a_clone_has_is_put_back(store: Store, mirror: Backend, prefix: str, how: str) -> None:
    rng = random.Random(prefix + how)
    before = dict(store.backend.list())
    bodies = {key: store.backend.get(key) for key in before}
    for key in rng.sample(keys(store, prefix), min(3, len(keys(store, prefix)))):
        if how == "flipped":
            spoil(store, key, rng)
        elif how == "cut":
            store.backend.put(key, store.backend.get(key)[:-1])
        else:
            store.backend.delete_many([key])
    found = reopened(store).fsck().problems
    if not found:
        # zstd has several frames for one content, and whoever appends an entry may die before its checkpoint.
        assert how == "flipped" or prefix == "ledger/ckpt/"
        return
    mended = reopened(store).repair([mirror])
    assert mended.ok, mended.lost
    assert {problem.object for problem in found} <= {key for key, _ in mended.mended} | {
        key for key in before if store.backend.get(key) == bodies[key]
    }
    assert all(store.backend.get(key) == body for key, body in bodies.items())
    assert (how == "deleted") == (not mended.quarantined)
    check_whole(store)
    assert recorded(store, Damage) == recorded(store, Repair)
    if not prefix.startswith("ledger/0"):
        assert recorded(store, Damage) >= {problem.object for problem in found}


def test_everything_but_the_ledger_can_be_put_back_at_once(store: Store, mirror: Backend) -> None:
    for prefix in FOLDERS:
        if prefix != "ledger/000000000/":
            store.backend.delete_many(keys(store, prefix)[::2])
    mended = reopened(store).repair([mirror])
    assert mended.ok, mended.lost
    check_whole(store)


def test_an_archive_serves_as_well(store: Store, origin: Path, tmp_path: Path) -> None:
    write_archive(Store.open(origin, cache_dir=store.cache_dir), tmp_path / "all.tar")
    store.backend.delete_many([*keys(store, "nodes/"), *keys(store, "packs/"), *keys(store, "objects/"), entry_key(3)])
    mended = reopened(store).repair([ArchiveBackend(tmp_path / "all.tar")])
    assert mended.ok
    check_whole(store)


def test_another_store_with_the_same_content_serves(store: Store, tmp_path: Path) -> None:
    other = Store.init(tmp_path / "unrelated", cache_dir=store.cache_dir)
    other.put("mine", ("a", BIG), ("b", HUGE), *SMALL.items())
    (pack,) = (key for key in keys(store, "packs/") if store.backend.size(key) > 10_000)  # type: ignore[operator]
    store.backend.put(pack, bytes(100) + store.backend.get(pack)[100:])
    store.backend.delete_many(keys(store, "objects/"))
    mended = reopened(store).repair([other.backend])
    assert mended.ok, mended.lost
    assert any(how.startswith("rebuilt") for _, how in mended.mended)
    check_whole(store)


def test_a_mirror_that_is_damaged_itself_is_not_believed(store: Store, origin: Path, tmp_path: Path) -> None:
    shutil.copytree(origin, tmp_path / "liar")
    liar = Store.open(tmp_path / "liar", cache_dir=tmp_path / "liars-cache")
    key = max(store.backend.list("objects/"), key=lambda item: item[1])[0]
    liar.backend.put(key, b"?" * len(HUGE))
    store.backend.delete_many([key])
    mended = store.repair([liar.backend])
    assert [problem.object for problem in mended.lost] == [key]
    assert mended.lost[0].touches[0].name == "r@master:/huge"
    assert store.repair([liar.backend, open_backend(str(origin))]).ok
    check_whole(store)


# --- the ledger ---


@pytest.mark.parametrize("lost", [[0], [7], [7, 8, 9], [33, 34], list(range(20, 35))])
def test_entries_are_put_back_where_the_chain_says_so(store: Store, mirror: Backend, lost: list[int]) -> None:
    bodies = {n: store.backend.get(entry_key(n)) for n in lost}
    store.backend.delete_many([entry_key(n) for n in lost[:-1]])
    store.backend.put(entry_key(lost[-1]), b"{}")
    mended = reopened(store).repair([mirror])
    assert mended.ok, mended.lost
    assert {n: store.backend.get(entry_key(n)) for n in lost} == bodies
    check_whole(store)


def test_entries_of_another_history_are_not_put_back(store: Store, tmp_path: Path) -> None:
    other = Store.init(tmp_path / "other", cache_dir=store.cache_dir)
    fill(other)
    store.backend.delete_many([entry_key(5)])
    mended = reopened(store).repair([other.backend])
    assert [problem.kind for problem in mended.lost if problem.object == entry_key(5)] == ["ledger"]
    assert store.backend.size(entry_key(5)) is None


def test_a_forged_end_is_put_right_by_who_saw_the_true_one(store: Store, mirror: Backend) -> None:
    n = store.refresh().n
    true = store.backend.get(entry_key(n))
    store.backend.put(entry_key(n), true.replace(b"@", b"%", 1))
    assert not store.fsck().ok
    assert store.repair([mirror]).ok
    assert store.backend.get(entry_key(n)) == true


# --- nobody has it ---


def test_what_follows_from_the_rest_needs_no_mirror(store: Store) -> None:
    checkpoint = keys(store, "ledger/ckpt/")[0]
    store.backend.put(checkpoint, b"nonsense")
    for key in keys(store, "index/"):
        store.backend.put(key, b"nonsense")
    mended = reopened(store).repair()
    assert mended.ok, mended.lost
    assert {how for _, how in mended.mended} == {"made anew from the ledger", "made anew from the packs"}
    check_whole(store)


def test_a_pack_that_is_lost_in_part_loses_that_part_alone(store: Store) -> None:
    (pack,) = (key for key in keys(store, "packs/") if store.backend.size(key) > 10_000)  # type: ignore[operator]
    body = bytearray(store.backend.get(pack))
    body[3500] ^= 1
    store.backend.put(pack, bytes(body))
    mended = reopened(store).repair()
    assert [problem.kind for problem in mended.lost] == ["missing"]
    (touch,) = mended.lost[0].touches
    lost = touch.name.partition(":/")[2]
    assert store.backend.size(pack) is None
    assert [place.partition(".pack")[0] for place in mended.quarantined] == [f"quarantine/{pack.removesuffix('.pack')}"]
    view = reopened(store)["r"]
    for path, content in SMALL.items():
        if path == lost:
            with pytest.raises(NotFoundError):
                view.read_bytes(path)
        else:
            assert view.read_bytes(path) == content
    # Whoever has the file puts it again: nothing stands there that passes for it.
    reopened(store).put("again", ("it", SMALL[lost]))
    assert reopened(store).repair().ok
    check_whole(store)


@pytest.mark.parametrize("end", [True, False])
def test_a_pack_without_a_footer_is_read_by_its_index(store: Store, end: bool) -> None:
    (pack,) = (key for key in keys(store, "packs/") if store.backend.size(key) > 10_000)  # type: ignore[operator]
    body = store.backend.get(pack)
    store.backend.put(pack, body[:-20] if end else body[3000:])
    mended = reopened(store).repair()
    if end:
        assert mended.ok, mended.lost
        check_whole(store)
    else:
        assert len(mended.lost) == len(SMALL) + 1  # the last piece of the largest file is packed, too


@pytest.mark.parametrize("what", ["huge", "big"])
def test_a_loose_object_that_is_lost_can_be_put_again(store: Store, what: str) -> None:
    content = {"huge": HUGE, "big": BIG}[what]
    for key, size in list(store.backend.list("objects/")):
        if size == min(len(content), 16 << 20):
            store.backend.put(key, bytes(size))  # of the right size: a put would take it for the content
    with pytest.raises(CorruptError):
        store["r"].read_bytes(what)
    mended = reopened(store).repair()
    assert [problem.kind for problem in mended.lost] == ["missing"]
    reopened(store).put("again", ("it", content))
    assert reopened(store)["r"].read_bytes(what) == content
    assert reopened(store).repair().ok
    assert reopened(store).refresh().damaged() == {}
    check_whole(store)


def test_a_commit_whose_node_is_lost_says_so_and_others_go_on(store: Store) -> None:
    root = store["r"].body.tree
    before = store["r@master^"].id
    store.backend.put(f"nodes/{root[:2]}/{root[2:]}", b"nothing")
    mended = reopened(store).repair()
    assert [(problem.kind, [touch.what for touch in problem.touches]) for problem in mended.lost] == [
        ("missing", ["commit"])
    ]
    fresh = reopened(store)
    with pytest.raises(NotFoundError):
        fresh["r"].read_bytes("big")
    fresh.set_branch("r", "master", before)
    assert fresh.put("r", ("big", BIG)).read_bytes("big") == BIG


def test_damage_that_nothing_refers_to_is_taken_out(store: Store) -> None:
    session = store.commit("r")
    session.write("x", os.urandom(2 << 20))
    session.write("y", os.urandom(2000))
    session.writer.flush()
    session.abort()
    used = {problem.object for problem in store.fsck().problems}
    assert not used
    rng = random.Random(0)
    for prefix in ("objects/", "packs/", "index/"):
        newest = max(keys(store, prefix), key=lambda key: os.stat(store.cache_dir.parent / "store" / key).st_mtime_ns)
        store.backend.put(newest, store.backend.get(newest)[:-1] + bytes([rng.randrange(256)]) + b"!")
    mended = reopened(store).repair()
    assert mended.ok, mended.lost
    assert len(mended.mended) == 3
    check_whole(store)


def test_links_are_not_mended(tmp_path: Path) -> None:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    (tmp_path / "f").write_bytes(b"1")
    store.put("r", tmp_path / "f", link=True)
    (tmp_path / "f").unlink()
    assert store.repair().ok


def test_a_store_that_takes_no_writes_is_not_mended(store: Store) -> None:
    with pytest.raises(ReadOnlyError):
        Store.open(store.url, read_only=True, cache_dir=store.cache_dir).repair()


# --- made again ---


def engine_store(tmp_path: Path, outputs: dict[str, bytes]) -> tuple[Store, str]:
    """A store with a pipeline's output in a segment, one datum a file; and the segment's key."""
    store = Store.init(tmp_path / "made", cache_dir=tmp_path / "cache")
    store.put("images", *((name, name.encode() * 200) for name in outputs))
    engine = Engine(store)
    engine.pipeline("out", [{"type": "files", "repo": "images", "glob": "/*"}], {})
    engine.job("out", 1, {"images": "data"}, ("images",), {k: (k.encode(), v, 1) for k, v in outputs.items()})
    return store, keys(store, "results/")[0]


@pytest.mark.parametrize("footer", [True, False], ids=["in-the-footer", "in-a-blob"])
def test_outputs_are_made_again_and_compared(tmp_path: Path, footer: bool) -> None:
    outputs = {name: os.urandom(2000) for name in ("a", "b", "c")}
    store, segment = engine_store(tmp_path, outputs)
    body = bytearray(store.backend.get(segment))
    for position in [len(body) - 40] if footer else [100, 2100]:
        body[position] ^= 1
    store.backend.put(segment, bytes(body[2500:]) if footer else bytes(body))
    asked: list[str] = []

    def rederive(files: Sequence[FileRef]) -> Iterator[tuple[FileRef, Path]]:
        for file in files:
            asked.append(file.path)
            assert (file.commit, file.job) == ("out@master", "0000000000000001")
            local = tmp_path / "local"
            local.write_bytes(outputs[file.path[1:]] if file.path != "/b" else b"something else")
            yield file, local

    mended = reopened(store).repair(rederive=rederive)
    assert asked == sorted(asked)
    lost = [touch.name for problem in mended.lost for touch in problem.touches if touch.what == "file"]
    view = reopened(store)["out"]
    if "/b" in asked:
        assert lost == ["out@master:/b"]
        with pytest.raises(NotFoundError):
            view.read_bytes("b")
    for name in asked:
        if name != "/b":
            assert view.read_bytes(name) == outputs[name[1:]]
            assert (f"out@master:{name}", "made again by its datum") in mended.remade
    assert reopened(store).put("out2", ("b", outputs["b"])).read_bytes("b") == outputs["b"]
    assert [problem.kind for problem in reopened(store).repair().lost] in ([], ["missing"])


# --- in the middle ---


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("has_mirror", [False, True], ids=["alone", "mirror"])
def test_a_repair_may_die_at_any_write(tmp_path: Path, after: bool, has_mirror: bool) -> None:
    source = Store.init(f"memory://repair-{after}-{has_mirror}", cache_dir=tmp_path)
    source.put("r", ("big", BIG), *SMALL.items())
    source.put("r", ("late", b"l" * 999))
    rng = random.Random(1)
    for writes in itertools.count():
        url = f"memory://repair-{after}-{has_mirror}-{writes}"
        clone(source.backend, url, cache_dir=tmp_path)
        damaged = Store.open(url, cache_dir=tmp_path)
        root = damaged["r"].body.tree
        for prefix in ("objects/", "packs/", "index/", "nodes/"):
            spoil(damaged, keys(damaged, prefix)[writes % len(keys(damaged, prefix))], rng)
        damaged.backend.delete_many([f"nodes/{root[:2]}/{root[2:]}"])
        stopping = StoppingBackend(damaged.backend, writes, after=after)
        mirrors = [source.backend] if has_mirror else []
        try:
            Store(stopping, damaged.info, cache_dir=tmp_path).repair(mirrors)
        except Stopped:
            pass
        again = Store.open(url, cache_dir=tmp_path).repair(mirrors)
        assert again.ok == has_mirror
        final = Store.open(url, cache_dir=tmp_path)
        if has_mirror:
            assert final["r"].read_bytes("big") == BIG
            assert final.refresh().damaged() == {}
        assert {problem.object for problem in final.fsck().problems} == {problem.object for problem in again.lost}
        final.put("next", ("big", BIG))
        assert final["next"].read_bytes("big") == BIG
        if not stopping.dead:
            assert writes > 8
            return


def test_writers_at_work_learn_of_what_was_taken_out(store: Store) -> None:
    key = next(key for key, size in store.backend.list("objects/") if size == len(BIG))
    store.backend.put(key, bytes(len(BIG)))
    session = store.commit("late")
    session.write("it", BIG)  # finds an object of the right size
    assert not reopened(store).repair().ok
    with pytest.raises(ConflictError, match="took content"):
        session.commit()
    assert store.put("late", ("it", BIG)).read_bytes("it") == BIG
    check_whole(store)


def test_gc_collects_beside_what_was_mended(store: Store, mirror: Backend) -> None:
    store.backend.delete_many(keys(store, "packs/"))
    assert reopened(store).repair([mirror]).ok
    collect(reopened(store), grace_s=0)
    check_whole(store)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_damaged_what_is_left_is_right_and_the_rest_can_be_put_again(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    files = {f"{number}": rng.randbytes(rng.choice([10, 200, 3000, 1 << 20])) for number in range(30)}
    url = f"memory://repair-any-{seed}"
    store = Store.init(url, cache_dir=tmp_path)
    for start in range(0, 30, 6):
        store.put("r", *[(name, files[name]) for name in list(files)[start : start + 6]])
    clone(store.backend, url + "-copy", cache_dir=tmp_path)
    everything = [key for prefix in FOLDERS if prefix[:7] != "ledger/" for key in keys(store, prefix)]
    for key in rng.sample(everything, 6):
        choice = rng.randrange(3)
        if choice == 0:
            spoil(store, key, rng)
        elif choice == 1:
            store.backend.put(key, store.backend.get(key)[: -rng.randrange(1, 30)])
        else:
            store.backend.delete_many([key])
    commits = [commit for commit, _ in store.state.scan(b"commit/")]
    mended = Store.open(url, cache_dir=tmp_path).repair()
    again = Store.open(url, cache_dir=tmp_path)
    assert {problem.object for problem in again.fsck().problems} == {problem.object for problem in mended.lost}
    for commit in commits:
        for path, content in files.items():
            try:
                assert again[f"r@{commit.decode()[9:]}"].read_bytes(path) == content
            except NotFoundError:
                continue  # not in that commit, or lost
    again.put("again", *files.items())
    assert {path: again["again"].read_bytes(path) for path in files} == files
    final = Store.open(url, cache_dir=tmp_path).repair([open_backend(url + "-copy")])
    assert final.ok, final.lost
    assert {path: again["r"].read_bytes(path) for path in files} == files
