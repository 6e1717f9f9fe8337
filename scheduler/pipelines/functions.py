"""The spec of a function or class: what code it is, and the files that run. Commands are in `commands.py`."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ...storage.digest import digest
from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.objects.value import WHOLE_MAX_BYTES
from ...worker.child.secrets import parse_secret
from ...worker.job import CommandTransform, Environment, PythonTransform
from ..identity.bundle import PICKLES, BundleFile, included_files, module_files
from ..identity.code import CodeIdentity, python_identity
from ..identity.definitions import locate
from ..identity.source import Project
from .declared import Declared, Home, PutBundle
from .spec import Definition, PipelineSpec, bad_spec

__all__ = [
    "python_spec",
    "with_interpreter",
]


def python_spec(
    declared: Declared, home: Home, project: Project, parameters: Mapping[str, Any], *, put_bundle: PutBundle
) -> tuple[PipelineSpec, tuple[str, ...]]:
    """Spec of a Python pipeline without its DAG's name, env and git state, and notices about its code."""
    transform, signature = declared.transform, declared.signature
    folder = next((secret for secret in declared.options.secrets if parse_secret(secret).is_folder), None)
    if folder is not None:
        raise bad_spec(f"pipeline {declared.name!r}: secret {folder!r} is a file, which commands see; name a variable")
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
