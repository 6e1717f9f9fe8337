"""A medium that is full, or that takes no more writes, in the middle of a put: a small tmpfs, and another user."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dmlpipe.storage.errors import BackendError, ErrorCode
from dmlpipe.storage.gc.run import collect
from dmlpipe.storage.store import Store
from tests.faults.users import as_user, needs_root

SMALL = {f"s/{number}": os.urandom(5000) for number in range(20)}
MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def free(place: Path) -> int:
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize


def too_much(kind: str, folder: Path) -> Path:
    folder.mkdir()
    if kind == "large":
        (folder / "large").write_bytes(os.urandom(40 * MIB))
    elif kind == "middling":
        for number in range(20):
            (folder / f"{number}").write_bytes(os.urandom(2 * MIB))
    else:
        for number in range(800):
            (folder / f"{number}").write_bytes(os.urandom(50_000))
    return folder


@needs_root
@pytest.mark.parametrize("kind", ["large", "middling", "small"])
def test_a_full_disk_costs_the_put_and_nothing_else(disk: Path, tmp_path: Path, kind: str) -> None:
    store = Store.init(disk / "store", cache_dir=tmp_path / "cache")
    store.put("r", *SMALL.items())
    before, room = store["r"].id, free(disk)
    with pytest.raises(BackendError, match="No space left") as caught:
        store.put("r", too_much(kind, tmp_path / kind))
    assert caught.value.code is ErrorCode.DISK_FULL
    assert caught.value.hint is not None
    assert "dmlpipe gc" in caught.value.hint
    assert not list((disk / "store").rglob(".tmp-*"))
    assert room - free(disk) < 200_000  # two ledger entries and what they name
    again = Store.open(disk / "store", cache_dir=tmp_path / "cache")
    assert again["r"].id == before
    assert {path: again["r"].read_bytes(path) for path in SMALL} == SMALL
    assert again.fsck().ok
    after = again.put("r", ("next", b"n" * 5000))
    assert after.parents == (before,)
    assert again.fsck().ok


@needs_root
@pytest.mark.parametrize("room", [0, 1, 3, 9])
def test_a_disk_that_is_full_to_the_last_page_is_read_and_collected_once_there_is_room(
    disk: Path, tmp_path: Path, room: int
) -> None:
    store = Store.init(disk / "store", cache_dir=tmp_path / "cache")
    store.put("r", *SMALL.items())
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    os.truncate(filler, filler.stat().st_size - room * 4096)
    again = Store.open(disk / "store", cache_dir=tmp_path / "cache")
    told: list[ErrorCode] = []
    try:
        again.put("r", ("more", os.urandom(3000)))
    except BackendError as error:
        told.append(error.code)
    assert told in ([], [ErrorCode.DISK_FULL])
    again = Store.open(disk / "store", cache_dir=tmp_path / "cache")
    assert {path: again["r"].read_bytes(path) for path in SMALL} == SMALL
    assert again.fsck().ok
    filler.unlink()
    collect(again, grace_s=0)
    assert again.put("r", ("x", b"1")).read_bytes("x") == b"1"
    assert again.fsck().ok


def _keep_writing(root: Path, cache: Path, gate: Callable[[], None]) -> None:
    """Put until a write is refused; the gate takes the permission away after the first object."""
    store = Store.open(root, cache_dir=cache)
    with store.commit("r") as session:
        session.write("a", os.urandom(2 * MIB))
        gate()
        session.write("b", os.urandom(2 * MIB))
        session.write("c", os.urandom(3000))


@needs_root
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("folder", ["objects", "packs", "nodes", "index", "ledger"])
def test_permission_that_is_lost_in_the_middle_of_a_put(tmp_path_factory: pytest.TempPathFactory, folder: str) -> None:
    with as_user.place() as place:
        root, cache = place / "store", place / "cache"
        as_user(1001, 1001, lambda: Store.init(root, cache_dir=cache).put("r", *SMALL.items()))

        def lose() -> None:
            for path in [root / folder, *(root / folder).rglob("*")]:
                if path.is_dir():
                    os.chmod(path, 0o555)

        error = as_user(1001, 1001, lambda: _keep_writing(root, cache, lose))
        assert isinstance(error, BackendError), error
        assert error.code is ErrorCode.PERMISSION
        assert "Permission denied" in str(error)
        assert not list(root.rglob(".tmp-*"))
        for path in [root / folder, *(root / folder).rglob("*")]:
            if path.is_dir():
                os.chmod(path, 0o755)
        store = Store.open(root, cache_dir=tmp_path_factory.mktemp("cache"))
        assert {info.path for info in store["r"].ls(recursive=True)} == {f"/{path}" for path in SMALL}
        assert store.fsck().ok
        assert as_user(1001, 1001, lambda: Store.open(root, cache_dir=cache).put("r", ("x", b"1"))) is None
