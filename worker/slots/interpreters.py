"""Interpreters of declared environments, for Python functions.

A slot's child runs on the environment's own interpreter and sees its packages, and dmlpipe. What dmlpipe itself needs
there (`NEEDED`) comes from the worker where the environment lacks it, and nothing else does: a package that was not
declared is not there.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...storage.digest import digest
from ...storage.errors import ErrorCode, InvalidInputError
from ..job import Environment
from .environments import Provided

__all__ = ["NEEDED", "check_interpreter", "in_foreground", "installed_in", "interpreter", "needed_paths", "packages_of"]

NEEDED = ("msgspec", "blake3", "zstandard", "cloudpickle")
"""What a slot's child and a DAG's file import, beside dmlpipe."""

_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); sys.path.append(sys.argv[2])"
_SERVE = f"{_BOOT}; from dmlpipe.worker.child.zygote import main; main(int(sys.argv[3]))"
_ATTEND = (
    f"{_BOOT}; from dmlpipe.worker.child.foreground import main; "
    "main(*map(int, sys.argv[3:6]), debug=sys.argv[6] == 'debug')"
)
_TRY = f"{_BOOT}; import dmlpipe.worker.child.zygote, {', '.join(NEEDED)}; dmlpipe.DAG('try')"
_CHECK_S = 60.0
_SHOWN_LINES = 3


def interpreter(
    environment: Environment, provided: Provided, cache_dir: Path, environ: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the words that start a zygote on the environment's interpreter; its descriptor follows.

    Raises
    ------
    InvalidInputError
        There is no Python in it, or one that cannot run dmlpipe's child (code ``bad-spec``).
    """
    folder = provided.variables.get("VIRTUAL_ENV") or provided.variables.get("CONDA_PREFIX") or ""
    return check_interpreter(environment.name, Path(folder), environ, **needed_paths(cache_dir))


def check_interpreter(
    name: str, folder: Path, environ: Mapping[str, str], *, front: str = "", back: str = ""
) -> tuple[str, ...]:
    """Return the words that `interpreter` returns for the environment in `folder`, having tried them.

    Parameters
    ----------
    front, back
        Folders that stand before and after its own packages.

    Raises
    ------
    InvalidInputError
        As `interpreter`.
    """
    python = folder / "bin" / "python"
    words = (str(python), "-P", "-c")
    clean = {key: value for key, value in environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
    try:
        done = subprocess.run(
            [*words, _TRY, front, back],
            env=clean,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_CHECK_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise _cannot(name, f"{python} does not run: {err}") from err
    if done.returncode:
        said = "\n".join(done.stdout.strip().splitlines()[-_SHOWN_LINES:])
        raise _cannot(name, f"{python} cannot run functions:\n{said}")
    return (*words, _SERVE, front, back)


def in_foreground(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return what starts `child.foreground` in place of a zygote."""
    return tuple(_ATTEND if word == _SERVE else word for word in words)


def packages_of(words: tuple[str, ...]) -> list[str]:
    """Folders of the packages that an interpreter finds of its own, given what starts it."""
    return [str(path) for path in Path(words[0]).parent.parent.glob("lib/python*/site-packages")] if words else []


def installed_in(folders: Sequence[str], modules: Iterable[str]) -> dict[str, str]:
    """Versions of the packages in some folders that top-level modules belong to: distribution to version."""
    import importlib.metadata  # takes longer to import than all the rest here

    wanted = set(modules)
    found = {}
    for package in importlib.metadata.distributions(path=list(folders)):
        tops = (package.read_text("top_level.txt") or package.name.replace("-", "_")).split()
        if wanted & {*tops, package.name}:
            found[package.name] = package.version
    return found


def needed_paths(cache_dir: Path) -> dict[str, str]:
    """Folders with dmlpipe alone (`front`), and with what it needs (`back`); made in the cache."""
    package = Path(__file__).absolute().parents[2]
    needed = {name: place for name in NEEDED if (place := _place(name)) is not None}
    key = digest("\0".join([str(package), *map(str, needed.values())]).encode()).hex()[:16]
    front, back = (cache_dir / "interpreters" / key / side for side in ("dmlpipe", "needed"))
    _link(front / "dmlpipe", package)
    for place in needed.values():
        _link(back / place.name, place)
    return {"front": str(front), "back": str(back)}


def _place(name: str) -> Path | None:
    """Folder of a package."""
    found = importlib.util.find_spec(name)
    places = found.submodule_search_locations if found is not None else None
    return Path(next(iter(places))) if places else None


def _link(path: Path, to: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.symlink(to, path)
    except FileExistsError:
        return


def _cannot(name: str, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"the environment {name!r} has no interpreter for functions: {why}",
        code=ErrorCode.BAD_SPEC,
        hint=f"it needs Python 3.11 or later; of another one than the worker's, install {', '.join(NEEDED)} in it",
    )
