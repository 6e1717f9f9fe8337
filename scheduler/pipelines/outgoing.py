"""What goes out of a transform: files that it returns, its output folder, or an array."""

from __future__ import annotations

import inspect
import types

from ..inputs.expression import Array, Like
from ..inputs.scope import Scope
from .annotations import element_of, evaluate, form_of, is_mapping, shown
from .spec import bad_spec

__all__ = ["read_result"]


def read_result(
    function: types.FunctionType,
    label: str,
    where: str,
    scope: Scope,
    *,
    takes_out: bool,
    batch: int,
    writes: Like | None,
) -> str:
    """Say what kind of output a transform has: `files`, `out` or `array`.

    Parameters
    ----------
    function
        What is called for each datum.
    label, where
        Of the transform and of `function`, for errors.
    scope
        Of its input.
    takes_out
        Whether it has a parameter `out`.
    batch, writes
        As of `DAG.pipeline`.

    Raises
    ------
    InvalidInputError
        `BAD_SPEC`: no output, two, or one of a kind that is not in the list.
    """
    annotation = inspect.signature(function).return_annotation
    returned: object = None
    if annotation is not inspect.Signature.empty:
        returned = evaluate(annotation, function, f"{where}(): return annotation")
    gives = annotation is not inspect.Signature.empty and returned is not None and returned is not type(None)
    if writes is not None:
        _check_array_input(label, scope, writes)
        if takes_out:
            raise bad_spec(f"{where}(): both 'out' and writes=: with writes= the output is the returned array")
        if gives:
            _check_array(where, returned, batch)
        return "array"
    if takes_out and gives:
        raise bad_spec(
            f"{where}(): both 'out' and a returned {shown(returned)}: output is the folder or the value, not both",
            hint="annotate it `-> None`, or drop `out`",
        )
    if takes_out:
        return "out"
    if annotation is not inspect.Signature.empty and not gives:
        raise bad_spec(
            f"{where}(): no output: it returns None and has no 'out'",
            hint="return dml.Files (a mapping of paths to content), or take `out: Path`",
        )
    if gives:
        _check_files(where, returned, batch)
    return "files"


def _check_array_input(label: str, scope: Scope, writes: Like) -> None:
    arrays = [
        name
        for name, slot in scope.slots.items()
        if isinstance(slot.leaves[0], Array) and len(slot.leaves) == 1 and not slot.optional
    ]
    if writes.input not in arrays:
        there = f"there are {', '.join(arrays)}" if arrays else "there is none in every datum"
        raise bad_spec(f"{label}: writes=like({writes.input!r}) is no array input; {there}")


def _check_array(where: str, returned: object, batch: int) -> None:
    element = element_of(returned) if batch else returned
    if form_of("array", element) is None:
        wanted = "list[numpy.ndarray]" if batch else "numpy.ndarray"
        raise bad_spec(f"{where}(): with writes= it returns {wanted}, not {shown(returned)}")


def _check_files(where: str, returned: object, batch: int) -> None:
    element = element_of(returned) if batch else returned
    if element is None:
        raise bad_spec(
            f"{where}(): with batch={batch} it returns a list with an element for each datum, not {shown(returned)}",
            hint=f"-> list[{shown(returned)}]",
        )
    if not is_mapping(element):
        wanted = "list[dml.Files]" if batch else "dml.Files"
        raise bad_spec(
            f"{where}(): returns {shown(returned)}; allowed are {wanted} (a mapping of paths to content), "
            "`out: Path` instead, or an array with writes="
        )
