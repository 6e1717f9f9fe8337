from __future__ import annotations

import io
import itertools

import msgspec
from msgspec.structs import replace
from rich.console import Console

from dmlpipe.cli.progress import LINE_EVERY_S, Progress, advanced_text, bar, failure_lines
from dmlpipe.cli.summary import summary_lines
from dmlpipe.scheduler import report as r
from dmlpipe.storage.objects.segment import Failure
from dmlpipe.storage.records import Counters

MODEL = "7d02b1ff00"
FAILURE = Failure(
    "PIL.UnidentifiedImageError", "cannot identify image file\nmore", "dag.py:24 in __call__", "img = Image.open(p)"
)
BEGAN = r.RunBegan(run="3f2a1c77", causes=("put to images@master",), pipelines=("model", "predictions", "report"))


def ended(name: str, state: str = "done", *, head: str = MODEL, reason: str = "", **counters: int) -> r.JobEnded:
    total = sum(value for key, value in counters.items() if key != "removed")
    return r.JobEnded(
        job=f"job-{name}",
        run="3f2a1c77",
        pipeline=name,
        state=state,
        counters=Counters(total=total, **counters),
        seconds=2.1,
        commit=head if state == "done" else "",
        head=head,
        reason=reason,
        failures=(r.FailureGroup(failure=FAILURE, count=2, datum="7be1aa99", path="images:/cam3/0932.jpg"),)
        if state == "failed"
        else (),
    )


def advanced(run: int, total: int = 1000) -> r.JobAdvanced:
    return r.JobAdvanced(
        job="job-predictions",
        pipeline="predictions",
        total=total,
        run=run,
        skipped=0,
        failed=0,
        rate=1420.4,
        left_s=0.2,
    )


def console(*, terminal: bool = False) -> Console:
    return Console(
        file=io.StringIO(),
        width=120,
        force_terminal=terminal,
        no_color=True,
        highlight=False,
        emoji=False,
        markup=False,
    )


def printed(on: Console) -> list[str]:
    assert isinstance(on.file, io.StringIO)
    return [line.rstrip() for line in on.file.getvalue().splitlines()]


def test_what_hosts_took_is_told_with_the_peers_share() -> None:
    told = replace(advanced(10), from_store=1_000_000, from_peers=3_000_000)
    assert advanced_text(told).endswith("4.0 MB fetched, 75% from peers")
    assert "fetched" not in advanced_text(advanced(10))


def test_lines_where_there_is_no_terminal() -> None:
    out = console()
    ticks = itertools.count(step=LINE_EVERY_S / 2)
    with Progress(out, live=False, clock=lambda: next(ticks)) as progress:
        progress(BEGAN)
        progress(r.JobPlanned(job="job-model", run="3f", pipeline="model", version=1, total=1, why=("first run",)))
        progress(ended("model", run=1))
        progress(
            r.JobPlanned(job="job-predictions", run="3f", pipeline="predictions", version=1, total=1000, resumed=5)
        )
        for done in (100, 300, 712):
            progress(advanced(done))
        progress(r.Notice(text="numpy differs"))
        progress(ended("predictions", "failed", run=998, failed=2, reason="max_failures=0"))
        progress(r.JobEnded(job="x", run="3f", pipeline="report", state="unrunnable", counters=Counters(), seconds=0.0,
                            reason="predictions failed"))  # fmt: skip
    assert printed(out) == [
        "run 3f2a1c  put to images@master",
        "  model  1 datum   first run",
        "  model  ✔ 1 run   2.1 s   model@7d02b1",
        "  predictions  1,000 datums, 5 kept from before",
        "  predictions  712/1,000   0 skipped   0 failed   1,420/s   0:00 left",
        "note: numpy differs",
        "  predictions  ✘ 998 run  0 skipped  2 failed   "
        "nothing published: predictions stays at 7d02b1 (max_failures=0)",
        "  report  – did not run   predictions failed",
    ]


def test_the_table_on_a_terminal() -> None:
    out = console()
    upstream = {"predictions": ["model", "images"], "report": ["predictions"]}
    progress = Progress(out, live=False, upstream=lambda name: upstream.get(name, []))
    progress._live = object()  # type: ignore[assignment]  # rows are kept without a thread that draws them
    progress(BEGAN)
    progress(ended("model", run=1))
    progress(r.JobPlanned(job="job-predictions", run="3f", pipeline="predictions", version=1, total=1000))
    out.print(progress)
    progress(r.ClusterChanged(workers=1, slots=2))
    progress(advanced(712))
    out.print(progress)
    assert printed(out)[1:] == [
        "  model         ✔ 1 run                 2.1 s   model@7d02b1",
        "  predictions   1,000 datums",
        "  report        waits for predictions",
        "  starting slots ...",
        "  model         ✔ 1 run                           2.1 s   model@7d02b1",
        "  predictions   ━━━━━━━━━━━━━━        712/1,000   0 skipped   0 failed   1,420/s   0:00 left",
        "  report        waits for predictions",
    ]


