"""One declared pipeline, and its spec.

`Declared` is what the decorator noted; `python_spec` finds out what code it is, collects the files that run and fills
in a `PipelineSpec`. Commands are in `commands.py`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import pickle
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ...storage.digest import digest
from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.objects.value import WHOLE_MAX_BYTES
from ...storage.refs import DEFAULT_BRANCH
from ...worker.child.secrets import parse_secret
from ...worker.job import CommandTransform, Environment, PythonTransform
from ..identity.bundle import PICKLES, BundleFile, included_files, module_files
from ..identity.code import CodeIdentity, python_identity
from ..identity.reach import locate
from ..identity.source import Project
from ..inputs.expression import Input, Like, canonical_json
from .quantities import check_share, parse_duration_s, parse_size_bytes
from .signature import Signature
from .spec import Definition, Egress, Options, PipelineSpec, Standing

PutBundle = Callable[[dict[str, BundleFile]], str]
"""Stores files (path to content and mode) as a tree; returns its id in hex."""


@dataclass(frozen=True, slots=True)
class Home:
    """Where a DAG was written."""

    file: Path | None
    """None: a notebook or an interactive session."""
    folder: Path
    root: Path
    """The project root."""


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


def make_options(
    *,
    batch: int = 0,
    cpus: float = 1.0,
    gpus: int = 0,
    memory: str | int | None = None,
    resources: Mapping[str, float] | None = None,
    priority: int = 0,
    tries: int = 1,
    timeout: str | float | None = None,
    job_timeout: str | float | None = None,
    max_failures: str | int = 0,
    secrets: Sequence[str] = (),
    keep: str | None = None,
    every_commit: bool = False,
    every_job: bool = False,
) -> Options:
    """Check the options of a pipeline.

    Raises
    ------
    InvalidInputError
        `BAD_SPEC`, naming the option.
    """
    _whole("batch", batch, 0)
    _whole("gpus", gpus, 0)
    _whole("tries", tries, 1)
    if isinstance(cpus, bool) or not isinstance(cpus, int | float) or not 0 < cpus < float("inf"):
        raise _bad(f"cpus: expected a number above 0, got {cpus!r}")
    if memory is not None:
        parse_size_bytes(memory, what="memory")
    for name, amount in (resources or {}).items():
        if name in ("cpu", "gpu", "memory") or not name.isidentifier():
            raise _bad(
                f'resources: expected names of what workers announce, such as {{"licence": 1}}, got {name!r}'
                " (cpus=, gpus= and memory= are options of their own)"
            )
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 < amount < float("inf"):
            raise _bad(f"resources: expected a number above 0 for {name!r}, got {amount!r}")
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise _bad(f"priority: expected a whole number, got {priority!r}")
    for name, flag in (("every_commit", every_commit), ("every_job", every_job)):
        if not isinstance(flag, bool):
            raise _bad(f"{name}: expected True or False, got {flag!r}")
    if keep not in (None, "latest"):
        raise _bad(f'keep: expected "latest", got {keep!r}')
    if isinstance(secrets, str) or not all(isinstance(item, str) for item in secrets):
        raise _bad(f'secrets: expected names of variables such as ["HF_TOKEN"], got {secrets!r}')
    for secret in secrets:
        try:
            parse_secret(secret)
        except InvalidInputError as err:
            raise _bad(f"secrets: {err.message}") from err
    return Options(
        batch=batch,
        cpus=float(cpus),
        gpus=gpus,
        memory="" if memory is None else str(memory),
        resources={name: float(amount) for name, amount in sorted((resources or {}).items())},
        priority=priority,
        tries=tries,
        timeout_s=0.0 if timeout is None else parse_duration_s(timeout, what="timeout"),
        job_timeout_s=0.0 if job_timeout is None else parse_duration_s(job_timeout, what="job_timeout"),
        max_failures=check_share(max_failures),
        secrets=tuple(secrets),
        keep=keep or "",
        every_commit=every_commit,
        every_job=every_job,
    )


def python_spec(
    declared: Declared, home: Home, project: Project, parameters: Mapping[str, Any], *, put_bundle: PutBundle
) -> tuple[PipelineSpec, tuple[str, ...]]:
    """Spec of a Python pipeline without its DAG's name, env and git state, and notices about its code."""
    transform, signature = declared.transform, declared.signature
    folder = next((secret for secret in declared.options.secrets if parse_secret(secret).is_folder), None)
    if folder is not None:
        raise _bad(f"pipeline {declared.name!r}: secret {folder!r} is a file, which commands see; name a variable")
    assert not isinstance(transform, CommandTransform)
    assert signature is not None
    included = included_files(declared.include, base=home.folder, root=home.root)
    code = python_identity(
        transform, project, skip_defaults=signature.homes, included=included, version=declared.version
    )
    module, file = _module_of(transform, project)
    files: dict[str, BundleFile] = dict(included)
    folders: tuple[str, ...] = ("",)
    if file is not None:
        modules = module_files(project, file, module)
        files.update(modules.files)
        folders = modules.folders
    pickled = pickled_python = ""
    if file is None or not _importable(transform):
        data = _pickle(transform, declared.name)
        pickled = digest(data).hex()
        pickled_python = f"{sys.version_info.major}.{sys.version_info.minor}"
        files[f"{PICKLES}/{pickled}.pkl"] = (data, 0o644)
    source_file, line = locate(transform, project)
    spec = PipelineSpec(
        name=declared.name,
        input=declared.input,
        transform=PythonTransform(
            module=module,
            qualname=transform.__qualname__,
            kind=signature.kind,
            result=signature.result,
            signature=signature.parameters,
            bundle=put_bundle(files),
            path=folders,
            pickled=pickled,
            pickled_python=pickled_python,
        ),
        code_id=code.code_id,
        parameters={**signature.defaults, **parameters},
        writes=declared.writes,
        by_content=declared.by_content,
        options=declared.options,
        definitions=_definitions(code),
        whole_modules=code.whole_modules,
        source=f"{source_file}:{line}" if source_file else "",
        description=_summary(transform),
    )
    return spec, code.notices


