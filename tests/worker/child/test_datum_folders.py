"""Datums that the child lays out: each finds what it was given and nothing of the one before, whatever that did."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dmlpipe.worker.child.collect import collect_folder
from dmlpipe.worker.child.datum_folders import DatumFolders
from dmlpipe.worker.child.wire import Given, Payload, Result


def payload(number: int = 0, path: str = "") -> Payload:
    given = {"x": Given("file", path or f"{number}.txt", b"content %d" % number), "v": Given("value", value=number)}
    return Payload("id", given, unlaid=True)


def laid_out(folders: DatumFolders, number: int = 0, path: str = "") -> Payload:
    (one,) = folders.lay_out([payload(number, path)])
    return one


def collect(folders: DatumFolders, one: Payload) -> dict[str, bytes]:
    return {output.path: output.data for output in collect_folder(one.out, listed=folders.listed)}


def changed(folders: DatumFolders) -> str:
    return folders.judged((Result(0),))[0].changed


@pytest.fixture(params=[True, False], ids=["alone", "watched"])
def alone(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


@pytest.fixture
def folders(tmp_path: Path) -> DatumFolders:
    root = tmp_path / "own"
    root.mkdir()
    return DatumFolders(str(root), out=True)


@pytest.fixture
def umask() -> Iterator[None]:
    old = os.umask(0o022)
    yield
    os.umask(old)


def is_right(folders: DatumFolders, number: int) -> Payload:
    """Lay a datum out and look at all that its user code would see."""
    one = laid_out(folders, number)
    path = Path(one.given["x"].path)
    berth = Path(one.out).parent
    assert path.read_bytes() == b"content %d" % number
    assert path.stat().st_mode & 0o7777 == 0o444
    assert os.listdir(path.parent) == [path.name]
    assert os.listdir(one.out) == []
    assert sorted(os.listdir(berth)) == ["out", "x"]
    modes = {(folder.lstat().st_mode & 0o7777) for folder in (berth, path.parent, Path(one.out))}
    assert modes == {berth.parent.stat().st_mode & 0o7777}
    assert one.given["v"].value == number
    return one


def test_folders_are_used_again_under_other_names(folders: DatumFolders) -> None:
    seen = set()
    inodes = set()
    for number in range(4):
        one = is_right(folders, number)
        Path(one.out, "result").write_bytes(b"result")
        os.symlink("result", f"{one.out}/link")
        assert collect(folders, one) == {"result": b"result", "link": b"result"}
        assert changed(folders) == ""
        assert not folders.slow
        seen |= {one.out, one.given["x"].path}
        inodes |= {os.stat(one.out).st_ino, os.stat(Path(one.given["x"].path).parent).st_ino}
        folders.clear(alone=True)
    assert (len(seen), len(inodes)) == (8, 2)


def test_what_may_be_held_open_never_comes_back(folders: DatumFolders) -> None:
    one = laid_out(folders)
    out = os.open(one.out, os.O_RDONLY)
    folders.clear(alone=False)
    with pytest.raises(FileNotFoundError):
        os.open("late", os.O_CREAT | os.O_WRONLY, dir_fd=out)
    os.close(out)
    is_right(folders, 1)


def _beside(one: Payload) -> None:
    Path(one.out).parent.joinpath("beside").mkdir()
    Path(one.out).parent.joinpath("beside", "deep").write_bytes(b"x")


def _in_input(one: Payload) -> None:
    folder = Path(one.given["x"].path).parent
    folder.joinpath("mine").write_bytes(b"x")
    folder.joinpath("deep").mkdir()
    folder.joinpath("deep", "mine").write_bytes(b"x")


def _deep(one: Payload) -> None:
    Path(one.out, "a/b").mkdir(parents=True)
    Path(one.out, "a/b/c").write_bytes(b"x")


def _empty(one: Payload) -> None:
    Path(one.out, "empty").mkdir()


def _many(one: Payload) -> None:
    for number in range(300):
        Path(one.out, str(number)).touch()


def _no_out(one: Payload) -> None:
    shutil.rmtree(one.out)


def _no_input(one: Payload) -> None:
    shutil.rmtree(Path(one.given["x"].path).parent)


def _nothing(one: Payload) -> None:
    shutil.rmtree(Path(one.out).parent)


def _modes(one: Payload) -> None:
    os.chmod(one.out, 0o700)


def _berth_mode(one: Payload) -> None:
    os.chmod(Path(one.out).parent, 0o700)


def _moved(one: Payload) -> None:
    berth = Path(one.out).parent
    os.rename(berth, berth.with_name(f"moved-{berth.name}"))


def _file_for_out(one: Payload) -> None:
    os.rmdir(one.out)
    Path(one.out).write_bytes(b"x")


def _swapped(one: Payload) -> None:
    berth = Path(one.out).parent
    os.rename(berth / "x", berth / "y")
    os.rename(berth / "out", berth / "x")
    os.rename(berth / "y", berth / "out")


def _descriptors(one: Payload) -> None:
    """Close those of the folders, and open a file that gets their numbers."""
    path = Path(one.given["x"].path)
    wanted = {os.stat(folder).st_ino for folder in (one.out, path.parent, path.parents[1])}
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.fstat(int(name)).st_ino in wanted:
                other = os.open(os.devnull, os.O_RDONLY)
                os.dup2(other, int(name))
                os.close(other)
        except OSError:
            continue


MISCHIEF = [
    _beside,
    _in_input,
    _deep,
    _empty,
    _many,
    _no_out,
    _no_input,
    _nothing,
    _modes,
    _berth_mode,
    _moved,
    _file_for_out,
    _swapped,
    _descriptors,
]


@pytest.mark.parametrize("mischief", MISCHIEF)
@pytest.mark.parametrize("collected", [True, False], ids=["collected", "failed"])
def test_what_a_datum_leaves_does_not_reach_the_next(
    folders: DatumFolders, mischief: Callable[[Payload], None], *, alone: bool, collected: bool
) -> None:
    is_right(folders, 0)
    folders.clear(alone=alone)
    for number in (1, 2):
        one = is_right(folders, number)
        mischief(one)
        if mischief in (_beside, _in_input, _deep, _modes, _descriptors):
            assert changed(folders) == ""
        if collected and os.path.isdir(one.out):
            collect(folders, one)
        folders.clear(alone=alone)
    is_right(folders, 3)


def test_no_link_is_followed_where_a_folder_was(folders: DatumFolders, tmp_path: Path, *, alone: bool) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "1.txt").write_bytes(b"theirs")
    for number, name in ((1, "x"), (2, "out")):
        one = is_right(folders, number)
        berth = Path(one.out).parent
        os.rename(berth / name, tmp_path / f"gone-{name}")
        os.symlink(victim, berth / name)
        folders.clear(alone=alone)
        assert (victim / "1.txt").read_bytes() == b"theirs"
    is_right(folders, 3)


def _append(path: Path) -> None:
    path.chmod(0o644)
    with path.open("ab") as file:
        file.write(b"more")


def _replace(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    path.chmod(0o444)


@pytest.mark.parametrize("change", [_append, _replace, Path.unlink, lambda path: path.chmod(0o600)])
def test_a_changed_input_is_named_and_is_right_for_the_next(
    folders: DatumFolders, change: Callable[[Path], None]
) -> None:
    one = laid_out(folders, 7)
    change(Path(one.given["x"].path))
    assert changed(folders) == "x/7.txt"
    folders.clear(alone=True)
    is_right(folders, 7)
    assert changed(folders) == ""


def test_a_batch_has_a_folder_for_each(folders: DatumFolders) -> None:
    told = Payload("id", {"x": Given("path", "/elsewhere")}, out="/elsewhere/out")
    first, other, second = folders.lay_out([payload(1), told, payload(2)])
    assert other is told
    assert Path(first.out).parent != Path(second.out).parent
    Path(second.given["x"].path).unlink()
    assert [result.changed for result in folders.judged((Result(0), Result(0), Result(0)))] == ["", "", "x/2.txt"]
    folders.clear(alone=True)
    assert [one.out for one in folders.lay_out([payload(1), payload(2)])] != [first.out, second.out]


def test_inputs_may_lie_in_folders_of_their_own_and_be_called_out(folders: DatumFolders) -> None:
    for number in range(3):
        given = {"out": Given("file", "a/b/c", b"%d" % number)}
        (one,) = folders.lay_out([Payload("id", given, unlaid=True)])
        assert os.listdir(one.out) == []
        assert Path(one.given["out"].path).read_bytes() == b"%d" % number
        assert one.given["out"].path.endswith("/out/a/b/c")
        folders.clear(alone=True)


@pytest.mark.usefixtures("umask")
def test_a_umask_of_user_code_reaches_no_folder_of_another(folders: DatumFolders) -> None:
    os.umask(0o777)
    is_right(folders, 1)
    folders.clear(alone=True)
    is_right(folders, 2)


def test_outputs_that_take_long_to_remove_are_told(folders: DatumFolders) -> None:
    for leave, slow in ((_empty, True), (_many, True), (lambda one: Path(one.out, "a").touch(), False)):
        one = laid_out(folders)
        leave(one)
        assert folders.slow, "of a datum that failed nothing is known"
        collect(folders, one)
        assert folders.slow is slow
        folders.clear(alone=True)


@pytest.mark.parametrize("path", ["w" * 256, "/".join(["d" * 200] * 25)])
def test_what_cannot_be_laid_out_leaves_nothing(folders: DatumFolders, path: str) -> None:
    with pytest.raises(OSError, match="too long"):
        laid_out(folders, 1, path)
    folders.clear(alone=False)
    is_right(folders, 2)
