"""The commits that a job's inputs are bound to, and what part each plays."""

from __future__ import annotations

from collections.abc import Mapping

from ...storage import records as r
from ...storage.errors import CorruptError
from ...storage.state import State
from ..inputs.walk import constants, followed, leaves
from ..pipelines.spec import PipelineSpec

__all__ = [
    "bind_inputs",
    "is_single",
]


def bind_inputs(
    state: State,
    spec: PipelineSpec,
    heads: Mapping[str, str],
    single: Mapping[str, bool],
    *,
    partial: bool = False,
) -> dict[str, r.InputBinding]:
    """Bind each input, by its label, to the commit that its run sees.

    Parameters
    ----------
    heads
        `repo@branch` to commit id.
    single
        Pipeline name to whether all its inputs are constant: its output then is a *model* to whoever reads it.
    partial
        Leave out inputs whose branch has no commit (of a job that cannot run).
    """
    bindings = {}
    for label, leaf in followed(spec.input).items():
        commit = heads.get(f"{leaf.repo}@{leaf.branch}", "")
        if not commit and partial:
            continue
        known = state.commit(leaf.repo, commit)
        if known is None:
            raise CorruptError(f"commit {commit[:12]} of {leaf.repo} is not in the ledger")
        role = "data" if leaf.repo not in single else "model" if single[leaf.repo] else "intermediate"
        bindings[label] = r.InputBinding(
            name=label, repo=leaf.repo, branch=leaf.branch, commit=commit, tree=known.tree, role=role
        )
    return bindings


def is_single(spec: PipelineSpec) -> bool:
    """Whether the pipeline has exactly one datum by construction."""
    return {leaf.name for leaf in leaves(spec.input)} == constants(spec.input)