def with_interpreter(spec: PipelineSpec, environment: Environment | None) -> PipelineSpec:
    """Let a function run on the interpreter of the environment that is declared for it."""
    assert isinstance(spec.transform, PythonTransform)
    transform = msgspec.structs.replace(spec.transform, environment=environment)
    return msgspec.structs.replace(spec, transform=transform)


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
    error = _bad(f"{pipeline}.{name}: expected {kind or 'a plain value'}, got {value!r}")
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


def _definitions(code: CodeIdentity) -> tuple[Definition, ...]:
    return tuple(Definition(item.name, item.file, item.line, item.hash) for item in code.definitions)


def _module_of(transform: Callable[..., object], project: Project) -> tuple[str, Path | None]:
    """Name under which a worker imports the transform's module, and its file; None for code that has no file."""
    name = transform.__module__
    module = sys.modules.get(name)
    if isinstance(transform, types.FunctionType):
        namespace: Mapping[str, Any] = transform.__globals__
    else:
        namespace = vars(module) if module is not None else {}
    filename = namespace.get("__file__")
    if not filename or not project.owns(filename):
        return name, None
    file = Path(filename).resolve()
    if name == "__main__":
        spec = namespace.get("__spec__")
        name = spec.name if spec is not None else file.stem
    return name, file


def _importable(transform: Callable[..., object]) -> bool:
    """Whether a worker finds exactly this object by its module and qualified name."""
    if "<" in transform.__qualname__:
        return False
    if isinstance(transform, types.FunctionType):
        found: object = types.SimpleNamespace(**transform.__globals__)
    else:
        found = sys.modules.get(transform.__module__)
    for part in transform.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is transform


def _pickle(transform: Callable[..., object], name: str) -> bytes:
    import cloudpickle  # type: ignore[import-untyped]  # none are published

    try:
        data: bytes = cloudpickle.dumps(transform)
    except (pickle.PicklingError, TypeError, AttributeError, ValueError, NotImplementedError) as err:
        raise InvalidInputError(
            f"pipeline {name!r}: {transform.__qualname__} cannot be sent to a worker: {err}",
            code=ErrorCode.BAD_CODE,
            hint="define it at the top level of a file, and pass what it needs as parameters or inputs",
        ) from err
    if len(data) > WHOLE_MAX_BYTES:
        raise InvalidInputError(
            f"pipeline {name!r}: {transform.__qualname__} holds {len(data)} bytes; at most {WHOLE_MAX_BYTES} are sent",
            code=ErrorCode.BAD_CODE,
            hint="pass data as an input",
        )
    return data


def _summary(transform: Callable[..., object]) -> str:
    lines = (transform.__doc__ or "").strip().splitlines()
    return lines[0].strip() if lines else ""


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise _bad(f"{name}: expected a whole number of {least} or more, got {value!r}")


def _bad(message: str) -> InvalidInputError:
    return InvalidInputError(message, code=ErrorCode.BAD_SPEC)
