"""The versions of a pipeline: what each changed, and how two of them differ. Reads only."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator
from typing import Any

import msgspec

from ..storage.digest import from_hex
from ..storage.errors import ErrorCode, NotFoundError
from ..storage.state import State
from ..storage.store import Store
from ..storage.trees.codetree import read_code
from ..storage.trees.text_diff import diff_text
from .pipelines.spec import PipelineSpec, decode_pipeline, identity
from .planning.reasons import explain

__all__ = ["Version", "VersionDiff", "describe_change", "list_versions", "version_diff"]

_NOT_SHOWN = {"v", "name", "definitions", "whole_modules", "git", "source"}


@dataclasses.dataclass(frozen=True, slots=True)
class Version:
    """One recorded version of a pipeline."""

    pipeline: str
    number: int
    time: str
    by: str
    identity: str
    """Equal for versions that make equal outputs."""
    kind: str
    """`new`, `changed`, `cosmetic` or `claimed`, against the version before."""
    why: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        return {
            "pipeline": self.pipeline,
            "version": self.number,
            "time": self.time,
            "by": self.by,
            "identity": self.identity,
            "kind": self.kind,
            "why": list(self.why),
        }


@dataclasses.dataclass(frozen=True, slots=True)
class VersionDiff:
    """How a version differs from another."""

    pipeline: str
    old: int
    new: int
    why: tuple[str, ...]
    """What makes its outputs differ; empty: nothing does."""
    patch: str
    """Unified diff: of the spec, as JSON lines, then of each file of its code."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data with stable keys."""
        return {
            "pipeline": self.pipeline,
            "old": self.old,
            "new": self.new,
            "why": list(self.why),
            "patch": self.patch,
        }


def list_versions(store: Store, state: State, pipeline: str) -> Iterator[Version]:
    """Yield the versions of a pipeline, newest first. One node each."""
    known = list(state.versions(pipeline))
    specs = [decode_pipeline(store.nodes.get(from_hex(each.spec))) for _, each in known]
    for place, (number, each) in enumerate(known):
        before = specs[place + 1] if place + 1 < len(specs) else None
        kind, why = describe_change(specs[place], before)
        yield Version(pipeline, number, each.time, each.actor, each.identity, kind, why)


def describe_change(spec: PipelineSpec, old: PipelineSpec | None) -> tuple[str, tuple[str, ...]]:
    """Say what a version is against the one before it, and why."""
    if old is None:
        return "new", ()
    if identity(spec) != identity(old):
        return "changed", tuple(str(why) for why in explain(spec, {}, (old, ())))
    if spec.claim is not None and spec.claim != old.claim:
        return "claimed", (str(spec.claim),)
    return "cosmetic", ()


def version_diff(store: Store, state: State, pipeline: str, old: int, new: int) -> VersionDiff:
    """Compare two versions of a pipeline.

    Raises
    ------
    NotFoundError
        There is no such version.
    """
    before, after = (_spec(store, state, pipeline, number) for number in (old, new))
    why = tuple(str(each) for each in explain(after, {}, (before, ())))
    lines = difflib.unified_diff(_lines(before), _lines(after), f"{pipeline} v{old}", f"{pipeline} v{new}", n=0)
    return VersionDiff(pipeline, old, new, why, "".join(lines) + "".join(_code(store, before, after)))


def _spec(store: Store, state: State, pipeline: str, number: int) -> PipelineSpec:
    found = state.version(pipeline, number)
    if found is None:
        raise NotFoundError(
            f"pipeline {pipeline!r} has no version {number}",
            code=ErrorCode.NO_PIPELINE,
            hint=f"list: dmlpipe pipeline versions {pipeline}",
        )
    return decode_pipeline(store.nodes.get(from_hex(found.spec)))


def _lines(spec: PipelineSpec) -> list[str]:
    """A spec as sorted lines `path = value`, of what people wrote."""
    return [f"{path} = {value}\n" for path, value in sorted(_flat("", msgspec.to_builtins(spec)))]


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, each in value.items():
            if path or name not in _NOT_SHOWN:
                yield from _flat(f"{path}.{name}" if path else name, each)
    elif isinstance(value, list | tuple) and any(isinstance(each, dict | list | tuple) for each in value):
        for place, each in enumerate(value):
            yield from _flat(f"{path}[{place}]", each)
    else:
        yield path, msgspec.json.encode(value).decode()


def _code(store: Store, before: PipelineSpec, after: PipelineSpec) -> Iterator[str]:
    old, new = (
        {path: data for path, data, _ in read_code(store.tree(spec.bundle), store.objects)} for spec in (before, after)
    )
    for path in sorted(old.keys() | new.keys()):
        if old.get(path) != new.get(path):
            found = diff_text(f"/{path}", old.get(path), new.get(path))
            yield found.patch if found is not None else f"binary file /{path} differs\n"
