"""Folders taken in at once: the same as file by file, read once, by one process or several."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dmlpipe.storage import forked
from dmlpipe.storage.backend.local import LocalBackend, LocalDraft
from dmlpipe.storage.commits import CommitView
from dmlpipe.storage.digest import from_hex
from dmlpipe.storage.errors import BackendError, ConflictError, InvalidInputError
from dmlpipe.storage.forked import share_work
from dmlpipe.storage.local import intake, reading, stats
from dmlpipe.storage.local.intake import Intake
from dmlpipe.storage.local.recall import FolderRecall
from dmlpipe.storage.objects.local_value import value_of_file
from dmlpipe.storage.objects.node import node_key
from dmlpipe.storage.objects.pack import read_footer
from dmlpipe.storage.objects.value import decode_value, encode_value
from dmlpipe.storage.sources import plan_sources
from dmlpipe.storage.store import Store

SIZES = [0, 1, 128, 129, 3000, 70_000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (16 << 20) + 7]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")


def fill(folder: Path, count: int = 40) -> dict[str, bytes]:
    """Make files of all sizes in nested folders, some of them alike, with names that are no ASCII."""
    made: dict[str, bytes] = {}
    rng = random.Random(5)
    for number in range(count):
        size = SIZES[number] if number < len(SIZES) else rng.randrange(1, 5000)
        body = (
            made.get("f7/é7.bin", b"")
            if number == 20
            else rng.randbytes(size)
            if number % 3
            else b"text " * (size // 5)
        )
        name = f"f{number % 7}/é{number}.bin" if number % 2 else f"f{number % 7}/deep/er/{number}.txt"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
        made[name] = body
    return made


def age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files count as old however short ago they were written."""
    monkeypatch.setattr(stats, "TICK_NS", -(1 << 60))
    monkeypatch.setattr(stats, "COARSE_TICK_NS", -(1 << 60))


def contents(view: CommitView) -> dict[str, bytes]:
    return {info.path[1:]: view.read_bytes(info.path) for info in view.ls(recursive=True)}


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the files are added that are opened to be read."""
    opened: list[str] = []
    real = os.open

    def open_(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        whole = str(path) if dir_fd is None else f"{os.readlink(f'/proc/self/fd/{dir_fd}')}/{path}"
        if "/src/" in whole and not flags & os.O_DIRECTORY:
            opened.append(whole)
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_)
    return opened


def log_requests(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a line for each request to a folder of objects, by whichever process; return the file."""
    methods: list[tuple[type, str]] = [
        (LocalDraft, "put_if_absent"),
        *((LocalBackend, name) for name in ("put_if_absent", "put", "get", "size", "list_folders")),
    ]
    for kind, name in methods:
        real = getattr(kind, name)

        def logged(self: object, key: str, *args: object, real: Any = real, name: str = name, **more: object) -> Any:
            with open(file, "ab", buffering=0) as log:
                log.write(f"{name} {key.partition('/')[0]}\n".encode())
            return real(self, key, *args, **more)

        monkeypatch.setattr(kind, name, logged)
    return file


