"""Commands: checked words, what counts of them, and the version that is recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ...storage.digest import digest
from ...storage.errors import ErrorCode, NotFoundError
from ...worker.child.container import PROGRAMS
from ...worker.child.secrets import counted
from ...worker.job import CommandTransform
from .declared import Declared, Home, PutBundle
from .environment import DeclaredEnvironment
from .spec import Definition, PipelineSpec, bad_spec

if TYPE_CHECKING:
    from ..identity.bundle import BundleFile


def make_command(
    name: str,
    command: str | Sequence[str],
    *,
    stdin: Sequence[str] = (),
    variables: Mapping[str, str],
    working_dir: str = "",
    accept: Sequence[int] = (),
    err_cmd: Sequence[str] = (),
    err_stdin: Sequence[str] = (),
    user: str = "",
    batching: bool = False,
    batch: int = 0,
    image: str = "",
    container: str = "",
) -> CommandTransform:
    """Check what was declared of a command; see `DAG.command`.

    Raises
    ------
    InvalidInputError
        `BAD_SPEC`, naming what is wrong.
    """
    if isinstance(command, str):
        if not command.strip():
            raise bad_spec(f"command {name!r} is empty")
        argv: tuple[str, ...] = ("bash", "-euo", "pipefail", "-c", command)
    else:
        argv = _words(name, "command", command)
        if not argv or not argv[0]:
            raise bad_spec(f"command {name!r}: expected a line or a list of texts, got {command!r}")
    if not all(isinstance(code, int) and not isinstance(code, bool) for code in accept):
        raise bad_spec(f"command {name!r}: accept: expected exit codes, got {accept!r}")
    for key, value in variables.items():
        if not isinstance(key, str) or not isinstance(value, str) or not key or "=" in key:
            raise bad_spec(f"command {name!r}: variables: expected names and texts, got {key!r}: {value!r}")
    if container and container not in (*PROGRAMS, "auto"):
        raise bad_spec(f"command {name!r}: container: expected {', '.join(PROGRAMS)} or auto, got {container!r}")
    if bool(container) != bool(image):
        raise bad_spec(f"command {name!r}: image= says what container= runs; give both or none")
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 0:
        raise bad_spec(f"command {name!r}: batch: expected a number of datums, got {batch!r}")
    return CommandTransform(
        argv=argv,
        shell=isinstance(command, str),
        stdin=_words(name, "stdin", stdin),
        env=dict(variables),
        working_dir=working_dir,
        accept_return_code=tuple(accept),
        err_argv=_words(name, "err_cmd", err_cmd),
        err_stdin=_words(name, "err_stdin", err_stdin),
        user=user,
        batching=batching or bool(batch),
        batch=batch,
        image=image,
        container=container,
    )


def command_spec(
    declared: Declared,
    home: Home,
    parameters: Mapping[str, Any],
    environment: DeclaredEnvironment | None = None,
    *,
    put_bundle: PutBundle,
) -> PipelineSpec:
    """Spec of a command without its DAG's name, env and git state."""
    command = declared.transform
    assert isinstance(command, CommandTransform)
    if declared.code is not None:
        included = read_folder(home.folder / declared.code)
    else:
        # Only here: every child that runs user code imports this module, and follows no code.
        from ..identity.bundle import included_files

        included = included_files(declared.include, base=home.folder, root=home.folder)
    transform = msgspec.structs.replace(command, code=put_bundle(dict(included)) if included else "")
    if environment is not None:
        transform = with_environment(transform, environment, f"command {declared.name!r}")
    file = "" if home.file is None else home.file.relative_to(home.root).as_posix()
    return PipelineSpec(
        name=declared.name,
        input=declared.input,
        transform=transform,
        code_id=command_code_id(transform, code_hash(included), secrets=declared.options.secrets),
        parameters={**declared.parameters, **parameters},
        standing=declared.standing,
        salt=declared.salt,
        by_content=declared.by_content,
        options=declared.options,
        definitions=command_definitions(transform, file, declared.line, included),
        source=f"{file}:{declared.line}" if file else "",
    )


def with_environment(transform: CommandTransform, environment: DeclaredEnvironment, what: str) -> CommandTransform:
    """Let a command run in the environment that is declared for it.

    Raises
    ------
    InvalidInputError
        It has an image of its own, which says what it runs with (code ``bad-spec``).
    """
    if transform.container:
        raise bad_spec(f"{what}: env= says what the command runs with, and so does its image; leave one of them out")
    if environment.image:
        return msgspec.structs.replace(transform, image=environment.image, container="auto")
    return msgspec.structs.replace(transform, environment=environment.environment)


def read_folder(folder: Path) -> dict[str, BundleFile]:
    """Read the files of a code folder: relative path to (content, mode).

    Raises
    ------
    NotFoundError
        There is no such folder.
    """
    if not folder.is_dir():
        raise NotFoundError(f"{folder}: no such folder", code=ErrorCode.NO_FILE)
    found = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
        if path.is_file() and not hidden:
            found[relative.as_posix()] = (path.read_bytes(), path.stat().st_mode & 0o777)
    return found


def code_hash(files: Mapping[str, BundleFile]) -> str:
    """Hash of a code folder: paths, whether they are executable, bytes; hex, empty for no files."""
    if not files:
        return ""
    listed = [[path, bool(mode & 0o111), digest(data).hex()] for path, (data, mode) in sorted(files.items())]
    return json_digest(listed)


def command_code_id(transform: CommandTransform, code: str, *, secrets: Sequence[str] = ()) -> str:
    """Code id of a command: all that decides what it does.

    Parameters
    ----------
    code
        Hash of its code folder (`code_hash`); the tree's id does not count, since a plan that writes nothing has none.
    secrets
        Names of the secrets it gets.
    """
    # What is added here must be absent where it is not used: code ids are compared over years.
    more: dict[str, object] = {}
    if transform.user:
        more["user"] = transform.user
    if transform.batching:
        more["batching"] = True
    if transform.container:
        more["image"] = transform.image
    from ..identity.code import command_identity

    return command_identity(
        {
            **more,
            "argv": transform.argv,
            "stdin": transform.stdin,
            "env": dict(sorted(transform.env.items())),
            "working_dir": transform.working_dir,
            "accept_return_code": tuple(sorted(transform.accept_return_code)),
            "err_argv": transform.err_argv,
            "err_stdin": transform.err_stdin,
            "code": code,
            "secrets": tuple(sorted(counted(secret) for secret in secrets)),
        }
    )


def command_definitions(
    transform: CommandTransform, file: str, line: int, included: Mapping[str, BundleFile]
) -> tuple[Definition, ...]:
    """What a plan compares to say where a command changed: the command, and each file of its code folder."""
    command = json_digest([transform.argv, transform.stdin, dict(sorted(transform.env.items()))])
    files = [Definition(name, name, 0, digest(included[name][0]).hex()) for name in sorted(included)]
    return (Definition("command", file, line, command), *files)


def json_digest(value: Any) -> str:
    """Hash of plain data, hex."""
    return digest(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hex()


def _words(name: str, what: str, given: Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, str) or not all(isinstance(word, str) for word in given):
        raise bad_spec(f"command {name!r}: {what}: expected a list of texts, got {given!r}")
    return tuple(given)
