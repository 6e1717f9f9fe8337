"""What killed processes leave in a store that is a folder: the next one that writes there gives the space back."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from dmlpipe.storage.backend.local import LocalBackend
from dmlpipe.storage.backend.temporaries import LARGE_BYTES
from dmlpipe.storage.leftovers import TEMPORARY
from dmlpipe.storage.store import Store

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

LARGE = random.Random(1).randbytes(9 << 20)


def temporaries(root: Path) -> list[Path]:
    return list(root.rglob(f"{TEMPORARY}*"))


def killed_at_link(work: Callable[[], object]) -> None:
    """Carry out `work` in a process that is killed when something of more than a few bytes is to become an object."""
    child = os.fork()
    if child == 0:
        real = os.link

        def link(temporary: str, path: str) -> None:
            if os.stat(temporary).st_size > 1000:
                os.kill(os.getpid(), signal.SIGKILL)
            real(temporary, path)

        os.link = link  # type: ignore[assignment]
        try:
            work()
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "it came to its end"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    made.put("r", ("first", b"1"))
    return made


@pytest.mark.parametrize("what", ["large-file", "file", "small-files", "bytes"])
def test_the_next_put_gives_back_the_space_of_one_that_was_killed(store: Store, tmp_path: Path, what: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    match what:
        case "large-file":
            (source / "large").write_bytes(LARGE * 3)
        case "file":
            (source / "file").write_bytes(LARGE)
        case "small-files":
            for number in range(300):
                (source / f"{number}").write_bytes(random.Random(number).randbytes(10_000))
        case _:
            pass
    root = tmp_path / "store"
    put = Store.open(root, cache_dir=tmp_path / "cache")
    killed_at_link(lambda: put.put("r", ("bytes", LARGE) if what == "bytes" else source))
    left = temporaries(root)
    assert sum(path.stat().st_size for path in left) > 1 << 20
    assert {path.parent for path in left} == {root}
    Store.open(root, cache_dir=tmp_path / "cache").put("r", ("second", b"2"))
    assert temporaries(root) == []
    assert store["r"].read_bytes("second") == b"2"
    assert store.fsck().ok


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    going, go = os.pipe()
    child = os.fork()
    if child == 0:
        draft = LocalBackend(tmp_path).draft()
        draft.write(LARGE)
        os.write(writing, b"w")
        os.read(going, 1)
        os._exit(0 if draft.put_if_absent("theirs") else 1)
    assert os.read(reading, 1) == b"w"
    assert LocalBackend(tmp_path).put_if_absent("ours", b"1")
    assert len(temporaries(tmp_path)) == 1
    os.write(go, b"g")
    assert os.waitpid(child, 0)[1] == 0
    assert LocalBackend(tmp_path).get("theirs") == LARGE


def test_only_the_root_is_looked_at_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = LocalBackend(tmp_path)
    backend.put_if_absent("a/b/c", b"1")
    looked: list[str] = []
    scandir = os.scandir

    def scan(path: str) -> object:
        looked.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    again = LocalBackend(tmp_path)
    assert again.get("a/b/c") == b"1"
    assert looked == []
    for number in range(3):
        again.put_if_absent(f"a/b/{number}", bytes(LARGE_BYTES))
        again.draft().drop()
    assert looked == [str(tmp_path)]
