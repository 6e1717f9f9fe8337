"""Run as a script: `run` on a store, killed (or, with $STRIKE=STOP, frozen) at a named point.

    python -m tests.faults.killed_run STORE POINT

The points are made by wrapping the project's own functions here, so that the code under test knows nothing of them.
With $WORKER_PROCESS its slots are a process from the first datum on. With $OTHER_HOST it takes itself to be on another
host, from where it cannot see whether a controller's process lives.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from dmlpipe.scheduler.cluster import private
from dmlpipe.scheduler.errors import ClusterError
from dmlpipe.scheduler.jobs import epoch, jobrun
from dmlpipe.scheduler.jobs.results import Results
from dmlpipe.scheduler.store import Store
from dmlpipe.storage.errors import HeldError
from dmlpipe.storage.records import JobDone, JobStart, RunDone
from dmlpipe.storage.trees.prolly import Tree

SILENCE_S = 1.5
BEAT_EVERY_S = 0.3
_struck = False


def die() -> None:
    global _struck
    if os.environ.get("STRIKE") == "STOP":
        if not _struck:
            _struck = True
            print("frozen", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
        return
    os.kill(os.getpid(), signal.SIGKILL)
    raise SystemExit("unreachable")


def wrap(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    setattr(owner, name, make(getattr(owner, name)))


def before_first_segment(begin: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(self: jobrun.JobRun, executor: Any) -> None:
        begin(self, executor)
        if self.spec.name == "work":
            die()

    return wrapped


def after_a_segment(stored: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(self: jobrun.JobRun, executor: Any, segment: str) -> None:
        stored(self, executor, segment)
        if self.spec.name == "work":
            die()

    return wrapped


def during_the_fold(fold: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        update = Tree.update
        calls = [0]

        def counted(self: Tree, edits: Any) -> Tree:
            calls[0] += 1
            if calls[0] == 3:
                die()
            return update(self, edits)

        Tree.update = counted  # type: ignore[method-assign]
        return fold(*args, **kwargs)

    return wrapped


def before_the_entry(publish: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(self: Store, build: Any, **options: Any) -> Any:
        records: Any = build(self.state) if callable(build) else build
        if any(isinstance(record, JobDone) for record in records):
            die()
        return publish(self, build, **options)

    return wrapped


def after_the_entry(publish: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(self: Store, build: Any, **options: Any) -> Any:
        entry = publish(self, build, **options)
        if any(isinstance(record, JobDone) for record in entry.recs):
            die()
        return entry

    return wrapped


def at_the_start(*, before: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def make(publish: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(self: Store, build: Any, **options: Any) -> Any:
            records: Any = build(self.state) if callable(build) else build
            begins = any(isinstance(record, JobStart) for record in records)
            if begins and before:
                die()
            entry = publish(self, build, **options)
            if begins:
                die()
            return entry

        return wrapped

    return make


def after_the_end(publish: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(self: Store, build: Any, **options: Any) -> Any:
        entry = publish(self, build, **options)
        if any(isinstance(record, RunDone) for record in entry.recs):
            die()
        return entry

    return wrapped


def before_a_fold_object(close_fold: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(self: Results, oldest: int) -> int:
        die()
        return int(close_fold(self, oldest))

    return wrapped


def after_a_fold_object(close_fold: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(self: Results, oldest: int) -> int:
        fold = int(close_fold(self, oldest))
        die()
        return fold

    return wrapped


MORE_POINTS: dict[str, Callable[[], None]] = {
    "before-the-start": lambda: wrap(Store, "publish", at_the_start(before=True)),
    "after-the-start": lambda: wrap(Store, "publish", at_the_start(before=False)),
    "before-a-fold-object": lambda: wrap(Results, "close_fold", before_a_fold_object),
    "after-a-fold-object": lambda: wrap(Results, "close_fold", after_a_fold_object),
    "after-the-end": lambda: wrap(Store, "publish", after_the_end),
}
"""Further steps of a controller, each of which is as good a place to die at."""

POINTS: dict[str, Callable[[], None]] = {
    "before-the-first-segment": lambda: wrap(jobrun.JobRun, "begin", before_first_segment),
    "after-a-segment": lambda: wrap(jobrun.JobRun, "stored", after_a_segment),
    "during-the-fold": lambda: wrap(jobrun, "fold_results", during_the_fold),
    "before-the-entry": lambda: wrap(Store, "publish", before_the_entry),
    "after-the-entry": lambda: wrap(Store, "publish", after_the_entry),
}


def main(url: str, point: str) -> None:
    if point:
        (POINTS | MORE_POINTS)[point]()
    epoch.BEAT_EVERY_S = BEAT_EVERY_S
    if os.environ.get("WORKER_PROCESS"):
        private.HERE_MAX_DATUMS = 0
    if os.environ.get("OTHER_HOST"):
        wrap(epoch, "boot_id", lambda _: lambda: os.environ["OTHER_HOST"])
        assert epoch.is_alive.__kwdefaults__ is not None
        epoch.is_alive.__kwdefaults__["silence_s"] = SILENCE_S
    try:
        summary = Store.open(url).run(slots=2)
    except (HeldError, ClusterError) as error:
        print(f"{type(error).__name__}: {error}")
        return
    print("ok" if summary.ok else "failed")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
