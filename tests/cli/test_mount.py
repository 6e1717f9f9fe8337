from __future__ import annotations

import builtins
import errno
import os
import stat
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dmlpipe.cli.verbs import mount

from .conftest import Cli


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that lets us mount."""
    (tmp_path / "fuse").touch()
    monkeypatch.setattr(mount, "_DEVICE", tmp_path / "fuse")


def library(monkeypatch: pytest.MonkeyPatch, mounted: Callable[..., None]) -> None:
    """Put a module in the place of fusepy, whose `FUSE` calls `mounted`."""
    fake: Any = types.ModuleType("fuse")
    fake.FUSE = mounted
    fake.FuseOSError = OSError
    fake.Operations = fake.LoggingMixIn = object
    monkeypatch.setitem(sys.modules, "fuse", fake)
    monkeypatch.delitem(sys.modules, "fsspec.fuse", raising=False)


def test_a_commit_is_a_folder_that_nobody_writes(
    cli: Cli, store: Path, here: Path, device: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def mounted(ops: Any, place: str, **options: Any) -> None:
        seen.update(options, place=place, root=sorted(ops.readdir("/", None)), sub=ops.readdir("/sub", None))
        seen["file"], seen["folder"] = ops.getattr("/a.txt"), ops.getattr("/sub")
        handle = ops.open("/a.txt", os.O_RDONLY)
        seen["read"] = ops.read("/a.txt", 5, 6, handle)
        ops.release("/a.txt", handle)
        with pytest.raises(OSError) as caught:
            ops.create("/new", 0o600)
        seen["errno"] = caught.value.errno
        with pytest.raises(OSError) as missing:
            ops.getattr("/none")
        seen["missing"] = missing.value.args[0]

    library(monkeypatch, mounted)
    (here / "at").mkdir()
    try:
        answer = cli("mount", "images", "at")
    finally:
        sys.modules.pop("fsspec.fuse", None)
    assert (answer.code, seen["place"], seen["foreground"], seen["ro"]) == (0, "at", True, True)
    assert answer.err.startswith("note: images@")
    assert (seen["root"], seen["sub"]) == ([".", "..", "a.txt", "sub"], [".", "..", "b.txt"])
    assert seen["read"] == b"again"
    assert (seen["errno"], seen["missing"]) == (errno.EROFS, errno.ENOENT)
    assert (seen["file"]["st_mode"], seen["file"]["st_size"]) == (stat.S_IFREG | 0o444, 12)
    assert (seen["folder"]["st_mode"], seen["folder"]["st_uid"]) == (stat.S_IFDIR | 0o555, os.getuid())


def test_what_is_lacking_is_said(
    cli: Cli, store: Path, here: Path, tmp_path: Path, device: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "at").mkdir()
    monkeypatch.setitem(sys.modules, "fuse", None)
    monkeypatch.delitem(sys.modules, "fsspec.fuse", raising=False)
    answer = cli("mount", "images", "at")
    assert (answer.code, answer.out) == (2, "")
    assert "mounting needs fusepy" in answer.err
    assert "pip install fusepy; or copy the files instead: dmlpipe get" in answer.err

    monkeypatch.delitem(sys.modules, "fuse")
    real = builtins.__import__

    def no_library(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "fuse":
            raise OSError("Unable to find libfuse")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_library)
    answer = cli("mount", "images", "at")
    assert (answer.code, "mounting needs libfuse 2: Unable to find libfuse" in answer.err) == (2, True)
    assert "libfuse2" in answer.err
    monkeypatch.setattr(builtins, "__import__", real)

    (tmp_path / "fuse").unlink()
    answer = cli("mount", "images", "at")
    assert (answer.code, "no access to" in answer.err) == (2, True)


def test_fuse_that_gives_up_is_an_error(
    cli: Cli, store: Path, here: Path, device: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mounted(*args: Any, **options: Any) -> None:
        raise RuntimeError(1)

    library(monkeypatch, mounted)
    (here / "at").mkdir()
    try:
        answer = cli("mount", "images", "at")
    finally:
        sys.modules.pop("fsspec.fuse", None)
    assert (answer.code, "at cannot be mounted: FUSE gave up (1)" in answer.err) == (2, True)


def test_only_folders_are_mounted_and_only_on_empty_ones(cli: Cli, store: Path, here: Path, device: None) -> None:
    for words, said in (
        (("images:/a.txt", "at"), "is a file"),
        (("images", "at"), "at is no empty folder"),
        (("images", "week"), "week is no empty folder"),
    ):
        answer = cli("mount", *words)
        assert (answer.code, said in answer.err) == (2, True)
    assert cli("mount", "images:/none", "at").code == 1
