"""Declared environments of commands, made where the worker runs: one folder per lock file and interpreter.

Who finds none makes it, one process at a time, and starts over what somebody left half made; nothing is changed in a
complete one. How long they stay, `kept_environments` says.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...storage.digest import digest
from ...storage.errors import ErrorCode, InvalidInputError
from ..job import Environment
from .code import make_code
from .files import ContentStore
from .kept_environments import keep

_SHOWN_LINES = 5
_CONDAS = ("micromamba", "mamba", "conda")


class Provided(NamedTuple):
    """What a command needs to run in its environment."""

    variables: dict[str, str]
    """Beside those it has; `PATH` is whole."""
    prefix: tuple[str, ...] = ()
    """Words before its own."""


NOTHING = Provided({})


def provide(
    environment: Environment | None, store: ContentStore, cache_dir: Path, environ: Mapping[str, str]
) -> Provided:
    """Return what runs a command in its environment, having made it if need be.

    Raises
    ------
    InvalidInputError
        It cannot be made here (code ``bad-spec``): the message has the last lines of who tried.

    Notes
    -----
    The first time of a lock file on a host costs its installation.
    """
    if environment is None:
        return NOTHING
    if environment.kind == "modules":
        # A login shell defines `module`; the words behind it are the command's own.
        script = f'{environment.name} && exec "$@"'
        return Provided({}, ("bash", "-lc", script, "dmlpipe"))
    if environment.kind == "folder":
        folder = Path(environment.name)
        if not (folder / "bin").is_dir():
            raise _cannot(environment, f"there is no {folder}/bin where the worker runs")
        return _inside(folder, "VIRTUAL_ENV" if (folder / "pyvenv.cfg").exists() else "CONDA_PREFIX", environ)
    lock = make_code(store, environment.tree, cache_dir / "code") / environment.file
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = digest(lock.read_bytes() + f"\0{environment.kind}\0{python}".encode()).hex()[:32]
    folder = cache_dir / "envs" / name
    keep(folder, lambda: _make(environment, lock, folder, environ))
    return _inside(folder, "VIRTUAL_ENV" if environment.kind == "venv" else "CONDA_PREFIX", environ)


def _inside(folder: Path, variable: str, environ: Mapping[str, str]) -> Provided:
    path = os.pathsep.join((str(folder / "bin"), environ.get("PATH", os.defpath)))
    return Provided({"PATH": path, variable: str(folder)})


def _make(environment: Environment, lock: Path, folder: Path, environ: Mapping[str, str]) -> None:
    if environment.kind == "venv":
        # Our own pip serves it too, where there is one: installing another takes longer than most lock files.
        shared = importlib.util.find_spec("pip") is not None
        _call(environment, [sys.executable, "-m", "venv", *["--without-pip"] * shared, str(folder)], environ)
        python = str(folder / "bin" / "python")
        pip = [sys.executable, "-m", "pip", "--python", python] if shared else [python, "-m", "pip"]
        quiet = ["--disable-pip-version-check", "--no-input"]
        _call(environment, [*pip, "install", *quiet, "-r", str(lock)], environ)
        return
    program = next((name for name in _CONDAS if shutil.which(name, path=environ.get("PATH"))), None)
    if program is None:
        raise _cannot(environment, f"none of {', '.join(_CONDAS)} is there")
    words = ["create"] if program == "micromamba" else ["env", "create"]
    _call(environment, [program, *words, "--yes", "-p", str(folder), "-f", str(lock)], environ)


def _call(environment: Environment, words: Sequence[str], environ: Mapping[str, str]) -> None:
    kept = {name: value for name, value in environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        words,
        env=kept,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        lines = done.stdout.strip().splitlines()[-_SHOWN_LINES:]
        # The first line is all that tables show.
        why = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "")
        said = "\n".join([f"{os.path.basename(words[0])} ended with exit code {done.returncode}: {why}", *lines])
        raise _cannot(environment, said)


def _cannot(environment: Environment, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"the environment {environment.name!r} cannot be had: {why}",
        code=ErrorCode.BAD_SPEC,
        hint="make it where the worker runs, or declare another one with env=",
    )
