"""What is recorded of one version of a pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ...storage.digest import digest
from ...storage.errors import ErrorCode, InvalidInputError
from ...worker.job import CommandTransform, Transform
from ..inputs.expression import Array, Cross, Files, Group, Input, Join, Like, Union, Values
from ..inputs.walk import factors, leaves


class Definition(msgspec.Struct, frozen=True, array_like=True):
    """One definition that the code id covers, so that a plan can say where code changed."""

    name: str
    """Qualified: `dag.model`, `features.load`."""
    file: str
    """Relative to the project root."""
    line: int
    hash: str


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a pipeline is run; none of it is in the fingerprint."""

    batch: int = 0
    cpus: float = 1.0
    gpus: int = 0
    memory: str = ""
    resources: dict[str, float] = {}
    """Named ones that workers announce, such as a licence."""
    priority: int = 0
    """Jobs of a larger number are served first."""
    tries: int = 1
    timeout_s: float = 0.0
    """Of one try of a datum; 0: none."""
    job_timeout_s: float = 0.0
    """Of all of a job's work; 0: none."""
    max_failures: str = "0"
    """A number or a percentage (`0.1%`)."""
    secrets: tuple[str, ...] = ()
    keep: str = ""
    every_commit: bool = False
    """A job for each commit to the inputs, not only for their heads."""
    every_job: bool = False
    """Every job computes all its datums, whatever is known."""


class Egress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where what a pipeline publishes is sent."""

    url: str
    """Folder of files (any fsspec URL), or a database (any SQLAlchemy URL)."""
    rows: str = ""
    """`csv` or `json`: rows of the files in each top-level folder replace those of the table of that name; empty:
    files are sent as they are."""
    columns: tuple[str, ...] = ()
    secret: str = ""
    """`name/key`: the database's password."""


class Claim(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """That changed code makes what the code before it made."""

    code_id: str = ""
    """Of the code that runs, hex: `PipelineSpec.code_id` is that of the code it equals."""
    env: str = ""
    """Likewise of the declared environment."""
    version: int
    """Version that it equals."""
    by: str
    """Who said so."""
    compared: int = 0
    """Datums that were computed with both and found equal; 0: it was said by a person."""
    why: str = ""

    def __str__(self) -> str:
        how = f"{self.compared} datums compared" if self.compared else f"said by {self.by}"
        return f"same as v{self.version}: {how}" + (f", {self.why}" if self.why else "")


class Standing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A process that `up` keeps running, in place of jobs."""

    kind: str
    """`spout`: it has no input and commits to its own repo. `service`: it serves the newest commits of its inputs."""
    port: int = 0
    """Where a service listens, for people; 0: not said."""


class PipelineSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of a pipeline. A node of the store; `PipelineSet.spec` names it."""

    v: int = 1
    name: str
    input: Input
    transform: Transform
    code_id: str
    """Hex; says when outputs may differ."""
    parameters: dict[str, Any] = {}
    env: str = ""
    """Declared environment: digest of the requirements or lock file, or an image digest; empty: none declared."""
    env_name: str = ""
    """What was declared, for people: `requirements.txt`."""
    standing: Standing | None = None
    salt: str = ""
    writes: Like | None = None
    claim: Claim | None = None
    by_content: bool = False
    """Where a file stands does not count: equal content is computed once, whatever it is called."""
    egress: Egress | None = None
    output_branch: str = "master"
    """Of the repo of the pipeline's name: where its jobs publish."""
    options: Options = Options()
    definitions: tuple[Definition, ...] = ()
    whole_modules: tuple[str, ...] = ()
    """Modules that count as a whole because a name in them could not be resolved."""
    dag: str = ""
    source: str = ""
    """`dag.py:18`."""
    git: str = ""
    """`8f3c21 (clean)`; empty outside git."""
    description: str = ""

    @property
    def bundle(self) -> str:
        """Tree of the exact files that run, hex; empty if there is none."""
        if isinstance(self.transform, CommandTransform):
            return self.transform.code
        return self.transform.bundle


NO_INPUT: Input = Cross(inputs=())
"""Of a spout."""


def check_service(name: str, input: Input) -> None:
    """Refuse an input that cannot be served: only files, side by side, are folders that stand still.

    Raises
    ------
    InvalidInputError
        Code ``bad-input``.
    """
    sides = factors(input)
    if not sides or not all(isinstance(side, Files) for side in sides):
        raise InvalidInputError(
            f"service {name!r} can serve files, and a cross of files, as a whole", code=ErrorCode.BAD_INPUT
        )


def upstream(specs: Sequence[PipelineSpec]) -> dict[str, list[str]]:
    """Return, for each of `specs`, those of them that publish what it reads."""
    branches = {spec.name: spec.output_branch for spec in specs}
    return {
        spec.name: [
            leaf.repo for leaf in leaves(spec.input) if isinstance(leaf, Files | Array) and publishes(branches, leaf)
        ]
        for spec in specs
    }


def publishes(branches: Mapping[str, str], leaf: Files | Array) -> bool:
    """Whether an input reads what a pipeline publishes, of those in `branches` (pipeline to its output branch)."""
    return branches.get(leaf.repo) == leaf.branch


def expression(node: Input) -> Any:
    """The input expression without repo and branch names, as plain data: part of every context."""
    match node:
        case Files():
            keys: dict[str, Any] = {}
            if node.join_on or node.group_by:
                keys = {"join_on": node.join_on, "group_by": node.group_by}
            if node.folders:
                keys["folders"] = True
            if node.reference:
                keys["reference"] = True
            if node.empty:
                keys["empty"] = True
            return ["files", node.name or node.repo, node.glob, *([keys] if keys else [])]
        case Array():
            return ["array", node.name or node.repo, node.path, list(node.halo)]
        case Values():
            return ["values", node.name, list(node.values)]
        case Cross():
            return ["cross", *[expression(child) for child in node.inputs]]
        case Union():
            return ["union", *[expression(child) for child in node.inputs]]
        case Join():
            return ["join", list(node.on), list(node.outer), *[expression(child) for child in node.inputs]]
        case Group():
            return ["group", list(node.by), *[expression(child) for child in node.inputs]]


def identity(spec: PipelineSpec) -> str:
    """Hash of what can change a pipeline's outputs, whatever its inputs hold: 64 hex digits.

    A version with an equal identity starts no job (a cosmetic edit, another `tries`).
    """
    body = [
        "identity-1",
        spec.code_id,
        spec.parameters,
        spec.env,
        spec.salt,
        expression(spec.input),
        spec.writes,
        *(["by-content"] if spec.by_content else []),
    ]
    return digest(msgspec.msgpack.encode(body, order="deterministic")).hex()


_decoder = msgspec.msgpack.Decoder(PipelineSpec)


def encode_pipeline(spec: PipelineSpec) -> bytes:
    """Canonical bytes of a spec."""
    return msgspec.msgpack.encode(spec, order="deterministic")


def decode_pipeline(data: bytes) -> PipelineSpec:
    """Inverse of `encode_pipeline`."""
    return _decoder.decode(data)


def bad_spec(message: str, *, hint: str | None = None) -> InvalidInputError:
    """Make the error that says what is wrong with how a pipeline is declared."""
    return InvalidInputError(message, code=ErrorCode.BAD_SPEC, hint=hint)
