"""What the store says of what the demo did: read back from the ledger and the commits, never from what was printed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

from ...storage.store import Store


class Work(NamedTuple):
    """What one job did."""

    state: str
    run: int
    skipped: int
    failed: int = 0


@dataclasses.dataclass
class Facts:
    """Questions to one store, each answered from its ledger as it is now.

    Attributes
    ----------
    url
        Where the store is.
    seen
        Ledger entries that the story has accounted for.
    """

    url: str
    seen: int = -1

    def store(self) -> Store:
        """Open it anew: what another process would see."""
        return Store.open(self.url, read_only=True)

    def work(self) -> dict[str, Work]:
        """What each pipeline's job did since this was last asked."""
        state = self.store().state
        done = {}
        for _, job in state.jobs():
            if job.start_n <= self.seen:
                break
            counters = job.end.counters
            done[job.pipeline] = Work(job.state, counters.run, counters.skipped, counters.failed)
        self.seen = state.n
        return done

    def files(self, ref: str) -> int:
        """Files of a commit."""
        return len(self.store()[ref].tree)

    def tree(self, ref: str) -> str:
        """Tree id of a commit: equal exactly if all paths and contents are."""
        return self.store()[ref].tree.root.hex()

    def commit(self, ref: str) -> str:
        """Id of a commit."""
        return self.store()[ref].id

    def held(self, pipeline: str) -> str:
        """Commit that the pipeline is held at; empty if it is not."""
        state = self.store().state.pipeline(pipeline)
        return state.hold.commit if state is not None and state.hold is not None else ""

    def inputs(self, pipeline: str) -> dict[str, str]:
        """Input commits of the pipeline's last job, by repo."""
        state = self.store().state
        _, job = next(state.jobs(pipeline))
        return {binding.repo: binding.commit for binding in job.inputs}

    def accuracy(self, ref: str = "report") -> float:
        """The figure in `report`."""
        return float(json.loads(self.store()[ref].read_bytes("/accuracy.json"))["accuracy"])

    def labels(self, ref: str = "predictions") -> dict[str, int]:
        """All predictions: scan to label."""
        commit = self.store()[ref]
        names = [name.decode() for name, _ in commit.tree.scan()]
        return {Path(name).stem: int(json.loads(commit.read_bytes(name))["label"]) for name in names}

    def truth(self) -> dict[str, int]:
        """The true labels."""
        labels: dict[str, int] = json.loads(self.store()["labels"].read_bytes("/labels.json"))
        return labels

    def wrong(self) -> tuple[str, int, int]:
        """First scan that is predicted wrongly: its name, its true label, the predicted one."""
        truth = self.truth()
        return next((name, truth[name], label) for name, label in sorted(self.labels().items()) if truth[name] != label)
