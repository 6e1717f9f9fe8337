from __future__ import annotations

import ctypes
import errno
import inspect
import itertools
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dmlpipe.storage.backend import Backend, open_backend, probe_exclusive_create
from dmlpipe.storage.backend import local as local_module
from dmlpipe.storage.backend.base import backend_error
from dmlpipe.storage.backend.local import LocalBackend
from dmlpipe.storage.backend.memory import MemoryBackend, free_memory, memory_names
from dmlpipe.storage.errors import BackendError, ErrorCode, InvalidInputError, NotFoundError
from dmlpipe.storage.testing import BackendTests, CountingBackend, Stopped, StoppingBackend
from tests.storage.backend.broken_backends import BROKEN, AlwaysWins

_numbers = itertools.count()


class TestLocal(BackendTests):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        return LocalBackend(tmp_path / "store")


class TestMemory(BackendTests):
    @pytest.fixture
    def backend(self) -> Backend:
        return MemoryBackend(f"contract-{next(_numbers)}")


def cases(suite: type, name: str) -> Iterator[dict[str, Any]]:
    """The parameter sets of a test of a suite."""
    marks = getattr(getattr(suite, name), "pytestmark", [])
    found = [mark for mark in marks if mark.name == "parametrize"]
    if not found:
        yield {}
        return
    names, values = found[0].args
    for value in values:
        yield dict(zip(names, value, strict=True)) if isinstance(names, tuple) else {names: value}


@pytest.mark.parametrize(("kind", "test"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_the_suite_notices_a_broken_backend(kind: type[LocalBackend], test: str, tmp_path: Path) -> None:
    def run_all() -> None:
        for number, case in enumerate(cases(BackendTests, test)):
            getattr(BackendTests(), test)(kind(tmp_path / str(number)), **case)

    with pytest.raises((AssertionError, BackendError, FileNotFoundError, pytest.fail.Exception)):
        run_all()


def test_every_rule_of_the_suite_is_broken_once() -> None:
    rules = {name for name, _ in inspect.getmembers(BackendTests, inspect.isfunction) if name.startswith("test_")}
    harmless = {
        "test_a_created_object_reads_back",
        "test_bodies_may_be_any_buffer",
        "test_a_durable_create_is_a_create",
    }
    assert rules - harmless == {test for _, test in BROKEN}


# --- local ---


def test_a_local_create_leaves_no_temporary_file(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path)
    backend.put_if_absent("a/b", b"1")
    backend.put_if_absent("a/b", b"2")
    backend.put("a/c", b"3")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["b", "c"]


def test_temporary_files_of_a_killed_writer_are_not_listed(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path)
    backend.put_if_absent("a/b", b"1")
    (tmp_path / "a" / ".tmp-1-ff").write_bytes(b"half")
    assert list(backend.list()) == [("a/b", 1)]


def test_sync_forces_files_and_each_new_folder_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(local_module, "_fsync", lambda path: synced.append(os.path.relpath(path, tmp_path)))
    backend = LocalBackend(tmp_path / "store", fsync="commit")
    backend.put_if_absent("nodes/ab/1", b"1")
    assert synced == []
    backend.sync(["nodes/ab/1"])
    assert sorted(synced) == [".", "store", "store/nodes", "store/nodes/ab", "store/nodes/ab/1"]
    synced.clear()
    backend.put_if_absent("nodes/ab/2", b"2")
    backend.sync(["nodes/ab/2"])
    assert sorted(synced) == ["store/nodes/ab", "store/nodes/ab/2"]


def test_sync_of_many_files_misses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(local_module, "_fsync", lambda path: synced.append(path))
    backend = LocalBackend(tmp_path, fsync="commit")
    keys = [f"nodes/{number:02}/x" for number in range(40)]
    backend.put_many_if_absent([(key, b"") for key in keys])
    backend.sync(keys)
    assert {str(tmp_path / key) for key in keys} <= set(synced)


def test_sync_of_a_missing_object_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nodes/ab/1"):
        LocalBackend(tmp_path, fsync="commit").sync(["nodes/ab/1"])


@pytest.mark.parametrize("mode", ["commit", "always"])
def test_a_durable_create_is_forced_to_disk_before_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    forced: list[bool] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        forced.append((tmp_path / "ledger" / "0").exists())
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    LocalBackend(tmp_path, fsync=mode).put_if_absent("ledger/0", b"entry", durable=True)
    assert forced[0] is False  # the content, before the name
    assert forced[1:].count(True) >= 1  # the folder, after it


def test_without_hard_links_an_exclusive_rename_takes_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    backend = LocalBackend(tmp_path)
    assert backend.put_if_absent("a", b"1")
    assert not backend.put_if_absent("a", b"2")
    assert list(backend.list()) == [("a", 1)]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_system_with_neither_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    with pytest.raises(BackendError, match="neither hard links") as caught:
        LocalBackend(tmp_path).put_if_absent("a", b"1")
    assert caught.value.code == ErrorCode.UNSAFE_BACKEND
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_the_server_made_and_then_denied_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def link_twice(source: str, target: str) -> None:
        real(source, target)
        raise FileExistsError(errno.EEXIST, "as NFS answers the second copy of a request")

    monkeypatch.setattr(os, "link", link_twice)
    assert LocalBackend(tmp_path).put_if_absent("a", b"1")


def test_open_ranges_survive_many_files(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path)
    for number in range(200):
        backend.put_if_absent(f"p/{number}", b"%06d" % number)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        assert [backend.get(f"p/{number}", 3) for number in range(200)] == [b"%03d" % n for n in range(200)]
    assert len(os.listdir("/proc/self/fd")) - before <= 64


@pytest.mark.parametrize(
    ("number", "code", "retryable"),
    [
        (errno.ENOSPC, ErrorCode.DISK_FULL, False),
        (errno.EDQUOT, ErrorCode.DISK_FULL, False),
        (errno.EACCES, ErrorCode.PERMISSION, False),
        (errno.EROFS, ErrorCode.PERMISSION, False),
        (errno.EIO, ErrorCode.BACKEND, False),
        (errno.ESTALE, ErrorCode.BACKEND, True),
    ],
)
def test_errors_of_the_system_are_told_apart(number: int, code: ErrorCode, retryable: bool) -> None:
    error = backend_error(OSError(number, os.strerror(number)), "write object a", "file:///s")
    assert (error.code, error.retryable) == (code, retryable)
    assert os.strerror(number) in str(error)


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    backend = LocalBackend(tmp_path)
    backend.put_if_absent("a/0", b"1")
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(BackendError, match="No space left") as caught:
        backend.put_if_absent("a/b", b"1")
    assert caught.value.code == ErrorCode.DISK_FULL
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["0"]


# --- opening ---


def test_urls_open_what_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_backend("./x").properties.path == tmp_path / "x"
    assert open_backend(str(tmp_path)).url == f"file://{tmp_path}"
    assert open_backend(f"file://{tmp_path}/y").properties.path == tmp_path / "y"
    assert open_backend("memory://m").url == "memory://m"
    assert open_backend("s3://bucket/a/").url == "s3://bucket/a"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("memory://", {}, "has no name"),
        ("file://", {}, "has no path"),
        ("s3://", {}, "has no bucket"),
        ("nosuch://x/y", {}, "unknown protocol 'nosuch'"),
        ("./x", {"key": "k"}, "takes no storage option key"),
        ("./x", {"fsync": "maybe"}, "fsync must be one of commit, always, never"),
        ("memory://m", {"fsync": "never"}, "takes no storage option fsync"),
        ("http://host/x", {}, None),
        ("ftp://host/x", {}, "no exclusive create"),
    ],
)
def test_a_wrong_url_is_refused(url: str, options: dict[str, object], message: str | None) -> None:
    with pytest.raises((InvalidInputError, BackendError), match=message):
        open_backend(url, options).put_if_absent("a", b"")


