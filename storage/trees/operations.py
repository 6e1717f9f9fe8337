"""What is done to a commit's tree, one edit at a time."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Protocol

import msgspec

from ..digest import Digest


class Put(msgspec.Struct, frozen=True):
    """A file gets a value, whatever it had."""

    path: bytes
    value: bytes


class Files(Protocol):
    """Many files with their values, which may not be made before somebody asks for them."""

    @property
    def paths(self) -> Sequence[bytes]:
        """Sorted, each once."""
        ...

    @property
    def values(self) -> Sequence[bytes]:
        """What each has."""
        ...

    @property
    def folders(self) -> Set[bytes] | None:
        """Those that the paths stand right in; None: not known."""
        ...

    @property
    def size(self) -> int | None:
        """Bytes of content of all values; None: not known."""
        ...

    @property
    def others(self) -> Sequence[tuple[bytes, bytes]]:
        """Path and value of those that the tree may not have which is known to have the rest, sorted."""
        ...


class ListedFiles(msgspec.Struct, frozen=True):
    """`Files` that stand here."""

    paths: Sequence[bytes]
    values: Sequence[bytes]
    folders: Set[bytes] | None = None
    size: int | None = None

    @property
    def others(self) -> Sequence[tuple[bytes, bytes]]:
        """All of them."""
        return list(zip(self.paths, self.values, strict=True))


class PutMany(msgspec.Struct, frozen=True):
    """Many files get values, whatever they had."""

    files: Files
    held: Digest | None = None
    """Root of a tree that has these values, but for `others`; None: none is known."""


class Append(msgspec.Struct, frozen=True):
    """A file that had the value `old` (None: was absent) gets `value`."""

    path: bytes
    old: bytes | None
    value: bytes


class Delete(msgspec.Struct, frozen=True):
    """A file goes, or a folder with all that is in it."""

    path: bytes


class Mirror(msgspec.Struct, frozen=True):
    """Whatever stands below `folder` and is not in `keep` goes."""

    folder: bytes
    keep: frozenset[bytes]


Edit = Put | PutMany | Append | Delete | Mirror
