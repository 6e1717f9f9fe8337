"""Which objects a partial check reads, so that a few of them cover the whole store.

What was checked when is remembered per place on this machine, in a small SQLite file beside its other caches: losing
it costs reading again, nothing else.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ..digest import digest
from ..errors import BackendError, ErrorCode


def choose_sample(
    listed: Mapping[str, Mapping[str, int]], checked: Mapping[str, float], fraction: float
) -> frozenset[str]:
    """Return the keys that a check of `fraction` of the stored bytes reads. Pure.

    Parameters
    ----------
    listed
        Folder to key to size in bytes.
    checked
        Key to when it was last checked, in seconds since the epoch.
    fraction
        Of all bytes; at least one object is read.

    Returns
    -------
    frozenset of str
        Those never checked first, in an order that has nothing to do with where they are; then the ones checked
        longest ago. So ``ceil(1 / fraction)`` samples read everything, a store that grows meanwhile aside.
    """
    sizes = {key: size for keys in listed.values() for key, size in keys.items()}
    order = sorted(sizes, key=lambda key: (checked.get(key, 0.0), digest(key.encode())))
    left = fraction * sum(sizes.values())
    chosen: set[str] = set()
    for key in order:
        if left <= 0 and chosen:
            break
        chosen.add(key)
        left -= sizes[key]
    return frozenset(chosen)


@dataclass(frozen=True, slots=True)
class CheckedLog:
    """When each object of one place was last read and compared with its name, by this machine.

    Parameters
    ----------
    file
        SQLite file; made when first written.
    clock
        Seconds since the epoch.
    """

    file: Path
    clock: Callable[[], float] = time.time

    def times(self) -> dict[str, float]:
        """Return key to time of the last check."""
        if not self.file.exists():
            return {}
        try:
            with closing(sqlite3.connect(self.file, timeout=30)) as db:
                return {str(key): float(at) for key, at in db.execute("SELECT key, at FROM checked")}
        except sqlite3.DatabaseError:
            self.file.unlink(missing_ok=True)  # derived: begin again
            return {}

    def note(self, read: Iterable[str], listed: Iterable[str]) -> int:
        """Note that `read` were checked now; forget what is listed no more; return how many never were.

        Raises
        ------
        BackendError
            The file cannot be written.
        """
        now, known, there = self.clock(), self.times(), set(listed)
        read = set(read) & there
        gone = known.keys() - there
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.file, timeout=30)) as db, db:
                db.execute("PRAGMA synchronous = OFF")  # losing it costs reading again
                db.execute("CREATE TABLE IF NOT EXISTS checked (key TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID")
                db.executemany("DELETE FROM checked WHERE key = ?", ((key,) for key in gone))
                db.executemany("INSERT OR REPLACE INTO checked VALUES (?, ?)", ((key, now) for key in read))
        except (OSError, sqlite3.Error) as error:
            raise BackendError(
                f"cannot note what was checked in {self.file}: {error}",
                code=ErrorCode.PERMISSION if isinstance(error, PermissionError) else ErrorCode.BACKEND,
                hint="set $DMLPIPE_CACHE_DIR to a folder that you can write",
            ) from error
        return len(there - known.keys() - read)
