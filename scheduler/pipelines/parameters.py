"""The parameters of a pipeline: values in place of its defaults, checked and converted."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ...storage.errors import ErrorCode, InvalidInputError
from ..inputs.expression import canonical_json
from .declared import Declared
from .spec import PipelineSpec, bad_spec

__all__ = [
    "check_parameters",
    "with_parameters",
]


def check_parameters(declared: Declared, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check parameters against a pipeline's own and convert text to their types.

    Raises
    ------
    InvalidInputError
        `BAD_SPEC`: no such parameter, or a value that does not fit.
    """
    signature = declared.signature
    defaults = declared.parameters if signature is None else signature.defaults
    scalars = {} if signature is None else {item.name: item.scalar for item in signature.parameters}
    return {name: _checked(declared.name, name, value, defaults, scalars) for name, value in given.items()}


def with_parameters(specs: Sequence[PipelineSpec], given: Mapping[str, Mapping[str, Any]]) -> list[PipelineSpec]:
    """Return specs with parameters set: those that they have, to values of the same type.

    Raises
    ------
    InvalidInputError
        No such pipeline or parameter, or a value that does not fit.
    """
    found = {spec.name: spec for spec in specs}
    for name, values in given.items():
        if name not in found:
            raise InvalidInputError(f"parameters for {name!r}: no such pipeline", code=ErrorCode.NO_PIPELINE)
        spec = found[name]
        checked = {key: _checked(name, key, value, spec.parameters, {}) for key, value in values.items()}
        found[name] = msgspec.structs.replace(spec, parameters={**spec.parameters, **checked})
    return list(found.values())


def _checked(pipeline: str, name: str, value: Any, defaults: Mapping[str, Any], scalars: Mapping[str, str]) -> Any:
    if name not in defaults:
        near = difflib.get_close_matches(name, defaults, 1)
        shown = ", ".join(defaults) or "none"
        raise InvalidInputError(
            f"pipeline {pipeline!r} has no parameter {name!r}; it has {shown}",
            code=ErrorCode.BAD_SPEC,
            hint=f"did you mean {near[0]!r}?" if near else None,
        )
    return _converted(pipeline, name, scalars.get(name) or _scalar_of(defaults[name]), value)


def _scalar_of(default: Any) -> str:
    return {bool: "bool", int: "int", float: "float", str: "str"}.get(type(default), "")


def _converted(pipeline: str, name: str, kind: str, value: Any) -> Any:
    error = bad_spec(f"{pipeline}.{name}: expected {kind or 'a plain value'}, got {value!r}")
    if isinstance(value, str) and kind != "str":
        try:
            value = json.loads(value.lower() if kind == "bool" else value)
        except ValueError as err:
            if kind:
                raise error from err
    if kind == "float" and type(value) is int:
        return float(value)
    if kind and value is not None and type(value).__name__ != kind:
        raise error
    try:
        canonical_json(value)
    except (TypeError, ValueError) as err:
        raise error from err
    return value
