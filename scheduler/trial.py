"""Trying a pipeline out: present code on real inputs, in the foreground; nothing is committed.

A function runs in this process, as it stands in its file; one that declares an environment runs in a child on that
environment's interpreter, which shares the terminal. Commands run in theirs.

The store is opened as a layer (`storage.backend.layered`): what the trial writes stays in memory, and goes with it.
Left out on purpose: timeouts and `max_failures`.
"""

from __future__ import annotations

import dataclasses
import random
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..storage.backend.layered import LayeredBackend
from ..storage.errors import ErrorCode, InvalidInputError, NotFoundError
from ..storage.objects.segment import Failure, Outcome, Row
from ..storage.objects.value import decode_value
from ..storage.refs import nearest
from ..storage.state import State
from ..worker.inline import InlineWorker
from ..worker.job import CommandTransform, Datum
from ..worker.segments import Unpublished
from .inputs.expression import Array, Files
from .inputs.walk import leaves
from .jobs.bindings import bind_inputs, is_single
from .jobs.jobrun import JobRun
from .pipelines.spec import PipelineSpec
from .planning.datums import SEPARATOR
from .planning.plan_items import Run
from .planning.rows import find_datum
from .planning.summary import describe_key
from .store import Store

__all__ = ["Trial", "TrialResult", "Tried"]

_NO_JOB = "0" * 16
_ID = re.compile(r"[0-9a-f]{4,64}")


@dataclasses.dataclass(frozen=True, slots=True)
class Tried:
    """What became of one datum."""

    id: str
    shown: str
    """Its inputs as people write them; empty if the pipeline has a single datum."""
    outcome: str
    outputs: tuple[tuple[str, int], ...]
    """(path, bytes), in the folder."""
    seconds: float
    failure: Failure | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        plain: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain["outputs"] = [{"path": path, "size": size} for path, size in self.outputs]
        plain["failure"] = (
            dict(zip(Failure.__struct_fields__, msgspec.structs.astuple(self.failure), strict=True))
            if (self.failure)
            else None
        )
        return plain


@dataclasses.dataclass(frozen=True, slots=True)
class TrialResult:
    """What a trial did."""

    pipeline: str
    total: int
    """Datums that the pipeline has on these inputs."""
    datums: tuple[Tried, ...]
    folder: str
    """Holds what they wrote."""

    @property
    def ok(self) -> bool:
        """Whether none failed."""
        return all(each.outcome != "failed" for each in self.datums)


