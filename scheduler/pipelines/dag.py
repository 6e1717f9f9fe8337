"""The Python API of pipelines: `DAG`, its decorator, its commands.

Declaring checks a pipeline alone (its signature, its options); `DAG.build` checks them together and yields their specs
(`build`). Nothing of the user's is called, and only `put_bundle` writes.

Long for a module: one class, each of whose methods names all that can be said of a pipeline, and describes it.
"""

from __future__ import annotations

import difflib
import html
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Protocol, TypeVar

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.refs import DEFAULT_BRANCH, check_name
from ...worker.job import CommandTransform
from ..inputs.expression import Array, Cross, Group, Input, Join, Like, Union, Values
from ..inputs.expression import Files as FilesInput
from ..inputs.standing import with_cron_repos
from ..inputs.walk import leaves
from .annotations import FileMapping as Files
from .commands import make_command
from .declared import Declared, Home, PutBundle
from .egress import as_egress
from .environment import check_env
from .fresh import FreshModules
from .options import make_options
from .signature import read_signature
from .spec import NO_INPUT, Egress, PipelineSpec, Standing, bad_spec, check_service

__all__ = ["DAG", "Files", "SubmitsDags"]

Transform = TypeVar("Transform", bound=Callable[..., Any])


class SubmitsDags(Protocol):
    """A store that pipelines can be submitted to."""

    def submit(self, dag: DAG, /, *, params: Mapping[str, Mapping[str, Any]] | None = None) -> object:
        """Record a version of each pipeline."""


