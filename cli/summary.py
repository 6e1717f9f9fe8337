"""The last lines of a run: what failed and what to do next, or what was done and where to look."""

from __future__ import annotations

from rich.text import Text

from ..scheduler.report import JobEnded, RunSummary
from .progress import failure_lines
from .text import count, duration, short

MAX_GROUPS = 5


def summary_lines(summary: RunSummary, *, look: tuple[str, ...] = ()) -> list[Text]:
    """Tell how it ended.

    Parameters
    ----------
    summary
        What `Store.run` returned or raised.
    look
        Commands worth typing next.
    """
    lines: list[Text] = []
    for job in summary.jobs:
        shown = job.failures[:MAX_GROUPS]
        if shown:
            lines.append(Text(f"{job.pipeline}", style="bold"))
            lines += failure_lines(shown)
            more = len(job.failures) - len(shown)
            if more:
                lines.append(Text(f"  and {count(more, 'more cause')}: dmlpipe datum list {short(job.job)} --failed"))
    lines += [Text(f"{name} waits: {why}") for name, why in summary.waiting.items()]
    if summary.ok:
        lines.append(_done(summary, look))
    else:
        lines += _failed(summary)
    return lines


def _done(summary: RunSummary, look: tuple[str, ...]) -> Text:
    if not summary.jobs:
        return Text("nothing to do: everything is up to date" if not summary.waiting else "nothing to do")
    counters = summary.counters
    failed = f", {counters.failed:,} failed" if counters.failed else ""
    told = f"{count(counters.run, 'datum')} run, {counters.skipped:,} skipped{failed}"
    parts = [f"done in {duration(summary.seconds)}", told]
    if look:
        parts.append(f"look: {look[0]}")
        parts += look[1:]
    return Text(" · ".join(parts))


def _failed(summary: RunSummary) -> list[Text]:
    kept = summary.counters.run
    bad = [job for job in summary.jobs if job.state == "failed"]
    head = f"results of {count(kept, 'datum')} are kept. " if kept else ""
    return [Text(f"{head}{_next(bad)}")]


_ENDED = ("exit", "signal", "timeout", "memory")


def _next(bad: list[JobEnded]) -> str:
    for job in bad:
        for group in job.failures:
            # A process that ended has no frame for the debugger to stop in.
            pdb = "" if group.failure.kind in _ENDED else " --pdb"
            tried = f"next: dmlpipe try {job.pipeline} --datum {short(group.datum)}{pdb}"
            total = job.counters.total
            # Allowing failures is advice for the few among many, not for code that always fails.
            if total >= 20 and job.counters.failed * 10 <= total:
                return f'{tried}   or   max_failures="{_allow(job.counters.failed, total)}"'
            return tried
    return "next: dmlpipe status" if bad else "next: dmlpipe run"


def _allow(failed: int, total: int) -> str:
    for percent in ("0.1", "1", "5", "10"):
        if failed * 100 <= float(percent) * total:
            return f"{percent}%"
    return str(failed)
