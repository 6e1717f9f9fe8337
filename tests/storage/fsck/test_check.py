from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from dmlpipe.storage.digest import digest
from dmlpipe.storage.errors import CorruptError, FormatError, NotFoundError
from dmlpipe.storage.fsck import Problem
from dmlpipe.storage.fsck.contents import check_object
from dmlpipe.storage.ledger.ledger import entry_key
from dmlpipe.storage.objects.compression import decompress
from dmlpipe.storage.objects.content import object_key
from dmlpipe.storage.store import Store
from tests.storage.engine import Engine

BIG = os.urandom(2 << 20)
SMALL = os.urandom(3000)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    for index in range(33):
        store.put("r", (f"n/{index}", str(index).encode()))
    store.put("r", ("big", BIG), ("small", SMALL))
    return store


def one_key(store: Store, prefix: str) -> str:
    return next(key for key, _ in store.backend.list(prefix))


def flip(store: Store, key: str, position: int | None = None) -> None:
    data = bytearray(store.backend.get(key))
    data[random.randrange(len(data)) if position is None else position] ^= 1
    store.backend.put(key, bytes(data))


def names(problem: Problem) -> list[str]:
    return [touch.name for touch in problem.touches]


def test_a_sound_store_has_no_problems(store: Store) -> None:
    heard: set[str] = set()
    report = store.fsck(progress=lambda what, count: heard.add(what))
    assert report.ok
    assert (report.entries, report.commits, report.orphans) == (34, 34, 0)
    assert report.to_dict()["ok"] is True
    assert {"ledger", "nodes", "objects", "packs", "commits"} <= heard


@pytest.mark.parametrize("prefix", ["nodes/", "objects/", "packs/", "index/", "ledger/000000000/", "ledger/ckpt/"])
def test_a_flipped_byte_is_found_in_every_kind_of_object(store: Store, prefix: str) -> None:
    key = one_key(store, prefix)
    for position in (0, -1, None):
        flip(store, key, position)
        report = store.fsck()
        assert key in [problem.object for problem in report.problems], prefix
        if position is not None:
            flip(store, key, position)


def test_a_damaged_object_says_what_it_touches(store: Store) -> None:
    flip(store, one_key(store, "objects/"), 5)
    (problem,) = store.fsck().problems
    assert (problem.kind, names(problem)) == ("damaged", ["r@master:/big"])


def test_a_damaged_pack_says_which_files_it_touches(store: Store) -> None:
    flip(store, one_key(store, "packs/"), 5)
    problems = {problem.kind: problem for problem in store.fsck().problems}
    assert problems["damaged"].object.startswith("packs/")
    assert names(problems["missing"]) == ["r@master:/small"]


def test_a_missing_object_is_found(store: Store) -> None:
    commit = store["r"]
    root = commit.body.tree
    for key, kind, touches in [
        (one_key(store, "objects/"), "missing", ["r@master:/big"]),
        (f"nodes/{root[:2]}/{root[2:]}", "missing", ["r@master"]),
        (f"nodes/{commit.id[:2]}/{commit.id[2:]}", "missing", ["r@master"]),
    ]:
        body = store.backend.get(key)
        store.backend.delete_many([key])
        found = [problem for problem in store.fsck().problems if problem.object == key]
        assert [(problem.kind, names(problem)) for problem in found] == [(kind, touches)]
        store.backend.put(key, body)
    assert store.fsck().ok


def test_a_missing_entry_is_found(store: Store) -> None:
    store.backend.delete_many([entry_key(7)])
    report = store.fsck()
    assert [(problem.kind, problem.object) for problem in report.problems if problem.kind == "ledger"] == [
        ("ledger", entry_key(7))
    ]


def test_a_changed_last_entry_is_found_by_who_saw_it(store: Store) -> None:
    key = entry_key(store.refresh().n)
    store.backend.put(key, store.backend.get(key).replace(b"@", b"%", 1))
    (problem,) = store.fsck().problems
    assert (problem.kind, problem.object) == ("ledger", key)
    store.backend.delete_many([key])
    assert [problem.object for problem in store.fsck().problems if problem.kind == "ledger"] == [key]


def test_a_forged_checkpoint_is_found(store: Store) -> None:
    other = Store.init("memory://fsck-other")
    for index in range(32):
        other.put("x", (str(index), b""))
    key = one_key(store, "ledger/ckpt/")
    store.backend.put(key, other.backend.get(key))
    (problem,) = store.fsck().problems
    assert (problem.kind, problem.object) == ("derived", key)


def test_what_a_crash_left_is_counted_not_blamed(store: Store) -> None:
    session = store.commit("r")
    session.write("x", os.urandom(3000))
    session.writer.flush()
    session.abort()
    report = store.fsck()
    assert report.ok
    assert report.orphans == 2


def test_damage_in_what_nothing_refers_to_touches_nothing(store: Store) -> None:
    session = store.commit("r")
    session.write("x", os.urandom(2 << 20))
    session.abort()
    before = {key for key, _ in store.backend.list("objects/")}
    name = next(key for key in before if store.backend.size(key) == 2 << 20 and store.backend.get(key) != BIG)
    flip(store, name)
    (problem,) = store.fsck().problems
    assert problem.touches == ()


