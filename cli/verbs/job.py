"""`job`: list, inspect, logs, report, wait, stop."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace

from ...storage import records as r
from ...storage.errors import ErrorCode, InvalidInputError, NotFoundError
from ...storage.state import State
from ..app import App
from ..command import Noun
from ..failure import FAILED
from ..text import printable, short, when
from ..waiting import poll_until


@click.group("job", cls=Noun)
def command() -> None:
    """list, inspect, logs, report, wait, stop."""


@command.command("list")
@click.argument("pipeline", required=False)
@click.option("--run", metavar="RUN", help="Only jobs of this run.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, metavar="N", help="At most N jobs.")
@click.pass_obj
def list_(app: App, pipeline: str | None, run: str | None, limit: int) -> None:
    """List jobs, newest first."""
    store = app.store(read_only=True)
    state = store.state
    if pipeline is not None:
        from .pipeline import need_pipeline

        need_pipeline(state, pipeline)
    jobs: Iterator[tuple[str, r.JobState]] = state.jobs(pipeline)
    if run is not None:
        jobs = ((name, job) for name, job in jobs if job.run.startswith(run))
    owed = store.egressing()
    # Its commit is there and has not arrived where its egress leads.
    listed = [
        (name, replace(job, state="egressing") if job.state == "done" and job.commit in owed else job)
        for name, job in islice(jobs, limit)
    ]
    show_jobs(app, listed)


def show_jobs(app: App, jobs: list[tuple[str, r.JobState]]) -> None:
    """Print jobs as a table or JSON Lines."""
    if app.json:
        for name, job in jobs:
            app.emit(job_to_dict(name, job))
        return
    rows = []
    for name, job in jobs:
        counters = job.end.counters
        numbers = f"{counters.run:,} run, {counters.skipped:,} skipped"
        numbers += f", {counters.failed:,} failed" if counters.failed else ""
        out = f"{job.pipeline}@{short(job.commit)}" if job.commit else job.end.reason or _because(job)
        rows.append((short(name), job.pipeline, job.state, numbers if job.end_n else "", when(job.started), out))
    app.table(rows, header=("job", "pipeline", "state", "datums", "started", ""))


def _because(job: r.JobState) -> str:
    return f"job {short(job.because)} failed" if job.because else ""


@command.command("inspect")
@click.argument("name", metavar="JOB")
@click.pass_obj
def inspect(app: App, name: str) -> None:
    """Say everything about one job."""
    import msgspec

    identity, state, record = app.store(read_only=True).job(name)
    detail: dict[str, Any] | None = msgspec.to_builtins(record) if record is not None else None
    plain = {**job_to_dict(identity, state), "record": detail}
    if app.json:
        app.emit(plain)
    else:
        app.line(msgspec.json.format(msgspec.json.encode(plain), indent=2).decode())


@command.command("logs")
@click.argument("target", metavar="JOB|PIPELINE")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--failed", is_flag=True, help="Only of datums that failed.")
@click.pass_obj
def logs(app: App, target: str, follow: bool, failed: bool) -> None:
    """Print what the datums of a job printed (of a pipeline: its newest job).

    They are stored with the results, and kept as long as these.
    """
    from ...scheduler.planning.rows import datum_rows, follow_rows, read_log

    store = app.data(read_only=True)
    name = _newest(store.state, target)
    quiet = True
    for row in (follow_rows if follow else datum_rows)(store, name):
        log = read_log(store, row)
        if (failed and row.outcome != "failed") or not (log or row.failure):
            continue
        quiet = False
        if app.json:
            app.emit({**row.to_dict(), "log": log.decode("utf-8", "replace")})
            continue
        cause = f"  {row.failure.kind}: {row.failure.message.splitlines()[0]}" if row.failure else ""
        app.line(printable(f"--- {short(row.id)}  {row.outcome}  {row.shown}{cause}"))
        sys.stdout.flush()
        sys.stdout.buffer.write(log if log.endswith(b"\n") or not log else log + b"\n")
        sys.stdout.buffer.flush()
    if quiet:
        app.note(f"no datum of job {short(name)} printed anything")


def _newest(state: State, target: str) -> str:
    """The job that a pipeline's name or a job's id means."""
    if state.pipeline(target) is None:
        return need_job(state, target)
    found = next((name for name, _ in state.jobs(target)), None)
    if found is None:
        raise NotFoundError(f"pipeline {target} never ran", code=ErrorCode.NO_JOB, hint="next: dmlpipe run")
    return found


@command.command("report")
@click.argument("target", metavar="JOB|PIPELINE")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", required=True)
@click.pass_obj
def report(app: App, target: str, output: Path) -> None:
    """Write a page about a job (of a pipeline: its newest job): one HTML file that needs no network.

    What each slot did over time, the slowest datums, failures by cause, inputs, environment.
    """
    from ...scheduler.jobreport.gather import read_report
    from ...scheduler.jobreport.page import render

    store = app.store(read_only=True)
    name = _newest(store.state, target)
    page = render(read_report(store, name))
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"cannot write {output}: {error.strerror}", code=ErrorCode.INVALID) from error
    if app.json:
        app.emit({"job": name, "file": str(output), "bytes": len(page.encode())})
    app.say(f"job {short(name)}: {output}")


@command.command("wait")
@click.argument("name", metavar="JOB")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Give up after this time.")
@click.pass_obj
def wait(app: App, name: str, timeout: float | None) -> int:
    """Wait until a job has ended; exit 1 if it did not make a commit."""
    store = app.data(read_only=True)
    identity = need_job(store.state, name)
    poll_until(store, lambda state: _ended(state, identity), what=f"job {short(identity)}", timeout_s=timeout)
    job = store.state.job(identity)
    assert job is not None
    show_jobs(app, [(identity, job)])
    return 0 if job.state == "done" else FAILED


@command.command("stop")
@click.argument("name", metavar="JOB")
@click.option("-m", "--message", default="", metavar="WHY", help="Recorded.")
@click.pass_obj
def stop(app: App, name: str, message: str) -> None:
    """End a running job; what it finished is kept."""
    identity = app.store().stop_job(name, why=message)
    if app.json:
        app.emit({"job": identity, "stopping": True})
    app.say(f"job {short(identity)} is asked to stop")


def _ended(state: State, identity: str) -> bool:
    job = state.job(identity)
    return job is None or job.state != "running"


def need_job(state: State, prefix: str) -> str:
    """Return the id that begins with `prefix`."""
    found = state.jobs_by_prefix(prefix) if prefix else []
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidInputError(
            f"{len(found)} jobs begin with {prefix!r}: {', '.join(name[: len(prefix) + 4] for name in found[:5])}",
            code=ErrorCode.INVALID,
            hint="give more digits",
        )
    raise NotFoundError(f"no job {prefix!r}", code=ErrorCode.NO_JOB, hint="list: dmlpipe job list")


def job_to_dict(name: str, job: r.JobState) -> dict[str, Any]:
    """Plain data with stable keys."""
    import msgspec

    counters = job.end.counters
    return {
        "job": name,
        "run": job.run,
        "pipeline": job.pipeline,
        "version": job.version,
        "state": job.state,
        "commit": job.commit,
        "started": job.started,
        "ended": job.ended,
        "reason": job.end.reason,
        "because": job.because,
        "inputs": [msgspec.to_builtins(bound) for bound in job.inputs],
        "counters": {
            key: getattr(counters, key) for key in ("total", "run", "skipped", "failed", "recovered", "removed")
        },
    }