class Trial:
    """A layer over a store, in which one pipeline can be run.

    Parameters
    ----------
    store
        Is read only.
    file
        A DAG or spec file whose present code is tried; None: what is recorded.
    params
        Pipeline to parameter to value.
    code, container, arguments
        As of `Store.submit`.
    """

    def __init__(
        self,
        store: Store,
        file: Path | None = None,
        *,
        params: Mapping[str, Mapping[str, Any]] | None = None,
        code: Path | None = None,
        container: str = "",
        arguments: Mapping[str, str] | None = None,
    ) -> None:
        self._below = store
        self._store = Store(LayeredBackend(store.backend), store.info, cache_dir=store.cache_dir)
        self._params = dict(params or {})
        self._targets: dict[str, object] = {}
        self.notices: tuple[str, ...] = ()
        if file is None:
            return
        if file.suffix == ".py":
            from .pipelines.load import load_dags

            dags = load_dags(file)
            submitted = self._store.submit(dags, params=params)
            # Called as they stand in the file, so that breakpoints in it are hit.
            self._targets = {
                name: each.transform
                for dag in dags
                for name, each in dag.pipelines.items()
                if self._store.pipeline_spec(name).transform.environment is None
            }
        else:
            submitted = self._store.submit(file, params=params, code=code, container=container, arguments=arguments)
        self._params = {}
        self.notices = tuple(dict.fromkeys(notice for each in submitted for notice in each.notices))

    def run(
        self,
        pipeline: str,
        *,
        datum: str | None = None,
        sample: int = 1,
        keep: Path | None = None,
        shell: bool = False,
        debug: bool = False,
    ) -> TrialResult:
        """Run one pipeline's datums on the heads of its inputs.

        Parameters
        ----------
        datum
            Only this one: the first digits of its id, an input ``images:/a.png`` or an output ``predictions:/a.json``.
        sample
            Without `datum`: how many, drawn evenly from all.
        keep
            An empty or missing folder for what they write; None: a new temporary one.
        shell
            In place of the command, open a shell on this process's terminal in the datum's folder, with its
            environment; what is in ``out`` when it ends is the output.
        debug
            Open the debugger where user code raises.

        Raises
        ------
        KeyboardInterrupt
            The debugger was left at a breakpoint.
        NotFoundError
            No such pipeline, parameter or datum, or an input has no commit.
        InvalidInputError
            A shell is asked for where the pipeline is no command.
        """
        spec = self._spec(pipeline)
        if spec.standing is not None:
            raise InvalidInputError(
                f"{pipeline} is a {spec.standing.kind}: it has no datums to try",
                code=ErrorCode.UNSUPPORTED,
                hint="start it: dmlpipe up",
            )
        if shell:
            spec = _with_shell(spec)
        folder = _folder(keep)
        job = self._job(spec)
        wanted = self._datums(job, pipeline, datum, sample)
        scratch = Path(tempfile.mkdtemp(prefix="dmlpipe-try-work-"))
        try:
            worker = InlineWorker(self._store, scratch, worker="try", targets=self._targets, debug=debug)
            rows, stored = worker.run(job.job_spec(), wanted)
        except Exception as err:
            if type(err).__name__ == "BdbQuit":
                raise KeyboardInterrupt from err
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        Unpublished(self._store).add(stored)
        return TrialResult(
            pipeline=pipeline,
            total=job.plan.total,
            datums=tuple(self._keep(rows, job, folder)),
            folder=str(folder),
        )

    def _spec(self, pipeline: str) -> PipelineSpec:
        spec = self._store.pipeline_spec(pipeline)
        given = self._params.get(pipeline, {})
        for name in given:
            if name not in spec.parameters:
                near = nearest(name, spec.parameters)
                raise NotFoundError(
                    f"pipeline {pipeline!r} has no parameter {name!r}",
                    code=ErrorCode.NOT_FOUND,
                    hint=f"did you mean {near}?" if near else f"it has: {', '.join(spec.parameters) or 'none'}",
                )
        return msgspec.structs.replace(spec, parameters={**spec.parameters, **given})

    def _job(self, spec: PipelineSpec) -> JobRun:
        state = self._store.refresh()
        heads: dict[str, str] = {}
        for leaf in leaves(spec.input):
            if isinstance(leaf, Files | Array):
                head = state.head(leaf.repo, leaf.branch)
                if head is None:
                    made = state.pipeline(leaf.repo) is not None
                    raise NotFoundError(
                        f"{spec.name} reads {leaf.repo}@{leaf.branch}, which has no commit",
                        code=ErrorCode.NO_COMMIT,
                        hint=f"first: dmlpipe run {leaf.repo}" if made else f"first: dmlpipe put {leaf.repo} FILE...",
                    )
                heads[f"{leaf.repo}@{leaf.branch}"] = head
        single = {name: is_single(self._store.pipeline_spec(name)) for name, _ in state.pipelines()}
        # Nothing is remembered of this job: every datum of its inputs is there to be tried.
        return JobRun(
            self._store,
            job=_NO_JOB,
            run=_NO_JOB,
            spec=spec,
            version=0,
            spec_node="",
            bindings=bind_inputs(state, spec, heads, single),
            state=State(),
        )

    def _datums(self, job: JobRun, pipeline: str, name: str | None, sample: int) -> list[Datum]:
        everything = (item.datum for item in job.plan.items() if isinstance(item, Run))
        if name is None:
            return _sample(everything, job.plan.total, sample)
        parts = self._parts(pipeline, name)
        found = [
            datum
            for datum in everything
            if datum.fingerprint.hex().startswith(name)
            or (parts is not None and sorted(datum.key.split(SEPARATOR)) == parts)
            or name in describe_key(datum.key, job.plan.input, job.plan.order).split(" ")
        ]
        if not found:
            raise NotFoundError(
                f"pipeline {pipeline!r} has no datum {name!r} on the present inputs",
                code=ErrorCode.NO_DATUM,
                hint=f"list: dmlpipe datum list {pipeline}",
            )
        return found

    def _parts(self, pipeline: str, name: str) -> list[bytes] | None:
        """The parts of the key of a datum of an earlier job: its id changed with the code, its key did not."""
        if not _ID.fullmatch(name) and not name.startswith((f"{pipeline}:", f"{pipeline}@")):
            return None
        try:
            row = find_datum(self._below, name)
        except NotFoundError as error:
            if error.code != ErrorCode.NO_DATUM:
                raise
            return None
        return sorted(part.encode() for part in row.key) if row.pipeline == pipeline else None

    def _keep(self, rows: Sequence[Row], job: JobRun, folder: Path) -> Iterator[Tried]:
        """Write what datums made to the folder; one that writes where an earlier one did fails, as its job would."""
        made: dict[str, str] = {}
        for row in rows:
            shown = describe_key(row.key, job.plan.input, job.plan.order)
            failure, outputs = row.failure, []
            for path, raw in row.outputs:
                value = decode_value(raw)
                target = folder / path
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self._store.objects.copy_to(value, target)
                except (FileExistsError, NotADirectoryError, IsADirectoryError):
                    first = next((other for name, other in made.items() if _clash(name, path)), "")
                    failure = Failure("dmlpipe", f"writes /{path}, where {first or 'another datum'} wrote, too")
                    break
                made[path] = shown
                outputs.append((path, value.size))
            yield Tried(
                id=row.fingerprint.hex(),
                shown=shown,
                outcome=Outcome(Outcome.FAILED if failure and not row.failure else row.outcome).name.lower(),
                outputs=tuple(outputs),
                seconds=row.seconds,
                failure=failure,
            )