def flip_all(store: Store, key: str) -> Iterator[bytes]:
    """Store the object with one bit of each byte flipped, in turn; then put it back as it was."""
    body = store.backend.get(key)
    for position in range(len(body)):
        changed = bytearray(body)
        changed[position] ^= 1 << position % 8
        store.backend.put(key, bytes(changed))
        yield bytes(changed)
    store.backend.put(key, body)


def kinds_of_objects(store: Store) -> dict[str, str]:
    """One small object of each kind that `check_body` compares with its name."""
    found = {}
    for prefix in ("nodes/", "objects/", "packs/", "index/"):
        key = min(store.backend.list(prefix), key=lambda item: item[1])[0]
        assert store.backend.size(key) is not None
        found[prefix] = key
    return found


def test_any_flipped_byte_is_found_in_every_kind_of_object(tmp_path: Path) -> None:
    store = Store.init(tmp_path / "tiny", cache_dir=tmp_path / "cache")
    store.put("r", ("a", b"a" * 200), ("b", b"b" * 300))
    key = object_key(digest(b"x"))
    store.backend.put(key, b"x")
    opened = store.open_commit("r")
    with opened.writer("w") as writer:
        writer.write("c", b"c" * 200)
    (part,) = [key for key, _ in store.backend.list("sessions/") if key.endswith(".mp")]
    for object_ in {**kinds_of_objects(store), "part": part}.values():
        body = store.backend.get(object_)
        for changed in flip_all(store, object_):
            try:
                check_object(store.backend, object_)
            except (CorruptError, FormatError):
                continue
            # zstd has several frames for one content: what is served is what was put, and that alone is named.
            assert object_.startswith(("nodes/", "sessions/"))
            assert decompress(changed, object_) == decompress(body, object_)
        check_object(store.backend, object_)


@pytest.mark.parametrize("change", [lambda body: body[: len(body) // 2], lambda body: b"", lambda body: body + b"x"])
def test_a_cut_or_grown_object_is_found_and_never_served(store: Store, change: Callable[[bytes], bytes]) -> None:
    commit = store["r"]
    for prefix in ("nodes/", "objects/", "packs/", "index/", "ledger/000000000/", "ledger/ckpt/"):
        for key in [key for key, _ in store.backend.list(prefix)][-1:]:
            body = store.backend.get(key)
            store.backend.put(key, change(body))
            assert key in [problem.object for problem in store.fsck().problems], key
            for path, content in (("/big", BIG), ("/small", SMALL), ("/n/3", b"3")):
                fresh = Store.open(store.url, cache_dir=store.cache_dir.with_name("elsewhere"))
                try:
                    assert fresh[f"r@{commit.id}"].read_bytes(path) == content
                except (CorruptError, NotFoundError):
                    pass
            store.backend.put(key, body)
    assert store.fsck().ok


def test_every_commit_and_file_that_a_damaged_object_touches_is_named(tmp_path: Path) -> None:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    first = store.put("r", ("big", BIG), ("x", b"1"))
    second = store.put("r", ("copy/of/big", BIG))
    store.create_branch("r", "other", first.id)
    store.put("r", ("x", b"2"))
    with store.commit("r") as session:
        session.delete("big")
    flip(store, one_key(store, "objects/"), 5)
    (problem,) = store.fsck().problems
    touched = {touch.name: set(touch.others) for touch in problem.touches}
    third = store["r@master^"].id
    assert touched == {
        "r@master:/copy/of/big": {f"r@{second.id[:6]}:/copy/of/big", f"r@{third[:6]}:/copy/of/big"},
        "r@other:/big": {f"r@{second.id[:6]}:/big", f"r@{third[:6]}:/big"},
    }
    assert {touch.what for touch in problem.touches} == {"file"}
    assert "in 2 other commits too" in str(problem.touches[0])


def test_a_damaged_tree_node_names_the_files_below_it(tmp_path: Path) -> None:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    store.put("r", *((f"{number:05}", b"") for number in range(9000)))
    tree = store["r"].tree
    _, _, keys, entries = msgspec.msgpack.decode(store.nodes.get(tree.root))
    name = entries[1][0].hex()
    store.backend.delete_many([f"nodes/{name[:2]}/{name[2:]}"])
    (problem,) = store.fsck().problems
    (touch,) = problem.touches
    shown = f"{entries[1][1]:,} files after /{keys[0].decode()} up to /{keys[1].decode()}"
    assert (touch.what, touch.name) == ("files", f"r@master ({shown})")


def test_a_damaged_output_names_the_datum_that_made_it(tmp_path: Path) -> None:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    store.put("images", ("a.png", b"a"), ("b.png", b"b"))
    engine = Engine(store)
    engine.pipeline("out", [{"type": "files", "repo": "images", "glob": "/*"}], {})
    outputs = {f"{name}.json": (f"{name}.png".encode(), name.encode() * 500, 1) for name in "ab"}
    engine.job("out", 1, {"images": "data"}, ("images",), outputs)
    segment = one_key(store, "results/")
    flip(store, segment, 10)
    problems = {problem.object: problem for problem in store.fsck().problems}
    assert problems[segment].kind == "damaged"
    (lost,) = (problem for problem in problems.values() if problem.object != segment)
    assert [(touch.what, touch.name) for touch in lost.touches] == [
        ("file", "out@master:/a.json"),
        ("datum", "datum a.png of job 0000000000000001"),
        ("context", f"context {digest(b'out').hex()[:12]}"),
        ("job", "job 0000000000000001"),
    ]
