"""What is killed leaves half of something beside its place; the next one there clears it away."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dmlpipe.storage.host import process_start
from dmlpipe.storage.leftovers import KEPT_S, PREFIX, TEMPORARY, remove_leftovers, temporary_name
from dmlpipe.storage.store import Store
from dmlpipe.storage.sync.archive_file import write_archive

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

FILES = {"a": b"1" * 300, "b/c/d": b"2" * 300, "b/c/e": b"3" * 300, "b/large": b"4" * (2 << 20)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    made.put("r", *FILES.items())
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(f"{PREFIX}*"))


def killed_at(number: int, call: str, work: Callable[[], object]) -> None:
    """Carry out `work` in a process that is killed at a call of `os`."""
    child = os.fork()
    if child == 0:
        real, calls = getattr(os, call), 0

        def counted(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        setattr(os, call, counted)
        try:
            work()
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "it came to its end"


@pytest.mark.parametrize("over", [False, True], ids=["into-nothing", "over-old-files"])
def test_the_next_get_clears_away_what_a_killed_one_left(store: Store, tmp_path: Path, over: bool) -> None:
    out = tmp_path / "out"
    if over:
        store["r"].get("/", out)
    seen = 0
    for number in range(1, 5):
        killed_at(number, "rename", lambda: store["r"].get("/", out))
        # Only the newest: each has cleared away what the one before left.
        assert len(leftovers(out)) == 1
        seen += 1
    assert seen == 4
    assert store["r"].get("/", out) == len(FILES)
    assert contents(out) == FILES
    assert leftovers(out) == []


def test_a_file_that_is_got_alone_clears_away_what_was_left_beside_it(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    killed_at(1, "rename", lambda: store["r"].get("/b/large", tmp_path / "out"))
    assert len(leftovers(tmp_path / "out")) == 1
    store["r"].get("/a", tmp_path / "out")
    assert contents(tmp_path / "out") == {"a": FILES["a"]}


def test_what_a_living_process_writes_and_what_others_name_alike_stays(tmp_path: Path) -> None:
    own = tmp_path / temporary_name()
    place = own.name.removeprefix(PREFIX).partition("-")[0]
    parent = tmp_path / f"{PREFIX}{place}-{os.getppid()}-{process_start(os.getppid())}-0"
    for path in (own, parent, tmp_path / f"{PREFIX}notes"):
        path.write_bytes(b"")
    # Of another host, where nobody can ask: for a day.
    young, old = tmp_path / f"{PREFIX}{'0' * 8}-1-1-0", tmp_path / f"{PREFIX}{'0' * 8}-1-1-1"
    young.mkdir()
    (old / "x").mkdir(parents=True)
    long_ago = time.time() - 2 * KEPT_S
    os.utime(old, (long_ago, long_ago))
    remove_leftovers([str(tmp_path), str(tmp_path / "nowhere")])
    assert sorted(tmp_path.iterdir()) == sorted([own, parent, tmp_path / f"{PREFIX}notes", young])


def test_one_with_the_number_of_the_killed_one_clears_away_and_goes_on(store: Store, tmp_path: Path) -> None:
    # In a container that is started again every command has the number that it had before.
    own = temporary_name().split("-")
    started = own.index(str(os.getpid())) + 1
    own[started] = str(int(own[started]) - 1)
    out = tmp_path / "out"
    out.mkdir()
    (out / "-".join(own)).mkdir()
    assert store["r"].get("/", out) == len(FILES)
    assert contents(out) == FILES
    assert leftovers(out) == []


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_the_next_archive_clears_away_what_a_killed_one_left(store: Store, tmp_path: Path, call: str) -> None:
    (tmp_path / "out").mkdir()
    for _ in range(2):
        killed_at(1, call, lambda: write_archive(store, tmp_path / "out" / "archive"))
        assert len(list((tmp_path / "out").glob(f"{TEMPORARY}*"))) == 1
    write_archive(store, tmp_path / "out" / "other")
    assert {path.name for path in (tmp_path / "out").iterdir()} - {"archive"} == {"other"}


def test_the_next_index_clears_away_what_a_killed_one_left(store: Store) -> None:
    file = store.sql_index.file
    store.sql_index.rebuild(store.archive, store.ledger)
    for _ in range(2):
        killed_at(1, "replace", lambda: store.sql_index.rebuild(store.archive, store.ledger))
        assert len(list(file.parent.glob(f"{TEMPORARY}*"))) == 1
    journal = file.with_name(next(file.parent.glob(f"{TEMPORARY}*")).name + "-journal")
    journal.touch()
    store.sql_index.rebuild(store.archive, store.ledger)
    assert list(file.parent.glob(f"{TEMPORARY}*")) == []


def test_a_put_does_not_take_leftovers_along(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed_at(2, "rename", lambda: store["r"].get("/", out))
    (left,) = leftovers(out)
    (left if left.is_dir() else left.parent).joinpath("kept").write_bytes(b"")
    put = {info.path for info in store.put("copy", out).ls(recursive=True)}
    assert not any(PREFIX in path for path in put)
    assert "/a" in put
