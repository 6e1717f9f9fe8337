"""Pachyderm's pipeline specifications, JSON or YAML, as they are.

What means the same here is used; what only Kubernetes understands is a notice; what would change results and is not
there yet is refused (code ``unsupported``); an unknown field is refused with the nearest name. Defaults are
Pachyderm's: three tries, branch ``master``.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.refs import check_name
from ...worker.job import CommandTransform
from ..identity.bundle import BundleFile
from ..inputs.expression import Values, leaves
from ..pipelines.declared import code_hash, command_code_id, command_definitions
from ..pipelines.quantities import parse_duration_s, parse_size_bytes
from ..pipelines.spec import Definition, Options, PipelineSpec
from ..pipelines.topology import topological_order
from .documents import documents
from .fields import Fields, shown
from .input import read_input

DEFAULT_TRIES = 3

_USED = (
    *("pipeline", "description", "transform", "input", "output_branch", "datum_tries", "datum_timeout", "salt"),
    *("resource_requests", "reprocess_spec", "reprocess", "s3_out", "job_timeout", "by_content"),
)
_WITHOUT_MEANING = (
    *("parallelism_spec", "resource_limits", "sidecar_resource_requests", "sidecar_resource_limits", "metadata"),
    *("scheduling_spec", "pod_spec", "pod_patch", "tolerations", "autoscaling", "datum_set_spec", "determined"),
    *("maximum_expected_uptime", "update", "dry_run", "spec_commit"),
)
_NOT_YET = {
    "egress": "read the output: dmlpipe get PIPELINE DEST",
    "service": "",
    "spout": "",
    "tf_job": "",
}
_TRANSFORM_USED = (
    *("cmd", "stdin", "err_cmd", "err_stdin", "env", "secrets", "working_dir", "accept_return_code", "image"),
)
_TRANSFORM_WITHOUT_MEANING = ("image_pull_secrets", "dockerfile", "debug", "user", "memory_volume")
_RESOURCES = ("cpu", "memory", "disk", "gpu")


def parse_specs(
    text: str, *, filename: str, code: str | None = None, code_files: Mapping[str, BundleFile] | None = None
) -> tuple[list[PipelineSpec], list[str]]:
    """Read all specifications of a file.

    Parameters
    ----------
    text
        JSON (one object, several after each other, or a list) or YAML (one document or several).
    filename
        For messages and `source`; decides between JSON and YAML where the text does not.
    code
        Tree (hex) of the scripts that the commands name; it appears at ``/code``.
    code_files
        The scripts themselves, by path in that folder: they count by content. Without them the tree's id counts.

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
    name = filename.rpartition("/")[2]
    notices: list[str] = []
    found: dict[str, PipelineSpec] = {}
    for data, line in documents(text, name):
        reader = _Reader(data, name, line, code, code_files)
        spec = reader.read()
        if spec.name in found:
            raise InvalidInputError(f"{name}: two pipelines are named {spec.name!r}", code=ErrorCode.NAME_CLASH)
        found[spec.name] = spec
        notices += reader.notices
    if not found:
        raise InvalidInputError(f"{name}: holds no pipeline", code=ErrorCode.BAD_SPEC)
    upstream = {
        spec.name: [leaf.repo for leaf in leaves(spec.input) if not isinstance(leaf, Values)] for spec in found.values()
    }
    return [found[item] for item in topological_order(upstream)], notices


