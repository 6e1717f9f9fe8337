"""What is not the user's: it is named, never entered.

Needs the standard library only.
"""

from __future__ import annotations

import ast
import logging
import sys
import threading
import types
import typing
from collections.abc import Mapping

from .encode import frame, text

__all__ = [
    "PACKAGE",
    "STANDARD",
    "is_dmlpipe",
    "is_opaque",
    "outside",
    "own_decorators",
    "top_package",
    "unwrapped",
]

PACKAGE = __name__.partition(".")[0]
STANDARD = sys.stdlib_module_names - {"__main__"}

_OPAQUE: tuple[type, ...] = (logging.Logger, type(threading.Lock()), type(threading.RLock()), threading.local)
"""Values that change no output: their type counts, not what is in them."""


def is_dmlpipe(value: object) -> bool:
    """Whether a value is of a class of dmlpipe's."""
    return type(value).__module__.partition(".")[0] == PACKAGE


def is_opaque(value: object) -> bool:
    """Whether a value changes no output: its type counts, not what is in it."""
    return isinstance(value, _OPAQUE) or is_dmlpipe(value)


def top_package(value: object) -> str:
    """Name of the top-level package of what a value is defined in."""
    module = getattr(value, "__module__", None) or type(value).__module__
    return str(module).partition(".")[0]


def outside(value: typing.Any) -> bytes:
    """Name a thing from outside by its top-level package: inner modules move between versions."""
    owner = getattr(value, "__self__", None)
    top = owner.__name__ if isinstance(owner, types.ModuleType) else top_package(value)
    return frame("outside", text(top), text(getattr(value, "__qualname__", getattr(value, "__name__", ""))))


def unwrapped(value: object) -> object:
    """What a cache or another object from outside wraps; a user's own wrapper is a function and is followed itself."""
    if isinstance(value, staticmethod):
        return value.__func__
    wrapped = getattr(value, "__wrapped__", None) if not isinstance(value, type | types.FunctionType) else None
    return wrapped if isinstance(wrapped, types.FunctionType) else value


def own_decorators(node: ast.AST, namespace: Mapping[str, object]) -> list[ast.AST]:
    """Decorators that are dmlpipe's: they say how a pipeline runs, not what it computes."""
    return [item for item in getattr(node, "decorator_list", []) if is_dmlpipe(_owner(item, namespace))]


def _owner(decorator: ast.expr, namespace: Mapping[str, object]) -> object:
    """The object whose method a decorator is (`dag` of `@dag.pipeline(...)`)."""
    node = decorator.func if isinstance(decorator, ast.Call) else decorator
    if not isinstance(node, ast.Attribute):
        return None
    names: list[str] = []
    base: ast.expr = node.value
    while isinstance(base, ast.Attribute):
        names.append(base.attr)
        base = base.value
    if not isinstance(base, ast.Name):
        return None
    value = namespace.get(base.id)
    for name in reversed(names):
        value = getattr(value, name, None)
    return value
