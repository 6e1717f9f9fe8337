"""Command lines of container programs: what a datum's command becomes where an image runs it. Pure, but for `find`.

Inputs are read-only binds, `/pfs/out` is a bind, variables go by name and come from the client's environment, so that
no value of them shows among the machine's processes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ...storage.errors import ErrorCode, InvalidInputError

PROGRAMS = ("podman", "docker", "apptainer")
"""In the order in which `auto` looks for them."""


class Mount(NamedTuple):
    """A folder or file of this machine inside the container."""

    source: str
    target: str
    read_only: bool = True


def find_program(wanted: str, path: str | None = None) -> str:
    """Return the container program that is there.

    Parameters
    ----------
    wanted
        One of `PROGRAMS`, or `auto`.
    path
        As `$PATH`; None: this process's.

    Raises
    ------
    InvalidInputError
        There is none (code ``bad-spec``).
    """
    for name in PROGRAMS if wanted == "auto" else (wanted,):
        if shutil.which(name, path=path):
            return name
    what = "docker, podman or apptainer" if wanted == "auto" else wanted
    raise InvalidInputError(
        f"a container is to run the command, and there is no {what} where the worker runs",
        code=ErrorCode.BAD_SPEC,
        hint="install it, or submit without --container",
    )


def container_name(place: str) -> str:
    """Name of the one container that a slot runs at a time."""
    return f"dmlpipe-{hashlib.sha256(os.path.realpath(place).encode()).hexdigest()[:16]}"


def container_words(
    program: str,
    image: str,
    argv: Sequence[str],
    *,
    name: str,
    mounts: Iterable[Mount],
    variables: Iterable[str],
    working_dir: str = "",
    user: str = "",
    uid: int = 0,
    gid: int = 0,
    stdin: bool = False,
) -> list[str]:
    """Words that run `argv` in `image`.

    Parameters
    ----------
    variables
        What `literal` says of them.
    user
        As declared; empty: the image's own (docker: this user, whose files the outputs must be).
    uid, gid
        Who runs the worker.
    """
    if program == "apptainer":
        words = ["apptainer", "exec", "--containall", "--no-home", "--writable-tmpfs"]
        for mount in mounts:
            words += ["--bind", f"{mount.source}:{mount.target}:{'ro' if mount.read_only else 'rw'}"]
        if working_dir:
            words += ["--pwd", working_dir]
        local = image.startswith(("/", ".")) or "://" in image
        return [*words, image if local else f"docker://{image}", *argv]
    words = [program, "run", "--rm", "--name", name]
    if stdin:
        words.append("-i")
    for mount in mounts:
        words += ["-v", f"{mount.source}:{mount.target}:{'ro' if mount.read_only else 'rw'}"]
    for variable in variables:
        words += ["--env", variable]
    if working_dir:
        words += ["-w", working_dir]
    if user or (program == "docker" and uid):
        words += ["--user", user or f"{uid}:{gid}"]
    return [*words, "--entrypoint", argv[0], image, *argv[1:]]


def passed(base: Mapping[str, str], variables: Mapping[str, str], declared: Mapping[str, str]) -> dict[str, str]:
    """The variables that go into a container.

    Parameters
    ----------
    base
        The worker's own: what is equal there stays outside.
    variables
        All that the command would see outside of a container.
    declared
        Those that the specification sets: `PATH` and the like go in only if it says so.
    """
    return {
        name: value
        for name, value in variables.items()
        if name in declared or (base.get(name) != value and name not in _OF_THE_MACHINE)
    }


def client_environment(program: str, base: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """Environment that the container program is started with, so that `variables` arrive inside.

    What the client itself needs (`PATH`, `HOME`) stays the worker's; see `literal`.
    """
    if program == "apptainer":
        return {**base, **{f"APPTAINERENV_{name}": value for name, value in variables.items()}}
    return {**base, **{name: value for name, value in variables.items() if name not in _OF_THE_MACHINE}}


def literal(variables: Mapping[str, str]) -> list[str]:
    """`--env` arguments: a name alone is read from the client's environment, where no other process sees its value."""
    return [f"{name}={value}" if name in _OF_THE_MACHINE else name for name, value in variables.items()]


_OF_THE_MACHINE = frozenset({"PATH", "HOME", "TMPDIR", "PWD", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV"})


def removal_words(program: str, name: str) -> list[str]:
    """Words that end a container whose client was killed; empty where it ends with its client."""
    return [] if program == "apptainer" else [program, "rm", "--force", name]
