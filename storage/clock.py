"""The one module of the storage layer that reads the wall clock.

Nothing is decided by these times: they are recorded for people, and for cron and rates, which take them from the
ledger.
"""

from __future__ import annotations

import datetime


def utc_now() -> str:
    """Return the time now: UTC, ISO 8601 with microseconds, ending in ``Z``."""
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    return now.isoformat(timespec="microseconds") + "Z"
