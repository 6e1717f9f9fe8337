"""What a DAG noted of one pipeline, and where. `build` makes specs of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ...storage.refs import DEFAULT_BRANCH
from ...worker.job import CommandTransform
from ..identity.source import find_root
from ..inputs.expression import Input, Like
from .signature import Signature
from .spec import Egress, Options, Standing

if TYPE_CHECKING:
    from ..identity.bundle import BundleFile

PutBundle: TypeAlias = "Callable[[dict[str, BundleFile]], str]"
"""Stores files (path to content and mode) as a tree; returns its id in hex."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where a DAG was written."""

    file: Path | None
    """None: a notebook or an interactive session."""
    folder: Path
    root: Path
    """The project root."""

    @classmethod
    def of(cls, namespace: Mapping[str, Any]) -> Home:
        """Where the code stands whose globals these are."""
        filename = namespace.get("__file__")
        file = Path(filename).resolve() if filename else None
        folder = Path.cwd().resolve() if file is None else file.parent
        return cls(file, folder, find_root(folder))


@dataclass(frozen=True, slots=True)
class Declared:
    """What `@dag.pipeline` or `dag.command` noted of one pipeline."""

    name: str
    input: Input
    options: Options
    transform: Callable[..., object] | CommandTransform
    signature: Signature | None = None
    """None: a command."""
    env: str | None = None
    include: tuple[str, ...] = ()
    version: str | None = None
    writes: Like | None = None
    by_content: bool = False
    egress: Egress | None = None
    output_branch: str = DEFAULT_BRANCH
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Of a command."""
    code: str | None = None
    """Of a command: folder of its scripts, relative to the DAG's file."""
    salt: str = ""
    standing: Standing | None = None
    """What stands in place of jobs."""
    line: int = 0
    """Of the call, in the DAG's file."""
