"""What a store asks of the medium below it.

Rules that every backend keeps (`dmlpipe.storage.testing.BackendTests` checks them):

- An object appears under its key whole or not at all, whatever dies in the middle.
- Of any number of concurrent `put_if_absent` on one key, exactly one wins; the others change nothing.
- What `put_if_absent` or `put` returned for is seen by every later `get`, `size` and `list`, by whichever process.
- Objects are immutable but for those written with `put` (heartbeats).

Keys are ``/``-separated, relative, ASCII in practice; no part is empty, ``.`` or ``..``.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..digest import Data
from ..errors import BackendError, ErrorCode, InvalidInputError
from .draft import Clone, Draft, HeldDraft

Request = tuple[str, int | None, int | None]
"""(key, start, end) as in `Backend.get`."""

MAX_OBJECT_BYTES = 64 << 20
"""No object is larger, so that every one is a single PUT on any object store."""


@dataclass(frozen=True, slots=True)
class Properties:
    """What a caller may rely on, or has to work around."""

    remote: bool
    """A request costs a round trip: batch them, cache what was read."""
    shared: bool
    """Other processes see the same objects."""
    hard_links: bool
    """Objects are files that can be linked into another folder of the same file system."""
    path: Path | None = None
    """The root folder, where objects are files."""


class Backend(Protocol):
    """A flat map from keys to bytes with an exclusive, atomic create.

    Safe for use by many threads, and by a child after fork. Instances pickle: the copy reaches the same objects.
    Every method may raise `BackendError`; its `retryable` says whether trying again may help.
    """

    @property
    def url(self) -> str:
        """Where it is, in a form that `open_backend` takes."""
        ...

    @property
    def properties(self) -> Properties:
        """What may be relied on."""
        ...

    def be_patient(self, seconds: float) -> None:
        """Try for so long, from now on, what fails in a way that may pass (a server that is away, or overloaded).

        For processes that have work in hand; a person at a terminal is told at once. Media that do not fail so
        ignore it.
        """
        return None

    def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
        """Create `key` with `data`, unless it exists.

        Exclusive and atomic. Retries after a lost response are resolved by reading back, so on a remote medium
        True may also mean that the object already held exactly these bytes: a caller who must know puts a nonce in.

        Parameters
        ----------
        key
            Where.
        data
            At most `MAX_OBJECT_BYTES`.
        durable
            Survive a power cut before returning. Otherwise `sync` does that later, for many at once.

        Returns
        -------
        bool
            True if this call made the object, False if there was one (which is left as it is).
        """
        ...

    def put_many_if_absent(self, items: Sequence[tuple[str, Data]]) -> Sequence[bool]:
        """`put_if_absent` for each item, concurrently where that is faster; results in the order of `items`."""
        return [self.put_if_absent(key, data) for key, data in items]

    def draft(self) -> Draft:
        """Return an object in the making: in memory, where an object is written in one request."""
        return HeldDraft(self.put_if_absent)

    def clone_in(self, source: int, start: int, length: int) -> Clone | None:
        """Return a copy of a part of an open local file that takes no space, or None where that cannot be.

        Parameters
        ----------
        source
            Descriptor.
        start, length
            Which bytes: whole blocks of the file system, but that the last may end with the file.
        """
        del source, start, length
        return None

    def clone_out(self, key: str, dest: int, at: int) -> bool:
        """Let an object appear in an open local file from `at` on, sharing its blocks; False where that cannot be.

        Nothing is compared: whoever asks has read the object.
        """
        del key, dest, at
        return False

    def put(self, key: str, data: Data) -> None:
        """Write `key` whether or not it exists; readers see the old or the new bytes, never a mixture.

        For heartbeats, and to replace an object that was found damaged.
        """
        ...

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """Return the bytes [start, end) of an object, as slicing would.

        Parameters
        ----------
        key
            Which.
        start
            First byte; negative: counted from the end (then `end` must be None).
        end
            One past the last byte, >= 0; past the end of the object means up to its end.

        Raises
        ------
        NotFoundError
            There is no such object.
        """
        ...

    def get_many(self, requests: Sequence[Request]) -> Sequence[bytes]:
        """`get` for each request, concurrently where that is faster; results in the order of `requests`.

        Raises
        ------
        NotFoundError
            One of the objects does not exist.
        """
        return [self.get(key, start, end) for key, start, end in requests]

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes, or None if it does not exist."""
        ...

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Yield (key, size in bytes) of each object whose key begins with `prefix`, sorted by key.

        `prefix` is a plain string prefix: end it with ``/`` to mean a folder.
        """
        ...

    def list_written(self, prefix: str = "") -> Iterator[tuple[str, int, float | None]]:
        """Yield (key, size in bytes, when it was written) as `list` does.

        Seconds since the epoch by the medium's clock; None where it does not tell. Nothing that must be right may
        depend on it.
        """
        for key, size in self.list(prefix):
            yield key, size, None

    def list_folders(self, prefix: str = "") -> Sequence[str]:
        """Return the sorted names of the folders right below the folder `prefix` (without objects)."""
        ...

    def delete_many(self, keys: Iterable[str]) -> None:
        """Delete objects; those that do not exist are no error."""
        ...

    def sync(self, keys: Iterable[str]) -> None:
        """Make these objects, and the folders that name them, survive a power cut.

        Raises
        ------
        NotFoundError
            One of the objects does not exist.
        """
        del keys


_BAD_PARTS = frozenset(["", ".", ".."])


def check_key(key: str) -> None:
    """Refuse a key that could leave the root.

    Raises
    ------
    InvalidInputError
        `key` is empty, absolute, or has an empty, ``.`` or ``..`` part.
    """
    if not _BAD_PARTS.isdisjoint(key.split("/")) or "\0" in key:
        raise InvalidInputError(f"bad object key {key!r}: expected non-empty parts joined by '/', none '.' or '..'")


def check_range(key: str, start: int | None, end: int | None) -> None:
    """Refuse a range that `Backend.get` does not define.

    Raises
    ------
    InvalidInputError
        `end` is negative, or given together with a negative `start`.
    """
    if end is not None and (end < 0 or (start is not None and start < 0)):
        raise InvalidInputError(f"bad range [{start}, {end}) of object {key}")


_CODES = {
    errno.ENOSPC: ErrorCode.DISK_FULL,
    errno.EDQUOT: ErrorCode.DISK_FULL,
    errno.EACCES: ErrorCode.PERMISSION,
    errno.EPERM: ErrorCode.PERMISSION,
    errno.EROFS: ErrorCode.PERMISSION,
}
_HINTS = {
    ErrorCode.DISK_FULL: "make room there; in the store itself: dmlpipe gc",
    ErrorCode.PERMISSION: "look who owns it; a store for a group: a setgid folder, and umask 002 for all who write",
}
_RETRYABLE = frozenset({errno.EBUSY, errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET})


def backend_error(err: OSError, what: str, url: str) -> BackendError:
    """Say in our words that doing `what` at `url` failed with `err`."""
    code = _CODES.get(err.errno or 0, ErrorCode.BACKEND)
    reason = err.strerror or str(err) or type(err).__name__
    hint = _HINTS.get(code)
    return BackendError(f"cannot {what} in {url}: {reason}", code=code, hint=hint, retryable=err.errno in _RETRYABLE)
