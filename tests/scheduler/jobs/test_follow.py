from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

import dmlpipe as dml
from dmlpipe.scheduler.jobs.epoch import HEARTBEAT_KEY, Beat, Heartbeat
from dmlpipe.scheduler.jobs.follow import follow, is_busy
from dmlpipe.scheduler.leases.inline import InlineExecutor
from dmlpipe.scheduler.report import JobAdvanced, JobEnded, JobPlanned, Report, RunBegan, RunSummary


def dag() -> dml.DAG:
    made = dml.DAG("words")
    made.command("counts", "grep -v bad $texts | wc -w > $out/$stem", dml.files("texts", "/{stem}.txt"))
    made.command("total", "cat $counts/* > $out/total", dml.files("counts"))
    return made


@pytest.fixture
def store(tmp_path: Path) -> dml.Store:
    store = dml.init("memory://follow-" + tmp_path.name, cache_dir=tmp_path)
    store.put("texts", ("a.txt", b"one two"), ("b.txt", b"three"))
    store.submit(dag())
    return store


def run(store: dml.Store) -> RunSummary:
    return store.run(executor=InlineExecutor(store), check=False)


def watch(store: dml.Store, since: int) -> tuple[RunSummary, list[Report]]:
    told: list[Report] = []
    return follow(store, told.append, since=since, alive=lambda: False), told


def test_what_others_ran_is_told_as_if_it_had_been_run_here(store: dml.Store) -> None:
    since = store.refresh().n
    ran = run(store)
    summary, told = watch(store, since)
    assert summary.runs == ran.runs
    assert [(job.pipeline, job.counters, job.commit, job.head) for job in summary.jobs] == [
        (job.pipeline, job.counters, job.commit, job.head) for job in ran.jobs
    ]
    assert [type(each) for each in told] == [RunBegan, JobPlanned, JobEnded, JobPlanned, JobEnded]
    assert not is_busy(store.state)


def test_a_run_that_was_under_way_and_ended_between_two_looks_is_told(store: dml.Store) -> None:
    run(store)
    summary, _ = watch(store, store.state.n - 1)
    assert [job.pipeline for job in summary.jobs] == ["counts", "total"]


def test_earlier_runs_are_not_told(store: dml.Store) -> None:
    run(store)
    summary, told = watch(store, store.state.n)
    assert (summary.runs, summary.jobs, told) == ((), (), [])
    store.put("texts", ("c.txt", b"four"))
    since = store.refresh().n
    run(store)
    summary, _ = watch(store, since)
    assert [(job.pipeline, job.counters.run) for job in summary.jobs] == [("counts", 1), ("total", 1)]


def test_failures_are_told_with_their_causes(store: dml.Store) -> None:
    store.put("texts", ("c.txt", b"bad"))
    since = store.refresh().n
    made = dml.DAG("words")
    made.command("counts", ["grep", "-v", "bad", "$texts"], dml.files("texts", "/{stem}.txt"))
    made.command("total", "cat $counts/* > $out/total", dml.files("counts"))
    store.submit(made)
    ran = run(store)
    summary, told = watch(store, since)
    failed, skipped = summary.jobs
    assert failed.failures == ran.jobs[0].failures
    assert (failed.failures[0].path, failed.reason) == ("texts:/c.txt", ran.jobs[0].reason)
    assert (skipped.state, skipped.reason) == ("unrunnable", ran.jobs[1].reason)
    assert [each.pipeline for each in told if isinstance(each, JobPlanned)] == ["counts"]


def test_a_job_under_way_is_told_with_the_numbers_of_its_controllers_last_heartbeat(
    store: dml.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    since = store.refresh().n
    seen: list[Report] = []

    def watch_meanwhile(heartbeat: Heartbeat, jobs: Sequence[JobAdvanced]) -> None:
        stuck = [replace(job, lacks="gpu: 1 (the most that a worker has is 0)") for job in jobs]
        jobs_told = (*stuck, replace(stuck[0], job="of no run")) if stuck else ()
        beat = Beat(epoch=1, beat=1, jobs=jobs_told)
        store.backend.put(HEARTBEAT_KEY, msgspec.json.encode(beat))
        if stuck and not seen:
            # Each look at the clock is a second later: the job is there for one beat, and its watcher leaves.
            watcher = dml.open(store.url, cache_dir=store.cache_dir)
            follow(watcher, seen.append, since=since, alive=lambda: False, clock=itertools.count().__next__)

    monkeypatch.setattr(Heartbeat, "tell", watch_meanwhile)
    run(store)
    assert [type(each) for each in seen] == [RunBegan, JobPlanned, JobAdvanced]
    (told,) = (each for each in seen if isinstance(each, JobAdvanced))
    assert (told.pipeline, told.total, told.lacks) == ("counts", 2, "gpu: 1 (the most that a worker has is 0)")
