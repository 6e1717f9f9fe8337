"""Folders that datums are laid out in: used again, but never with anything of an earlier datum in or behind them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dmlpipe.worker.child.berths import Berth, Berths


@pytest.fixture
def berths(tmp_path: Path) -> Berths:
    return Berths(str(tmp_path))


def laid_out(berths: Berths, owner: object) -> Berth:
    berth = berths.take(owner)
    folder = berth.keep(berth.path, "in")
    berths.stock.make_all(f"{folder}/a/b")
    Path(folder, "a/b/file").write_bytes(b"x")
    berth.write(folder, ".env", b"long" * 10)
    return berth


def test_what_is_removed_comes_back_empty_under_another_name(berths: Berths) -> None:
    berth = laid_out(berths, "job")
    first = berth.fresh("out")
    inode = os.stat(first).st_ino
    Path(first, "deep").mkdir()
    berths.give_back(berth, "job", reuse=True)
    assert sorted(os.listdir(berth.path)) == ["in", "out-1"]
    assert os.listdir(f"{berth.path}/in") == [".env"]
    assert berths.take("job") is berth
    second = berth.fresh("out")
    assert (os.stat(second).st_ino, os.listdir(second), os.path.exists(first)) == (inode, [], False)


def test_what_may_be_held_open_never_comes_back(berths: Berths) -> None:
    berth = laid_out(berths, "job")
    held = os.open(berth.fresh("out"), os.O_RDONLY)
    berths.give_back(berth, "job", reuse=False)
    berths.take("job").fresh("out")
    with pytest.raises(FileNotFoundError):
        os.open("late", os.O_CREAT | os.O_WRONLY, dir_fd=held)
    os.close(held)


def _mode(folder: str) -> None:
    os.chmod(folder, 0o777)


def _large(folder: str) -> None:
    for number in range(3000):
        Path(folder, f"{number:0200d}").touch()


@pytest.mark.parametrize("change", [_mode, _large], ids=["mode", "size"])
def test_a_folder_that_was_changed_is_removed(berths: Berths, change: Callable[[str], None]) -> None:
    berth = berths.take("job")
    out = berth.fresh("out")
    change(out)
    if os.stat(out).st_size <= 64 << 10 and change is _large:
        pytest.skip("folders do not grow on this file system")
    berths.give_back(berth, "job", reuse=True)
    assert os.listdir(berth.path) == []


def _link(env: str) -> None:
    os.link(env, env + "-elsewhere")


def _symlink(env: str) -> None:
    os.rename(env, env + "-elsewhere")
    os.symlink(env + "-elsewhere", env)


def _folder(env: str) -> None:
    os.rename(env, env + "-elsewhere")
    os.mkdir(env)


def _pipe(env: str) -> None:
    os.rename(env, env + "-elsewhere")
    os.mkfifo(env)


@pytest.mark.parametrize("mischief", [_link, _symlink, _folder, _pipe])
def test_a_kept_file_is_written_over_only_while_it_is_ours(
    berths: Berths, tmp_path: Path, mischief: Callable[[str], None]
) -> None:
    berth = laid_out(berths, "job")
    env = f"{berth.path}/in/.env"
    mischief(env)
    os.rename(env + "-elsewhere", tmp_path / "elsewhere")
    berths.give_back(berth, "job", reuse=True)
    berth = berths.take("job")
    berth.write(berth.keep(berth.path, "in"), ".env", b"new")
    assert Path(berth.path, "in/.env").read_bytes() == b"new"
    assert (tmp_path / "elsewhere").read_bytes() == b"long" * 10


def test_a_kept_folder_that_was_replaced_costs_the_berth_and_nothing_else(berths: Berths, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "mine").touch()
    berth = laid_out(berths, "job")
    os.rename(f"{berth.path}/in", tmp_path / "gone")
    os.symlink(victim, f"{berth.path}/in")
    berths.give_back(berth, "job", reuse=True)
    assert os.listdir(victim) == ["mine"]
    assert not os.path.exists(berth.path)
    assert berths.take("job") is not berth
