"""Annotations of a transform: what they stand for, and the form in which something comes in by them."""

from __future__ import annotations

import builtins
import collections.abc
import inspect
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .spec import bad_spec

__all__ = ["FileMapping", "element_of", "evaluate", "form_of", "is_mapping", "scalar_of", "shown"]

FileMapping = Mapping[str, bytes | str | Path]
"""Output files: path to content, or to a file to take over."""

_SCALARS: dict[object, str] = {int: "int", float: "float", bool: "bool", str: "str"}
_LISTS = (list, collections.abc.Sequence)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


class _Fallback(dict[str, Any]):
    """Names of annotations that exist only while types are checked (`if TYPE_CHECKING:`)."""

    def __missing__(self, name: str) -> Any:
        match name:
            case "Path":
                return Path
            case "Files":
                return FileMapping
            case "Any":
                return Any
            case "Mapping" | "Sequence":
                return getattr(collections.abc, name)
            case "dml" | "dmlpipe":
                return types.SimpleNamespace(Files=FileMapping)
            case "np" | "numpy":
                import numpy

                return numpy
            case "npt":
                import numpy.typing

                return numpy.typing
        raise KeyError(name)


def evaluate(annotation: object, function: types.FunctionType, what: str) -> object:
    """Return what an annotation of a function stands for.

    Parameters
    ----------
    what
        Of what it is one, for the error.

    Raises
    ------
    InvalidInputError
        `BAD_SPEC`: it is a text that cannot be resolved.
    """
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__
    if not isinstance(annotation, str):
        return annotation
    names = inspect.getclosurevars(function).nonlocals if function.__closure__ else {}
    namespace = _Fallback({**vars(builtins), **function.__globals__, **names})
    try:
        # Annotations are strings under `from __future__ import annotations`; the user's own text, like a default.
        return eval(annotation, {}, namespace)
    except (NameError, AttributeError, SyntaxError, TypeError, ImportError) as err:
        raise bad_spec(f"{what}: cannot resolve {annotation!r} ({err})") from err


def scalar_of(annotation: object) -> str:
    """Name of the plain type that an annotation is; empty for any other."""
    return _SCALARS.get(annotation, "") if _hashable(annotation) else ""


def form_of(kind: str, annotation: object) -> str | None:
    """The form that an annotation asks for; None if it is not allowed for this kind of source."""
    origin = typing.get_origin(annotation) or annotation
    while (meant := getattr(origin, "__value__", None)) is not None:
        # `type X[T] = ...` of Python 3.12, which NumPy's own NDArray is by now.
        origin = typing.get_origin(meant) or meant
    match kind:
        case "files":
            return {Path: "path", bytes: "bytes"}.get(typing.cast("Any", origin)) if _hashable(origin) else None
        case "group":
            return "paths" if element_of(annotation) is Path else None
        case "out":
            return "path" if origin is Path else None
        case "capture":
            return "str" if origin is str else None
        case "value":
            return "scalar" if origin in (int, float, bool, str, list, dict) or annotation is Any else None
        case "array":
            module = str(getattr(origin, "__module__", "")).partition(".")[0]
            name = getattr(origin, "__qualname__", "")
            return {("numpy", "ndarray"): "array", ("xarray", "DataArray"): "xarray"}.get((module, name))
    return None


def _hashable(value: object) -> bool:
    return isinstance(value, collections.abc.Hashable)


def element_of(annotation: object) -> object | None:
    """Return what a list holds; None if it is no list. A bare `list` holds anything, so it is none."""
    if typing.get_origin(annotation) not in _LISTS:
        return None
    arguments = typing.get_args(annotation)
    return arguments[0] if len(arguments) == 1 else None


def is_mapping(annotation: object) -> bool:
    """Whether an annotation is a mapping; of a choice, whatever it is beside exceptions."""
    origin = typing.get_origin(annotation) or annotation
    if origin in (typing.Union, types.UnionType):
        # `Files | Exception`: an element of a batch may be the failure of that datum alone.
        rest = [item for item in typing.get_args(annotation) if not _is_exception(item)]
        return bool(rest) and all(is_mapping(item) for item in rest)
    return origin in _MAPPINGS


def _is_exception(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseException)


def shown(annotation: object) -> str:
    """Return an annotation as one writes it, for an error."""
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation.__qualname__
    return str(annotation).replace("collections.abc.", "").replace("pathlib.", "")
