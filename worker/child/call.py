"""Calling a Python transform: arguments from inputs, results to output files. The same in a slot child and inline."""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...storage.errors import ErrorCode, InvalidInputError, UserCodeError
from ..job import ArrayWrites, Parameter, PythonTransform
from .arrays import dimension_names, encode_chunk, read_box
from .collect import Listed, Output, collect_files, collect_folder
from .wire import Given, Payload

_SCALARS: dict[str, Callable[[Any], Any]] = {"int": int, "float": float, "str": str}


def load_transform(transform: PythonTransform, code: str, pickled: bytes = b"") -> Any:
    """Import the user's function or class.

    Parameters
    ----------
    code
        Folder that holds the bundle; its parts that the transform names go in front of `sys.path`.
    pickled
        The cloudpickle of code that has no file, if that is what the transform names.

    Raises
    ------
    InvalidInputError
        It was pickled by another Python, or the module has no such name.
    Exception
        Whatever importing the user's module raises.
    """
    if code:
        folders = [os.path.normpath(os.path.join(code, part)) for part in transform.path]
        sys.path[:] = [*folders, *(p for p in sys.path if p not in folders)]
        importlib.invalidate_caches()
    if transform.pickled:
        here = f"{sys.version_info.major}.{sys.version_info.minor}"
        if here != transform.pickled_python:
            raise InvalidInputError(
                f"{transform.qualname} was recorded without a file by Python {transform.pickled_python}, "
                f"this is {here}",
                code=ErrorCode.BAD_CODE,
                hint="put it into a module and submit that",
            )
        import cloudpickle  # type: ignore[import-untyped]  # it ships no types

        return cloudpickle.loads(pickled)
    found: Any = importlib.import_module(transform.module)
    for part in transform.qualname.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as err:
            raise InvalidInputError(
                f"module {transform.module!r} has no {transform.qualname!r}", code=ErrorCode.BAD_CODE
            ) from err
    return found


