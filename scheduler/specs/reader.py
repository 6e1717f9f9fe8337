"""Pachyderm's pipeline specifications, JSON or YAML, as they are, with a few fields of our own.

What means the same here is used; what only Kubernetes understands is a notice; what cannot be had is refused with the
reason (code ``unsupported``); an unknown field is refused with the nearest name (`table.py` has them all). Defaults are
Pachyderm's: three tries, branch ``master``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.refs import DEFAULT_BRANCH, check_name
from ...worker.job import CommandTransform
from ..identity.bundle import BundleFile
from ..inputs.expression import Input
from ..pipelines.commands import code_hash, command_code_id, command_definitions, with_environment
from ..pipelines.environment import DeclaredEnvironment, command_environment
from ..pipelines.quantities import check_share, parse_duration_s, parse_size_bytes
from ..pipelines.spec import NO_INPUT, Definition, Options, PipelineSpec, Standing, check_service, upstream
from ..pipelines.topology import topological_order
from .documents import documents
from .egress import read_egress
from .fields import Fields, shown
from .input import read_input
from .transform import Around, read_transform

DEFAULT_TRIES = 3


@dataclass(frozen=True, slots=True)
class Code:
    """A folder of scripts that appears at ``/code``."""

    tree: str
    """Hex."""
    files: Mapping[str, BundleFile] | None = None
    """By path in the folder: they count by content. Without them the tree's id counts."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where specifications come from, and what they are submitted with.

    Parameters
    ----------
    filename
        For messages and `PipelineSpec.source`; decides between JSON and YAML where the text does not.
    folder
        What `env` and `code` are relative to; None: neither can be read.
    code
        The scripts of all of them.
    open_code
        Reads and stores the scripts of one that names its own folder.
    """

    filename: str
    folder: Path | None = None
    code: Code | None = None
    open_code: Callable[[Path], Code] | None = None
    put_bundle: Callable[[dict[str, BundleFile]], str] = lambda files: ""
    """Stores a few files; returns their tree, hex."""
    container: str = ""
    """What runs their images: `docker`, `podman`, `apptainer`, `auto`; empty: nothing, commands run as they are."""


def parse_specs(text: str, source: Source) -> tuple[list[PipelineSpec], list[str]]:
    """Read all specifications of a file.

    Parameters
    ----------
    text
        JSON (one object, several after each other, or a list) or YAML (one document or several).

    Returns
    -------
    tuple
        The specs, upstream first, and notices: what has no meaning here.

    Raises
    ------
    InvalidInputError
        `BAD_SPEC` (not parseable, an unknown or missing field, a wrong value), `UNSUPPORTED`, `NAME_CLASH`, `CYCLE`,
        or what the input's own check says.
    """
    name = source.filename.rpartition("/")[2]
    notices: list[str] = []
    found: dict[str, PipelineSpec] = {}
    for data, line in documents(text, name):
        spec, told = read_spec(data, source, line)
        if spec.name in found:
            raise InvalidInputError(f"{name}: two pipelines are named {spec.name!r}", code=ErrorCode.NAME_CLASH)
        found[spec.name] = spec
        notices += told
    if not found:
        raise InvalidInputError(f"{name}: holds no pipeline", code=ErrorCode.BAD_SPEC)
    return [found[item] for item in topological_order(upstream(list(found.values())))], notices


def read_spec(data: object, source: Source, line: int) -> tuple[PipelineSpec, list[str]]:
    """Read one specification, which begins on `line` of its file; return it and its notices."""
    reader = _Reader(data, source, line)
    return reader.read(), reader.notices


class _Reader:
    def __init__(self, data: object, source: Source, line: int) -> None:
        self.source = source
        self.filename = source.filename.rpartition("/")[2]
        self.line = line
        self.notices: list[str] = []
        self.fields = Fields(data, f"{self.filename}:{line}", "spec")
        self.name = self._name()
        self.fields.where = self.where = f"{self.filename}: pipeline {self.name!r}"

    def read(self) -> PipelineSpec:
        fields = self.fields
        code = self._code()
        env_name, environment = self._env()
        if fields.value("transform") is None:
            raise fields.bad("required field 'transform' is missing")
        around = Around(
            pipeline=self.name,
            where=self.where,
            code=code.tree if code else "",
            has_code=code is not None,
            container=self.source.container,
            batch=fields.integer("batch"),
        )
        transform, secrets = read_transform(fields.value("transform"), around, self.notices)
        if environment is not None:
            transform = with_environment(transform, environment, self.where)
        standing = self._standing()
        node: Input = NO_INPUT
        if standing is None or standing.kind != "spout":
            if fields.value("input") is None:
                raise fields.bad("required field 'input' is missing")
            node = read_input(fields.value("input"), pipeline=self.name, where=self.where, notices=self.notices)
            if standing is not None:
                check_service(self.name, node)
        ignored = fields.without_meaning()
        if ignored:
            self.notices.insert(0, f"{self.name}: without meaning here: {', '.join(ignored)}")
        files = code.files if code else None
        return PipelineSpec(
            name=self.name,
            input=node,
            transform=transform,
            code_id=command_code_id(transform, _code_id(code), secrets=secrets),
            parameters=fields.scalars("params"),
            env=environment.identity if environment else "",
            env_name=env_name,
            standing=standing,
            salt=fields.text("salt"),
            by_content=fields.flag("by_content"),
            egress=read_egress(fields.value("egress") or {}, self.where),
            output_branch=check_name(fields.text("output_branch") or DEFAULT_BRANCH, "branch"),
            options=self._options(secrets),
            definitions=_definitions(transform, self.filename, self.line, code, files),
            source=f"{self.filename}:{self.line}",
            description=fields.text("description"),
        )

    def _name(self) -> str:
        value = self.fields.value("pipeline")
        if value is None:
            raise self.fields.bad("required field 'pipeline' is missing", hint='"pipeline": {"name": "..."}')
        pipeline = Fields(value, f"{self.fields.where}: pipeline", "pipeline")
        name = check_name(pipeline.required_text("name"), "pipeline")
        if pipeline.text("project") not in ("", "default"):
            raise pipeline.unsupported("project", "a store is one project; leave it out")
        return name

    def _standing(self) -> Standing | None:
        # An empty object says nothing of a service; a spout needs no more.
        spout = isinstance(self.fields.value("spout"), Mapping)
        kinds = [kind for kind, given in (("spout", spout), ("service", "service" in self.fields.given())) if given]
        if not kinds:
            return None
        if len(kinds) > 1:
            raise self.fields.bad("spout and service exclude each other", hint="a spout may have a service of its own")
        kind = kinds[0]
        fields = Fields(self.fields.value(kind), f"{self.where}: {kind}", kind)
        if kind == "spout":
            if self.fields.value("input") is not None:
                raise self.fields.bad("a spout has no input")
            fields = Fields(fields.value("service") or {}, f"{fields.where}.service", "service")
        for name in fields.without_meaning():
            self.notices.append(f"{self.name}: without meaning here: {kind}.{name}")
        return Standing(kind=kind, port=fields.integer("internal_port"))

    def _code(self) -> Code | None:
        name = self.fields.text("code")
        if not name:
            return self.source.code
        if self.source.folder is None or self.source.open_code is None:
            raise self.fields.bad("code: there is no folder that it could be relative to")
        folder = self.source.folder / name
        if not folder.is_dir():
            raise self.fields.bad(f"code: there is no folder {folder}")
        return self.source.open_code(folder)

    def _env(self) -> tuple[str, DeclaredEnvironment | None]:
        name = self.fields.text("env")
        if not name:
            return "", None
        folders = () if self.source.folder is None else (self.source.folder,)
        try:
            return name, command_environment(name, folders, self.source.put_bundle)
        except InvalidInputError as err:
            raise self.fields.bad(err.message, hint=err.hint) from err

    # --- options ---

    def _options(self, secrets: tuple[str, ...]) -> Options:
        fields = self.fields
        share = fields.value("max_failures")
        options = Options(
            tries=fields.integer("datum_tries") or DEFAULT_TRIES,
            timeout_s=self._seconds("datum_timeout"),
            job_timeout_s=self._seconds("job_timeout"),
            secrets=secrets,
            every_commit=fields.value("every_commit") is None or fields.flag("every_commit"),
            every_job=self._every_job(),
        )
        if isinstance(share, str | int):
            options = msgspec.structs.replace(
                options, max_failures=check_share(share, what=f"{self.where}: max_failures")
            )
        elif share is not None:
            raise fields.bad(f"max_failures: expected a number or a share, got {shown(share)}")
        # Kubernetes takes a limit for the request that is not given.
        for name in ("resource_limits", "resource_requests"):
            if fields.value(name) is not None:
                options = self._resources(options, name)
        return options

    def _every_job(self) -> bool:
        said = self.fields.text("reprocess_spec") or "until_success"
        if said not in ("until_success", "every_job"):
            raise self.fields.bad(f"reprocess_spec: expected until_success or every_job, got {said!r}")
        return said == "every_job"

    def _seconds(self, field: str) -> float:
        text = self.fields.text(field)
        return parse_duration_s(text, what=f"{self.where}: {field}") if text else 0.0

    def _resources(self, options: Options, name: str) -> Options:
        fields = Fields(self.fields.value(name), f"{self.where}: {name}", "resources")
        cpu = fields.value("cpu")
        if cpu is not None:
            options = msgspec.structs.replace(options, cpus=_cpus(fields, cpu))
        memory = fields.text("memory")
        if memory:
            parse_size_bytes(memory, what=f"{fields.where}: memory")
            options = msgspec.structs.replace(options, memory=memory)
        if fields.value("gpu") is not None:
            gpu = Fields(fields.value("gpu"), f"{fields.where}: gpu", "gpu")
            options = msgspec.structs.replace(options, gpus=gpu.integer("number"))
        for field in fields.without_meaning():
            self.notices.append(f"{self.name}: without meaning here: {name}.{field}")
        return options


def _code_id(code: Code | None) -> str:
    if code is None:
        return ""
    return code.tree if code.files is None else code_hash(code.files)


def _definitions(
    transform: CommandTransform, file: str, line: int, code: Code | None, files: Mapping[str, BundleFile] | None
) -> tuple[Definition, ...]:
    found = command_definitions(transform, file, line, files or {})
    opaque = code is not None and code.tree and files is None
    return (*found, Definition("/code", "", 0, code.tree)) if code is not None and opaque else found


def _cpus(fields: Fields, value: object) -> float:
    text = str(value)
    scale = 1.0
    if text.endswith("m"):  # Kubernetes' thousandths
        text, scale = text[:-1], 0.001
    try:
        number = float(text) * scale
    except ValueError:
        number = -1.0
    if isinstance(value, bool) or not 0 < number < float("inf"):
        raise fields.bad(f"cpu: expected a number above 0, got {shown(value)}")
    return number
