"""One cache, many processes, some of them killed, on a disk that fills up."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dmlpipe.storage.errors import BackendError, ErrorCode, InvalidInputError
from dmlpipe.storage.objects.cache import VERIFIED_MTIME_NS, FileCache, content_name
from dmlpipe.storage.objects.cache_size import CACHE_SIZE_VARIABLE, cache_limit_bytes, check_cache_size
from dmlpipe.storage.objects.fill_lock import PART_PREFIX
from dmlpipe.storage.objects.value import Pieces
from tests.storage.objects.cache_process import PART, Folder

WAIT_S = 60


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "source").mkdir()
    (tmp_path / "gates").mkdir()
    return Folder(tmp_path / "source", tmp_path / "log", tmp_path / "gates")


def start(folder: Folder, cache: Path, *values: Pieces, loop: bool = False) -> subprocess.Popen[bytes]:
    places = [str(place) for place in (cache, folder.source, folder.log, folder.gates)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.storage.objects.cache_process", *places, *map(folder.spell, values)],
        stdout=subprocess.PIPE,
        env=os.environ | ({"DML_LOOP": "1"} if loop else {}),
    )


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_processes_that_want_the_same_file_read_it_once(folder: Folder, tmp_path: Path) -> None:
    data = os.urandom(6 * PART + 5)
    value = folder.add(data)
    gate = folder.gates / folder.parts(value)[2].hash.hex()
    gate.touch()
    processes = [start(folder, tmp_path / "cache", value) for _ in range(3)]
    until(lambda: gate.name in folder.reads())
    gate.unlink()
    assert [process.wait(WAIT_S) for process in processes] == [0, 0, 0]
    assert sorted(folder.reads()) == sorted(part.hash.hex() for part in folder.parts(value))
    assert FileCache(tmp_path / "cache").get(value, folder).read_bytes() == data


def test_what_a_killed_process_had_fetched_is_not_read_again(folder: Folder, tmp_path: Path) -> None:
    data = os.urandom(9 * PART)
    value = folder.add(data)
    stops = [part.hash.hex() for part in folder.parts(value)[5:]]
    for stop in stops:
        (folder.gates / stop).touch()
    killed = start(folder, tmp_path / "cache", value)
    # Four parts are read at a time: when all four that wait were asked for, the five before them are written.
    until(lambda: set(stops) <= set(folder.reads()))
    killed.kill()
    killed.wait()
    for stop in stops:
        (folder.gates / stop).unlink()
    before = len(folder.reads())
    assert FileCache(tmp_path / "cache").get(value, folder).read_bytes() == data
    assert sorted(folder.reads()[before:]) == sorted(stops)
    assert not list((tmp_path / "cache").glob(f"??/{PART_PREFIX}*"))


def test_kills_at_any_time_leave_no_wrong_file(folder: Folder, tmp_path: Path) -> None:
    contents = [os.urandom(random.randrange(1, 8 * PART)) for _ in range(4)]
    values = [folder.add(data) for data in contents]
    cache = FileCache(tmp_path / "cache")
    processes = [start(folder, tmp_path / "cache", *values, loop=True) for _ in range(3)]
    try:
        for round_ in range(9):
            victim = processes.pop(0)
            assert victim.stdout is not None
            for _ in range(round_ % 3 + 1):
                victim.stdout.readline()
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            victim.stdout.close()
            for data, value in zip(contents, values, strict=True):
                assert bytes(cache.get(value, folder).read_bytes()) == data
            processes.append(start(folder, tmp_path / "cache", *values, loop=True))
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    for data, value in zip(contents, values, strict=True):
        assert cache.get(value, folder).read_bytes() == data
    assert not list((tmp_path / "cache").glob("??/.*"))


def test_a_frozen_process_is_passed_over(folder: Folder, tmp_path: Path) -> None:
    data = os.urandom(PART)
    value = folder.add(data)
    cache = FileCache(tmp_path / "cache", stuck_s=0.05)
    place = cache.path_of(value)
    place.parent.mkdir(parents=True)
    with open(place.with_name(PART_PREFIX + place.name), "wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert cache.get(value, folder).read_bytes() == data
    assert len(folder.reads()) == 1


def test_the_cache_keeps_to_its_limit_and_keeps_what_is_linked(folder: Folder, tmp_path: Path) -> None:
    values = [folder.add(os.urandom(PART)) for _ in range(8)]
    cache = FileCache(tmp_path / "cache", max_bytes=3 * PART)
    linked = cache.get(values[0], folder)
    os.link(linked, tmp_path / "in use")
    for age, value in enumerate(values):
        path = cache.get(value, folder)
        os.utime(path, ns=((age + 1) * 10**9, VERIFIED_MTIME_NS))
    cache.trim(min_age_s=0)
    assert [cache.path_of(value).exists() for value in values] == [True, *[False] * 5, True, True]


def test_a_file_that_others_write_to_while_it_is_laid_out_is_fetched_anew(folder: Folder, tmp_path: Path) -> None:
    data = os.urandom(2 * PART)
    value = folder.add(data)
    cache = FileCache(tmp_path / "cache")
    path = cache.get(value, folder)
    path.chmod(0o644)
    path.write_bytes(b"x" * len(data))
    os.utime(path, ns=(path.stat().st_atime_ns, VERIFIED_MTIME_NS - 1))
    assert cache.lay(value, folder, str(tmp_path / "laid"))
    assert (tmp_path / "laid").read_bytes() == data
    assert cache.read_named(content_name(value), PART, 2 * PART) == data[PART:]
    assert cache.read_named(content_name(value), PART, 2 * PART + 1) is None


def test_a_file_trimmed_before_it_is_linked_is_fetched_anew(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(PART)
    value = folder.add(data)
    cache = FileCache(tmp_path / "cache")
    real = os.link
    calls: list[Path] = []

    def trimming(source: Path, target: str) -> None:
        if not calls:
            calls.append(source)
            cache.drop(value)
        real(source, target)

    monkeypatch.setattr(os, "link", trimming)
    assert cache.lay(value, folder, str(tmp_path / "laid"))
    assert (tmp_path / "laid").read_bytes() == data
    assert len(folder.reads()) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_makes_old_files_go(folder: Folder, small_disk: Path) -> None:
    cache = FileCache(small_disk / "cache", max_bytes=1 << 40)
    contents = [os.urandom(4 * PART) for _ in range(9)]
    values = [folder.add(data) for data in contents]
    for data, value in zip(contents, values, strict=True):
        assert cache.get(value, folder).read_bytes() == data
    assert [cache.is_unchanged(value) for value in values][-1]
    with pytest.raises(BackendError, match=r"cannot cache a file of 2,000,000 bytes .*: No space left") as caught:
        cache.get(folder.add(os.urandom(2_000_000)), folder)
    assert caught.value.code is ErrorCode.DISK_FULL
    assert not list((small_disk / "cache").glob("??/.*"))


def test_what_nobody_waits_for_gives_way_on_a_full_disk(
    folder: Folder, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FileCache(small_disk / "cache", max_bytes=1 << 40)
    (small_disk / "foreign").write_bytes(bytes(900_000))
    wanted = folder.add(os.urandom(4 * PART))
    pauses: list[float] = []

    def make_room(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) > 3:
            (small_disk / "foreign").unlink(missing_ok=True)

    monkeypatch.setattr("dmlpipe.storage.objects.cache.time.sleep", make_room)
    with pytest.raises(BackendError, match="No space left"):
        cache.get(wanted, folder, ahead=True)
    assert sum(pauses) == 0
    assert not list((small_disk / "cache").glob("??/.*"))
    assert cache.get(wanted, folder).exists()
    assert len(pauses) > 3


def test_threads_share_a_full_disk(folder: Folder, small_disk: Path) -> None:
    cache = FileCache(small_disk / "cache", max_bytes=1 << 40)
    contents = [os.urandom(3 * PART) for _ in range(12)]
    values = [folder.add(data) for data in contents]
    wrong: list[int] = []

    def fetch(numbers: range) -> None:
        for number in numbers:
            target = small_disk / f"laid-{number}"
            cache.lay(values[number], folder, str(target))
            if target.read_bytes() != contents[number]:
                wrong.append(number)
            target.unlink()

    threads = [threading.Thread(target=fetch, args=(range(first, 12, 2),)) for first in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert wrong == []
    assert not list(small_disk.glob("laid-*"))


def test_the_limit_is_a_size_a_share_of_the_disk_or_half_of_what_is_free(tmp_path: Path) -> None:
    assert cache_limit_bytes(tmp_path / "c", 0, {CACHE_SIZE_VARIABLE: "3GiB"}) == 3 << 30
    total = cache_limit_bytes(tmp_path / "c", 0, {CACHE_SIZE_VARIABLE: "100%"})
    assert abs(cache_limit_bytes(tmp_path / "c", 0, {CACHE_SIZE_VARIABLE: "50%"}) - total // 2) <= 1
    assert 0 < cache_limit_bytes(tmp_path / "c", 0, {}) <= total
    assert cache_limit_bytes(tmp_path / "c", total, {}) >= total // 2
    assert check_cache_size(" 40% ") == "40%"
    for wrong in ("much", "-3GiB", "130%", "x%"):
        with pytest.raises(InvalidInputError):
            check_cache_size(wrong)
