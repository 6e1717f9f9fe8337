"""Tree nodes of jobs that were lost, made again from what else the store says of the same jobs."""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path

import pytest

from dmlpipe.storage.digest import from_hex
from dmlpipe.storage.objects.bodies import read_job
from dmlpipe.storage.store import Store
from dmlpipe.storage.trees.prolly import Tree
from tests.storage.engine import Engine

_count = itertools.count()
NAMES = [f"{number:04}" for number in range(1600)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A pipeline's output of several nodes, part of it carried over from an earlier job."""
    store = Store.init(f"memory://retrace-{next(_count)}", cache_dir=tmp_path / "cache")
    store.put("images", *((f"{name}.png", name.encode()) for name in NAMES))
    engine = Engine(store)
    engine.pipeline("out", [{"type": "files", "repo": "images", "glob": "/*"}], {})
    made = {f"{name}.json": (f"{name}.png".encode(), name.encode() * 40, 1) for name in NAMES[:1000]}
    engine.job("out", 1, {"images": "data"}, ("images",), made)
    more = {f"{name}.json": (f"{name}.png".encode(), name.encode() * 50, 2) for name in NAMES[1000:]}
    engine.job("out", 2, {"images": "data"}, ("images",), {**made, **more})
    return store


def node_keys(store: Store, tree: str) -> list[str]:
    """All nodes of the newest job's `out`, `t`, `p` or `rows` that the older job does not share."""
    job = store.refresh().job(f"{2:016x}")
    assert job is not None
    record = read_job(store.nodes, job.end.record)
    roots = {"out": record.out, "t": record.t, "p": record.p, "rows": job.end.rows}
    names = [node.hex() for node in Tree(store.nodes, from_hex(roots[tree])).walk_nodes()]
    return [f"nodes/{name[:2]}/{name[2:]}" for name in names]


@pytest.mark.parametrize("lost", [("out",), ("p",), ("out", "p"), ("out", "t", "rows")])
def test_lost_nodes_of_an_output_are_made_again(store: Store, lost: tuple[str, ...]) -> None:
    before = {info.path: store["out"].read_bytes(info.path) for info in store["out"].ls()}
    keys = [key for tree in lost for key in node_keys(store, tree)]
    assert len(keys) > 1
    store.backend.delete_many(keys)
    fresh = Store.open(store.url, cache_dir=store.cache_dir)
    assert not fresh.fsck().ok
    mended = fresh.repair()
    assert mended.ok, mended.lost[:3]
    assert {how for key, how in mended.mended if key in keys} == {"made anew from what else the store says of its job"}
    again = Store.open(store.url, cache_dir=store.cache_dir)
    assert {info.path: again["out"].read_bytes(info.path) for info in again["out"].ls()} == before
    assert again.fsck().ok


def test_what_nothing_else_says_is_refused_with_a_reason(store: Store) -> None:
    keys = node_keys(store, "t") + node_keys(store, "p")
    store.backend.delete_many(keys)
    mended = Store.open(store.url, cache_dir=store.cache_dir).repair()
    assert not mended.ok
    assert {why for key, why in mended.refused if key in keys} == {"no job's results or other trees say what was in it"}


# --- the SQLite index ---


def damage_page(file: Path) -> None:
    body = bytearray(file.read_bytes())
    body[len(body) // 2 : len(body) // 2 + 200] = b"\xff" * 200
    file.write_bytes(body)


def damage_row(file: Path) -> None:
    with sqlite3.connect(file) as db:
        db.execute("UPDATE job SET pipeline = 'other'")
    db.close()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


@pytest.mark.parametrize("damage", [damage_page, damage_row, cut, lambda file: file.write_bytes(b"")])
def test_a_damaged_index_is_made_anew_by_repair(store: Store, damage: object) -> None:
    assert not store.repair().found, "there is none, and none is made"
    assert not store.sql_index.exists
    store.sql_index.rebuild(store.archive, store.ledger)
    sound = store.sql_index._dump()
    assert store.repair().found == ()
    damage(store.sql_index.file)  # type: ignore[operator]
    mended = store.repair()
    assert mended.ok
    assert mended.mended == ((str(store.sql_index.file), "made anew from the ledger"),)
    assert store.sql_index._dump() == sound
    assert store.repair().found == ()


def test_an_index_that_is_behind_is_no_damage(store: Store) -> None:
    store.sql_index.rebuild(store.archive, store.ledger)
    store.put("more", ("x", b"1"))
    assert store.repair().found == ()
