"""The `code_id` of a transform and what is recorded beside it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ...storage.digest import digest
from .bundle import BundleFile
from .encode import encode_value, frame, text
from .reach import Reached, reach
from .source import Project

_VERSION = "code-1"


@dataclass(frozen=True, slots=True)
class DefinitionHash:
    """One definition that the code id covers."""

    name: str
    file: str
    line: int
    hash: str


@dataclass(frozen=True, slots=True)
class CodeIdentity:
    """What code a pipeline is."""

    code_id: str
    """64 hex digits."""
    definitions: tuple[DefinitionHash, ...]
    whole_modules: tuple[str, ...]
    """`features: attribute 'load' is taken from it`."""
    notices: tuple[str, ...] = ()


def python_identity(
    transform: Callable[..., object],
    project: Project,
    *,
    skip_defaults: Collection[tuple[str, str]] = (),
    included: Mapping[str, BundleFile] | None = None,
    version: str | None = None,
) -> CodeIdentity:
    """Identify a Python transform.

    Parameters
    ----------
    included
        Files that count by content.
    version
        Given: stands for the code, which is not looked at. Included files still count.
    """
    files = included or {}
    shipped = tuple(DefinitionHash(name, name, 0, digest(files[name][0]).hex()) for name in sorted(files))
    tail = [frame("included", *[frame(item.file, bytes.fromhex(item.hash)) for item in shipped])]
    if version is not None:
        name = str(getattr(transform, "__qualname__", ""))
        body = frame("declared", text(name), encode_value(version))
        declared = DefinitionHash(f"{name} version={version}", "", 0, digest(body).hex())
        return CodeIdentity(digest(frame(_VERSION, body, *tail)).hex(), (declared, *shipped), ())
    reached = reach(transform, project, skip_defaults=skip_defaults)
    code_id = digest(frame(_VERSION, *[frame(entry.key, entry.body) for entry in reached.entries], *tail)).hex()
    whole = tuple(f"{name}: {why}" for name, why in reached.whole_modules)
    return CodeIdentity(code_id, (*_hashes(reached), *shipped), whole, reached.notices)


def command_identity(parts: Mapping[str, object]) -> str:
    """Identify a command by all that decides what it does: 64 hex digits.

    Parameters
    ----------
    parts
        Plain data; what is empty does not count, so that new fields leave old ids alone.
    """
    named = {name: value for name, value in sorted(parts.items()) if value not in ("", (), [], {}, None)}
    return digest(frame("command-1", encode_value(named))).hex()


def _hashes(reached: Reached) -> tuple[DefinitionHash, ...]:
    return tuple(DefinitionHash(item.name, item.file, item.line, digest(item.body).hex()) for item in reached.entries)
