"""A recorded version as a specification: every field that counts, defaults filled in.

`parse_specs` of it yields the version again, but for what a specification has no words for (Python transforms, arrays,
values, keys of joins by named captures), which stands in fields of its own.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...worker.child.secrets import parse_secret
from ...worker.job import CommandTransform, PythonTransform
from ..inputs.expression import Array, Cross, Files, Group, Input, Join, Union, Values
from ..pipelines.spec import Egress, Options, PipelineSpec, Standing


def effective(spec: PipelineSpec) -> dict[str, Any]:
    """Return a version as plain data, in the order in which people write it."""
    options = spec.options
    found: dict[str, Any] = {"pipeline": {"name": spec.name}}
    found["description"] = spec.description
    found["transform"] = _transform(spec)
    if spec.standing is None or spec.standing.kind != "spout":
        found["input"] = _input(spec.input)
    found["output_branch"] = spec.output_branch
    found["datum_tries"] = options.tries
    found["datum_timeout"] = f"{options.timeout_s:g}s" if options.timeout_s else ""
    found["job_timeout"] = f"{options.job_timeout_s:g}s" if options.job_timeout_s else ""
    found["resource_requests"] = _resources(options)
    found["reprocess_spec"] = "every_job" if options.every_job else ""
    found["max_failures"] = options.max_failures
    found["params"] = dict(spec.parameters)
    found["by_content"] = spec.by_content
    found["egress"] = _egress(spec.egress)
    found["env"] = spec.env_name
    found["salt"] = spec.salt
    said = {name: value for name, value in found.items() if value not in ("", {}, False)}
    # Jobs alone come commit by commit, and that they do not has to be said.
    return said | ({"every_commit": options.every_commit} if spec.standing is None else _standing(spec.standing))


def _standing(standing: Standing) -> dict[str, Any]:
    service = {"internal_port": standing.port} if standing.port else {}
    if standing.kind == "spout":
        return {"spout": {"service": service} if service else {}}
    return {"service": service}


def _transform(spec: PipelineSpec) -> dict[str, Any]:
    transform = spec.transform
    if isinstance(transform, PythonTransform):
        return {"python": f"{transform.module}:{transform.qualname}"}
    found = {
        "image": transform.image,
        "cmd": list(transform.argv),
        "stdin": list(transform.stdin),
        "err_cmd": list(transform.err_argv),
        "err_stdin": list(transform.err_stdin),
        "env": dict(transform.env),
        "secrets": [_secret(text) for text in spec.options.secrets],
        "accept_return_code": list(transform.accept_return_code),
        "working_dir": transform.working_dir,
        "user": transform.user,
        "datum_batching": transform.batching,
    }
    return {name: value for name, value in found.items() if value not in ("", [], {}, False)}


def _secret(text: str) -> dict[str, str]:
    secret = parse_secret(text)
    place = "mount_path" if secret.is_folder else "env_var"
    found = {"name": secret.name or secret.target, "key": secret.key or ("" if secret.is_folder else secret.target)}
    return {name: value for name, value in {**found, place: secret.target}.items() if value}


def _egress(egress: Egress | None) -> dict[str, Any]:
    if egress is None:
        return {}
    if not egress.rows:
        return {"url": egress.url}
    form = {"type": egress.rows.upper(), **({"columns": list(egress.columns)} if egress.columns else {})}
    name, _, key = egress.secret.partition("/")
    secret = {"secret": {"name": name, "key": key}} if name else {}
    return {"sql_database": {"url": egress.url, "file_format": form, **secret}}


def _resources(options: Options) -> dict[str, Any]:
    found: dict[str, Any] = {"cpu": options.cpus}
    if options.memory:
        found["memory"] = options.memory
    if options.gpus:
        found["gpu"] = {"number": options.gpus}
    return found


def _input(node: Input) -> dict[str, Any]:
    match node:
        case Files() if node.cron is not None:
            rule = node.cron
            given = {"name": node.name, "repo": node.repo, "spec": rule.spec, "start": rule.start}
            return {"cron": {**_said(given), **({"overwrite": True} if rule.overwrite else {})}}
        case Files():
            return {"pfs": _files(node)}
        case Cross():
            return {"cross": [_input(child) for child in node.inputs]}
        case Union():
            return {"union": [_input(child) for child in node.inputs]}
        case Join():
            members = [_input(child) for child in node.inputs]
            for place in node.outer:
                if "pfs" in members[place]:
                    members[place]["pfs"]["outer_join"] = True
            return {"join": members, **({"on": list(node.on)} if node.on else {})}
        case Group():
            return {"group": [_input(child) for child in node.inputs], **({"by": list(node.by)} if node.by else {})}
        case Array() | Values():
            return {type(node).__name__.lower(): _plain(node)}


def _files(node: Files) -> dict[str, Any]:
    found: dict[str, Any] = {"name": node.name, "repo": node.repo}
    found |= {"branch": node.branch, "glob": node.glob, "join_on": node.join_on, "group_by": node.group_by}
    found |= {"glob_dirs": node.folders, "reference": node.reference}
    found |= {"lazy": node.lazy, "empty_files": node.empty}
    if node.quiet:
        found["propagation_spec"] = {"never": True}
    if node.trigger is not None:
        rule = node.trigger
        size = str(rule.size) if rule.size else ""
        conditions = {"all": rule.all, "rate_limit_spec": rule.rate, "size": size, "commits": rule.commits}
        found["trigger"] = _said({"branch": rule.on, **conditions, "cron_spec": rule.cron})
    return _said(found)


def _said(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in ("", 0, False, None)}


def _plain(node: Array | Values) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(node)
    return {name: value for name, value in found.items() if name != "type"}


def is_command(spec: PipelineSpec) -> bool:
    """Whether a specification can say all of it."""
    return isinstance(spec.transform, CommandTransform)