def _clash(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


_SHELL = """\
exec </dev/tty >/dev/tty 2>&1
cd "$DMLPIPE_PFS"
echo "in $PWD: $(ls -m); what is in out when this shell ends is the output"
printf 'the command: %s\\n' "$1"
exec "${SHELL:-sh}" -i
"""


def _with_shell(spec: PipelineSpec) -> PipelineSpec:
    """The same pipeline with a shell on the terminal in place of its command."""
    command = spec.transform
    if not isinstance(command, CommandTransform):
        raise InvalidInputError(
            f"pipeline {spec.name!r} is Python: there is no command to open a shell for",
            code=ErrorCode.INVALID,
            hint=f"see where it fails: dmlpipe try {spec.name} --pdb",
        )
    shown = "\n  ".join([command.argv[-1] if command.shell else " ".join(command.argv), *command.stdin])
    opened = msgspec.structs.replace(
        command,
        argv=("sh", "-c", _SHELL, "dmlpipe", shown),
        shell=True,
        stdin=(),
        err_argv=(),
        working_dir="",
        accept_return_code=tuple(range(256)),
    )
    options = msgspec.structs.replace(spec.options, tries=1, timeout_s=0.0)
    return msgspec.structs.replace(spec, transform=opened, options=options)


def _folder(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="dmlpipe-try-"))
    if keep.exists() and (not keep.is_dir() or next(keep.iterdir(), None) is not None):
        raise InvalidInputError(
            f"{keep} is not an empty folder", code=ErrorCode.EXISTS, hint="name a new or an empty one"
        )
    keep.mkdir(parents=True, exist_ok=True)
    return keep


def _sample(datums: Iterator[Datum], total: int, count: int) -> list[Datum]:
    """Draw `count` datums; the same ones each time, the first among them."""
    if count >= total:
        return list(datums)
    places = {0, *random.Random(0).sample(range(1, total), count - 1)}
    last = max(places)
    found = []
    for place, datum in enumerate(datums):
        if place in places:
            found.append(datum)
        if place == last:
            break
    return found
