"""What a scaling benchmark does at a point: label files, do nothing to many, bring a file to all, put and get folders.

Each prepares a store once, and measures a point of it on a crew.
"""

from __future__ import annotations

import dataclasses
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dmlpipe.scheduler.errors import ClusterError
from dmlpipe.scheduler.planning.rows import datum_rows
from dmlpipe.scheduler.report import JobEnded, JobPlanned, Report
from dmlpipe.scheduler.store import Store

from .fleets import Crew, Fleet
from .models import MODEL_REPO, MODELS
from .points import Point, Row
from .workloads import InferenceWorkload

DAGS = Path(__file__).with_name("dags")


class Work(ABC):
    """Something to measure."""

    name: str
    unit: str
    apart = False
    """Each worker needs a cache of its own."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What must be the same when a benchmark is resumed."""

    @abstractmethod
    def measure(self, point: Point, fleet: Fleet, store: Store, folder: Path) -> tuple[Row, Crew | None]:
        """Measure a point.

        Parameters
        ----------
        folder
            For what is written on the way; new for each point, gone after it.
        """


class PipelineWork(Work):
    """A run of one pipeline, all of whose datums are new."""

    target: str

    def __init__(self, strong: int, weak: int) -> None:
        self.strong, self.weak = strong, weak

    def count(self, point: Point) -> int:
        """Datums at a point."""
        return self.strong if point.scaling == "strong" else self.weak * point.workers

    def settings(self) -> dict[str, Any]:
        """See `Work`."""
        return {"strong": self.strong, "weak": self.weak}

    @abstractmethod
    def ready(self, store: Store, point: Point, slots: int, folder: Path) -> tuple[str, dict[str, dict[str, object]]]:
        """Put what the point reads, if it is not there; return its DAG file and parameters."""

    def measure(self, point: Point, fleet: Fleet, store: Store, folder: Path) -> tuple[Row, Crew | None]:
        """Run the pipeline on a crew that waits for it."""
        # Inputs first: workers that are paid for should not wait for a put.
        self.ready(store, point, point.workers, folder)
        asked = time.monotonic()
        with fleet.crew(store, point.workers, folder / "cache", apart=self.apart) as crew:
            wait_s = time.monotonic() - asked
            text, params = self.ready(store, point, crew.slots, folder)
            # What was computed at another point is not computed again; this makes it another pipeline.
            params.setdefault(self.target, {})["point"] = f"{point} {time.time_ns()}"
            project = folder / "project"
            project.mkdir(parents=True)
            (project / "dag.py").write_text(text)
            store.submit(project / "dag.py", params=params)
            told: list[tuple[float, Report]] = []
            summary = store.run(
                targets=[self.target],
                executor=crew.executor,
                observer=lambda report: told.append((time.monotonic(), report)),
            )
        planned = next(at for at, each in told if isinstance(each, JobPlanned) and each.pipeline == self.target)
        ended_at, ended = next(
            (at, each) for at, each in told if isinstance(each, JobEnded) and each.pipeline == self.target
        )
        row = Row(
            scaling=point.scaling,
            workers=point.workers,
            round=point.round,
            slots=crew.slots,
            items=ended.counters.run,
            seconds=ended_at - planned,
            wait_s=round(wait_s, 3),
            origin_bytes=ended.from_store,
            peer_bytes=ended.from_peers,
            more={"whole_s": summary.seconds},
        )
        return self.check(row, store, ended), crew

    def check(self, row: Row, store: Store, ended: JobEnded) -> Row:
        """Refuse a run that did something else than it should have.

        Raises
        ------
        ClusterError
            Datums were left out.
        """
        if row.items != self.count(row.point):
            raise ClusterError(f"{self.target} ran {row.items} datums of {self.count(row.point)}")
        return row


