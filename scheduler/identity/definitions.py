"""Where functions and classes are defined, and which of them are the user's.

Needs the standard library only.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...storage.errors import ErrorCode, InvalidInputError
from .outside import PACKAGE, STANDARD
from .source import Definable, Project, Source, Sources, plain_qualname

__all__ = ["MISSING", "Definitions", "Located", "locate", "module_name"]

MISSING = object()
"""What a name stands for that stands for nothing (yet)."""


@dataclass(frozen=True, slots=True)
class Located:
    """The definition of a function or class."""

    source: Source
    node: Definable
    namespace: Mapping[str, object]
    """Its globals."""
    cells: Mapping[str, object] = field(default_factory=dict)
    """Variables of the functions around it; `MISSING`: not assigned yet."""


class Definitions:
    """Definitions, as far as they stand in files of a project (or in cells of a notebook)."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.sources = Sources(project)

    def locate(self, obj: typing.Any) -> Located | None:
        """Find the source of a function or class; None where there is none."""
        return self._locate_class(obj) if isinstance(obj, type) else self._locate_function(obj)

    def source_of(self, module: types.ModuleType) -> Source | None:
        """Source of a module; None if it has no file that could be read."""
        filename = getattr(module, "__file__", None)
        return self.sources.get(filename) if filename else None

    def owns_function(self, function: types.FunctionType) -> bool:
        """Whether a function is the user's."""
        filename = function.__code__.co_filename
        name = str(function.__globals__.get("__name__", ""))
        if name.partition(".")[0] == PACKAGE:
            return False
        if self.project.owns(filename):
            return True
        module_file = function.__globals__.get("__file__")
        if filename.startswith("<frozen"):
            return False
        if module_file is None:
            return name not in STANDARD
        return filename.startswith("<") and self.project.owns(str(module_file))

    def owns_class(self, cls: type) -> bool:
        """Whether a class is the user's."""
        name = cls.__module__
        if name == "builtins" or name.partition(".")[0] in (PACKAGE, *STANDARD):
            return False
        module = sys.modules.get(name)
        if module is not None and (name != "__main__" or hasattr(module, "__file__")):
            return self.project.owns_module(module)
        _, filename, _ = self._class_home(cls)
        return filename is None or self.project.owns(filename) or not Path(filename).exists()

    def no_source(self, root: Callable[..., object]) -> InvalidInputError:
        """Make the error for a function or class that `locate` does not find."""
        name = getattr(root, "__qualname__", repr(root))
        code = getattr(root, "__code__", None)
        filename = code.co_filename if code is not None else self._class_home(typing.cast("type", root))[1]
        if filename and self.sources.get(filename) is not None:
            return InvalidInputError(
                f"{name}: {self.project.relative(filename)} changed since it was imported: import it again",
                code=ErrorCode.BAD_CODE,
            )
        return InvalidInputError(
            f"{name} has no source code that could be read (made by exec, or in an interactive session)",
            code=ErrorCode.BAD_CODE,
            hint='write it into a file, or declare what it is with version="1"',
        )

    def _locate_function(self, function: types.FunctionType) -> Located | None:
        source = self.sources.get(function.__code__.co_filename)
        node = source.function(function.__code__) if source else None
        if source is None or node is None:
            return None
        cells: dict[str, object] = {}
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                cells[name] = cell.cell_contents
            except ValueError:
                cells[name] = MISSING  # not assigned yet
        return Located(source, node, function.__globals__, cells)

    def _locate_class(self, cls: type) -> Located | None:
        namespace, filename, lines = self._class_home(cls)
        source = self.sources.get(filename) if filename else None
        node = source.class_(plain_qualname(cls.__qualname__), lines) if source else None
        return None if source is None or node is None else Located(source, node, namespace)

    def _class_home(self, cls: type) -> tuple[Mapping[str, object], str | None, set[int]]:
        """Globals, file and first lines of the methods of a class."""
        functions = [item for item in map(_function_of, vars(cls).values()) if item is not None]
        own = [item for item in functions if item.__qualname__ == f"{cls.__qualname__}.{item.__name__}"]
        own = [item for item in own if self._has_source(item.__code__.co_filename)]
        if own:
            return own[0].__globals__, own[0].__code__.co_filename, {item.__code__.co_firstlineno for item in own}
        module = sys.modules.get(cls.__module__)
        return (vars(module), getattr(module, "__file__", None), set()) if module else ({}, None, set())

    def _has_source(self, filename: str) -> bool:
        """Whether a file is the user's or a cell's; others are not even parsed."""
        if Path(filename).is_file():
            return self.project.owns(filename)
        return self.sources.get(filename) is not None


def locate(root: Callable[..., object], project: Project) -> tuple[str, int]:
    """File (relative to the project root) and line of a definition; ("", 0) where it has no source."""
    found = Definitions(project).locate(root)
    if found is None:
        return "", 0
    return project.relative(found.source.filename), getattr(found.node, "lineno", 0)


def module_name(obj: typing.Any) -> str:
    """Name of the module that a function or class stands in."""
    if isinstance(obj, types.FunctionType):
        return str(obj.__globals__.get("__name__", ""))
    return str(getattr(obj, "__module__", ""))


def _function_of(item: object) -> types.FunctionType | None:
    """The function behind an attribute of a class."""
    if isinstance(item, property):
        item = item.fget
    elif isinstance(item, classmethod | staticmethod):
        item = item.__func__
    elif isinstance(item, functools.cached_property):
        item = item.func
    item = inspect.unwrap(item) if callable(item) else item
    return item if isinstance(item, types.FunctionType) else None
