"""Folders written out at once: whole, by one process or several, over what is there."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from dmlpipe.storage.errors import BackendError, CorruptError, ErrorCode
from dmlpipe.storage.local import outlet
from dmlpipe.storage.local.outlet import _places
from dmlpipe.storage.store import Store

LARGE = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")


def fill(folder: Path) -> dict[str, bytes]:
    """Make files of all kinds in nested folders, some alike, some in folders that hold folders."""
    rng = random.Random(3)
    made: dict[str, bytes] = {}
    for number in range(120):
        size = [0, 5, 129, 4000, LARGE + 1][number % 5] if number < 25 else rng.randrange(1, 3000)
        body = b"alike" * 100 if number % 9 == 0 else b"text " * (size // 5) if number % 2 else rng.randbytes(size)
        made[["{}.x", "a/{}.x", "a/b/{}", "a/b/c/é{}", "d/{}"][number % 5].format(number)] = body
    made["only/large/one"] = rng.randbytes(LARGE)
    for name, body in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("per_unit", [3, 50, 1000])
def test_what_is_got_is_what_was_put(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, per_unit: int
) -> None:
    monkeypatch.setattr(outlet, "process_count", lambda most: processes)
    monkeypatch.setattr(outlet, "_FILES_PER_UNIT", per_unit)
    made = fill(tmp_path / "src")
    view = store.put("r", tmp_path / "src")
    assert view.get("/", tmp_path / "out") == len(made)
    assert contents(tmp_path / "out") == made
    # Again over it: each file is replaced, and what else is there stays.
    (tmp_path / "out/a/other").write_bytes(b"mine")
    (tmp_path / "out/a/1.x").write_bytes(b"changed")
    assert view.get("/", tmp_path / "out") == len(made)
    assert contents(tmp_path / "out") == made | {"a/other": b"mine"}


def test_a_folder_that_was_not_there_appears_whole(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "src/x").mkdir(parents=True)
    for number in range(20):
        (tmp_path / f"src/x/{number}").write_bytes(b"%d" % number * 200)
    view = store.put("r", tmp_path / "src")
    real, written = os.write, 0

    def write(fd: int, data: Any) -> int:
        nonlocal written
        written += 1
        assert not (tmp_path / "out/x").exists()
        if written == 10:
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(BackendError) as raised:
        view.get("/", tmp_path / "out")
    assert raised.value.code is ErrorCode.DISK_FULL
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("r", ("x/a", b"new" * 100))
    (tmp_path / "out/x").mkdir(parents=True)
    (tmp_path / "out/x/a").write_bytes(b"old")

    def write(fd: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(BackendError):
            store["r"].get("/", tmp_path / "out")
    assert contents(tmp_path / "out") == {"x/a": b"old"}


@pytest.mark.parametrize("path", [b"../a", b"/../a", b"a/../b", b"a//b", b".", b"a\0b", b"", b"x" * 5000, b"a/./b"])
def test_forged_paths_are_refused_among_good_ones(path: bytes) -> None:
    with pytest.raises(CorruptError):
        _places("/out", [b"good", path, b"good/too"])


def test_strange_names_are_no_forgery() -> None:
    paths = [b".hidden", b"a/.b", "é".encode(), b"line\nbreak", b"..a", b"a/..b/c"]
    assert _places("/out", paths) == [f"/out/{path.decode()}" for path in paths]
    assert _places("/out", [b"a", b"/b", b"c/"]) == ["/out/a", "/out/b", "/out/c"]