class _Reader:
    def __init__(
        self,
        data: object,
        filename: str,
        line: int,
        code: str | None,
        code_files: Mapping[str, BundleFile] | None,
    ) -> None:
        self.filename = filename
        self.line = line
        self.code = code or ""
        self.code_files = code_files
        self.has_code = bool(code) or bool(code_files)
        self.notices: list[str] = []
        self.fields = Fields(data, f"{filename}:{line}", (*_USED, *_WITHOUT_MEANING, *_NOT_YET))
        self.name = self._name()
        self.fields.where = self.where = f"{filename}: pipeline {self.name!r}"

    def read(self) -> PipelineSpec:
        fields = self.fields
        for field, instead in _NOT_YET.items():
            if field in fields.given():
                raise fields.unsupported(field, instead)
        transform, secrets = self._transform()
        branch = fields.text("output_branch")
        if branch not in ("", "master"):
            raise fields.unsupported("output_branch", "the output branch is master")
        if "s3_out" in fields.given():
            raise fields.unsupported("s3_out")
        if "reprocess" in fields.given():
            raise fields.unsupported("reprocess")
        if fields.text("reprocess_spec") not in ("", "until_success"):
            raise fields.unsupported("reprocess_spec", "what was computed once from the same inputs is not again")
        if fields.value("input") is None:
            raise fields.bad("required field 'input' is missing")
        node = read_input(fields.value("input"), pipeline=self.name, where=self.where, notices=self.notices)
        ignored = [fields.written(item) for item in fields.given() if item in _WITHOUT_MEANING]
        if ignored:
            self.notices.insert(0, f"{self.name}: without meaning here: {', '.join(ignored)}")
        return PipelineSpec(
            name=self.name,
            input=node,
            transform=transform,
            code_id=command_code_id(
                transform, self.code if self.code_files is None else code_hash(self.code_files), secrets=secrets
            ),
            salt=fields.text("salt"),
            by_content=fields.flag("by_content"),
            options=self._options(secrets),
            definitions=self._definitions(transform),
            source=f"{self.filename}:{self.line}",
            description=fields.text("description"),
        )

    def _name(self) -> str:
        value = self.fields.value("pipeline")
        if value is None:
            raise self.fields.bad("required field 'pipeline' is missing", hint='"pipeline": {"name": "..."}')
        pipeline = Fields(value, f"{self.fields.where}: pipeline", ("name", "project"))
        name = check_name(pipeline.required_text("name"), "pipeline")
        if pipeline.text("project") not in ("", "default"):
            raise pipeline.unsupported("project", "a store is one project; leave it out")
        return name

    def _definitions(self, transform: CommandTransform) -> tuple[Definition, ...]:
        found = command_definitions(transform, self.filename, self.line, self.code_files or {})
        opaque = self.code and self.code_files is None
        return (*found, Definition("/code", "", 0, self.code)) if opaque else found

    # --- transform ---

    def _transform(self) -> tuple[CommandTransform, tuple[str, ...]]:
        value = self.fields.value("transform")
        if value is None:
            raise self.fields.bad("required field 'transform' is missing")
        known = (*_TRANSFORM_USED, *_TRANSFORM_WITHOUT_MEANING, "datum_batching")
        fields = Fields(value, f"{self.where}: transform", known)
        if "datum_batching" in fields.given():
            raise fields.unsupported("datum_batching", "a Python class with batch= keeps its model loaded")
        argv = fields.texts("cmd")
        if not argv or not argv[0]:
            raise fields.bad("required field 'cmd' is missing: the image's own command cannot be known here")
        image = fields.text("image")
        if image:
            self.notices.append(f"{self.name}: image {image} is not used: the command runs as it is on this machine")
        ignored = [fields.written(item) for item in fields.given() if item in _TRANSFORM_WITHOUT_MEANING]
        if ignored:
            self.notices.append(f"{self.name}: without meaning here: {', '.join(f'transform.{x}' for x in ignored)}")
        lines = (*argv, *fields.texts("stdin"), *fields.texts("err_cmd"), *fields.texts("err_stdin"))
        if not self.has_code and any("/code/" in line for line in lines):
            self.notices.append(f"{self.name}: it names files in /code: give their folder with --code DIR")
        transform = CommandTransform(
            argv=argv,
            stdin=fields.texts("stdin"),
            env=fields.variables("env"),
            working_dir=fields.text("working_dir"),
            accept_return_code=fields.integers("accept_return_code"),
            err_argv=fields.texts("err_cmd"),
            err_stdin=fields.texts("err_stdin"),
            code=self.code,
            image=image,
        )
        return transform, self._secrets(fields)

    def _secrets(self, transform: Fields) -> tuple[str, ...]:
        names: list[str] = []
        for position, item in enumerate(transform.items("secrets")):
            fields = Fields(item, f"{transform.where}.secrets[{position}]", ("name", "key", "mount_path", "env_var"))
            if "mount_path" in fields.given():
                raise fields.unsupported("mount_path", "use env_var: the secret is read from that variable")
            variable = fields.required_text("env_var")
            if not variable.isidentifier():
                raise fields.bad(f"{variable!r} cannot be the name of a variable")
            names.append(variable)
            secret = fields.text("name")
            self.notices.append(f"{self.name}: secret {secret!r} is read from ${variable} where the worker runs")
        return tuple(names)

    # --- options ---

    def _options(self, secrets: tuple[str, ...]) -> Options:
        fields = self.fields
        options = Options(
            tries=fields.integer("datum_tries") or DEFAULT_TRIES,
            timeout_s=self._seconds("datum_timeout"),
            job_timeout_s=self._seconds("job_timeout"),
            secrets=secrets,
        )
        requests = fields.value("resource_requests")
        return options if requests is None else self._resources(options, requests)

    def _seconds(self, field: str) -> float:
        text = self.fields.text(field)
        return parse_duration_s(text, what=f"{self.where}: {field}") if text else 0.0

    def _resources(self, options: Options, requests: object) -> Options:
        fields = Fields(requests, f"{self.where}: resource_requests", _RESOURCES)
        cpu = fields.value("cpu")
        if cpu is not None:
            options = msgspec.structs.replace(options, cpus=_cpus(fields, cpu))
        memory = fields.text("memory")
        if memory:
            parse_size_bytes(memory, what=f"{fields.where}: memory")
            options = msgspec.structs.replace(options, memory=memory)
        if fields.value("gpu") is not None:
            gpu = Fields(fields.value("gpu"), f"{fields.where}: gpu", ("type", "number"))
            options = msgspec.structs.replace(options, gpus=gpu.integer("number"))
        if "disk" in fields.given():
            self.notices.append(f"{self.name}: without meaning here: resource_requests.disk")
        return options


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