class DAG:
    """Pipelines that belong together.

    Parameters
    ----------
    name
        Owns its pipelines: another DAG cannot take their names.
    env
        What third-party code Python pipelines run with: a requirements file (relative to this file; its content
        counts), of which a virtual environment is made where the worker runs; a conda environment file; the folder of
        an environment. A lock file of another kind, and an image with its digest, are recorded and count. Not given:
        the worker's interpreter; versions in use are recorded, and do not count.

    Examples
    --------
    >>> from pathlib import Path
    >>> from dmlpipe import DAG, Files, files
    >>> dag = DAG("letters")
    >>> @dag.pipeline(files("texts", "/*"))
    ... def upper(texts: Path) -> Files:
    ...     return {texts.name: texts.read_text().upper()}
    >>> list(dag.pipelines)
    ['upper']
    """

    def __init__(self, name: str, env: str | None = None) -> None:
        self.name = check_name(name, "DAG")
        check_env(env, f"DAG {name!r}")
        self.env = env
        self.pipelines: dict[str, Declared] = {}
        """What was declared, by name, in order."""
        self.notices: list[str] = []
        """What the last `build` found worth saying."""
        self.loaded: FreshModules | None = None
        """The modules that were loaded with this DAG's file (set by `load_dags`)."""
        self.home = Home.of(sys._getframe(1).f_globals)

    # --- declaring ---

    def pipeline(
        self,
        input: Input,
        *,
        name: str | None = None,
        batch: int = 0,
        writes: Like | None = None,
        cpus: float = 1.0,
        gpus: int = 0,
        memory: str | int | None = None,
        resources: Mapping[str, float] | None = None,
        priority: int = 0,
        tries: int = 1,
        timeout: str | float | None = None,
        job_timeout: str | float | None = None,
        max_failures: str | int = 0,
        env: str | None = None,
        secrets: Sequence[str] = (),
        include: str | Sequence[str] = (),
        keep: str | None = None,
        by_content: bool = False,
        egress: str | Egress | None = None,
        output_branch: str = DEFAULT_BRANCH,
        every_commit: bool = False,
        every_job: bool = False,
        version: str | None = None,
    ) -> Callable[[Transform], Transform]:
        """Declare a function or class as a pipeline; it is returned unchanged.

        Parameters
        ----------
        input
            What it reads: `files`, `array`, `values`; a `cross`, `union`, `join` or `group` of them.
        name
            Of the pipeline and its output repo; default: the function's.
        batch
            Datums per call; then what varies comes in as lists, and a list goes out. 0: one datum per call.
        writes
            `like(...)`: the output is an array.
        cpus, gpus, memory
            What one slot needs. It sees as many GPUs, its libraries start as many threads, and a datum that holds more
            than `memory="8GiB"` fails.
        resources
            What else a datum needs of its worker, by the names that workers announce: `{"licence": 1}`.
        priority
            Datums of a pipeline with a larger number are computed before those of others.
        tries
            How often a datum is tried.
        timeout
            Of one datum: `"10m"` or seconds.
        job_timeout
            Of a job: when it is over, what runs is ended, and what is finished kept.
        max_failures
            Datums that may fail (a number or `"0.1%"`) without failing the job.
        env
            As of `DAG`, for this pipeline.
        secrets
            Names of variables that are read where the worker runs.
        include
            Files, folders or globs relative to this file that go along and count by content.
        keep
            `"latest"`: older versions of the output may be collected.
        by_content
            The code does not look at the names of files: then equal content is computed once, whatever it is called
            and wherever it stands. Outputs are named by content, too; equal datums share them.
        egress
            A folder or bucket (any fsspec URL) that each commit's new and changed files are sent to; or `egress`: a
            database.
        output_branch
            The branch of its repo on which its jobs publish.
        every_commit
            A job for each commit to its inputs; else commits that come before a run share one.
        every_job
            Every job computes all its datums, whatever is known.
        version
            Stands for the code instead of its analysis: raise it when outputs may differ.

        Raises
        ------
        InvalidInputError
            The signature does not fit the input, an option is wrong, or the name is taken.
        """
        options = make_options(
            batch=batch,
            cpus=cpus,
            gpus=gpus,
            memory=memory,
            resources=resources,
            priority=priority,
            tries=tries,
            timeout=timeout,
            job_timeout=job_timeout,
            max_failures=max_failures,
            secrets=secrets,
            keep=keep,
            every_commit=every_commit,
            every_job=every_job,
        )
        _check_input(input)
        if version is not None and (not isinstance(version, str) or not version):
            raise bad_spec(f'version: expected a text such as "3", got {version!r}')
        line = sys._getframe(1).f_lineno
        _check_flag("by_content", by_content)

        def declare(transform: Transform) -> Transform:
            label = name or str(getattr(transform, "__name__", ""))
            if not name and "<" in label:
                raise bad_spec("a lambda has no name: give the pipeline one with name=")
            signature = read_signature(transform, input, batch=batch, writes=writes)
            named = [each.name for each in signature.parameters if each.source == "capture"] if by_content else []
            if named:
                raise bad_spec(f"{label}: by_content, but {named[0]!r} is a part of a file's name", hint=_BY_CONTENT)
            self._add(
                Declared(
                    name=check_name(label, "pipeline"),
                    input=with_cron_repos(input, label),
                    options=options,
                    transform=transform,
                    signature=signature,
                    env=env,
                    include=_listed(include),
                    version=version,
                    writes=writes,
                    by_content=by_content,
                    egress=as_egress(egress),
                    output_branch=check_name(output_branch, "branch"),
                    line=line,
                )
            )
            return transform

        return declare

    def command(
        self,
        name: str,
        command: str | Sequence[str],
        input: Input,
        *,
        stdin: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        parameters: Mapping[str, str | int | float | bool] | None = None,
        code: str | None = None,
        include: str | Sequence[str] = (),
        working_dir: str = "",
        accept: Sequence[int] = (),
        err_cmd: Sequence[str] = (),
        err_stdin: Sequence[str] = (),
        user: str = "",
        batching: bool = False,
        batch: int = 0,
        image: str = "",
        container: str = "",
        env: str | None = None,
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
        by_content: bool = False,
        egress: str | Egress | None = None,
        output_branch: str = DEFAULT_BRANCH,
        every_commit: bool = False,
        every_job: bool = False,
        salt: str = "",
    ) -> None:
        """Declare a command, in any language, as a pipeline.

        Parameters
        ----------
        command
            A line for ``bash -euo pipefail``, in which `$out` is the output folder and `$NAME` an input's path, a
            capture, a value or a parameter; or an argv.
        stdin
            Lines that it may read.
        variables
            More of its environment.
        parameters
            Plain values that it finds as variables; `--set` changes them.
        code
            Folder of scripts, relative to this file: its contents stand in `/code` and in the working directory.
        include
            Files, folders or globs relative to this file: they stand in `/code` under the same relative paths.
        by_content
            As of `pipeline`: the command does not look at the names of files.
        egress, output_branch, every_commit, every_job
            As of `pipeline`.
        working_dir, accept, err_cmd, err_stdin, user
            Where it starts; exit codes that are success beside 0; what runs when it failed, and recovers the datum
            if that ends well; who runs it, where the worker may choose.
        batching, batch
            One process for many datums, which asks for each by ``dmlpipe next datum``; a new one after `batch` datums.
        image, container
            What runs it, and with which program (`docker`, `podman`, `apptainer`, `auto`).
        env
            What it runs with: a requirements or lock file (a virtual environment is made of it), a folder of a
            virtual environment, a conda environment file, a line ``module load ...``, or an image with its digest.
        salt
            Part of every fingerprint.

        Raises
        ------
        InvalidInputError
            An option is wrong, or the name is taken.
        """
        options = make_options(
            cpus=cpus,
            gpus=gpus,
            memory=memory,
            resources=resources,
            priority=priority,
            tries=tries,
            timeout=timeout,
            job_timeout=job_timeout,
            max_failures=max_failures,
            secrets=secrets,
            keep=keep,
            every_commit=every_commit,
            every_job=every_job,
        )
        _check_input(input)
        _check_flag("by_content", by_content)
        for leaf in leaves(input):
            if not leaf.name.isidentifier() and isinstance(command, str):
                raise bad_spec(
                    f"command {name!r}: input {leaf.name!r} cannot be the variable ${leaf.name}",
                    hint='name it: cross(reads=files("raw-reads")), or with name=',
                )
        if code is not None and include:
            raise bad_spec(f"command {name!r}: code= and include= both fill /code; give one")
        self._add(
            Declared(
                name=check_name(name, "pipeline"),
                input=with_cron_repos(input, name),
                options=options,
                transform=make_command(
                    name,
                    command,
                    stdin=stdin,
                    variables=variables or {},
                    working_dir=working_dir,
                    accept=accept,
                    err_cmd=err_cmd,
                    err_stdin=err_stdin,
                    user=user,
                    batching=batching,
                    batch=batch,
                    image=image,
                    container=container,
                ),
                parameters=dict(parameters or {}),
                env=env,
                code=code,
                include=_listed(include),
                by_content=by_content,
                egress=as_egress(egress),
                output_branch=check_name(output_branch, "branch"),
                salt=salt,
                line=sys._getframe(1).f_lineno,
            )
        )

    def spout(
        self,
        name: str,
        command: str | Sequence[str],
        *,
        port: int = 0,
        stdin: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        code: str | None = None,
        include: str | Sequence[str] = (),
        working_dir: str = "",
        user: str = "",
        env: str | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        """Declare a process that brings data: `up` keeps it running, it commits to the repo of its own name.

        It finds the store in its environment: ``dmlpipe put NAME FILE`` commits. What it printed is in its log, which
        `dmlpipe status` names. One that ends is started again, after a while if it keeps ending.

        Parameters
        ----------
        port
            Where it listens, if it does, for people.
        command, stdin, variables, code, include, working_dir, user, env, secrets
            As of `command`.
        """
        transform = make_command(
            name, command, stdin=stdin, variables=variables or {}, working_dir=working_dir, user=user
        )
        standing = Standing(kind="spout", port=port)
        self._stand(name, NO_INPUT, standing, transform, code=code, include=include, env=env, secrets=secrets)

    def service(
        self,
        name: str,
        command: str | Sequence[str],
        input: Input,
        *,
        port: int = 0,
        stdin: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        code: str | None = None,
        include: str | Sequence[str] = (),
        working_dir: str = "",
        user: str = "",
        env: str | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        """Declare a process that serves the newest commits of its inputs: `up` keeps it running.

        It sees each repo as a whole, and is started anew when one has a new commit.

        Parameters
        ----------
        input
            `files`, or a `cross` of them.
        port
            Where it listens, for people.
        command, stdin, variables, code, include, working_dir, user, env, secrets
            As of `command`.
        """
        _check_input(input)
        check_service(name, input)
        transform = make_command(
            name, command, stdin=stdin, variables=variables or {}, working_dir=working_dir, user=user
        )
        standing = Standing(kind="service", port=port)
        self._stand(name, input, standing, transform, code=code, include=include, env=env, secrets=secrets)

    def _stand(
        self,
        name: str,
        input: Input,
        standing: Standing,
        transform: CommandTransform,
        *,
        code: str | None,
        include: str | Sequence[str],
        env: str | None,
        secrets: Sequence[str],
    ) -> None:
        self._add(
            Declared(
                name=check_name(name, "pipeline"),
                input=input,
                options=make_options(secrets=secrets),
                transform=transform,
                code=code,
                include=_listed(include),
                env=env,
                standing=standing,
                line=sys._getframe(2).f_lineno,
            )
        )

    def _add(self, declared: Declared) -> None:
        if declared.name in self.pipelines:
            raise InvalidInputError(
                f"DAG {self.name!r} has two pipelines named {declared.name!r}",
                code=ErrorCode.NAME_CLASH,
                hint="give one of them another name with name=",
            )
        check_env(declared.env, f"pipeline {declared.name!r}")
        self.pipelines[declared.name] = declared

    # --- together ---

    def order(self) -> list[str]:
        """Names of the pipelines, upstream first.

        Raises
        ------
        InvalidInputError
            `CYCLE`.
        """
        from .build import upstream_first

        return upstream_first(self.pipelines)

    def build(
        self, params: Mapping[str, Mapping[str, Any]] | None = None, *, put_bundle: PutBundle
    ) -> list[PipelineSpec]:
        """Make the spec of each pipeline, upstream first.

        Parameters
        ----------
        params
            Pipeline to parameter to value, in place of the defaults.
        put_bundle
            Stores the files that run, and returns their tree's id.

        Raises
        ------
        InvalidInputError
            A cycle, an unknown parameter, code that cannot be followed or sent, a missing env or include file.
        """
        given = dict(params or {})
        unknown = sorted(set(given) - set(self.pipelines))
        if unknown:
            near = difflib.get_close_matches(unknown[0], self.pipelines, 1)
            raise InvalidInputError(
                f"parameters for {unknown[0]!r}: DAG {self.name!r} has no such pipeline",
                code=ErrorCode.NO_PIPELINE,
                hint=f"did you mean {near[0]!r}?" if near else f"it has {', '.join(self.pipelines)}",
            )
        # Only here: children that run user code import this module, and build nothing.
        from .build import build_specs

        with self.loaded.active() if self.loaded is not None else nullcontext():
            specs, self.notices = build_specs(
                self.name,
                self.pipelines,
                given,
                home=self.home,
                env=self.env,
                texts={} if self.loaded is None else self.loaded.texts,
                put_bundle=put_bundle,
            )
        return specs

    def submit(self, store: SubmitsDags, params: Mapping[str, Mapping[str, Any]] | None = None) -> object:
        """Record a version of each pipeline in a store; see `Store.submit`."""
        return store.submit(self, params=params)

    def __repr__(self) -> str:
        return f"DAG({self.name!r}: {', '.join(self.pipelines)})"

    def _repr_html_(self) -> str:
        rows = []
        for name in self.order():
            reads = ", ".join(_shown(leaf) for leaf in leaves(self.pipelines[name].input))
            rows.append(f"<tr><td><b>{html.escape(name)}</b></td><td>{html.escape(reads)}</td></tr>")
        head = f"<caption>DAG {html.escape(self.name)}</caption><tr><th>pipeline</th><th>reads</th></tr>"
        return f"<table>{head}{''.join(rows)}</table>"


_BY_CONTENT = "take the content alone: bytes, or the files of a Path"


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise bad_spec(f"{name}: expected True or False, got {value!r}")


def _check_input(input: object) -> None:
    if not isinstance(input, FilesInput | Array | Values | Cross | Union | Join | Group):
        raise InvalidInputError(
            "a pipeline's input is files(...), array(...), values(...), or a cross, union, join or group of them,"
            f" got {input!r}",
            code=ErrorCode.BAD_INPUT,
            hint='dml.files("images", "/*")' if isinstance(input, str | type(None)) or callable(input) else None,
        )


def _shown(leaf: FilesInput | Array | Values) -> str:
    match leaf:
        case FilesInput():
            return f"{leaf.repo}:{leaf.glob}"
        case Array():
            return f"{leaf.repo}:{leaf.path} (array)"
        case Values():
            return f"{leaf.name} in {list(leaf.values)}"


def _listed(include: str | Sequence[str]) -> tuple[str, ...]:
    return (include,) if isinstance(include, str) else tuple(include)
