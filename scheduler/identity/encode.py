"""Canonical bytes of syntax trees and of plain values.

Equal on every Python from 3.11 on and under every hash seed. Not in them: positions, `ctx`, `kind`, type comments,
docstrings, comments, and everything else that cannot change what the code does.
"""

from __future__ import annotations

import ast
import datetime
import decimal
import fractions
import pathlib
import re
import struct
import uuid
from collections.abc import Callable, Collection
from typing import Any

_SKIPPED_FIELDS = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
_MAX_ARRAY_BYTES = 1 << 20

Reference = Callable[[object], bytes | None]
"""Encodes what is no plain value (functions, classes, modules); None: cannot."""


class UnencodableError(Exception):
    """A value is no plain data. `culprit` is the innermost value that could not be encoded."""

    def __init__(self, culprit: object) -> None:
        super().__init__(type(culprit).__qualname__)
        self.culprit = culprit


def frame(tag: str, *parts: bytes) -> bytes:
    """Join `parts` so that no two different lists of parts give the same bytes."""
    head = tag.encode("utf-8", "surrogatepass")
    out = [b"%d:" % len(head), head, b"%d;" % len(parts)]
    for part in parts:
        out.append(b"%d:" % len(part))
        out.append(part)
    return b"".join(out)


def text(value: str) -> bytes:
    """Bytes of any string, lone surrogates included."""
    return value.encode("utf-8", "surrogatepass")


# --- syntax -----------------------------------------------------------------------------------------------------


def encode_node(node: ast.AST, *, skip: Collection[ast.AST] = (), anonymous: bool = False) -> bytes:
    """Encode a syntax tree.

    Parameters
    ----------
    node
        Any node, as `ast.parse` makes it.
    skip
        Nodes inside it to leave out (compared by identity): a pipeline's own decorator, defaults of parameters.
    anonymous
        Leave out the name that `node` itself defines.
    """
    left_out = frozenset(id(item) for item in skip)
    return _node(node, left_out, anonymous=anonymous)


def _node(node: ast.AST, skip: frozenset[int], *, anonymous: bool = False) -> bytes:
    fields: list[bytes] = []
    for name in sorted(node._fields):
        if name in _SKIPPED_FIELDS or (anonymous and name == "name"):
            continue
        value: Any = getattr(node, name, None)
        if isinstance(node, ast.Constant) and name == "value":
            fields.append(frame(name, encode_value(value)))
            continue
        if isinstance(node, ast.JoinedStr) and name == "values":
            value = _joined(value)
        elif isinstance(value, list):
            value = [item for item in value if not _is_text_statement(item)]
        if name == "decorator_list":
            # A decorator in `skip` vanishes; a default in `skip` keeps its place.
            value = [item for item in value if id(item) not in skip]
        if value is None or value == []:
            continue
        fields.append(frame(name, _field(value, skip)))
    return frame("node " + type(node).__name__, *fields)


def _field(value: Any, skip: frozenset[int]) -> bytes:
    if isinstance(value, ast.AST):
        return frame("none") if id(value) in skip else _node(value, skip)
    if isinstance(value, list):
        return frame("list", *[_field(item, skip) for item in value])
    return encode_value(value)


def _is_text_statement(item: Any) -> bool:
    """Whether a statement is a bare string: a docstring, or a comment in its clothes."""
    return isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)


def _joined(values: list[ast.expr]) -> list[ast.expr]:
    """Parts of an f-string, empty constants dropped and neighbours joined (Python 3.12 splits differently)."""
    out: list[ast.expr] = []
    for item in values:
        if isinstance(item, ast.Constant) and isinstance(item.value, str):
            if not item.value:
                continue
            last = out[-1] if out else None
            if isinstance(last, ast.Constant):
                out[-1] = ast.Constant(value=str(last.value) + item.value)
                continue
        out.append(item)
    return out


# --- values -----------------------------------------------------------------------------------------------------


