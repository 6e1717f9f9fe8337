"""Files that stay open for reading, those used last: a range of one costs one system call."""

from __future__ import annotations

import errno
import os
import stat
import threading
import weakref
from collections import OrderedDict

_MOST = 64


class Descriptor:
    """A file descriptor that is closed when the last reader lets go of it."""

    __slots__ = ("fd",)

    def __init__(self, path: str) -> None:
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(self.fd).st_mode):
            raise FileNotFoundError(errno.ENOENT, "a folder is no object", path)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class Descriptors:
    """Open files by key. Safe for use by many threads, and in a forked child."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, Descriptor] = OrderedDict()
        self._lock = threading.Lock()
        _live.add(self)

    def open(self, key: str, path: str) -> Descriptor:
        """Return the file of a key, which is at `path`.

        Raises
        ------
        OSError
            It cannot be opened, or is a folder.
        """
        with self._lock:
            file = self._open.get(key)
            if file is not None:
                self._open.move_to_end(key)
                return file
        file = Descriptor(path)
        with self._lock:
            self._open[key] = file
            if len(self._open) > _MOST:
                self._open.popitem(last=False)
        return file

    def forget(self, key: str) -> None:
        """Open the file of a key anew next time: it is another one, or gone."""
        with self._lock:
            self._open.pop(key, None)

    def renew_lock(self) -> None:
        """Make the lock anew, in a forked child: another thread of its parent may have held it."""
        self._lock = threading.Lock()


_live: weakref.WeakSet[Descriptors] = weakref.WeakSet()


def _renew_locks() -> None:
    for descriptors in _live:
        descriptors.renew_lock()


os.register_at_fork(after_in_child=_renew_locks)
