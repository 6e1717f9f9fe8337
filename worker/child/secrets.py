"""Secrets: declared by name, read where the worker runs, never stored.

A declaration is a variable (``HF_TOKEN``), a variable that holds a named value (``TOKEN=api/token``), or a folder in
which values are files (``/run/creds=api``, ``/run/creds=api/token``). Values come from the worker's environment, from
files of mode 0600 below `SECRETS_FOLDER`, or from the keyring (extra ``keyring``; service ``dmlpipe/api``).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ...storage.errors import ErrorCode, InvalidInputError

SECRETS_FOLDER = "~/.config/dmlpipe/secrets"
_REDACTED_MIN_CHARS = 4


class Secret(NamedTuple):
    """One declared secret."""

    target: str
    """The variable, or an absolute folder."""
    name: str = ""
    key: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether it is given as files."""
        return self.target.startswith("/")

    def __str__(self) -> str:
        source = f"{self.name}/{self.key}" if self.key else self.name
        return f"{self.target}={source}" if source else self.target


class Given(NamedTuple):
    """The values of a job's secrets."""

    variables: dict[str, str]
    files: dict[str, str]
    """Absolute path to content."""

    def values(self) -> list[str]:
        """Every value."""
        return [*self.variables.values(), *self.files.values()]


def parse_secret(text: str) -> Secret:
    """Read a declaration.

    Raises
    ------
    InvalidInputError
        It is none (code ``bad-spec``).

    Examples
    --------
    >>> parse_secret("TOKEN=api/token")
    Secret(target='TOKEN', name='api', key='token')
    """
    target, _, source = text.partition("=")
    name, _, key = source.partition("/")
    secret = Secret(target, name, key)
    parts = [part for part in source.split("/") if source]
    safe = all(part and part not in (".", "..") and "\0" not in part for part in parts) and len(parts) <= 2
    folder = target.startswith("/") and os.path.normpath(target) == target and target != "/" and bool(name)
    if not safe or not (folder or target.isidentifier()) or (not folder and source and not key):
        raise InvalidInputError(
            f"{text!r} declares no secret: expected HF_TOKEN, TOKEN=name/key, /folder=name or /folder=name/key",
            code=ErrorCode.BAD_SPEC,
        )
    return secret


def counted(declared: str) -> str:
    """What of a declaration is part of a command's identity: where its value goes, not where it comes from."""
    return declared.partition("=")[0]


def read_secrets(declared: tuple[str, ...], environ: Mapping[str, str], folder: Path | None = None) -> Given:
    """Read declared secrets where the worker runs.

    Raises
    ------
    InvalidInputError
        One is missing (code ``bad-spec``), or others may read its file (``permission``).
    """
    home = folder if folder is not None else Path(SECRETS_FOLDER).expanduser()
    given = Given({}, {})
    for text in declared:
        secret = parse_secret(text)
        if not secret.is_folder:
            given.variables[secret.target] = _variable(secret, environ, home)
        elif secret.key:
            given.files[f"{secret.target}/{secret.key}"] = _named(secret, home)
        else:
            given.files.update({f"{secret.target}/{key}": value for key, value in _all_keys(secret, home).items()})
    return given


def redact(data: bytes, secrets: Given) -> bytes:
    """Replace values of secrets in what user code printed."""
    values = {value.strip() for value in secrets.values()} | set(secrets.values())
    # Longest first: one value may be part of another.
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _REDACTED_MIN_CHARS:
            data = data.replace(os.fsencode(value), b"***")
    return data


def _variable(secret: Secret, environ: Mapping[str, str], home: Path) -> str:
    if secret.target in environ:
        return environ[secret.target]
    value = _read(home / secret.target)
    if value is None and secret.key:
        value = _read(home / secret.name / secret.key)
    if value is None:
        value = _from_keyring(f"dmlpipe/{secret.name}" if secret.name else "dmlpipe", secret.key or secret.target)
    if value is not None:
        return value
    path = home / secret.name / secret.key if secret.key else home / secret.target
    raise InvalidInputError(
        f"secret {str(secret)!r} is not there: no variable ${secret.target} where the worker runs, no file {path}, "
        "nothing in the keyring",
        code=ErrorCode.BAD_SPEC,
        hint=f"export {secret.target}=... before starting the worker, or write {path} with mode 0600",
    )


def _named(secret: Secret, home: Path) -> str:
    path = home / secret.name / secret.key
    value = _read(path)
    if value is None:
        value = _from_keyring(f"dmlpipe/{secret.name}", secret.key)
    if value is None:
        raise _missing(secret, path)
    return value


def _all_keys(secret: Secret, home: Path) -> dict[str, str]:
    folder = home / secret.name
    found: dict[str, str] = {}
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            value = _read(path) if path.is_file() else None
            if value is not None:
                found[path.name] = value
    if not found:
        raise _missing(secret, folder / "KEY")
    return found


def _missing(secret: Secret, path: Path) -> InvalidInputError:
    return InvalidInputError(
        f"secret {str(secret)!r} is not there: no file {path} where the worker runs",
        code=ErrorCode.BAD_SPEC,
        hint=f"write {path} with mode 0600",
    )


def _read(path: Path) -> str | None:
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except FileNotFoundError:
        return None
    except OSError as err:
        raise InvalidInputError(f"secret {path}: {err.strerror}", code=ErrorCode.PERMISSION) from err
    if stat.S_IMODE(mode) & 0o077:
        raise InvalidInputError(
            f"secret {path.name!r}: others may read {path} (mode {stat.S_IMODE(mode):04o}, expected 0600)",
            code=ErrorCode.PERMISSION,
            hint=f"chmod 600 {path}",
        )
    return text.rstrip("\n")


def _from_keyring(service: str, key: str) -> str | None:
    try:
        import keyring  # pyright: ignore[reportMissingImports] - an extra
        from keyring.errors import KeyringError  # pyright: ignore[reportMissingImports] - an extra
    except ImportError:
        return None
    try:
        found: str | None = keyring.get_password(service, key)
    except KeyringError:
        # No keyring runs on this machine: as if it were not installed.
        return None
    return found