def test_a_live_table_leaves_its_last_state_behind() -> None:
    out = console(terminal=True)
    with Progress(out, live=True) as progress:
        progress(BEGAN)
        progress(ended("model", run=1, skipped=3, removed=1))
        progress(r.PipelineHeld(pipeline="report", commit=MODEL, by="ada", why="accuracy fell"))
    last = printed(out)[-2:]
    assert "✔ 1 run  3 skipped  1 removed" in last[0]
    told = 'report held at 7d02b1 by ada: "accuracy fell" end it: dmlpipe release report'
    assert " ".join(last[1].split()) == told


def test_bars_are_as_long_as_each_other() -> None:
    assert {len(bar(done, 7).plain) for done in range(9)} == {20}
    assert bar(0, 0).plain == "━" * 20
    assert bar(7, 7, plain=True).plain == "━" * 20


def test_failures_are_told_by_cause_with_the_users_line() -> None:
    job = ended("predictions", "failed", run=998, failed=2)
    assert [str(line) for line in failure_lines(job.failures)] == [
        "  2 × PIL.UnidentifiedImageError: cannot identify image file      first: images:/cam3/0932.jpg   datum 7be1aa",
        "      dag.py:24 in __call__    img = Image.open(p)",
    ]


def test_the_last_line_after_failures_says_what_to_do() -> None:
    job = ended("predictions", "failed", run=1_997_310, skipped=2_688, failed=2)
    lines = [str(line) for line in summary_lines(r.RunSummary(runs=("3f",), jobs=(job,), seconds=3.0))]
    assert lines[0] == "predictions"
    assert lines[-1] == (
        "results of 1,997,310 datums are kept. "
        'next: dmlpipe try predictions --datum 7be1aa --pdb   or   max_failures="0.1%"'
    )


def test_code_that_always_fails_is_not_advised_to_be_tolerated() -> None:
    job = ended("predictions", "failed", failed=50)
    assert str(summary_lines(r.RunSummary(jobs=(job,)))[-1]) == "next: dmlpipe try predictions --datum 7be1aa --pdb"


def test_a_process_that_ended_is_not_one_for_the_debugger() -> None:
    job = ended("predictions", "failed", failed=1)
    (group,) = job.failures
    exited = msgspec.structs.replace(group, failure=msgspec.structs.replace(group.failure, kind="exit"))
    job = msgspec.structs.replace(job, failures=(exited,))
    assert str(summary_lines(r.RunSummary(jobs=(job,)))[-1]) == "next: dmlpipe try predictions --datum 7be1aa"


def test_the_last_line_of_a_run_that_went_well() -> None:
    jobs = (ended("model", run=1), ended("predictions", run=1001, skipped=2))
    summary = r.RunSummary(runs=("3f",), jobs=jobs, seconds=6.4)
    look = ("dmlpipe get report:/confusion.png .", "dmlpipe why predictions:/0012.json")
    assert [str(line) for line in summary_lines(summary, look=look)] == [
        "done in 6.4 s · 1,002 datums run, 2 skipped · "
        "look: dmlpipe get report:/confusion.png . · dmlpipe why predictions:/0012.json"
    ]


def test_nothing_to_do_and_who_waits() -> None:
    assert [str(line) for line in summary_lines(r.RunSummary())] == ["nothing to do: everything is up to date"]
    waiting = r.RunSummary(waiting={"report": "no data in labels@master"})
    assert [str(line) for line in summary_lines(waiting)] == [
        "report waits: no data in labels@master",
        "nothing to do",
    ]


def test_a_narrow_window_cuts_remarks_and_never_names_or_counts() -> None:
    out = io.StringIO()
    console = Console(file=out, width=60, force_terminal=False, color_system=None)
    failed = r.JobEnded(
        job="j",
        run="r",
        pipeline="predictions",
        state="failed",
        counters=Counters(total=300, run=299, failed=1),
        seconds=1.0,
        reason="1 of 300 datums failed (max_failures=0), first: texts:/n7",
    )
    progress = Progress(console, live=False)
    progress(failed)
    console.print(progress._table([*progress._rows.values()]))
    assert "  predictions   ✘ 299 run  0 skipped  1 failed   nothing" in out.getvalue()
    assert "…" in out.getvalue()


def test_what_a_job_waits_for_stands_first() -> None:
    stuck = replace(advanced(0), rate=0.0, left_s=None, lacks="gpu: 1 (the most that a worker has is 0)")
    assert advanced_text(stuck) == (
        "0/1,000   waits for a worker that has gpu: 1 (the most that a worker has is 0)   0 skipped   0 failed"
    )
