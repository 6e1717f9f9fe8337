"""Run as a script by `test_kills`: `run` on a store, killed with SIGKILL at a named point.

    python -m tests.faults.killed_run STORE POINT

The points are made by wrapping the project's own functions here, so that the code under test knows nothing of them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from dmlpipe.scheduler.jobs import jobrun
from dmlpipe.scheduler.store import Store
from dmlpipe.storage.records import JobDone
from dmlpipe.storage.trees.prolly import Tree


def die() -> NoReturn:
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


POINTS: dict[str, Callable[[], None]] = {
    "before-the-first-segment": lambda: wrap(jobrun.JobRun, "begin", before_first_segment),
    "after-a-segment": lambda: wrap(jobrun.JobRun, "stored", after_a_segment),
    "during-the-fold": lambda: wrap(jobrun, "fold_results", during_the_fold),
    "before-the-entry": lambda: wrap(Store, "publish", before_the_entry),
    "after-the-entry": lambda: wrap(Store, "publish", after_the_entry),
}


def main(url: str, point: str) -> None:
    if point:
        POINTS[point]()
    summary = Store.open(url).run(slots=2)
    print("ok" if summary.ok else "failed")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
