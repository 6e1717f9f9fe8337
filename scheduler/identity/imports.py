"""What import statements of the user's name: a module of theirs, or one from outside.

Needs the standard library only.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Mapping

from .outside import PACKAGE
from .scope import ImportedName
from .source import Project

__all__ = ["import_own", "imported_module", "outside_module", "unshipped"]


def imported_module(item: ImportedName, namespace: Mapping[str, object], project: Project) -> types.ModuleType | None:
    """The user's module that an import statement names; None if it is not the user's."""
    return import_own(_absolute(item, namespace), project)


def import_own(name: str, project: Project) -> types.ModuleType | None:
    """Import a module of the user's; None if it is not the user's, or cannot be imported."""
    if not name or project.find_file(name) is None:
        return None
    module = sys.modules.get(name)
    if module is not None and project.owns_module(module):
        return module
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def outside_module(item: ImportedName, namespace: Mapping[str, object], project: Project) -> str | None:
    """Name of the module from outside that an import statement takes something from; None if it is the user's."""
    name = _absolute(item, namespace)
    module = sys.modules.get(name)
    if item.level or project.find_file(name) is not None:
        return None
    if module is not None and project.owns_module(module):
        return None
    if module is None or getattr(module, "__file__", None) is None:
        top = sys.modules.get(name.partition(".")[0])
        if top is not None and getattr(top, "__path__", None) and project.find_file(f"{name}.{item.name}"):
            return None  # a user's folder without __init__.py
    return name


def unshipped(name: str, project: Project) -> str | None:
    """Tell of a module that is neither the user's nor installed: nobody sends it along; None: all is well."""
    filename = getattr(sys.modules.get(name), "__file__", None)
    if filename is None or name.partition(".")[0] in (*sys.stdlib_module_names, PACKAGE):
        return None
    if "site-packages" in filename or "dist-packages" in filename:
        return None
    return (
        f"{name} ({filename}) is outside the project root {project.root}: "
        "it is not sent along and its edits do not count"
    )


def _absolute(item: ImportedName, namespace: Mapping[str, object]) -> str:
    if not item.level:
        return item.module
    package = str(namespace.get("__package__") or str(namespace.get("__name__", "")).rpartition(".")[0])
    parts = package.split(".")
    base = ".".join(parts[: len(parts) - item.level + 1])
    return f"{base}.{item.module}" if item.module else base
