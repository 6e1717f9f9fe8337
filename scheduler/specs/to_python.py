"""A Python DAG that says what specifications say.

The commands are the same, so is their code id: where the inputs could be written without change, nothing is computed
anew. `(*)` captures that a join or group goes by get names, which is another input expression.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ...storage.errors import ErrorCode, InvalidInputError
from ...worker.job import CommandTransform
from ..inputs.expression import Array, Cross, Files, Group, Input, Join, Union, Values
from ..pipelines.spec import Egress, PipelineSpec

_TEMPLATE = re.compile(r"\$\{?(\d+)\}?")
_LINE_MAX = 100
_OF_STANDING = ("stdin", "variables", "working_dir", "user", "code", "env", "secrets")
"""What `DAG.spout` and `DAG.service` take."""


def to_python(specs: Sequence[PipelineSpec], *, name: str, code: str = "") -> str:
    """Return the text of a DAG file.

    Parameters
    ----------
    specs
        Of commands, upstream first.
    name
        Of the DAG.
    code
        Folder of their scripts, relative to the file.

    Raises
    ------
    InvalidInputError
        A join or group goes by something that named captures cannot say (code ``unsupported``).
    """
    lines = ["import dmlpipe as dml", "", f"dag = dml.DAG({_text(name)})"]
    for spec in specs:
        lines += ["", *_pipeline(spec, code)]
    return "\n".join(lines) + "\n"


def _pipeline(spec: PipelineSpec, code: str) -> list[str]:
    transform = spec.transform
    assert isinstance(transform, CommandTransform)
    options = spec.options
    # An image that env= names runs the command by that alone.
    boxed = bool(transform.container) and transform.image != spec.env_name
    given: dict[str, Any] = {
        "stdin": list(transform.stdin),
        "variables": dict(transform.env),
        "working_dir": transform.working_dir,
        "accept": list(transform.accept_return_code),
        "err_cmd": list(transform.err_argv),
        "err_stdin": list(transform.err_stdin),
        "user": transform.user,
        "batching": transform.batching,
        "batch": transform.batch,
        "image": transform.image if boxed else "",
        "container": transform.container if boxed else "",
        "code": code if transform.code else "",
        "parameters": dict(spec.parameters),
        "env": spec.env_name,
        "secrets": list(options.secrets),
        "cpus": options.cpus if options.cpus != 1.0 else 0,
        "gpus": options.gpus,
        "memory": options.memory,
        "tries": options.tries if options.tries != 1 else 0,
        "timeout": options.timeout_s,
        "job_timeout": options.job_timeout_s,
        "max_failures": options.max_failures if options.max_failures != "0" else "",
        "by_content": spec.by_content,
        "egress": _egress(spec.egress) if spec.egress is not None else "",
        "output_branch": spec.output_branch if spec.output_branch != "master" else "",
        "every_commit": options.every_commit,
        "every_job": options.every_job,
        "salt": spec.salt,
    }
    call, inputs = "command", [_input(spec.input, spec.name)]
    if spec.standing is not None:
        call = spec.standing.kind
        inputs = inputs if call == "service" else []
        given = {"port": spec.standing.port} | {name: given[name] for name in _OF_STANDING}
    said = [f"{key}={_literal(value)}" for key, value in given.items() if value not in ("", 0, 0.0, [], {}, False)]
    notes = [f"# {line}" for line in spec.description.splitlines() if line.strip()]
    if transform.image and not transform.container:
        notes.append(f"# ran in {transform.image}")
    arguments = [_text(spec.name), _literal(list(transform.argv)), *inputs, *said]
    one = f"dag.{call}({', '.join(arguments)})"
    if len(one) <= _LINE_MAX and "\n" not in one:
        return [*notes, one]
    return [*notes, f"dag.{call}(", *(f"    {line}," for line in arguments), ")"]


class _Source(str):
    """Python source, to be written as it is."""


def _egress(egress: Egress) -> str:
    if not egress.rows:
        return egress.url
    given = {"rows": egress.rows, "columns": list(egress.columns), "secret": egress.secret}
    said = [f"{name}={_literal(value)}" for name, value in given.items() if value]
    return _Source(f"dml.egress({', '.join([_text(egress.url), *said])})")


def _input(node: Input, pipeline: str) -> str:
    match node:
        case Files():
            return _files(node, node.glob)
        case Cross():
            return f"dml.cross({', '.join(_input(child, pipeline) for child in node.inputs)})"
        case Union():
            return f"dml.union({', '.join(_input(child, pipeline) for child in node.inputs)})"
        case Join():
            members, keys = _keyed(node, pipeline)
            outer = [_leaf_name(node.inputs[at]) for at in node.outer]
            kept = f", outer={_literal(outer)}" if outer else ""
            return f"dml.join({', '.join(members)}, on={_literal(keys)}{kept})"
        case Group():
            members, keys = _keyed(node, pipeline)
            return f"dml.group({', '.join(members)}, by={_literal(keys)})"
        case Array():
            return f"dml.array({_text(node.repo)}, {_text(node.path)})"
        case Values():
            return f"dml.values({node.name}={_literal(list(node.values))})"


def _files(node: Files, glob: str) -> str:
    if node.cron is not None:
        return _cron(node)
    words = [_text(node.repo), _text(glob)]
    if node.name and node.name != node.repo:
        words.append(f"name={_text(node.name)}")
    if node.branch != "master":
        words.append(f"branch={_text(node.branch)}")
    flags = {"folders": node.folders, "reference": node.reference, "lazy": node.lazy, "empty": node.empty}
    words += [f"{name}=True" for name, said in flags.items() if said]
    if node.quiet:
        words.append("propagate=False")
    if node.trigger is not None:
        rule = node.trigger
        given = {"size": rule.size, "commits": rule.commits, "rate": rule.rate, "cron": rule.cron, "all": rule.all}
        conditions = [f"{name}={_literal(value)}" for name, value in given.items() if value]
        words.append(f"trigger=dml.trigger({', '.join([_text(rule.on), *conditions])})")
    return f"dml.files({', '.join(words)})"


def _cron(node: Files) -> str:
    rule = node.cron
    assert rule is not None
    given = {"name": node.name, "repo": node.repo, "start": rule.start, "overwrite": rule.overwrite}
    said = [f"{name}={_literal(value)}" for name, value in given.items() if value]
    return f"dml.cron({', '.join([_text(rule.spec), *said])})"


def _keyed(node: Join | Group, pipeline: str) -> tuple[list[str], list[str]]:
    """Members with named captures, and their names."""
    on = node.on if isinstance(node, Join) else node.by
    if on:
        return [_input(child, pipeline) for child in node.inputs], list(on)
    members, keys = [], []
    for child in node.inputs:
        if not isinstance(child, Files):
            raise _unsayable(pipeline, "its join or group has members that are no plain inputs")
        template = child.join_on if isinstance(node, Join) else child.group_by
        glob, found = _named(child.glob, template, pipeline)
        members.append(_files(child, glob))
        keys.append(found)
    if len({tuple(each) for each in keys}) != 1:
        raise _unsayable(pipeline, "its members' keys are made in different ways")
    return members, keys[0]


def _named(glob: str, template: str, pipeline: str) -> tuple[str, list[str]]:
    """A glob whose captures that the template names have names, and these."""
    numbers = [int(number) for number in _TEMPLATE.findall(template)]
    if not numbers and not template:
        return glob, []
    if not numbers or _TEMPLATE.sub("", template).strip("-_./ "):
        raise _unsayable(pipeline, f"its key {template!r} is not made of captures alone")
    names = {number: f"key{place}" if len(numbers) > 1 else "key" for place, number in enumerate(numbers, 1)}
    groups = re.findall(r"\(\*\)|\((?!\*\))", glob)
    if any(number > len(groups) or groups[number - 1] != "(*)" for number in numbers):
        raise _unsayable(pipeline, f"{glob!r} captures with another pattern than (*)")
    count = 0

    def put(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return "{" + names[count] + "}" if count in names else match[0]

    return re.sub(r"\(\*\)|\((?!\*\))", put, glob), [names[number] for number in numbers]


def _leaf_name(node: Input) -> str:
    return (node.name or node.repo) if isinstance(node, Files) else ""


def _unsayable(pipeline: str, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"pipeline {pipeline!r} cannot be written in Python: {why}",
        code=ErrorCode.UNSUPPORTED,
        hint="keep it as a specification; Python DAGs and specifications live in one store",
    )


def _text(value: str) -> str:
    return _literal(value)


def _literal(value: Any) -> str:
    """Python source of plain data, with double quotes where they need no escape."""
    if isinstance(value, _Source):
        return str(value)
    if isinstance(value, str):
        plain = '"' not in value and "\\" not in value and value.isprintable()
        return f'"{value}"' if plain else repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, float) and value.is_integer():
        return repr(int(value))
    return repr(value)