def encode_value(value: object, reference: Reference | None = None) -> bytes:
    """Encode plain data by type and exact value.

    Plain: None, bool, numbers, strings, bytes, lists, tuples, dicts (in their order), sets, ranges, slices, paths,
    dates, patterns, UUIDs, NumPy scalars, dtypes and arrays up to 1 MiB. Subclasses of these are not.

    Raises
    ------
    UnencodableError
        Something in it is neither plain nor known to `reference`.
    """
    return _value(value, reference, ())


def _value(value: Any, reference: Reference | None, above: tuple[int, ...]) -> bytes:
    kind = type(value)
    scalar = _scalar(value)
    if scalar is not None:
        return scalar
    if id(value) in above:
        raise UnencodableError(value)
    inside = (*above, id(value))
    if kind in (list, tuple):
        return frame(kind.__name__, *[_value(item, reference, inside) for item in value])
    if kind is dict:
        pairs = [(_value(key, reference, inside), _value(item, reference, inside)) for key, item in value.items()]
        return frame("dict", *[part for pair in pairs for part in pair])
    if kind in (set, frozenset):
        return frame(kind.__name__, *sorted(_value(item, reference, inside) for item in value))
    if kind is slice:
        return frame("slice", *[_value(item, reference, inside) for item in (value.start, value.stop, value.step)])
    if reference is not None and (known := reference(value)) is not None:
        return known
    numpy = _numpy(value)
    if numpy is not None:
        return numpy
    raise UnencodableError(value)


def _scalar(value: Any) -> bytes | None:
    kind = type(value)
    if value is None or value is Ellipsis or value is NotImplemented or kind is bool:
        return frame("constant", text(repr(value)))
    if kind is int:
        return frame("int", b"%x" % value if value >= 0 else b"-%x" % -value)
    if kind is float:
        return frame("float", _float(value))
    if kind is complex:
        return frame("complex", _float(value.real), _float(value.imag))
    if kind is str:
        return frame("str", text(value))
    if kind in (bytes, bytearray):
        return frame(kind.__name__, bytes(value))
    if kind is range:
        return frame("range", *[_scalar(item) or b"" for item in (value.start, value.stop, value.step)])
    if isinstance(value, pathlib.PurePath):
        return frame("path", text(value.as_posix()))
    if isinstance(value, re.Pattern):
        return frame("pattern", encode_value(value.pattern), b"%d" % value.flags)
    if kind in _BY_TEXT:
        return frame(_BY_TEXT[kind], text(str(value)))
    if isinstance(value, datetime.timedelta):
        return frame("timedelta", b"%d %d %d" % (value.days, value.seconds, value.microseconds))
    return None


_BY_TEXT: dict[type, str] = {
    datetime.date: "date",
    datetime.datetime: "datetime",
    datetime.time: "time",
    datetime.timezone: "timezone",
    decimal.Decimal: "decimal",
    fractions.Fraction: "fraction",
    uuid.UUID: "uuid",
}


def _float(value: float) -> bytes:
    # All NaNs are one: their payload cannot be written in source. -0.0 differs from 0.0.
    return b"nan" if value != value else struct.pack(">d", value)


def _numpy(value: Any) -> bytes | None:
    """NumPy's plain values, recognised without importing it."""
    kind = type(value)
    if kind.__module__.partition(".")[0] != "numpy":
        return None
    dtype = getattr(value, "dtype", None)
    if kind.__name__ == "dtype" or "dtypes" in kind.__module__:
        return frame("dtype", text(value.str)) if value.names is None else frame("dtype", text(str(value.descr)))
    if dtype is None or dtype.hasobject or dtype.names is not None or value.nbytes > _MAX_ARRAY_BYTES:
        return None
    shape = b",".join(b"%d" % size for size in value.shape)
    return frame(kind.__name__, text(dtype.str), shape, value.tobytes())
