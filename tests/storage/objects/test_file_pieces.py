from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlpipe.storage.errors import ConflictError
from dmlpipe.storage.objects.local_value import value_of_file
from dmlpipe.storage.objects.value import WHOLE_MAX_BYTES
from dmlpipe.storage.objects.writer import ObjectWriter
from dmlpipe.storage.store import Store

GIB = 1 << 30


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init("memory://" + tmp_path.name, cache_dir=tmp_path / "cache")


class Reads:
    """Counts the bytes that `os.read` returns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        self._real = os.read
        monkeypatch.setattr(os, "read", self)

    def __call__(self, fd: int, size: int) -> bytes:
        data = self._real(fd, size)
        self.bytes += len(data)
        return data


def sparse(file: Path, size: int, islands: dict[int, bytes]) -> None:
    with open(file, "wb") as out:
        out.truncate(size)
        for place, data in islands.items():
            out.seek(place)
            out.write(data)


def test_a_sparse_file_costs_what_is_in_it(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size, islands = 20 * GIB + 5, {0: b"begin", 7 * GIB + 3: b"in the middle", 20 * GIB: b"end.."}
    sparse(tmp_path / "image", size, islands)
    reads = Reads(monkeypatch)
    store.put("r", tmp_path / "image")
    assert reads.bytes <= 3 * WHOLE_MAX_BYTES
    stored = sum(size for _, size in store.backend.list("objects/"))
    assert stored <= 3 * WHOLE_MAX_BYTES + 5
    store["r"].get("/image", tmp_path / "back")
    status = os.stat(tmp_path / "back")
    assert status.st_size == size
    assert status.st_blocks * 512 <= 3 * WHOLE_MAX_BYTES
    with open(tmp_path / "back", "rb") as file:
        for place, data in islands.items():
            file.seek(place)
            assert file.read(len(data)) == data
    reads.bytes = 0
    assert not list(store["r"].diff(tmp_path / "back", "/image"))
    assert reads.bytes <= 3 * WHOLE_MAX_BYTES


@settings(max_examples=12, deadline=None)
@given(
    size=st.integers(0, 3 * WHOLE_MAX_BYTES),
    places=st.lists(st.integers(0, 3 * WHOLE_MAX_BYTES), max_size=3),
    start=st.integers(0, 3 * WHOLE_MAX_BYTES),
)
def test_a_hole_is_the_same_content_as_zeros(
    size: int, places: list[int], start: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("holes")
    store = Store.init("memory://" + folder.name, cache_dir=folder / "cache")
    sparse(folder / "sparse", size, {place: b"x" * min(9, size - place) for place in places if place < size})
    content = (folder / "sparse").read_bytes()
    (folder / "dense").write_bytes(content)
    commit = store.put("r", folder / "sparse", folder / "dense")
    assert commit.value("sparse") == commit.value("dense") == value_of_file(folder / "sparse")
    assert commit.read_bytes("sparse") == content
    with commit.open("sparse") as file:
        file.seek(start)
        assert file.read(99) == content[start : start + 99]
    commit.get("/sparse", folder / "back")
    assert (folder / "back").read_bytes() == content


@pytest.mark.parametrize("change", ["grows", "shrinks", "is written to"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    file = tmp_path / "log"
    file.write_bytes(os.urandom(2 * WHOLE_MAX_BYTES + 9))
    os.utime(file, (1, 1))
    real = ObjectWriter._put_loose

    def write_meanwhile(*args: object) -> None:
        real(*args)  # type: ignore[arg-type]
        with open(file, "r+b") as other:
            if change == "shrinks":
                other.truncate(WHOLE_MAX_BYTES + 1)
            else:
                other.seek(0, os.SEEK_END if change == "grows" else os.SEEK_SET)
                other.write(b"more")

    monkeypatch.setattr(ObjectWriter, "_put_loose", write_meanwhile)
    with pytest.raises(ConflictError, match="log changed while it was read"):
        store.put("r", tmp_path / "log")
    assert store.refresh().repo("r") is None
    monkeypatch.undo()
    assert store.put("r", file).read_bytes("log") == file.read_bytes()


def test_a_file_that_is_replaced_while_it_is_read_is_the_old_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, new = tmp_path / "data", tmp_path / "new"
    before = os.urandom(WHOLE_MAX_BYTES + 9)
    file.write_bytes(before)
    new.write_bytes(b"new")
    real = ObjectWriter._put_loose

    def replace(*args: object) -> None:
        real(*args)  # type: ignore[arg-type]
        if new.exists():
            os.link(file, tmp_path / "kept")
            os.replace(new, file)

    monkeypatch.setattr(ObjectWriter, "_put_loose", replace)
    try:
        assert store.put("r", file).read_bytes("data") == before
    except ConflictError:
        assert store.refresh().repo("r") is None  # a link count is a change of the inode
