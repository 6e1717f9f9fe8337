"""What is owed to whom: heads of pipelines that have not arrived where their egress leads. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import msgspec

from ...storage.digest import digest
from ...storage.state import State
from ..pipelines.spec import Egress, PipelineSpec


@dataclasses.dataclass(frozen=True, slots=True)
class Owed:
    """One commit that is to be sent."""

    pipeline: str
    egress: Egress
    commit: str
    tree: str
    """Its root, hex."""
    before: str
    """Root of what arrived there last, hex; empty: nothing is known to be there."""

    @property
    def target(self) -> str:
        """Hash of where it goes."""
        return target_of(self.egress)


def target_of(egress: Egress) -> str:
    """Hash of an egress, hex: one with another target is owed everything again."""
    return digest(msgspec.msgpack.encode(egress, order="deterministic")).hex()


def owed(state: State, spec_of: Callable[[str, int], PipelineSpec]) -> list[Owed]:
    """Return what pipelines owe: the head of each, not those before it.

    Parameters
    ----------
    spec_of
        Spec of a pipeline's version.

    Notes
    -----
    A head that somebody moved by hand (`revert`) is owed as well: who reads there is to see what others see.
    """
    found = []
    for name, pipeline in state.pipelines():
        egress = spec_of(name, pipeline.version).egress
        head = state.head(name, pipeline.branch)
        commit = state.commit(name, head) if head else None
        if egress is None or head is None or commit is None or pipeline.stopped:
            continue
        last = state.egress(name)
        same = last is not None and last.target == target_of(egress)
        if same and last is not None and last.commit == head:
            continue
        before = state.commit(name, last.commit) if same and last is not None else None
        found.append(Owed(name, egress, head, commit.tree, before.tree if before else ""))
    return found
