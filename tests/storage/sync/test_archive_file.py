"""A store in one file: deterministic, whole, and harmless to read."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
from pathlib import Path

import pytest

from dmlpipe.storage.errors import CorruptError, DmlpipeError, ErrorCode, FormatError, InvalidInputError, ReadOnlyError
from dmlpipe.storage.store import Store
from dmlpipe.storage.sync import ArchiveBackend, clone, is_archive, write_archive

_numbers = itertools.count()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.init(f"memory://archived-{next(_numbers)}", cache_dir=tmp_path / "cache")
    made.put("images", ("a.bin", os.urandom(3000)), ("sub/b.txt", "b" * 200), ("tiny", "t"))
    made.put("images", ("a.bin", os.urandom(3000)))
    made.put("big", ("loose.bin", os.urandom(1 << 20)), ("pieces.bin", os.urandom((16 << 20) + 5)))
    return made


def test_there_and_back(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "store.tar"
    about = write_archive(store, file)
    assert (about.n, about.chain) == (store.state.n, store.state.chain)
    assert is_archive(str(file))
    archive = ArchiveBackend(file)
    place = f"memory://archived-{next(_numbers)}"
    clone(archive, place, cache_dir=store.cache_dir)
    copy = Store.open(place, cache_dir=store.cache_dir)
    assert copy.fsck().ok
    assert copy.repo_id == store.repo_id
    assert list(copy.refresh().scan(b"")) == list(store.state.scan(b""))
    for path in ("/loose.bin", "/pieces.bin"):
        assert copy["big"].read_bytes(path) == store["big"].read_bytes(path)
    # An archive is a store that takes no writes.
    inside = Store(archive, store.info, read_only=True, cache_dir=store.cache_dir)
    assert inside["images"].read_text("/sub/b.txt") == "b" * 200
    with pytest.raises(ReadOnlyError):
        archive.put("x", b"")
    # And so the copy can follow what came later in another archive.
    store.put("images", ("later.txt", "l" * 300))
    write_archive(store, tmp_path / "later.tar")
    done = clone(ArchiveBackend(tmp_path / "later.tar"), place, cache_dir=store.cache_dir)
    assert (done.entries, done.objects) == (1, 4)
    assert copy["images"].read_text("/later.txt") == "l" * 300


def test_one_state_has_one_archive(store: Store, tmp_path: Path) -> None:
    place = f"memory://archived-{next(_numbers)}"
    clone(store.backend, place, cache_dir=store.cache_dir)
    files = []
    for number, each in enumerate((store, store, Store.open(place, cache_dir=store.cache_dir))):
        files.append(tmp_path / f"{number}.tar")
        write_archive(each, files[-1])
    assert files[0].read_bytes() == files[1].read_bytes() == files[2].read_bytes()
    with tarfile.open(files[0]) as tar:
        members = tar.getmembers()
    assert members[0].name == "archive.json"
    assert {(member.mtime, member.uid, member.uname, member.mode) for member in members} == {(0, 0, "", 0o644)}


def test_a_file_is_not_replaced_and_a_failure_leaves_none(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "store.tar"
    file.write_bytes(b"mine")
    with pytest.raises(InvalidInputError) as caught:
        write_archive(store, file)
    assert caught.value.code == ErrorCode.EXISTS
    assert file.read_bytes() == b"mine"
    store.backend.delete_many([next(key for key, _ in store.backend.list("objects/"))])
    with pytest.raises(DmlpipeError):
        write_archive(store, tmp_path / "broken.tar")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["store.tar"]


def forged(source: Path, target: Path, *members: tarfile.TarInfo) -> ArchiveBackend:
    """Open a copy of an archive that has other members besides."""
    with tarfile.open(source) as old, tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as new:
        for member in old:
            new.addfile(member, old.extractfile(member))
        for member in members:
            new.addfile(member, io.BytesIO(b"x" * member.size) if member.isreg() else None)
    return ArchiveBackend(target)


HASH = "ab/" + "0" * 62


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "objects/../../../etc/passwd",
        f"objects/{HASH}/../../x",
        "objects/./x",
        "results/0123456789abcdef/000000/../x.seg",
        "results/0123456789abcdef/../000000/x.seg",
        "ledger/ckpt/000000000031.mpz",
        ".gitignore",
        "controller/heartbeat.json",
        "objects/AB/" + "0" * 62,
        f"objects/{HASH}\n",
        "a" * 300,
    ],
)
def test_names_that_are_no_objects_are_refused(store: Store, tmp_path: Path, name: str) -> None:
    write_archive(store, tmp_path / "good.tar")
    with pytest.raises(CorruptError, match="is the name of no object"):
        forged(tmp_path / "good.tar", tmp_path / "bad.tar", tarfile.TarInfo(name))
    assert not (tmp_path.parent / "etc").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.CONTTYPE]
)
def test_members_that_are_no_files_are_refused(store: Store, tmp_path: Path, kind: bytes) -> None:
    write_archive(store, tmp_path / "good.tar")
    info = tarfile.TarInfo(f"objects/{HASH}")
    info.type = kind
    info.linkname = "/etc/passwd"
    with pytest.raises(CorruptError, match="is no plain file"):
        forged(tmp_path / "good.tar", tmp_path / "bad.tar", info)


def test_an_object_twice_or_too_large_is_refused(store: Store, tmp_path: Path) -> None:
    write_archive(store, tmp_path / "good.tar")
    with pytest.raises(CorruptError, match="is there twice"):
        forged(tmp_path / "good.tar", tmp_path / "twice.tar", tarfile.TarInfo("dmlpipe.json"))
    large = tarfile.TarInfo(f"objects/{HASH}")
    large.size = (64 << 20) + 1
    with pytest.raises(CorruptError, match="more than an object can have"):
        forged(tmp_path / "good.tar", tmp_path / "large.tar", large)


def test_what_is_cut_off_or_no_archive_is_told(store: Store, tmp_path: Path) -> None:
    write_archive(store, tmp_path / "good.tar")
    whole = (tmp_path / "good.tar").read_bytes()
    cut = tmp_path / "cut.tar"
    with tarfile.open(tmp_path / "good.tar") as tar:
        last = tar.getmembers()[-1]
    for length in (last.offset, last.offset_data + 1, last.offset - 512, 5000):
        cut.write_bytes(whole[:length])
        with pytest.raises(DmlpipeError):
            clone(ArchiveBackend(cut), f"memory://archived-{next(_numbers)}", cache_dir=store.cache_dir)
    for content in (b"", b"no tar at all" * 100):
        cut.write_bytes(content)
        with pytest.raises(FormatError, match="no archive of a store"):
            ArchiveBackend(cut)


def test_content_that_was_changed_is_never_published(store: Store, tmp_path: Path) -> None:
    write_archive(store, tmp_path / "good.tar")
    with tarfile.open(tmp_path / "good.tar") as tar:
        places = {info.name.partition("/")[0]: info for info in tar.getmembers() if info.size}
    for kind, info in places.items():
        if kind in ("archive.json", "dmlpipe.json"):
            continue
        body = bytearray((tmp_path / "good.tar").read_bytes())
        body[info.offset_data + info.size // 3] ^= 1
        (tmp_path / "bad.tar").write_bytes(body)
        place = f"memory://archived-{next(_numbers)}"
        with pytest.raises(DmlpipeError):
            clone(ArchiveBackend(tmp_path / "bad.tar"), place, cache_dir=store.cache_dir)
        assert Store.open(place, cache_dir=store.cache_dir).refresh().n == -1 or kind == "ledger"
