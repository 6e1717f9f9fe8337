"""Objects that share their blocks with the files that were put, on file systems that can: mounted for the test."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from dmlpipe.storage.backend.local import LocalBackend
from dmlpipe.storage.store import Store

MIB = 1 << 20
_MADE = {"btrfs": ("mkfs.btrfs", "-q"), "xfs": ("mkfs.xfs", "-q", "-m", "reflink=1")}


def drawn(size: int, name: str = "content") -> bytes:
    return blake3(name.encode()).digest(length=size)


@pytest.fixture(params=["btrfs", "xfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    make = _MADE[request.param]
    if os.getuid() != 0 or shutil.which(make[0]) is None:
        pytest.skip(f"{request.param} can be made and mounted by root with {make[0]} only")
    image, at = tmp_path / "image", tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(400 * MIB)
    subprocess.run([*make, image], check=True, capture_output=True)
    at.mkdir()
    mounted = subprocess.run(["mount", "-o", "loop", image, at], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no {request.param} can be mounted here: {mounted.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)
        image.unlink()


def used(disk: Path) -> int:
    os.sync()
    found = os.statvfs(disk)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def test_put_and_get_take_no_space_and_are_what_they_were(disk: Path, tmp_path: Path) -> None:
    store = Store.init(disk / "store", cache_dir=tmp_path / "cache")
    folder = disk / "in"
    folder.mkdir()
    sizes = {"whole": 5 * MIB + 17, "pieces": 40 * MIB + 4321, "small": 4000, "even": 16 * MIB}
    for name, size in sizes.items():
        (folder / name).write_bytes(drawn(size, name))
    (folder / "text").write_bytes(b"the same line again\n" * 200_000)
    before = used(disk)
    with store.commit("r") as session:
        session.put(folder)
    assert session.cloned_bytes == sum(sizes.values()) - sizes["small"]
    assert session.stored_bytes > session.cloned_bytes
    with store.commit("single") as session:
        session.put([folder / "pieces", ("more", b"m")])
    assert (session.cloned_bytes, session.given_bytes) == (0, 40 * MIB + 4322), "the store had it"
    store["r"].get("/", disk / "out")
    assert used(disk) - before < 8 * MIB
    for name in [*sizes, "text"]:
        assert (disk / "out" / name).read_bytes() == (folder / name).read_bytes()
    # Each stays what it is when another one is written to.
    for file in (folder / "whole", disk / "out" / "pieces"):
        with open(file, "r+b") as changed:
            changed.write(b"changed")
    assert store["r"].read_bytes("/whole") == drawn(sizes["whole"], "whole")
    assert (disk / "out" / "whole").read_bytes() == drawn(sizes["whole"], "whole")
    assert store["r"].read_bytes("/pieces") == drawn(sizes["pieces"], "pieces")
    assert store.fsck().ok
    assert not list((disk / "store").rglob(".tmp-*"))


def test_between_two_disks_bytes_are_copied(disk: Path, tmp_path: Path) -> None:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    (disk / "file").write_bytes(body := drawn(18 * MIB))
    with store.commit("r") as session:
        session.put(disk / "file")
    assert session.cloned_bytes == 0
    assert session.stored_bytes == len(body)
    store["r"].get("/file", disk / "out")
    assert (disk / "out").read_bytes() == body
    assert not list((tmp_path / "store").rglob(".tmp-*"))


def test_what_changes_while_it_is_put_never_stands_under_another_name(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.init(disk / "store", cache_dir=tmp_path / "cache")
    file = disk / "file"
    file.write_bytes(drawn(3 * MIB))
    clone_in = LocalBackend.clone_in
    count = itertools.count()

    def and_change(self: LocalBackend, source: int, start: int, length: int) -> object:
        found = clone_in(self, source, start, length)
        with open(file, "r+b") as changed:
            changed.write(f"change {next(count)}".encode())
        return found

    monkeypatch.setattr(LocalBackend, "clone_in", and_change)
    with pytest.raises(Exception, match="changed while it was read"):
        store.put("r", file)
    assert next(count) > 0
    assert store.fsck().ok


def test_a_file_system_that_cannot_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def cannot(*args: object) -> bool:
        nonlocal asked
        asked += 1
        return False

    monkeypatch.setattr("dmlpipe.storage.backend.local.clone_range", cannot)
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    (tmp_path / "a").write_bytes(drawn(2 * MIB, "a"))
    (tmp_path / "b").write_bytes(drawn(2 * MIB, "b"))
    store.put("r", tmp_path / "a")  # one by one: threads may all ask at first
    store.put("r", tmp_path / "b")
    store["r"].get("/", tmp_path / "out")
    assert asked == 1
    assert (tmp_path / "out/b").read_bytes() == drawn(2 * MIB, "b")
