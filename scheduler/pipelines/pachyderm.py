"""Pachyderm's pipeline specifications, JSON or YAML, as they are.

What means the same here is used; what only Kubernetes understands is a notice; what would change results and is not
there yet is refused (code ``unsupported``); an unknown field is refused with the nearest name. Defaults are
Pachyderm's: three tries, branch ``master``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.refs import check_name
from ...worker.job import CommandTransform
from ..identity.bundle import BundleFile
from ..inputs.expression import MEMBERS_MAX, Cross, Group, Input, Join, Union, Values, files, leaves, scope
from .declared import code_hash, command_code_id, command_definitions
from .fields import Fields, shown
from .quantities import parse_duration_s, parse_size_bytes
from .spec import Definition, Options, PipelineSpec
from .topology import topological_order

DEFAULT_TRIES = 3

_T = TypeVar("_T")

_USED = (
    *("pipeline", "description", "transform", "input", "output_branch", "datum_tries", "datum_timeout", "salt"),
    *("resource_requests", "reprocess_spec", "reprocess", "s3_out", "job_timeout"),
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
_INPUT_KINDS = ("pfs", "cross", "join", "group", "union", "cron")
_COMBINED: dict[str, Callable[..., Input]] = {"cross": Cross, "join": Join, "group": Group, "union": Union}
_PFS_USED = (
    *("project", "name", "repo", "repo_type", "branch", "glob", "lazy", "commit"),
    *("join_on", "outer_join", "group_by"),
)
_PFS_NOT_YET = {
    "empty_files": "",
    "s3": "",
    "trigger": "",
    "propagation_spec": "",
    "reference": "",
    "glob_dirs": "`/**` yields files only; leave it out",
}
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
    for data, line in _documents(text, name):
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


# --- text to objects --------------------------------------------------------------------------------------------


def _documents(text: str, filename: str) -> Iterator[tuple[object, int]]:
    """Yield each specification and the line it begins on."""
    text = text.removeprefix("\ufeff")
    if text.lstrip()[:1] in ("{", "[") and not filename.endswith((".yaml", ".yml")):
        documents = _json_documents(text, filename)
    else:
        documents = _yaml_documents(text, filename)
    for data, line in documents:
        if isinstance(data, list):
            yield from ((item, line) for item in data)
        elif data is not None:
            yield data, line


def _json_documents(text: str, filename: str) -> Iterator[tuple[object, int]]:
    decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: _without_twins(pairs, filename))
    position = 0
    while (found := re.compile(r"\S").search(text, position)) is not None:
        start = found.start()
        if text[start] == ",":  # some people separate them
            position = start + 1
            continue
        try:
            data, position = decoder.raw_decode(text, start)
        except json.JSONDecodeError as err:
            raise InvalidInputError(
                f"{filename}:{err.lineno}:{err.colno}: not JSON: {err.msg}", code=ErrorCode.BAD_SPEC
            ) from err
        yield data, text.count("\n", 0, start) + 1


def _without_twins(pairs: list[tuple[str, Any]], filename: str) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise InvalidInputError(f"{filename}: field {twin!r} is given twice in one object", code=ErrorCode.BAD_SPEC)
    return out


def _yaml_documents(text: str, filename: str) -> Iterator[tuple[object, int]]:
    import yaml

    loader = yaml.SafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            line = node.start_mark.line + 1 if node is not None else 1
            yield loader.construct_document(node), line
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        place = f"{filename}:{mark.line + 1}:{mark.column + 1}" if mark is not None else filename
        problem = getattr(err, "problem", None) or str(err)
        raise InvalidInputError(f"{place}: not YAML: {problem}", code=ErrorCode.BAD_SPEC) from err
    finally:
        loader.dispose()


# --- objects to specs -------------------------------------------------------------------------------------------


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
        node, _ = self._input(fields.value("input"), "input")
        self._check_names(node)
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
        timeout = fields.text("datum_timeout")
        options = Options(
            tries=fields.integer("datum_tries") or DEFAULT_TRIES,
            timeout_s=parse_duration_s(timeout, what=f"{self.where}: datum_timeout") if timeout else 0.0,
            secrets=secrets,
        )
        if "job_timeout" in fields.given():
            parse_duration_s(fields.text("job_timeout"), what=f"{self.where}: job_timeout")
            self.notices.append(f"{self.name}: job_timeout is not enforced yet")
        requests = fields.value("resource_requests")
        return options if requests is None else self._resources(options, requests)

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

    # --- input ---

    def _input(self, data: object, path: str) -> tuple[Input, bool]:
        """An input, and whether a file of it has `outer_join`."""
        where = f"{self.where}: {path}"
        fields = Fields(data, where, _INPUT_KINDS)
        kinds = [kind for kind in _INPUT_KINDS if fields.value(kind) is not None]
        if len(kinds) != 1:
            raise fields.bad(f"expected one of {', '.join(_INPUT_KINDS)}, got {', '.join(kinds) or 'none'}")
        kind = kinds[0]
        if kind == "pfs":
            return self._pfs(fields.value("pfs"), f"{path}.pfs")
        if kind not in _COMBINED:
            raise fields.unsupported(kind, f"there are pfs, {', '.join(_COMBINED)}")
        items = fields.items(kind)
        if not items:
            raise fields.bad(f"{kind} is empty")
        if len(items) > MEMBERS_MAX:
            raise fields.bad(f"{kind} has {len(items)} inputs; at most {MEMBERS_MAX} are supported")
        nodes = [self._input(item, f"{path}.{kind}[{position}]") for position, item in enumerate(items)]
        inputs = tuple(node for node, _ in nodes)
        outer = tuple(at for at, (_, kept) in enumerate(nodes) if kept)
        made: Input = Join(inputs=inputs, outer=outer)
        if kind != "join":
            made = _COMBINED[kind](inputs=inputs)
        self._checked(where, lambda: scope(made))
        return made, bool(outer)

    def _pfs(self, data: object, path: str) -> tuple[Input, bool]:
        where = f"{self.where}: {path}"
        fields = Fields(data, where, (*_PFS_USED, *_PFS_NOT_YET))
        for field, instead in _PFS_NOT_YET.items():
            if field in fields.given():
                raise fields.unsupported(field, instead)
        repo, glob = fields.required_text("repo"), fields.required_text("glob")
        if "commit" in fields.given():
            raise fields.bad("'commit' cannot be set: an input follows a branch", hint="name a branch with 'branch'")
        if fields.text("project") not in ("", "default"):
            raise fields.unsupported("project", "a store is one project; leave it out")
        if fields.text("repo_type") not in ("", "user"):
            raise fields.unsupported("repo_type")
        if "lazy" in fields.given():
            self.notices.append(f"{self.name}: without meaning here: {path}.lazy")
        if "**" in glob:
            self.notices.append(f"{self.name}: {path}.glob {glob!r} yields files only, in Pachyderm folders too")
        name = fields.text("name") or None
        branch = fields.text("branch") or "master"
        found = self._checked(where, lambda: files(repo, glob, name=name, branch=branch))
        keys = {"join_on": fields.text("join_on"), "group_by": fields.text("group_by")}
        return msgspec.structs.replace(found, **keys), fields.flag("outer_join")

    def _check_names(self, node: Input) -> None:
        self._checked(f"{self.where}: input", lambda: leaves(node))

    def _checked(self, where: str, make: Callable[[], _T]) -> _T:
        try:
            return make()
        except InvalidInputError as err:
            raise InvalidInputError(f"{where}: {err.message}", code=err.code, hint=err.hint) from err


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
