"""`wait`: until a branch, a run or everything is up to date."""

from __future__ import annotations

import re

import click

from ...storage.errors import ErrorCode, NotFoundError
from ...storage.refs import parse_ref
from ...storage.state import State
from ..app import App
from ..command import Verb
from ..failure import FAILED
from ..waiting import poll_until
from .job import show_jobs

_RUN = re.compile(r"[0-9a-f]{4,16}")


@click.command("wait", cls=Verb)
@click.argument("target", required=False, metavar="[REF|RUN]")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Give up after this time, exit 4.")
@click.pass_obj
def command(app: App, target: str | None, timeout: float | None) -> int:
    """Wait until a branch, a run or all is up to date.

    Somebody has to do the work meanwhile: `dmlpipe up`, or a `run` in another terminal. Exit 1 if a job failed.
    """
    store = app.store(read_only=True)
    if target is not None and _RUN.fullmatch(target) and store.state.repo(target) is None:
        run = need_run(store.state, target)
        poll_until(store, lambda state: _run_done(state, run), what=f"the end of run {target}", timeout_s=timeout)
        found = store.state.run(run)
        assert found is not None
        jobs = [(name, job) for name in found.jobs if (job := store.state.job(name)) is not None]
    else:
        from ...scheduler.jobs.follow import is_busy

        status = store.status()
        if is_busy(store.state) and not status.cluster and status.controller.startswith("none"):
            app.note("nobody works on this store now; elsewhere: dmlpipe up, or dmlpipe run")
        poll_until(store, lambda state: not is_busy(state), what="the end of all work", timeout_s=timeout)
        wanted = {parse_ref(target).repo} if target is not None else {name for name, _ in store.state.pipelines()}
        jobs = []
        for name, pipeline in store.state.pipelines():
            job = store.state.job(pipeline.last_job) if pipeline.last_job and name in wanted else None
            if job is not None:
                jobs.append((pipeline.last_job, job))
    show_jobs(app, jobs)
    return 0 if all(job.state == "done" for _, job in jobs) else FAILED


def need_run(state: State, prefix: str) -> str:
    """Return the id of the newest run that begins with `prefix`."""
    for name, _ in state.runs():
        if name.startswith(prefix):
            return name
    raise NotFoundError(f"no run {prefix!r}", code=ErrorCode.NOT_FOUND, hint="list: dmlpipe job list")


def _run_done(state: State, run: str) -> bool:
    found = state.run(run)
    return found is None or found.done
