"""Times that came: ticks of cron inputs, and of branches that follow another one by a schedule.

What is due is a function of the folded ledger and of the time; a tick is keyed by (input, scheduled time), so that of
two who make it one is dropped. Making one is one entry: the commit of an empty file that is named after the time, and
the tick.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from ...storage.records import CronState, Record, Tick, TriggerTick
from ...storage.schedule import format_time, parse_schedule, parse_time
from ...storage.state import State
from ...storage.store import Store

__all__ = ["DueTick", "count_due", "due_ticks", "make_tick", "make_trigger_ticks", "tick_by_hand", "trigger_ticks"]

AT_ONCE_MAX = 1000
"""Ticks of an input that are made before anything runs."""


@dataclasses.dataclass(frozen=True, slots=True)
class DueTick:
    """A tick to make."""

    pipeline: str
    input: str
    cron: CronState
    time: str
    """The scheduled one."""
    manual: bool = False


def due_ticks(state: State, now: str) -> Iterator[DueTick]:
    """Yield the ticks that are due, oldest first for each input.

    Missed ones are made up for: of an input that keeps its ticks, together; of one that overwrites them, one by one,
    since each is a datum that the next one takes away. A stopped pipeline does not tick; it catches up when started.
    """
    until = parse_time(now)
    for pipeline, name, cron in state.crons():
        known = state.pipeline(pipeline)
        if known is None or known.stopped:
            continue
        times = parse_schedule(cron.spec).between(parse_time(cron.since), until)
        for time, _ in zip(times, range(1 if cron.overwrite else AT_ONCE_MAX), strict=False):
            yield DueTick(pipeline, name, cron, format_time(time))


def count_due(state: State, pipeline: str, now: str) -> int:
    """Return how many ticks of a pipeline are due; counts no further than to `AT_ONCE_MAX` for each input."""
    until = parse_time(now)
    times = [parse_schedule(cron.spec).between(parse_time(cron.since), until) for _, _, cron in state.crons(pipeline)]
    return sum(1 for each in times for _ in zip(each, range(AT_ONCE_MAX), strict=False))


def make_tick(store: Store, tick: DueTick) -> bool:
    """Commit a tick; return False if it was made already, or its input is gone."""
    session = store.commit(tick.cron.repo, message=f"tick {tick.time}", create=True)
    try:
        if tick.cron.overwrite and session.base is not None:
            session.delete("/")
        session.write(f"/{tick.time}", b"")
        keys = session.prepare()

        def build(state: State) -> Sequence[Record]:
            cron = state.cron(tick.pipeline, tick.input)
            if cron is None or (not tick.manual and parse_time(tick.time) <= parse_time(cron.since)):
                return []
            done = Tick(pipeline=tick.pipeline, input=tick.input, time=tick.time, manual=tick.manual)
            return [*session.plan(state), done]

        return store.ledger.try_append(build, sync=keys) is not None
    finally:
        session.abort()


def tick_by_hand(store: Store, state: State, pipeline: str, input: str | None = None) -> list[str]:
    """Make a tick now of one cron input of a pipeline, or of all; return their times."""
    made = []
    for _, name, cron in state.crons(pipeline):
        if input in (None, name):
            time = format_time(parse_time(store.now()))
            make_tick(store, DueTick(pipeline, name, cron, time, manual=True))
            made.append(time)
    return made


def make_trigger_ticks(store: Store, state: State, now: str) -> bool:
    """Let branches that follow another one by a schedule take its head, if a time came since it was committed."""
    return bool(trigger_ticks(state, now)) and (
        store.ledger.try_append(lambda newest: trigger_ticks(newest, now)) is not None
    )


def trigger_ticks(state: State, now: str) -> list[TriggerTick]:
    """Return the ticks of branches that are due: the last time of each."""
    found = []
    for repo, branch, known in state.all_triggers():
        head = state.head(repo, known.trigger.on)
        if not known.trigger.cron or head is None or head == state.head(repo, branch):
            continue
        commit = state.commit(repo, head)
        since = [parse_time(known.since), *([parse_time(commit.time)] if commit is not None else [])]
        time = parse_schedule(known.trigger.cron).last(max(since), parse_time(now))
        if time is not None:
            found.append(TriggerTick(repo=repo, branch=branch, time=format_time(time)))
    return found
