"""What a Python transform takes and gives: its signature against its input.

A parameter's *name* decides what comes in (an input, a capture, a value, `out`, a parameter of the pipeline), its
*annotation* how. Whatever is not in the list is refused where the pipeline is declared, and the error shows the list.
"""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...storage.glob import compile_glob
from ...worker.job import Parameter
from ..inputs.expression import Files, Input, Leaf, Like, Values, canonical_json
from ..inputs.scope import scope
from ..inputs.walk import constants
from .annotations import element_of, evaluate, form_of, scalar_of, shown
from .incoming import OUT, Incoming, incoming_of
from .outgoing import read_result
from .spec import bad_spec


@dataclass(frozen=True, slots=True)
class Signature:
    """A transform's signature, understood."""

    kind: str
    """`function` or `class`."""
    result: str
    """`files`, `out` or `array`."""
    parameters: tuple[Parameter, ...]
    """Everything that comes in, in the order of the signature; what `__init__` takes first."""
    defaults: dict[str, Any] = field(default_factory=dict)
    """Parameters of the pipeline and their defaults."""
    homes: tuple[tuple[str, str], ...] = ()
    """(function name, parameter) of each parameter of the pipeline."""


def read_signature(
    transform: Callable[..., object], input: Input, *, batch: int = 0, writes: Like | None = None
) -> Signature:
    """Match a function or class with its input.

    Raises
    ------
    InvalidInputError
        `BAD_SPEC`: a parameter that nothing comes in for, an annotation that is not in the list, no output, or two.
    """
    reader = _Reader(transform, input, batch, writes)
    return reader.read()