class Loaded:
    """A transform ready to be called.

    Parameters
    ----------
    target
        The user's function or class.
    transform
        Its signature.
    constants
        Constant inputs by name.
    parameters
        Values of its parameters.
    batch
        Datums per call; 0: one, passed as it is.
    writes, array
        With `writes=`: what is declared, and the ``zarr.json`` of the output array.
    folders
        Where datums are laid out one after the other.
    loading
        Called with True before an instance is made, with False after.
    listed
        Is told what a datum left in its folder of outputs.
    """

    def __init__(
        self,
        target: Any,
        transform: PythonTransform,
        *,
        constants: dict[str, Given],
        parameters: dict[str, Any],
        batch: int = 0,
        writes: ArrayWrites | None = None,
        array: bytes = b"",
        folders: str = "",
        loading: Callable[[bool], None] = lambda begin: None,
        listed: Listed | None = None,
    ) -> None:
        self._target = target
        self._transform = transform
        self._constants = constants
        self._parameters = parameters
        self._batch = batch
        self._writes = writes
        self._array = array
        self._folders = f"{folders}/" if folders else ""
        self._folders_path = Path(folders)
        self._loading = loading
        self._listed = listed
        self._resident = tuple(p for p in transform.signature if p.resident)
        self._called = tuple(p for p in transform.signature if not p.resident)
        self._arguments = tuple((p.name, self._getter(p)) for p in self._called)
        self._instance: Any = None
        self._instance_key: str | None = None

    def call(self, payloads: Sequence[Payload]) -> list[Iterator[Output] | Exception]:
        """Call the transform once, for one datum or a batch.

        Returns
        -------
        list
            Per datum its outputs, to be iterated once (which may raise `UserCodeError`), or the exception that the
            transform returned in its place.

        Raises
        ------
        BaseException
            Whatever user code raised; `UserCodeError` if its result is of the wrong kind.
        """
        target = self._ready(payloads[0])
        if not self._batch:
            payload = payloads[0]
            result = target(**{name: get(payload) for name, get in self._arguments})
            return [self._outputs(result, payload)]
        arguments: dict[str, Any] = {}
        for parameter in self._called:
            if self._varies(parameter, payloads[0]):
                arguments[parameter.name] = [self._argument(parameter, payload) for payload in payloads]
            else:
                arguments[parameter.name] = self._argument(parameter, payloads[0])
        results = target(**arguments)
        if self._transform.result == "out":
            if results is None:
                results = [None] * len(payloads)
        elif not isinstance(results, Iterable) or isinstance(results, str | bytes | dict):
            raise UserCodeError(
                f"it returned a {type(results).__name__}; expected a list of {len(payloads)} results (batch=)"
            )
        listed = list(results)
        if len(listed) != len(payloads):
            raise UserCodeError(f"it returned {len(listed)} results for a batch of {len(payloads)} datums")
        return [
            result if isinstance(result, Exception) else self._outputs(result, payload)
            for result, payload in zip(listed, payloads, strict=True)
        ]

    def _ready(self, payload: Payload) -> Any:
        """The callable: the function, or the instance for the resident inputs as they are now."""
        if self._transform.kind != "class":
            return self._target
        if self._instance_key != payload.resident:
            # The old instance goes first: two models may not fit.
            self._instance = self._instance_key = None
            self._loading(True)
            try:
                self._instance = self._target(**{p.name: self._argument(p, payload) for p in self._resident})
            finally:
                self._loading(False)
            self._instance_key = payload.resident
        return self._instance

    def _varies(self, parameter: Parameter, payload: Payload) -> bool:
        match parameter.source:
            case "input" | "value":
                return (parameter.input or parameter.name) in payload.given
            case "capture" | "out":
                return True
            case _:
                return False

    def _getter(self, parameter: Parameter) -> Callable[[Payload], Any]:
        """`_argument` of one parameter: for what is asked most without looking again at what it is."""
        name = parameter.input or parameter.name
        match parameter:
            case Parameter(source="input", form="bytes"):

                def content(payload: Payload) -> Any:
                    given = payload.given.get(name)
                    if given is not None and given.kind == "bytes":
                        return given.data
                    return self._argument(parameter, payload)

                return content
            case Parameter(source="input", form="path"):

                def path(payload: Payload) -> Any:
                    given = payload.given.get(name)
                    if given is not None and given.kind == "path":
                        return self._path(given.path)
                    return self._argument(parameter, payload)

                return path
            case Parameter(source="capture", optional=False, scalar="" | "str"):
                return lambda payload: payload.captures[parameter.name]
            case Parameter(source="out"):
                return lambda payload: self._path(payload.out)
            case _:
                return lambda payload: self._argument(parameter, payload)

    def _path(self, text: str) -> Path:
        """`Path(text)`, of which only what changes is taken apart: folders are few, and used again."""
        if self._folders and text.startswith(self._folders):
            return self._folders_path / text[len(self._folders) :]
        folder, _, name = text.rpartition("/")
        return _folder_of(folder) / name if folder and name else Path(text)

    def _argument(self, parameter: Parameter, payload: Payload) -> Any:
        match parameter.source:
            case "input":
                name = parameter.input or parameter.name
                return _formed(parameter, payload.given.get(name) or self._constants[name])
            case "value":
                name = parameter.input or parameter.name
                given = payload.given.get(name) or self._constants[name]
                return None if given.kind == "none" else _scalar(parameter, given.value)
            case "capture":
                if parameter.optional and parameter.name not in payload.captures:
                    return None
                return _scalar(parameter, payload.captures[parameter.name])
            case "parameter":
                return self._parameters[parameter.name]
            case "out":
                return Path(payload.out)
            case other:
                raise InvalidInputError(f"parameter {parameter.name!r} has the unknown source {other!r}")

    def _outputs(self, result: Any, payload: Payload) -> Iterator[Output]:
        match self._transform.result:
            case "files":
                return collect_files(result, payload.stands)
            case "out":
                if result is not None:
                    raise UserCodeError(
                        f"it returned a {type(result).__name__} and has an `out` folder; expected one of the two"
                    )
                return collect_folder(payload.out, stands=payload.stands, listed=self._listed)
            case "array":
                return self._chunk(result, payload)
            case other:
                raise InvalidInputError(f"transform has the unknown result {other!r}")

    def _chunk(self, result: Any, payload: Payload) -> Iterator[Output]:
        if self._writes is None:
            raise InvalidInputError("the transform returns arrays, but its job declares no writes=")
        given = payload.given[self._writes.like]
        if given.box is None:
            raise InvalidInputError(f"input {self._writes.like!r} has no region to write")
        key, data = encode_chunk(result, given.box, self._array)
        folder = self._writes.path.strip("/")
        yield Output(f"{folder}/{key}" if folder else key, data)


_folder_of = functools.lru_cache(maxsize=1024)(Path)


def _formed(parameter: Parameter, given: Given) -> Any:
    """One input in the form that its annotation asks for."""
    if given.kind == "none":
        return [] if parameter.form == "paths" else None
    match parameter.form:
        case "path":
            return Path(given.path)
        case "bytes":
            return given.data if given.kind == "bytes" else _content(parameter, Path(given.path))
        case "paths":
            return [Path(path) for path in given.paths]
        case "array":
            return read_box(given.path, given.box)
        case "xarray":
            import xarray  # type: ignore[import-not-found, unused-ignore]  # optional: whoever asks for it has it

            return xarray.DataArray(read_box(given.path, given.box), dims=dimension_names(given.path))
        case "str" | "scalar":
            return _scalar(parameter, given.value)
        case other:
            raise InvalidInputError(f"parameter {parameter.name!r} has the unknown form {other!r}")


def _content(parameter: Parameter, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except IsADirectoryError:
        raise UserCodeError(
            f"parameter {parameter.name!r} is annotated bytes, the content of one file, and is a folder here; "
            "annotate it Path, or choose a glob that matches files only"
        ) from None


def _scalar(parameter: Parameter, value: Any) -> Any:
    if parameter.scalar == "bool":
        return value if isinstance(value, bool) else json.loads(str(value).lower())
    return _SCALARS[parameter.scalar](value) if parameter.scalar else value
