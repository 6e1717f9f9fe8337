"""The order of pipelines: upstream first; cycles and clashes are refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ...storage.errors import ErrorCode, InvalidInputError


def topological_order(upstream: Mapping[str, Iterable[str]]) -> list[str]:
    """Sort pipelines so that each comes after those whose output it reads.

    Pure. Ties keep the order of the mapping.

    Parameters
    ----------
    upstream
        Pipeline name to the repos that it reads; repos that are no key are nobody's output.

    Raises
    ------
    InvalidInputError
        `CYCLE`, with the pipelines of the cycle in order.
    """
    order: list[str] = []
    done: set[str] = set()
    for start in upstream:
        # Depth first, with an explicit stack: a chain may be longer than Python's recursion limit.
        path: list[str] = []
        on_path: set[str] = set()
        stack: list[tuple[str, bool]] = [(start, False)]
        while stack:
            name, finished = stack.pop()
            if finished:
                path.pop()
                on_path.discard(name)
                done.add(name)
                order.append(name)
                continue
            if name in done:
                continue
            if name in on_path:
                raise _cycle([*path[path.index(name) :], name])
            path.append(name)
            on_path.add(name)
            stack.append((name, True))
            stack.extend((repo, False) for repo in reversed(list(upstream[name])) if repo in upstream)
    return order


def _cycle(names: Sequence[str]) -> InvalidInputError:
    if len(names) == 2:
        return InvalidInputError(f"pipeline {names[0]!r} reads its own output", code=ErrorCode.CYCLE)
    # `names` goes from a reader to what it reads; data flows the other way.
    return InvalidInputError(f"pipelines form a cycle: {' -> '.join(reversed(names))}", code=ErrorCode.CYCLE)