@pytest.mark.parametrize("processes", [1, 3])
def test_a_folder_holds_in_the_store_what_it_holds_outside(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr(intake, "process_count", lambda most: processes)
    monkeypatch.setattr(intake, "_FILES_PER_UNIT", 3)
    made = fill(tmp_path / "src")
    view = store.put("r", tmp_path / "src")
    assert contents(view) == made
    for name in made:
        assert view.value(name) == value_of_file(tmp_path / "src" / name)
    again = Store.open(store.url, cache_dir=tmp_path / "other")
    assert contents(again["r"]) == made
    assert again.fsck().ok
    assert again.put("r", tmp_path / "src").id == view.id
    assert list(view.diff(tmp_path / "src")) == []


def test_one_process_asks_for_and_stores_what_several_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for packs, of which each process makes its own: they hold the same blobs."""
    made = fill(tmp_path / "src")
    requests = log_requests(tmp_path / "log", monkeypatch)
    monkeypatch.setattr(intake, "_FILES_PER_UNIT", 3)
    seen: dict[int, object] = {}
    packs: dict[int, int] = {}
    for processes in (1, 2, 4):
        monkeypatch.setattr(intake, "process_count", lambda most, processes=processes: processes)
        store = Store.init(tmp_path / f"store-{processes}", cache_dir=tmp_path / f"cache-{processes}")
        requests.write_bytes(b"")
        view = store.put("r", tmp_path / "src")
        asked = Counter(requests.read_text().splitlines())
        packs[processes] = asked.pop("put_if_absent packs")
        assert contents(view) == made
        kept = {key for key, _ in store.backend.list() if key.startswith(("nodes/", "objects/"))}
        kept.remove(node_key(from_hex(view.id)))  # says when it was made
        blobs = {blob.hash for key, _ in store.backend.list("packs/") for blob in read_footer(store.backend, key).blobs}
        seen[processes] = (view.body.tree, view.files, view.size, kept, blobs, asked)
    assert seen[1] == seen[2] == seen[4]
    assert packs[1] == 1
    assert all(number <= processes + 1 for processes, number in packs.items()), "and one of the ends of large files"


def test_what_is_unchanged_is_not_read_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age(monkeypatch)
    made = fill(tmp_path / "src")
    first = store.put("r", tmp_path / "src")
    opened = count_reads(monkeypatch)
    assert store.put("r", tmp_path / "src").id == first.id
    assert list(first.diff(tmp_path / "src")) == []
    assert opened == []
    (tmp_path / "src/f1/é1.bin").write_bytes(b"!")
    (tmp_path / "src/f1/new").write_bytes(b"new")
    (tmp_path / "src/f6/deep/er/6.txt").unlink()
    second = store.put("r", tmp_path / "src", mirror=True)
    assert sorted(path.rpartition("/src/")[2] for path in opened) == ["f1/new", "f1/é1.bin"]
    made |= {"f1/é1.bin": b"!", "f1/new": b"new"}
    del made["f6/deep/er/6.txt"]
    assert contents(second) == made
    opened.clear()
    with store.commit("r") as session:
        session.put(str(tmp_path / "src"), rehash=True)
    assert {path.rpartition("/src/")[2] for path in opened} == set(made)


def test_what_the_head_does_not_hold_is_read_though_it_is_remembered(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(monkeypatch)
    made = fill(tmp_path / "src", 12)
    store.put("r", tmp_path / "src")
    opened = count_reads(monkeypatch)
    assert contents(store.put("other", tmp_path / "src")) == made
    assert len(set(opened)) == len(made)
    opened.clear()
    with store.commit("r") as session:
        session.delete("/f1")
    store.put("r", tmp_path / "src")
    assert {path.rpartition("/src/")[2].partition("/")[0] for path in opened} == {"f1"}
    assert store.fsck().ok


def test_edits_move_to_another_head_with_what_was_not_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(monkeypatch)
    made = fill(tmp_path / "src", 12)
    store.put("r", tmp_path / "src")
    with store.commit("r") as session:
        session.put(str(tmp_path / "src"))
        store.put("r", ("f1/é1.bin", b"somebody else's"))
    assert contents(store["r"]) == made
    opened = store.open_commit("r")
    with opened.writer() as writer:
        writer.put(str(tmp_path / "src"))
    store.put("r", ("f1/é1.bin", b"somebody else's again"))
    assert contents(opened.commit()) == made


def test_a_file_written_twice_within_a_tick_is_read_again(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "src/a"
    file.parent.mkdir()
    for number in range(50):
        file.write_bytes(b"%04d" % number)
        times = (1_000_000_000_000_000_000, 1_000_000_000_000_000_000)
        os.utime(file, ns=times)
        assert store.put("r", tmp_path / "src").read_bytes("a") == b"%04d" % number


def test_a_damaged_memory_is_forgotten(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age(monkeypatch)
    made = fill(tmp_path / "src", 12)
    store.put("r", tmp_path / "src")
    (file,) = (tmp_path / "cache").glob("stores/*/stats/*.mp")
    assert file.stat().st_mode & 0o777 == 0o600
    raw = bytearray(file.read_bytes())
    raw[0] ^= 1  # of the hash of what tells where all is
    file.write_bytes(raw)
    opened = count_reads(monkeypatch)
    store.put("r", tmp_path / "src")
    assert len(set(opened)) == len(made)
    file.write_bytes(b"")
    store.put("r", tmp_path / "src")
    assert len(set(opened)) == len(made)


def test_hashing_alone_gives_the_same_values(tmp_path: Path) -> None:
    made = fill(tmp_path / "src")
    plan = plan_sources([str(tmp_path / "src")], b"")
    taken = Intake(FolderRecall(None)).take(plan.folders)
    values = dict(zip(taken.paths, taken.values, strict=True))
    assert values == {name.encode(): encode_value(value_of_file(tmp_path / "src" / name)) for name in made}


def test_a_file_that_keeps_changing_is_refused(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "src", 12)
    busy = tmp_path / "src/f1/é1.bin"
    real = os.preadv

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        got = real(fd, buffers, offset)
        if os.fstat(fd).st_ino == busy.stat().st_ino and not offset:
            with busy.open("ab") as file:
                file.write(b"more")
        return got

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(reading, "TICK_NS", 1 << 60)  # however long ago it was written
    with pytest.raises(ConflictError, match="changed while it was read"):
        store.put("r", tmp_path / "src")
    assert store.refresh().n == -1


def test_a_file_that_became_a_fifo_is_refused_and_does_not_hang(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "src", 3)
    real = reading.PartReader.read

    def read(self: reading.PartReader, part: reading.Part) -> reading.ReadPart:
        file = Path(part.local) / part.names[0]
        file.unlink()
        os.mkfifo(file)
        return real(self, part)

    monkeypatch.setattr(reading.PartReader, "read", read)
    with pytest.raises(InvalidInputError, match="no plain file any more"):
        store.put("r", tmp_path / "src")


def test_work_is_shared_and_each_unit_done_once() -> None:
    def work(numbers: Iterator[int]) -> list[tuple[int, int]]:
        return [(os.getpid(), number) for number in numbers]

    found = share_work(work, 300, 3)
    assert len(found) == 3
    assert sorted(number for done in found for _, number in done) == list(range(300))
    assert {pid for done in found for pid, _ in done} >= {os.getpid()} or not found[0]


@pytest.mark.parametrize("enabled", [True, False])
def test_nobody_looks_for_cycles_while_work_is_shared(enabled: bool) -> None:
    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        for processes in (1, 2):
            assert share_work(lambda numbers: [gc.isenabled() for _ in numbers], 3, processes) in (
                [[False] * 3],
                *([[False] * mine, [False] * (3 - mine)] for mine in range(4)),
            )
            assert gc.isenabled() is enabled
        with pytest.raises(ZeroDivisionError):
            share_work(lambda numbers: 1 // 0, 3, 1)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()


@pytest.mark.parametrize("how", ["raise", "die"])
def test_a_process_that_fails_fails_the_work(how: str) -> None:
    parent = os.getpid()

    def work(numbers: Iterator[int]) -> int:
        if os.getpid() == parent:
            return sum(numbers) * 0
        if how == "die":
            os.kill(os.getpid(), 9)
        raise InvalidInputError("no good")

    with pytest.raises(BackendError if how == "die" else InvalidInputError, match=r"signal 9|no good"):
        share_work(work, 4, 2)


def test_nothing_is_forked_beside_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, args=(60,))
    thread.start()
    try:
        assert forked.process_count(8) == 1
    finally:
        stop.set()
        thread.join()


def test_stats_of_fresh_files_are_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"a")
    found = stats.pack_stats([os.stat(file)])
    assert stats.forget_fresh(found, time.time_ns()) != found
    assert stats.forget_fresh(found, time.time_ns() + 3_000_000_000) == found


@pytest.mark.parametrize(
    ("fraction_ns", "before_ns", "looks_twice"),
    [(1, 49_000_000, True), (1, 51_000_000, False), (0, 51_000_000, True), (0, 2_100_000_000, False)],
)
def test_what_may_have_changed_within_a_tick_is_read_between_two_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fraction_ns: int, before_ns: int, looks_twice: bool
) -> None:
    """File systems that give whole seconds may change a file for two seconds without another time."""
    (tmp_path / "a").write_bytes(b"a" * 1000)
    real, looks = os.fstat, 0
    changed = (os.stat(tmp_path / "a").st_ctime_ns // stats.SECOND_NS) * stats.SECOND_NS + fraction_ns

    class Aged:
        st_size, st_mode = 1000, 0o100644
        st_ino, st_mtime_ns, st_ctime_ns = 1, changed, changed

    file = os.stat(tmp_path / "a").st_ino

    def fstat(fd: int) -> object:
        nonlocal looks
        if real(fd).st_ino != file:
            return real(fd)
        looks += 1
        return Aged()

    monkeypatch.setattr(os, "fstat", fstat)
    reader = reading.PartReader(None, changed + before_ns)
    read = reader.read(reading.Part(str(tmp_path), ["a"], b"", ()))
    assert [decode_value(value).size for value in read.values] == [1000]
    assert looks == (3 if looks_twice else 1)


def test_a_diff_with_a_folder_tells_what_is_new_gone_and_changed(store: Store, tmp_path: Path) -> None:
    fill(tmp_path / "src", 30)
    view = store.put("r", tmp_path / "src")
    (tmp_path / "src/f1/é1.bin").unlink()
    (tmp_path / "src/f1/new").write_bytes(b"new")
    (tmp_path / "src/f2/deep/er/2.txt").write_bytes(b"other")
    expected = [("/f1/new", "added"), ("/f1/é1.bin", "removed"), ("/f2/deep/er/2.txt", "changed")]
    assert [(change.path, change.kind) for change in view.diff(tmp_path / "src")] == expected
    # As many as there were: what is new and what is gone must not cancel out.
    assert [(change.path, change.kind) for change in view.diff(tmp_path / "src/f1", "/f1")] == expected[:2]
    (tmp_path / "src/f1/new").unlink()
    assert [(change.path, change.kind) for change in view.diff(tmp_path / "src")] == expected[1:]
