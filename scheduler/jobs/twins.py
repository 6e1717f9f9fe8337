"""Datums that share the fate of the one in their job that has their content. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from ...storage.objects.segment import Outcome
from ..planning.plan_items import Hit, Twin
from .results import Finished

__all__ = ["Done", "Settled", "settle_twins"]

Done = tuple[bytes, Finished, str]
"""Datum key, result, segment."""


@dataclasses.dataclass(frozen=True, slots=True)
class Settled:
    """What became of twins, in the order of their keys."""

    hits: list[Hit]
    failed: list[Done]
    lost: dict[bytes, bytes]
    """Datum key to fingerprint of those that were given up."""


def settle_twins(twins: Sequence[Twin], rows: Iterable[Done], lost: Mapping[bytes, bytes], job: str) -> Settled:
    """Let datums share the fate of those with their content.

    Parameters
    ----------
    rows
        What is finished.
    lost
        Datum key to fingerprint of datums that were given up without a row.
    job
        Its id: the origin of what it made.
    """
    found = Settled([], [], {})
    if not twins:
        return found
    wanted = {twin.fingerprint for twin in twins}
    first = {row.fingerprint: (row, segment) for _, row, segment in rows if row.fingerprint in wanted}
    given_up = set(lost.values())
    for twin in twins:
        row, segment = first.get(twin.fingerprint, (None, ""))
        if row is None:
            if twin.fingerprint in given_up:
                found.lost[twin.key] = twin.fingerprint
        elif row.outcome == Outcome.OK:
            found.hits.append(Hit(twin.key, twin.fingerprint, bytes.fromhex(job), row.outputs))
        else:
            found.failed.append((twin.key, row, segment))
    return found
