"""Files that are put as links: read from where they are, refused once they change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from dmlpipe.storage.errors import ConflictError, ErrorCode, InvalidInputError, NotFoundError
from dmlpipe.storage.objects.external import describe_external, open_external, read_external
from dmlpipe.storage.objects.value import External
from dmlpipe.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(tmp_path / "store", cache_dir=tmp_path / "cache", actor="ann@host")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"alpha" * 1000)
    (folder / "sub" / "b c.bin").write_bytes(b"beta")
    return folder


def stored_bytes(store: Store) -> int:
    return sum(size for key, size in store.backend.list() if key.startswith(("objects/", "packs/")))


def touch(file: Path, data: bytes) -> None:
    before = file.stat().st_mtime_ns
    file.write_bytes(data)
    os.utime(file, ns=(before + 1_000_000_000, before + 1_000_000_000))


def test_a_linked_folder_is_listed_and_read_and_stores_nothing(store: Store, scans: Path, tmp_path: Path) -> None:
    view = store.put("scans", scans, link=True)
    assert stored_bytes(store) == 0
    assert [(info.path, info.size) for info in view.ls(recursive=True)] == [("/a.bin", 5000), ("/sub/b c.bin", 4)]
    assert view.size == 5004
    value = view.value("/a.bin")
    assert isinstance(value, External)
    assert value.url == f"file://{scans}/a.bin"
    assert view.read_bytes("/a.bin") == b"alpha" * 1000
    with view.open("/sub/b c.bin") as file:
        file.seek(2)
        assert file.read() == b"ta"
    assert view.get("/", tmp_path / "out") == 2
    assert (tmp_path / "out" / "sub" / "b c.bin").read_bytes() == b"beta"
    assert store.fsck().ok


def test_ranges_are_those_of_slicing(store: Store, scans: Path) -> None:
    value = describe_external(f"file://{scans}/a.bin")
    body = (scans / "a.bin").read_bytes()
    for start, end in ((None, None), (0, 3), (4990, 9999), (-7, None), (10, 10), (6000, None)):
        assert read_external(value, start, end) == body[start:end]


def test_a_source_that_changed_is_refused_by_every_reader(store: Store, scans: Path, tmp_path: Path) -> None:
    view = store.put("scans", scans, link=True)
    touch(scans / "a.bin", b"other" * 1000)  # of the same size
    readers: list[Callable[[], object]] = [
        lambda: view.read_bytes("/a.bin"),
        lambda: view.open("/a.bin"),
        lambda: view.get("/", tmp_path / "out"),
        lambda: store.cache.get(view.value("/a.bin"), store.objects),
    ]
    for read in readers:
        with pytest.raises(ConflictError, match=r"a\.bin changed since it was put: expected 5000 bytes"):
            read()
    assert not list((tmp_path / "cache").rglob(".tmp-*"))
    again = store.put("scans", scans, link=True)
    assert again.id != view.id
    assert again.read_bytes("/a.bin") == b"other" * 1000


def test_a_source_that_changes_while_it_is_read_is_noticed_at_its_end(scans: Path) -> None:
    value = describe_external(f"file://{scans}/a.bin")
    with open_external(value) as file:
        assert file.read(5) == b"alpha"
        touch(scans / "a.bin", b"gamma" * 1000)
        with pytest.raises(ConflictError, match="changed since"):
            file.read()


def test_fsck_looks_at_links_where_asked(store: Store, scans: Path) -> None:
    store.put("scans", scans, link=True)
    store.put("copy", scans, link=True)
    assert (store.fsck().links, store.fsck(links=True).ok) == (2, True)
    touch(scans / "a.bin", b"other")
    assert store.fsck().ok
    report = store.fsck(links=True)
    assert [(problem.kind, problem.object) for problem in report.problems] == [("link", f"file://{scans}/a.bin")]
    assert [touch.name for touch in report.problems[0].touches] == ["copy@master:/a.bin", "scans@master:/a.bin"]
    (scans / "a.bin").unlink()
    assert "is gone" in store.fsck(links=True).problems[0].message


def test_a_source_that_is_gone_is_named(store: Store, scans: Path) -> None:
    view = store.put("scans", scans, link=True)
    (scans / "a.bin").unlink()
    with pytest.raises(NotFoundError, match=r"a\.bin, which was put as a link, is gone"):
        view.read_bytes("/a.bin")


def test_the_cache_keeps_what_was_linked(store: Store, scans: Path) -> None:
    view = store.put("scans", scans, link=True)
    value = view.value("/a.bin")
    cached = store.cache.get(value, store.objects)
    (scans / "a.bin").unlink()
    assert store.cache.get(value, store.objects) == cached
    assert cached.read_bytes() == b"alpha" * 1000


def test_an_unchanged_link_makes_no_commit(store: Store, scans: Path) -> None:
    assert store.put("scans", scans, link=True).id == store.put("scans", scans, link=True).id


def test_links_to_other_file_systems(store: Store) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/linked/x.txt", b"from memory")
    view = store.put("notes", "memory://linked", link=True)
    value = view.value("/x.txt")
    assert isinstance(value, External)
    assert value.url == "memory:///linked/x.txt"
    assert view.read_text("/x.txt") == "from memory"
    fs.rm("/linked", recursive=True)


def test_what_cannot_be_linked(store: Store, scans: Path) -> None:
    with store.commit("scans") as session:
        with pytest.raises(InvalidInputError, match="given as content"):
            session.put(("a.txt", b"x"), link=True)
        with pytest.raises(InvalidInputError, match="append and link"):
            session.put(scans, link=True, append=True)
    with pytest.raises(InvalidInputError, match="holds a login") as caught:
        describe_external("sftp://ann:secret@host/file")
    assert "secret" not in caught.value.message
    with pytest.raises(NotFoundError) as missing:
        describe_external(f"file://{scans}/none")
    assert missing.value.code == ErrorCode.NO_FILE
    with pytest.raises(InvalidInputError, match="is a directory"):
        describe_external(f"file://{scans}")


@pytest.mark.s3
def test_a_link_to_s3_is_held_to_its_etag(store: Store, s3_url: str) -> None:
    fs, root = fsspec.core.url_to_fs(s3_url, use_listings_cache=False)
    fs.pipe_file(f"{root}/a.txt", b"first")
    view = store.put("notes", f"{s3_url}/a.txt", link=True)
    assert view.read_text("/a.txt") == "first"
    fs.pipe_file(f"{root}/a.txt", b"other")
    with pytest.raises(ConflictError, match="etag"):
        view.read_bytes("/a.txt")
