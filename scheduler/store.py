"""The store as its users hold it: versioned data, and the pipelines over it.

`Store` adds to `dmlpipe.storage.store.Store` what needs pipelines; each method only puts together what its module
does, and imports what others do not need.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..storage import records as r
from ..storage.actor import actor_name
from ..storage.commits import CommitView
from ..storage.digest import from_hex
from ..storage.errors import ErrorCode, InvalidInputError, NotFoundError
from ..storage.objects.bodies import read_job
from ..storage.refs import DEFAULT_BRANCH, Ref, nearest
from ..storage.state import State
from ..storage.store import Store as VersionedStore
from .errors import JobFailed
from .report import Notice, Observer, RunSummary, StoreStatus, Submitted, ignore

if TYPE_CHECKING:
    from ..storage.provenance.derivation import Derivation
    from .jobs.preview import Plans
    from .leases.executor import Executor
    from .pipelines.dag import DAG
    from .pipelines.spec import Claim, PipelineSpec
    from .submission import Built, Params, What
    from .versions import Version, VersionDiff


_DIGITS = re.compile(r"[0-9a-f]{4,64}")


class Store(VersionedStore):
    """Versioned data and the pipelines over it. Make with `dmlpipe.init` or `dmlpipe.open`."""

    # --- pipelines ----------------------------------------------------------------------------------------------

    def submit(
        self,
        what: What,
        *,
        params: Params | None = None,
        code: Path | None = None,
        container: str = "",
        arguments: Mapping[str, str] | None = None,
        prune: bool = False,
        dry_run: bool = False,
        reprocess: bool = False,
        same: Sequence[str] = (),
        if_same: int = 0,
        why: str = "",
    ) -> list[Submitted]:
        """Record a version of each pipeline that is new or changed, all in one entry.

        Parameters
        ----------
        what
            A DAG, several, or a file: Python with DAGs, or Pachyderm's JSON or YAML specs.
        params
            Pipeline to parameter to value.
        code
            Folder of the scripts of a spec, recorded in the version and seen at ``/code``.
        container
            What runs the images of specs: `docker`, `podman`, `apptainer`, `auto`; empty: their commands run as
            they are.
        arguments
            Of a Jsonnet template.
        prune
            Delete pipelines of the same DAG that it no longer has; otherwise they are reported as orphans.
        dry_run
            Write nothing.
        reprocess
            Compute everything again, whatever is known.
        same
            Pipelines whose changed code makes what the code before it made: their results stand. Recorded by name.
        if_same
            Of each other pipeline of which only code changed, compute so many datums with the new code, here; if all
            are equal to what is known, the results stand, and that so many were compared is recorded. 0: do not.
        why
            For people: recorded with `same`.

        Raises
        ------
        InvalidInputError, NotFoundError, UserCodeError
            What is wrong; then nothing was written.
        """
        from .submission import CodeWriter, Given, build, record

        writer = CodeWriter(self)
        given = Given(what, params, code, container, arguments or {})
        built = build(what, writer, params=params, code=code, container=container, arguments=arguments)
        state = self.refresh()
        claims = {name: _claim(state, built, name, why=why) for name in same}
        notices: dict[str, tuple[str, ...]] = {}
        if if_same:
            from .sameness import compare

            for found in compare(self, given, if_same):
                if found.pipeline in claims:
                    continue
                if found.equal:
                    claims[found.pipeline] = _claim(state, built, found.pipeline, compared=found.compared)
                else:
                    notices[found.pipeline] = (str(found),)
        submitted = record(self, built, writer, prune=prune, dry_run=dry_run, reprocess=reprocess, claims=claims)
        return [dataclasses.replace(each, notices=(*each.notices, *notices.get(each.name, ()))) for each in submitted]

    def plan(
        self,
        what: DAG | Path | str | None = None,
        pipelines: Sequence[str] = (),
        *,
        params: Params | None = None,
        code: Path | None = None,
        container: str = "",
        arguments: Mapping[str, str] | None = None,
    ) -> Plans:
        """Say what a run would do now and why; writes nothing.

        Parameters
        ----------
        what
            An edited file or DAG that was not submitted; None: what is recorded.
        pipelines
            Names to report; empty: all.
        """
        from .jobs.preview import preview
        from .submission import CodeWriter, build
        from .succession import succeed

        built = None
        if what is not None:
            built = build(what, CodeWriter(self), params=params, code=code, container=container, arguments=arguments)
        state = self.refresh()
        specs = [succeed(self, state, spec) for spec in built.specs] if built is not None else []
        known = {name for name, _ in state.pipelines()} | {spec.name for spec in specs}
        for name in pipelines:
            if name not in known:
                raise _no_pipeline(name, known)
        return preview(self, state, specs, only=pipelines, notices=built.notices if built else None)

    def run(
        self,
        *,
        slots: int | None = None,
        targets: Sequence[str] = (),
        check: bool = True,
        observer: Observer = ignore,
        executor: Executor | None = None,
        client: Any = None,
    ) -> RunSummary:
        """Bring branches up to date: compute what is due, and return when nothing is left to do.

        Parameters
        ----------
        slots
            Datums computed at a time; None: the cores this process may use.
        targets
            Pipelines to bring up to date, with what they need; empty: all.
        check
            Raise `JobFailed` if a job failed, was stopped or could not run.
        observer
            Is told what happens.
        executor
            Computes the datums in place of a cluster for this run; closed at the end.
        client
            A `distributed.Client`, or the address of a Dask scheduler: that cluster, which stays as it was, computes
            the datums. Its workers must have dmlpipe of this version, and reach the store under the same URL. `slots`
            does not matter then.

        Raises
        ------
        JobFailed
            See `check`; its `summary` says what was done.
        HeldError
            Another `run` drives this store. (Where `up` does, this call waits for it and reports.)
        """
        state = self.refresh()
        known = {name for name, _ in state.pipelines()}
        for name in targets:
            if name not in known:
                raise _no_pipeline(name, known)
            found = state.pipeline(name)
            if found is not None and found.standing:
                raise InvalidInputError(
                    f"{name} is a {found.standing}: it runs for as long as a cluster is up, not in a run",
                    code=ErrorCode.UNSUPPORTED,
                    hint="start one: dmlpipe up",
                )
        summary = self._hand_over(state, observer) if executor is None else None
        if summary is None:
            for name, each in state.pipelines():
                if each.standing and not each.stopped and not targets:
                    observer(Notice(text=f"{name} is a {each.standing}: dmlpipe up keeps it running"))
            from .jobs.controller import Controller

            given = executor

            def make() -> Executor:
                if given is not None:
                    return given
                return self._private_executor(slots) if client is None else self._given_executor(client, observer)

            controller = Controller(
                self,
                make,
                observer=observer,
                targets=targets,
            )
            summary = controller.run()
        if check and not summary.ok:
            bad = [job for job in summary.jobs if job.state != "done"]
            if not bad:
                pipeline, why = next(iter(summary.egress_failures.items()))
                raise JobFailed(f"{pipeline}: {why}", summary=summary)
            first = next((job for job in bad if job.state == "failed"), bad[0])
            raise JobFailed(f"{first.pipeline}: {first.reason or first.state}", summary=summary)
        return summary

    def _private_executor(self, slots: int | None) -> Executor:
        from .cluster.head_start import begin_zygote

        folder = self.cache_dir / "stores" / self.repo_id / "run"
        zygote = begin_zygote(folder)
        try:
            # While it starts.
            from .cluster.private import PrivateExecutor

            return PrivateExecutor(
                self.url,
                slots or len(os.sched_getaffinity(0)),
                lambda name: self.nodes.get(from_hex(name)),
                folder=folder,
                cache_dir=self.cache_dir,
                backend=self.backend,
                zygote=zygote,
            )
        except BaseException:
            if zygote is not None:
                zygote.close()
            raise

    def _given_executor(self, client: Any, observer: Observer) -> Executor:
        from .cluster.given import dashboard_of, given_executor

        if page := dashboard_of(client):
            observer(Notice(text=f"the page of the Dask cluster: {page}"))
        return given_executor(client, self.url, lambda name: self.nodes.get(from_hex(name)), backend=self.backend)

    def _hand_over(self, state: State, observer: Observer) -> RunSummary | None:
        """Let a living `up` do the work; None: there is none."""
        from .jobs.epoch import is_alive
        from .jobs.follow import follow
        from .jobs.runs import wants_retry

        holder = state.controller()
        if holder is None or holder.kind != "up" or not is_alive(holder, self.backend):
            return None
        failed = [name for name, pipeline in state.pipelines() if wants_retry(pipeline)]
        if failed and state.open_run() is None:
            self.publish([r.Retry(pipelines=tuple(failed))])
        return follow(self, observer, since=state.n, alive=lambda: is_alive(self.state.controller(), self.backend))

    def wait(self, *, timeout_s: float | None = None) -> bool:
        """Wait until nothing is due and nothing runs; return whether that came to be in time."""
        from .jobs.follow import is_busy

        until = None if timeout_s is None else time.monotonic() + timeout_s
        while is_busy(self.refresh()):
            left = 1.0 if until is None else min(1.0, until - time.monotonic())
            if left <= 0:
                return False
            self.ledger.wait(self.state.n, left)
        return True

    # --- models ---------------------------------------------------------------------------------------------------

    def revert(self, pipeline: str, to: str, *, why: str = "") -> CommitView:
        """Move a pipeline's output back to an earlier commit and hold it there.

        Consumers are brought up to date with that commit. New input is recorded meanwhile; the pipeline publishes
        nothing until `release`.

        Parameters
        ----------
        to
            ``model@master^``, a commit id, a tag; a bare ref means the pipeline's own repo.
        why
            For people; shown by `status`.

        Raises
        ------
        NotFoundError
            No such pipeline or commit.
        """
        self._need_pipeline(pipeline)
        found = self.resolve(to if "@" in to or to.partition(":")[0] == pipeline else f"{pipeline}@{to}")
        if found.repo != pipeline:
            raise InvalidInputError(f"{to} is a commit of {found.repo!r}, not of {pipeline!r}", code=ErrorCode.BAD_REF)

        def build_records(state: State) -> Sequence[r.Record]:
            known = state.pipeline(pipeline)
            branch = known.branch if known is not None else DEFAULT_BRANCH
            head = state.head(pipeline, branch) or ""
            records: list[r.Record] = []
            if head != found.commit:
                records.append(r.RefSet(repo=pipeline, branch=branch, old=head, new=found.commit))
            return [*records, r.Hold(pipeline=pipeline, branch=branch, commit=found.commit, why=why)]

        self.publish(build_records)
        return self[found]

    def release(self, pipeline: str) -> None:
        """End a `revert`: what arrived meanwhile is considered by the next run."""
        self._need_pipeline(pipeline)
        self.publish([r.Release(pipeline=pipeline)])

    # --- looking ----------------------------------------------------------------------------------------------------

    def status(self) -> StoreStatus:
        """Say where every pipeline stands. Reads the ledger only."""
        from . import status as module

        return module.store_status(self)

    def why(self, target: str | Ref) -> Derivation:
        """Say what made a file, a commit, the content of a hash, or a datum (4 or more digits of its id).

        Raises
        ------
        NotFoundError
            There is no such thing, or the datum made no file.
        """
        if not isinstance(target, str) or not _DIGITS.fullmatch(target) or self.refresh().repo(target) is not None:
            return super().why(target)
        from ..storage.provenance.explain import CONTENT_PREFIX_MIN

        if len(target) >= CONTENT_PREFIX_MIN:
            try:
                return super().why(target)
            except NotFoundError:
                pass  # a datum's id looks the same
        from .planning.rows import find_datum

        row = find_datum(self, target)
        job = self.state.job(row.job)
        commit = (job.commit if job is not None else "") or self.state.output(row.pipeline)
        if not row.outputs or not commit:
            raise NotFoundError(
                f"datum {target} of {row.pipeline} made no file: {row.outcome}",
                code=ErrorCode.NO_FILE,
                hint=f"dmlpipe datum inspect {target}",
            )
        return super().why(f"{row.pipeline}@{commit}:/{row.outputs[0].lstrip('/')}")

    def pipeline_spec(self, name: str, version: int | None = None) -> PipelineSpec:
        """Return a version of a pipeline; None: the present one."""
        state = self.refresh()
        if version is None:
            node = self._need_pipeline(name).spec
        else:
            known = state.version(name, version)
            if known is None:
                raise NotFoundError(f"pipeline {name!r} has no version {version}", code=ErrorCode.NO_PIPELINE)
            node = known.spec
        from .pipelines.spec import decode_pipeline

        return decode_pipeline(self.nodes.get(from_hex(node)))

    def job(self, name: str) -> tuple[str, r.JobState, r.JobRecord | None]:
        """Return (id, state, record) of the job whose id begins with `name`; the record is None until it ends."""
        state = self.refresh()
        found = state.jobs_by_prefix(name) if name and set(name) <= set("0123456789abcdef") else []
        if len(found) != 1:
            text = f"job id {name!r} is ambiguous: {', '.join(found)}" if found else f"no job {name!r}"
            raise NotFoundError(text, code=ErrorCode.NO_JOB, hint="list: dmlpipe job list")
        job = state.job(found[0])
        assert job is not None
        return found[0], job, read_job(self.nodes, job.end.record) if job.end.record else None

    def stop_job(self, name: str, *, why: str = "") -> str:
        """Ask that a running job be stopped; its results are kept. Returns its id."""
        job, state, _ = self.job(name)
        if state.state != "running":
            raise InvalidInputError(f"job {job[:6]} has ended: {state.state}")
        self.publish([r.JobStop(job=job, why=why)])
        return job

    def stop_pipeline(self, name: str) -> None:
        """No new jobs of this pipeline until `start_pipeline`; a running one is stopped."""
        self._need_pipeline(name)
        self.publish([r.PipelineStop(name=name)])

    def start_pipeline(self, name: str) -> None:
        """Jobs again: the next run makes exactly one with the heads as they are then."""
        self._need_pipeline(name)
        self.publish([r.PipelineStart(name=name)])

    def egressing(self) -> set[str]:
        """Commits that are to be sent by their pipelines' egress and have not arrived."""
        from .egress.owed import owed

        return {each.commit for each in owed(self.refresh(), self.pipeline_spec)}

    def tick(self, pipeline: str, input: str | None = None) -> list[str]:
        """Make a tick of a cron input now, whatever its schedule; return the times of the ticks.

        Parameters
        ----------
        input
            Name of the input; None: each cron input of the pipeline.

        Raises
        ------
        InvalidInputError
            It has no such cron input (code ``bad-input``).
        """
        self._need_pipeline(pipeline)
        names = [name for _, name, _ in self.state.crons(pipeline)]
        if not names or input not in (None, *names):
            what = f"no cron input {input!r}" if input else "no cron input"
            raise InvalidInputError(
                f"pipeline {pipeline!r} has {what}",
                code=ErrorCode.BAD_INPUT,
                hint=f"it has {', '.join(names)}" if names else None,
            )
        from .jobs.ticks import tick_by_hand

        return tick_by_hand(self, self.state, pipeline, input)

    def reprocess(self, pipeline: str, datums: Sequence[str] = (), *, only_failed: bool = False) -> int:
        """Have datums computed again by the next run, though their results are known.

        Parameters
        ----------
        datums
            Globs over an input (``images:/cam3/*``, ``/cam3/*``), or digits of a datum's id; empty: all.
        only_failed
            Those that failed or recovered, and nothing else.

        Returns
        -------
        int
            How many datums; -1: all.

        Raises
        ------
        NotFoundError
            There is no such pipeline, or no such datum on its present inputs.
        ConflictError
            A job of the pipeline is running.
        """
        from .reprocess import retry_chosen, retry_failed

        self._need_pipeline(pipeline)
        if only_failed:
            return retry_failed(self, pipeline)
        if datums:
            return retry_chosen(self, pipeline, datums)
        self.submit([self.pipeline_spec(pipeline)], reprocess=True)
        return -1

    def restart_datum(self, name: str) -> tuple[str, str]:
        """Have one datum computed again by the next run; return its pipeline and what it is called.

        Parameters
        ----------
        name
            The first digits of its id, an output ``predictions:/a.json``, or an input ``images:/a.png``.
        """
        from .reprocess import retry_datum

        return retry_datum(self, name)

    def versions(self, pipeline: str) -> list[Version]:
        """Return the recorded versions of a pipeline, newest first, with what each changed."""
        from .versions import list_versions

        self._need_pipeline(pipeline)
        return list(list_versions(self, self.state, pipeline))

    def version_diff(self, pipeline: str, old: int | None = None, new: int | None = None) -> VersionDiff:
        """Say how a version of a pipeline differs from another.

        Parameters
        ----------
        old, new
            Numbers; None: the version before `new`, and the present one.
        """
        from .versions import version_diff

        last = self._need_pipeline(pipeline).version if new is None else new
        return version_diff(self, self.state, pipeline, last - 1 if old is None else old, last)

    def delete_pipeline(self, name: str, *, keep_repo: bool = False, force: bool = False) -> None:
        """Delete a pipeline and its output repo; its results are still known to others that compute the same.

        Parameters
        ----------
        keep_repo
            Keep the output, which people may then write.
        force
            Delete the repo though other pipelines read it: they wait for data from then on.

        Raises
        ------
        InvalidInputError
            Another pipeline reads its output, and neither is given.
        """
        from .submission import ended_triggers
        from .succession import recorded

        self._need_pipeline(name)

        def build_records(state: State) -> Sequence[r.Record]:
            known = state.pipeline(name)
            branches = {*state.branches(name), known.branch if known is not None else DEFAULT_BRANCH}
            readers = {reader for branch in branches for reader in state.readers(name, branch)}
            if readers and not (keep_repo or force):
                raise InvalidInputError(
                    f"repo {name!r} is read by {', '.join(sorted(readers))}",
                    hint="keep it (--keep-repo), or delete it all the same (--force)",
                )
            records: list[r.Record] = [r.PipelineDelete(name=name)]
            spec = recorded(self, state, name)
            records += ended_triggers(state, spec) if spec is not None else ()
            if not keep_repo:
                records.append(r.RepoDelete(repo=name))
            return records

        self.publish(build_records)

    def _need_pipeline(self, name: str) -> r.PipelineState:
        state = self.refresh()
        found = state.pipeline(name)
        if found is None:
            raise _no_pipeline(name, {known for known, _ in state.pipelines()})
        return found


def _claim(state: State, built: Built, name: str, *, why: str = "", compared: int = 0) -> Claim:
    """What is claimed of a pipeline's new code: that it makes what its present version makes."""
    from .pipelines.spec import Claim

    given = [spec.name for spec in built.specs]
    if name not in given:
        raise _no_pipeline(name, set(given))
    found = state.pipeline(name)
    return Claim(version=found.version if found else 0, by=actor_name(), compared=compared, why=why)


def _no_pipeline(name: str, known: set[str]) -> NotFoundError:
    near = nearest(name, sorted(known))
    return NotFoundError(
        f"no pipeline {name!r}",
        code=ErrorCode.NO_PIPELINE,
        hint=(f"did you mean {near}? " if near else "") + "list: dmlpipe pipeline list",
    )


def init(url: str | os.PathLike[str] = "./.dmlpipe", **options: Any) -> Store:
    """Make a store and open it; see `Store.init`."""
    return Store.init(url, **options)


def open(url: str | os.PathLike[str] | None = None, **options: Any) -> Store:
    """Open a store: a folder, ``s3://bucket/prefix``; None: ``$DMLPIPE_STORE``, else ``.dmlpipe`` here or above."""
    return Store.open(url, **options)