class _Reader:
    def __init__(self, transform: Callable[..., object], input: Input, batch: int, writes: Like | None) -> None:
        self.transform = transform
        self.batch = batch
        self.writes = writes
        self.label = getattr(transform, "__name__", repr(transform))
        self.scope = scope(input)
        self.constants = constants(input)
        self.sources = incoming_of(self.label, self.scope)
        self.used: set[str] = set()

    def read(self) -> Signature:
        if isinstance(self.transform, type):
            return self._class(self.transform)
        if not inspect.isfunction(self.transform):
            kind = type(self.transform).__name__
            raise bad_spec(f"a pipeline is a function or a class, got {kind}: {self.transform!r}")
        if inspect.iscoroutinefunction(self.transform) or inspect.isasyncgenfunction(self.transform):
            raise bad_spec(f"{self.label}() is async; a transform is a plain function")
        inputs, defaults = self._parameters(self.transform, self.transform, bound=False, resident=False)
        result = self._result(self.transform, inputs)
        self._all_used()
        homes = tuple((self.label, name) for name in defaults)
        return Signature("function", result, inputs, defaults, homes)

    def _class(self, cls: type) -> Signature:
        call = cls.__dict__.get("__call__") or next(
            (vars(base)["__call__"] for base in cls.__mro__ if "__call__" in vars(base)), None
        )
        if not inspect.isfunction(call):
            raise bad_spec(f"class {self.label} has no __call__ method: it is what computes a datum")
        first: tuple[Parameter, ...] = ()
        first_defaults: dict[str, Any] = {}
        start = inspect.getattr_static(cls, "__init__")
        if inspect.isfunction(start):
            first, first_defaults = self._parameters(start, cls, bound=True, resident=True)
        rest, rest_defaults = self._parameters(call, cls, bound=True, resident=False)
        both = sorted({item.name for item in first} & {item.name for item in rest if item.source != "out"})
        if both:
            raise bad_spec(
                f"{self.label}: {_names(both)} in both __init__ and __call__: "
                "what __init__ takes is loaded once, what __call__ takes comes with each datum"
            )
        twice = sorted(set(first_defaults) & set(rest_defaults))
        if twice:
            raise bad_spec(f"{self.label}: parameter {_names(twice)} in both __init__ and __call__")
        result = self._result(call, rest)
        self._all_used()
        homes = (*(("__init__", name) for name in first_defaults), *(("__call__", name) for name in rest_defaults))
        return Signature("class", result, (*first, *rest), {**first_defaults, **rest_defaults}, homes)

    # --- what may come in ---

    def _parameters(
        self, function: types.FunctionType, owner: object, *, bound: bool, resident: bool
    ) -> tuple[tuple[Parameter, ...], dict[str, Any]]:
        parameters = list(inspect.signature(function).parameters.values())[1 if bound else 0 :]
        inputs: list[Parameter] = []
        defaults: dict[str, Any] = {}
        where = f"{self.label}.{function.__name__}" if bound else self.label
        for parameter in parameters:
            source = self._source(parameter, where, resident)
            if source is None:
                scalar = self._scalar(parameter, function, where)
                defaults[parameter.name] = self._default(parameter, where, scalar)
                inputs.append(
                    Parameter(name=parameter.name, source="parameter", form="scalar", resident=resident, scalar=scalar)
                )
                continue
            if parameter.default is not inspect.Parameter.empty:
                raise bad_spec(f"{where}(): {parameter.name!r} comes in from {source}: it takes no default")
            annotation = self._annotation(parameter, function, where, source)
            inputs.append(self._input(parameter.name, annotation, source, where, resident))
            self.used.add(parameter.name)
        return tuple(inputs), defaults

    def _source(self, parameter: inspect.Parameter, where: str, resident: bool) -> Incoming | None:
        name = parameter.name
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            stars = "*" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else "**"
            raise bad_spec(f"{where}(): {stars}{name} takes nothing by name; {self._choice()}")
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise bad_spec(f"{where}(): {name!r} is positional-only; parameters are passed by name")
        if name == "out":
            if resident:
                raise bad_spec(f"{where}(): 'out' belongs to __call__: it is the folder of one datum")
            return OUT
        source = self.sources.get(name)
        if source is not None:
            return source
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.default is not inspect.Parameter.empty:
            return None
        near = difflib.get_close_matches(name, self.sources, 1)
        hint = f"did you mean {near[0]!r}?" if near else None
        if parameter.default is not inspect.Parameter.empty:
            hint = (
                hint
                or f"a parameter of the pipeline is keyword-only: put it after `*`: def {where}(..., *, {name}=...)"
            )
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            hint = hint or f"a parameter of the pipeline needs a default: {name}=..."
        raise bad_spec(f"{where}(): nothing comes in for parameter {name!r}; {self._choice()}", hint=hint)

    def _choice(self) -> str:
        names = ", ".join([*self.sources, "out"])
        return f"there are {names}, and keyword-only parameters with a default"

    def _scalar(self, parameter: inspect.Parameter, function: types.FunctionType, where: str) -> str:
        if parameter.annotation is inspect.Parameter.empty:
            return ""
        annotation = evaluate(parameter.annotation, function, f"{where}(): annotation of {parameter.name!r}")
        return scalar_of(annotation)

    def _default(self, parameter: inspect.Parameter, where: str, scalar: str) -> Any:
        value = parameter.default
        if hasattr(value, "dtype") and hasattr(value, "tolist"):
            value = value.tolist()  # NumPy's scalars, without importing it
        try:
            canonical_json(value)
        except (TypeError, ValueError) as err:
            raise bad_spec(
                f"{where}(): parameter {parameter.name!r} has the default {value!r}; "
                "a parameter is a plain value (number, text, bool, None, list, dict)"
            ) from err
        if scalar == "float" and type(value) is int:
            return float(value)  # `C: float = 1` and `--set C=1.0` are the same
        return list(value) if isinstance(value, tuple) else value

    def _all_used(self) -> None:
        for name, slot in self.scope.slots.items():
            names = {name}
            for leaf in slot.leaves:
                names |= set(compile_glob(leaf.glob).captures) if isinstance(leaf, Files) else set()
            if not names & self.used:
                raise bad_spec(
                    f"{self.label}: input {name!r} comes in nowhere",
                    hint=f"add a parameter {name!r}, or drop it",
                )

    # --- how it comes in ---

    def _annotation(
        self, parameter: inspect.Parameter, function: types.FunctionType, where: str, source: Incoming
    ) -> object:
        annotation = parameter.annotation
        if annotation is inspect.Parameter.empty:
            raise bad_spec(
                f"{where}(): parameter {parameter.name!r} has no annotation; it says how {source} comes in: "
                f"{source.allowed}",
                hint=f"{parameter.name}: {source.usual}",
            )
        return evaluate(annotation, function, f"{where}(): annotation of {parameter.name!r}")

    def _input(self, name: str, annotation: object, source: Incoming, where: str, resident: bool) -> Parameter:
        constant = source.kind == "files" and name in self.constants
        batched = self.batch > 0 and not resident and not constant
        element = annotation
        if batched:
            element = element_of(annotation)
            if element is None:
                raise bad_spec(
                    f"{where}(): with batch={self.batch}, {name!r} is a list with an element for each datum, "
                    f"got {shown(annotation)}",
                    hint=f"{name}: list[{shown(annotation)}]",
                )
        if source.optional:
            element = self._present(name, element, source, where)
        form = form_of(source.kind, element)
        if form is None:
            wanted = source.allowed
            around = f" in list[...] (batch={self.batch})" if batched else ""
            raise bad_spec(
                f"{where}(): {name!r} is annotated {shown(annotation)}; {source} comes in as: {wanted}{around}"
            )
        if form == "bytes":
            self._check_one_file(name, where)
        scalar = scalar_of(element) if form == "scalar" else ""
        if scalar and isinstance(source.leaf, Values):
            for leaf in self.scope.slots[name].leaves:
                self._check_values(name, scalar, leaf, where)
        owner = source.leaf.name if source.leaf is not None and source.kind in ("capture", "value") else ""
        kind = "input" if source.kind in ("files", "array", "group") else source.kind
        return Parameter(
            name=name,
            source=kind,
            form=form,
            resident=resident,
            input=owner,
            scalar=scalar,
            optional=source.optional,
        )

    def _present(self, name: str, annotation: object, source: Incoming, where: str) -> object:
        """What an annotation says of an input that is there; that it may be missing must be said too."""
        rest = typing.get_args(annotation) if typing.get_origin(annotation) in (typing.Union, types.UnionType) else ()
        others = [item for item in rest if item is not type(None)]
        if len(others) != 1 or len(others) == len(rest):
            raise bad_spec(
                f"{where}(): {source} may be missing from a datum, and {name!r} is annotated {shown(annotation)}",
                hint=f"{name}: {shown(annotation)} | None",
            )
        return others[0]

    def _check_one_file(self, name: str, where: str) -> None:
        globs = [leaf.glob for leaf in self.scope.slots[name].leaves if isinstance(leaf, Files)]
        if globs and all(glob.endswith("/") for glob in globs):
            raise bad_spec(
                f"{where}(): {name!r} is annotated bytes, the content of one file; "
                f"glob {globs[0]!r} matches folders only",
                hint=f"{name}: Path; or a glob that matches files, such as '/*'",
            )

    def _check_values(self, name: str, scalar: str, leaf: Leaf, where: str) -> None:
        assert isinstance(leaf, Values)
        fitting = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}[scalar]
        for value in leaf.values:
            if not isinstance(value, fitting) or (isinstance(value, bool) and scalar != "bool"):
                raise bad_spec(f"{where}(): {name!r} is annotated {scalar}, and values({name}=...) holds {value!r}")

    # --- what goes out ---

    def _result(self, function: types.FunctionType, inputs: tuple[Parameter, ...]) -> str:
        where = f"{self.label}.__call__" if isinstance(self.transform, type) else self.label
        takes_out = any(item.source == "out" for item in inputs)
        return read_result(
            function, self.label, where, self.scope, takes_out=takes_out, batch=self.batch, writes=self.writes
        )


def _names(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)