@pytest.mark.parametrize(("url", "extra"), [("gs://b/x", "gcs"), ("gcs://b/x", "gcs"), ("az://b/x", "azure")])
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(protocol: str) -> None:
        raise ImportError(f"install something for {protocol}")

    monkeypatch.setattr("fsspec.get_filesystem_class", missing)
    with pytest.raises(InvalidInputError, match="not installed") as caught:
        open_backend(url)
    assert caught.value.hint == f"pip install 'dmlpipe[{extra}]'"


def test_copies_reach_the_same_objects(tmp_path: Path) -> None:
    for backend in (LocalBackend(tmp_path, fsync="never"), MemoryBackend("copies")):
        copy = pickle.loads(pickle.dumps(backend))
        assert copy.put_if_absent("a", b"1")
        assert backend.get("a") == b"1"


def _see_nothing(queue: Any) -> None:
    queue.put(MemoryBackend("of-this-process").size("a"))


def test_memory_is_seen_by_its_own_process_only() -> None:
    MemoryBackend("of-this-process").put_if_absent("a", b"1")
    context = multiprocessing.get_context("spawn")
    assert not MemoryBackend("of-this-process").properties.shared
    queue = context.SimpleQueue()
    child = context.Process(target=_see_nothing, args=(queue,))
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0
    assert queue.get() is None


def test_memory_that_is_freed_is_gone_for_who_opens_it_again() -> None:
    first = MemoryBackend("freed")
    first.put("a", b"1")
    assert "freed" in memory_names()
    free_memory("freed")
    assert "freed" not in memory_names()
    assert MemoryBackend("freed").size("a") is None
    assert first.get("a") == b"1"


def test_the_probe_refuses_a_server_that_ignores_the_condition(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="does not create exclusively") as caught:
        probe_exclusive_create(AlwaysWins(tmp_path))
    assert caught.value.code == ErrorCode.UNSAFE_BACKEND


# --- wrappers ---


def test_counting_counts_requests() -> None:
    backend = CountingBackend(MemoryBackend("counts"))
    backend.put_many_if_absent([("a", b"1"), ("b", b"2")])
    backend.get_many([("a", None, None)])
    assert backend.counts == {"put_many_if_absent": 1, "put_if_absent": 2, "get_many": 1, "get": 1}


@pytest.mark.parametrize("after", [False, True])
def test_stopping_ends_at_the_chosen_write(after: bool) -> None:
    inner = MemoryBackend(f"stops-{after}")
    backend = StoppingBackend(inner, 2, after=after)
    backend.put_if_absent("a", b"")
    backend.put("b", b"")
    for _ in range(2):
        with pytest.raises(Stopped):
            backend.put_if_absent("c", b"")
    assert backend.dead
    assert [key for key, _ in inner.list()] == (["a", "b", "c"] if after else ["a", "b"])
