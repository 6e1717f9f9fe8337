"""The GPUs of a worker: which slot's child sees which.

The lease pool gives a worker no more leases than it has devices for; here each lease gets devices of its own. A child
keeps what it loaded onto a device between leases, so a device goes back to the slot that had it last, if it is free;
if it must go to another, the child that still holds memory there is ended first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"


def find_devices(environ: Mapping[str, str], root: Path = Path("/")) -> tuple[str, ...]:
    """Return the ids of the GPUs that a worker may use, as `CUDA_VISIBLE_DEVICES` writes them.

    Parameters
    ----------
    environ
        If it names visible devices (a batch system did so, perhaps), these count and no others.
    root
        Of the file system that is looked at otherwise.

    Examples
    --------
    >>> find_devices({"CUDA_VISIBLE_DEVICES": "2,GPU-5a"})
    ('2', 'GPU-5a')
    """
    if VISIBLE in environ:
        listed = [word.strip() for word in environ[VISIBLE].split(",")]
        # As the driver reads it: what follows the first word that names nothing is not seen.
        return tuple(listed[: next((at for at, word in enumerate(listed) if word in ("", "-1", "NoDevFiles")), None)])
    found = [path.name.removeprefix("nvidia") for path in (root / "dev").glob("nvidia[0-9]*")]
    return tuple(sorted((name for name in found if name.isdigit()), key=int))


class Devices:
    """Devices of one worker, handed out to its slots. Safe for use by many threads.

    Parameters
    ----------
    ids
        As of `find_devices`; empty: the worker has none, and what children see is left as it is.
    """

    def __init__(self, ids: Sequence[str] = ()) -> None:
        self.ids = tuple(ids)
        self._changed = threading.Condition()
        self._free = dict.fromkeys(self.ids)
        self._last: dict[str, tuple[int, Callable[[], None]]] = {}
        """Device to the slot whose child may still hold memory there, and what ends that child."""

    def acquire(self, slot: int, count: int, end_child: Callable[[], None]) -> tuple[str, ...]:
        """Wait until `count` devices are free and return them; `release` follows.

        Parameters
        ----------
        end_child
            Ends the slot's child, if it has one; called from another slot's thread while this one has no devices.
        """
        if not count or not self.ids:
            return ()
        if count > len(self.ids):
            raise ValueError(f"{count} devices were leased from a worker that has {len(self.ids)}")
        with self._changed:
            self._changed.wait_for(lambda: len(self._free) >= count)

            def foreign(device: str) -> tuple[bool, bool, int]:
                last = self._last.get(device)
                return (last is not None and last[0] != slot, last is None, self.ids.index(device))

            taken = sorted(self._free, key=foreign)[:count]
            evicted = [self._last[device][1] for device in taken if foreign(device)[0]]
            for device in taken:
                del self._free[device]
                self._last[device] = (slot, end_child)
        for end in evicted:
            end()
        return tuple(sorted(taken, key=self.ids.index))

    def release(self, devices: Sequence[str]) -> None:
        """Give devices back; the slot's child may go on holding memory there until another slot is given them."""
        with self._changed:
            self._free.update(dict.fromkeys(devices))
            self._changed.notify_all()