class InferenceWork(PipelineWork):
    """Files labelled by a resident model, results committed with provenance."""

    name, unit, target = "inference", "files", "predictions"

    def __init__(self, strong: int, weak: int, *, model: str, data: Path | None, trees: int) -> None:
        super().__init__(strong, weak)
        self.model, self.data = MODELS[model], data
        self.workload = InferenceWorkload(trees=trees)
        self.model.check()

    def settings(self) -> dict[str, Any]:
        """See `Work`."""
        return {
            **super().settings(),
            "model": self.model.name,
            "about": self.model.about,
            "data": str(self.data or ""),
            **(dataclasses.asdict(self.workload) if self.model.trained else {}),
        }

    def ready(self, store: Store, point: Point, slots: int, folder: Path) -> tuple[str, dict[str, dict[str, object]]]:
        """Put the files that the point labels, and train the model or put it."""
        count = self.count(point)
        items = f"items-{count}"
        if store.state.head(items) is None:
            self.model.provide(store, self.workload, folder)
            _put_all(store, items, self.model.items(count, self.workload, self.data))
        text, params = self.model.dag_text(items), self.model.parameters(self.workload)
        if store.state.head(MODEL_REPO) is None:
            project = folder / "training-project"
            project.mkdir(parents=True)
            (project / "dag.py").write_text(text)
            store.submit(project / "dag.py", params=params)
            store.run(slots=1, targets=[MODEL_REPO])
        return text, params


class OverheadWork(PipelineWork):
    """Datums that nothing is done to: what they cost beside their own work."""

    name, unit, target = "overhead", "datums", "noop"

    def ready(self, store: Store, point: Point, slots: int, folder: Path) -> tuple[str, dict[str, dict[str, object]]]:
        """Put as many small files."""
        count = self.count(point)
        items = f"items-{count}"
        if store.state.head(items) is None:
            _put_all(store, items, ((f"{number:08d}", b"%d" % number) for number in range(count)))
        text = (DAGS / "noop.py").read_text().replace('ITEMS = "items"', f"ITEMS = {items!r}")
        return text, {}


def _put_all(store: Store, repo: str, files: Iterator[tuple[str, bytes]]) -> None:
    with store.commit(repo) as commit:
        for name, content in files:
            commit.write(f"/{name}", content)


class BroadcastWork(PipelineWork):
    """One large file to every worker at once."""

    name, unit, target = "broadcast", "MiB", "receive"
    apart = True

    def __init__(self, mib: int, *, linger_s: float = 0.5) -> None:
        super().__init__(0, 0)
        self.mib, self.linger_s = mib, linger_s
        self._slots = 0

    def settings(self) -> dict[str, Any]:
        """See `Work`."""
        return {"mib": self.mib}

    def count(self, point: Point) -> int:
        """One datum a slot."""
        return self._slots

    def ready(self, store: Store, point: Point, slots: int, folder: Path) -> tuple[str, dict[str, dict[str, object]]]:
        """Put the file; name as many places as there are slots."""
        if store.state.head(MODEL_REPO) is None:
            path = folder / "file" / "model.bin"
            path.parent.mkdir(parents=True)
            with path.open("wb") as file:
                for _ in range(self.mib):
                    file.write(os.urandom(1 << 20))
            store.put(MODEL_REPO, path)
            path.unlink()
        self._slots = slots
        text = (DAGS / "receive.py").read_text().replace("PLACES = 1", f"PLACES = {slots}")
        return text, {self.target: {"linger_s": self.linger_s}}

    def check(self, row: Row, store: Store, ended: JobEnded) -> Row:
        """Count who has the file; what all wait for at the end is not part of the time.

        Raises
        ------
        ClusterError
            A datum is missing, or one has another size.
        """
        super().check(row, store, ended)
        commit = store[self.target]
        receivers = len({found.worker for found in datum_rows(store, ended.job)})
        said = {commit.read_bytes(each.path).split()[-1] for each in commit.ls("/")}
        if said != {b"%d" % (self.mib << 20)}:
            raise ClusterError(f"workers found {said} bytes, {self.mib << 20} were put")
        more = {**row.more, "receivers": float(receivers)}
        if row.origin_bytes is not None:
            more["origin_models"] = round(row.origin_bytes / (self.mib << 20), 3)
        # A worker that took the place of another leaves one without the file: the count says so.
        seconds = max(1e-6, row.seconds - self.linger_s)
        return Row(
            scaling=row.scaling,
            workers=row.workers,
            round=row.round,
            slots=row.slots,
            items=self.mib * receivers,
            seconds=seconds,
            wait_s=row.wait_s,
            origin_bytes=row.origin_bytes,
            peer_bytes=row.peer_bytes,
            more=more,
        )
