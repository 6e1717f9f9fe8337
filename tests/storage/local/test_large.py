"""Large local files: what of them is written, and when."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from dmlpipe.storage.backend import Draft, local
from dmlpipe.storage.backend.local import LocalBackend
from dmlpipe.storage.digest import digest
from dmlpipe.storage.errors import ConflictError
from dmlpipe.storage.local import large
from dmlpipe.storage.local.large import LargeReader
from dmlpipe.storage.objects.content import object_key
from dmlpipe.storage.objects.value import WHOLE_MAX_BYTES, encode_value
from dmlpipe.storage.store import Store

MIB = 1 << 20
PIECES = 4


def drawn(size: int, name: str) -> bytes:
    return blake3(name.encode()).digest(length=size)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    yield made
    assert not list((tmp_path / "store").rglob(".tmp-*"))
    assert made.fsck().ok


@pytest.fixture
def drafts(monkeypatch: pytest.MonkeyPatch) -> list[Draft]:
    """Drafts of objects that were begun. One thread takes all pieces, in order."""
    begun: list[Draft] = []
    draft = LocalBackend.draft

    def counted(self: LocalBackend) -> Draft:
        begun.append(draft(self))
        return begun[-1]

    monkeypatch.setattr(LocalBackend, "draft", counted)
    monkeypatch.setattr(large, "_THREADS_MAX", 1)
    return begun


def test_pieces_are_written_as_they_are_read_from_the_second_new_one_on(
    store: Store, tmp_path: Path, drafts: list[Draft]
) -> None:
    body = drawn(PIECES * WHOLE_MAX_BYTES, "new")
    (tmp_path / "file").write_bytes(body)
    view = store.put("r", tmp_path / "file")
    assert [len(draft) for draft in drafts] == [WHOLE_MAX_BYTES] * (PIECES - 1)
    assert view.read_bytes("/file") == body


def test_what_the_store_has_is_not_written_again(store: Store, tmp_path: Path, drafts: list[Draft]) -> None:
    (tmp_path / "file").write_bytes(drawn(PIECES * WHOLE_MAX_BYTES, "new"))
    store.put("r", tmp_path / "file")
    drafts.clear()
    with store.commit("other") as session:
        session.put(tmp_path / "file")
    assert (session.stored_bytes, drafts) == (0, [])


def test_a_draft_of_what_the_store_has_is_dropped(store: Store, tmp_path: Path, drafts: list[Draft]) -> None:
    known, new = drawn(WHOLE_MAX_BYTES, "known"), drawn(WHOLE_MAX_BYTES, "new")
    store.put("r", ("known", known))
    (tmp_path / "file").write_bytes(new + known + known)
    with store.commit("other") as session:
        session.put(tmp_path / "file")
    assert session.stored_bytes == len(new)
    assert len(drafts) == 1, "of the piece behind the new one, not of that behind the known one"
    assert store["other"].read_bytes("/file") == new + known + known


def test_what_compresses_is_packed_though_the_piece_before_it_is_an_object(
    store: Store, tmp_path: Path, drafts: list[Draft]
) -> None:
    body = drawn(WHOLE_MAX_BYTES, "new") + b"the same line again\n" * (WHOLE_MAX_BYTES // 20)
    (tmp_path / "file").write_bytes(body)
    with store.commit("r") as session:
        session.put(tmp_path / "file")
    assert drafts == []
    assert session.stored_bytes < WHOLE_MAX_BYTES + 100_000
    assert store["r"].read_bytes("/file") == body


def test_an_object_that_was_cut_short_is_replaced_by_a_draft(store: Store, tmp_path: Path, drafts: list[Draft]) -> None:
    body = drawn(2 * WHOLE_MAX_BYTES, "new")
    cut = store.backend.path_of(object_key(digest(body[WHOLE_MAX_BYTES:])))  # type: ignore[attr-defined]  # is local
    cut.parent.mkdir(parents=True)
    cut.write_bytes(b"left by a power cut")
    (tmp_path / "file").write_bytes(body)
    assert store.put("r", tmp_path / "file").read_bytes("/file") == body
    assert len(drafts) == 1


def test_a_clone_becomes_the_object(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy_range(source: int, start: int, length: int, dest: int, at: int) -> bool:
        """Do what file systems do that can share blocks."""
        return os.pwrite(dest, os.pread(source, length, start), at) == length

    monkeypatch.setattr(local, "clone_range", copy_range)
    new, text = drawn(WHOLE_MAX_BYTES + 2 * MIB, "new"), b"the same line again\n" * MIB
    (tmp_path / "in").mkdir()
    for name, body in (("new", new), ("text", text)):
        (tmp_path / "in" / name).write_bytes(body)
    with store.commit("r") as session:
        session.put(tmp_path / "in")
    assert session.cloned_bytes == len(new)
    assert session.stored_bytes > len(new)
    assert (store["r"].read_bytes("/new"), store["r"].read_bytes("/text")) == (new, text)
    with store.commit("again") as session:
        session.put([tmp_path / "in" / "new"])
    assert (session.cloned_bytes, session.stored_bytes) == (0, 0)


def test_the_values_are_those_of_a_stream(store: Store, tmp_path: Path, drafts: list[Draft]) -> None:
    for number, size in enumerate([MIB, WHOLE_MAX_BYTES, 3 * WHOLE_MAX_BYTES + 5, 3 * WHOLE_MAX_BYTES + 2 * MIB]):
        file = tmp_path / f"{number}"
        file.write_bytes(drawn(size, "new"))
        with store.commit("r") as session, open(file, "rb") as stream:
            expected = encode_value(session.writer.put_file(stream))
            for writer in (None, session.writer):
                assert LargeReader(writer, lambda: None).read([str(file)])[0][0] == expected


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_file_that_ends_sooner_than_it_did_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drafts: list[Draft], pieces: int
) -> None:
    file = tmp_path / "file"
    file.write_bytes(drawn(pieces * WHOLE_MAX_BYTES, "new"))
    real, seen = os.preadv, 0

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        nonlocal seen
        seen += 1
        if seen == pieces * 64 - 10:
            os.truncate(file, offset)
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(ConflictError, match="file changed while it was read"):
        store.put("r", file)
    assert len(drafts) == pieces - 1
    assert store.refresh().repo("r") is None


def test_a_file_that_is_not_large_any_more_is_refused(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"was larger when it was listed")
    with store.commit("r") as session:
        with pytest.raises(ConflictError, match="file changed while it was read"):
            LargeReader(session.writer, lambda: None).read([str(file)])
        session.write("a", b"a")
