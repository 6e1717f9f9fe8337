"""Files in the making below a folder, under names that are no objects, and what is left of those of killed processes.

What was left in the root goes when another process first writes there (`leftovers.py` tells whose is whose). Only
small ones stand beside their places, and wait for a sweep, which looks into every folder.
"""

from __future__ import annotations

import os
import time

from ..leftovers import TEMPORARY, remove_leftovers, temporary_name

LARGE_BYTES = 256 << 10
"""What has so many bytes is made in the root: what is left of it is found there without a search."""


class Temporaries:
    """Makes them.

    Parameters
    ----------
    base
        The root; made with the first file.
    """

    def __init__(self, base: str) -> None:
        self._base = base
        self._cleared = False

    def open(self, folder: str, access: int) -> tuple[str, int]:
        """Make a file in a folder, which is made too; return its path and a descriptor.

        Raises
        ------
        OSError
            It cannot be made.
        """
        if not self._cleared:
            self._cleared = True
            remove_leftovers([self._base], TEMPORARY)
        path = f"{folder}/{temporary_name(TEMPORARY)}"
        flags = access | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return path, os.open(path, flags, 0o666)
        except FileNotFoundError:
            os.makedirs(folder, exist_ok=True)
            return path, os.open(path, flags, 0o666)

    def open_for(self, place: str, size_bytes: int) -> tuple[str, int]:
        """Make the file that is to become `place`, whose folder is made too; see `open`."""
        folder = os.path.dirname(place)
        if size_bytes < LARGE_BYTES:
            return self.open(folder, os.O_WRONLY)
        os.makedirs(folder, exist_ok=True)
        return self.open(self._base, os.O_WRONLY)

    def sweep(self, older_than_s: float) -> int:
        """Delete what is older, in every folder; return how many files."""
        limit = time.time() - older_than_s
        count = 0
        for folder, _, names in os.walk(self._base):
            for name in names:
                path = f"{folder}/{name}"
                if name.startswith(TEMPORARY):
                    try:
                        if os.stat(path).st_mtime < limit:
                            os.unlink(path)
                            count += 1
                    except FileNotFoundError:
                        continue
        return count
