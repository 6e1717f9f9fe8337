"""Versions of pipelines, as the state names them, read from the store once."""

from __future__ import annotations

from collections.abc import Mapping

from ...storage.digest import from_hex
from ...storage.errors import ConflictError
from ...storage.records import InputBinding, PipelineState
from ...storage.state import State
from ...storage.store import Store
from ..pipelines.spec import PipelineSpec, decode_pipeline
from .bindings import is_single

__all__ = ["RecordedSpecs"]


class RecordedSpecs:
    """Reads versions, and remembers them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._specs: dict[str, PipelineSpec] = {}

    def node(self, state: State, name: str, version: int) -> str:
        """Return the node of a version.

        Raises
        ------
        ConflictError
            The pipeline has no such version.
        """
        recorded = state.version(name, version)
        if recorded is None:
            raise ConflictError(f"pipeline {name} has no version {version}")
        return recorded.spec

    def spec(self, state: State, name: str, version: int) -> PipelineSpec:
        """Return a version."""
        node = self.node(state, name, version)
        if node not in self._specs:
            self._specs[node] = decode_pipeline(self._store.nodes.get(from_hex(node)))
        return self._specs[node]

    def previous(self, state: State, name: str) -> tuple[PipelineSpec, tuple[InputBinding, ...]] | None:
        """Version and inputs of the pipeline's last job, to say what changed since."""
        pipeline = state.pipeline(name)
        job = state.job(pipeline.last_job) if pipeline is not None else None
        return None if job is None else (self.spec(state, name, job.version), job.inputs)

    def single(self, state: State, pipelines: Mapping[str, PipelineState]) -> dict[str, bool]:
        """Pipeline name to whether it has exactly one datum by construction."""
        return {name: is_single(self.spec(state, name, pipeline.version)) for name, pipeline in pipelines.items()}
