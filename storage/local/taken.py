"""What was taken of local folders: the value of each file, decoded only if somebody asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain

import msgspec

from ..source_files import SourceFolder
from .memory import Memory


class TakenFolder(msgspec.Struct, frozen=True):
    """The files of one folder."""

    folder: SourceFolder
    memory: Memory | None
    read: Sequence[bytes] | None
    """Encoded value of each; None: all are as they are remembered."""
    numbers: Sequence[int] | None
    """Those that are not as they are remembered; None: all."""

    @property
    def values(self) -> Sequence[bytes]:
        """Encoded value of each file."""
        if self.read is not None:
            return self.read
        before = self.memory.get(self.folder.inside) if self.memory is not None else None
        assert before is not None
        return before.values()

    @property
    def others(self) -> list[tuple[bytes, bytes]]:
        """Tree path and value of the files of which it is not known that they stand there as they are."""
        if self.numbers is None or not self.folder.held:
            return list(zip(self.folder.keys, self.values, strict=True))
        if not self.numbers:
            return []
        keys, values = self.folder.keys, self.values
        return [(keys[number], values[number]) for number in self.numbers]


class Taken:
    """Files of many folders, sorted by tree path. See `trees.edits.Files`.

    Parameters
    ----------
    parts
        The folders.
    size
        Bytes of content of all files.
    """

    def __init__(self, parts: Sequence[TakenFolder], size: int) -> None:
        self._parts = parts
        self.size = size

    @cached_property
    def _listed(self) -> tuple[list[bytes], list[bytes]]:
        paths = list(chain.from_iterable(part.folder.keys for part in self._parts))
        values = list(chain.from_iterable(part.values for part in self._parts))
        ordered = sorted(paths)
        if ordered != paths:
            found = dict(zip(paths, values, strict=True))
            values = [found[path] for path in ordered]
        return ordered, values

    @property
    def paths(self) -> Sequence[bytes]:
        """Where they stand in the commit, sorted."""
        return self._listed[0]

    @property
    def values(self) -> Sequence[bytes]:
        """Encoded value of each."""
        return self._listed[1]

    @property
    def folders(self) -> frozenset[bytes]:
        """The folders of the commit that they stand right in."""
        return frozenset(part.folder.below for part in self._parts)

    @property
    def others(self) -> Sequence[tuple[bytes, bytes]]:
        """Path and value of those of which it is not known that they stand there as they are, sorted."""
        return self._others

    @cached_property
    def _others(self) -> list[tuple[bytes, bytes]]:
        return sorted(chain.from_iterable(part.others for part in self._parts))
