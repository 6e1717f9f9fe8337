"""Declared environments: what third-party code a pipeline runs with, and what of that counts."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...storage.digest import digest
from ...storage.errors import ErrorCode, InvalidInputError
from ...worker.job import Environment

if TYPE_CHECKING:
    from ..identity.bundle import BundleFile

_MODULES = "module load "


@dataclass(frozen=True, slots=True)
class DeclaredEnvironment:
    """What `env=` of a command says."""

    identity: str
    """Part of every fingerprint."""
    environment: Environment | None = None
    """What a worker provides; None: a container does."""
    image: str = ""


def check_env(env: object, what: str) -> None:
    """Refuse an `env=` that is no text.

    Raises
    ------
    InvalidInputError
        `BAD_SPEC`.
    """
    if env is None or isinstance(env, str):
        return
    kind = "a list" if isinstance(env, list | tuple) else f"a {type(env).__name__}"
    raise InvalidInputError(
        f"{what}: env= is one environment, got {kind}",
        code=ErrorCode.BAD_SPEC,
        hint="several modules are one line (module load a b); all else belongs into one requirements or conda file",
    )


def declared_env(env: str, folders: Sequence[Path]) -> str:
    """Identity of a declared environment: the hash of a file, or the digest of an image.

    Parameters
    ----------
    folders
        Where the file may be, in order.

    Raises
    ------
    InvalidInputError
        `BAD_SPEC`: neither a file nor an image with a digest.
    """
    _, marker, image_digest = env.partition("sha256:")
    if marker:
        if len(image_digest) == 64 and all(letter in "0123456789abcdef" for letter in image_digest):
            return f"sha256:{image_digest}"
        raise InvalidInputError(f"env={env!r}: sha256: is followed by 64 hex digits", code=ErrorCode.BAD_SPEC)
    found = _find(env, folders)
    if found is not None and found.is_file():
        return digest(found.read_bytes()).hex()
    here = folders[0] if folders else Path()
    near = difflib.get_close_matches(env, [item.name for item in here.iterdir() if item.is_file()], 1)
    raise InvalidInputError(
        f"env={env!r}: no such file in {here}, and no image with its digest (name@sha256:...)",
        code=ErrorCode.BAD_SPEC,
        hint=f"did you mean {near[0]!r}?" if near else None,
    )


def command_environment(
    env: str, folders: Sequence[Path], put_bundle: Callable[[dict[str, BundleFile]], str]
) -> DeclaredEnvironment:
    """What `env=` of a command declares: more than `declared_env` knows, and something that a worker can make.

    Parameters
    ----------
    env
        A requirements or lock file; a conda environment file (``*.yml``, ``*.yaml``); the folder of a virtual or conda
        environment, the same wherever workers run; ``module load samtools/1.19``; an image with its digest.

    Raises
    ------
    InvalidInputError
        `BAD_SPEC`: it is none of these.
    """
    if env.startswith(_MODULES):
        return DeclaredEnvironment(digest(" ".join(env.split()).encode()).hex(), Environment(kind="modules", name=env))
    found = _find(env, folders)
    if found is not None and found.is_dir():
        return DeclaredEnvironment(_installed(env, found), Environment(kind="folder", name=str(found.resolve())))
    identity = declared_env(env, folders)
    if found is None:
        return DeclaredEnvironment(identity, image=env)
    content = found.read_bytes()
    kind = "conda" if found.suffix in (".yml", ".yaml") else "venv"
    tree = put_bundle({found.name: (content, 0o644)})
    return DeclaredEnvironment(identity, Environment(kind=kind, name=env, tree=tree, file=found.name))


def function_environment(
    env: str, folders: Sequence[Path], put_bundle: Callable[[dict[str, BundleFile]], str]
) -> tuple[DeclaredEnvironment, str]:
    """What `env=` of a Python pipeline declares, and a sentence about it, or none.

    A requirements file, a conda environment file and a folder are provided where the worker runs: functions run on that
    interpreter. An image by its digest, and a lock file that pip does not read, are recorded and count, no more.

    Raises
    ------
    InvalidInputError
        `BAD_SPEC`: it is none of these, or the interpreter of a folder cannot run functions.
    """
    if env.startswith(_MODULES):
        raise InvalidInputError(
            f"env={env!r}: modules are for commands; a function runs in an interpreter that has started already",
            code=ErrorCode.BAD_SPEC,
            hint="load them where the workers are started, or declare a requirements file",
        )
    found = _find(env, folders)
    if found is not None and found.is_file() and found.suffix not in _MADE:
        why = f"env={env!r} is recorded and counts, and is not made: functions run in the worker's interpreter"
        return DeclaredEnvironment(declared_env(env, folders)), f"{why} (what can be made: {', '.join(_MADE)})"
    declared = command_environment(env, folders, put_bundle)
    if declared.image:
        why = f"env={env!r} is recorded and counts; functions run in the interpreter of workers started in that image"
        return DeclaredEnvironment(declared.identity), why
    if found is not None and found.is_dir():
        # Only here: every child that runs user code imports this module, and hardly any needs those.
        from ...storage.info import default_cache_dir
        from ...worker.slots.interpreters import check_interpreter, needed_paths

        check_interpreter(env, found.resolve(), os.environ, **needed_paths(default_cache_dir()))
    return declared, ""


_MADE = (".txt", ".in", ".yml", ".yaml")


def _find(env: str, folders: Sequence[Path]) -> Path | None:
    return next((folder / env for folder in folders if (folder / env).exists()), None)


def _installed(env: str, folder: Path) -> str:
    """Identity of an environment that is there: the names and versions of what is installed in it."""
    conda = folder / "conda-meta"
    if conda.is_dir():
        names = [path.stem for path in conda.glob("*.json")]
    elif (folder / "pyvenv.cfg").is_file():
        names = [path.name for path in folder.glob("lib/python*/site-packages/*.dist-info")]
        names += [path.name for path in folder.glob("lib/python*")]
    else:
        raise InvalidInputError(
            f"env={env!r}: {folder} is no virtual environment (pyvenv.cfg) and none of conda's (conda-meta)",
            code=ErrorCode.BAD_SPEC,
        )
    return digest(json.dumps(sorted(names)).encode()).hex()
