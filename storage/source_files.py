"""Files that are to be put: one by one, and a local folder at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import BinaryIO, NamedTuple, Protocol

import msgspec

from .errors import ErrorCode, InvalidInputError
from .paths import PATH_MAX_BYTES, normalize_path, show_path


class SourceFile(msgspec.Struct, frozen=True):
    """One file to be put."""

    path: bytes
    """Where it goes in the commit."""
    origin: str
    """What it is called where it comes from, for messages."""
    file: str | None = None
    """Local file to read."""
    data: bytes | None = None
    """Content that stands here."""
    stream: Callable[[], BinaryIO] | None = None
    """Opens the content."""
    url: str = ""
    """Where it is, if not in a local file."""


class Look(NamedTuple):
    """How a folder compares with what is remembered of it."""

    same_names: bool
    """Whether the names are those remembered: they need not travel between processes."""
    stale: Sequence[int]
    """Numbers of the files that are not as they are remembered, or are not remembered."""


class Recall(Protocol):
    """What is remembered of local folders, asked while they are listed."""

    def begin(self, root: str) -> None:
        """Learn what is remembered of a source, before it is listed, by whichever processes."""
        ...

    def look(self, folder: SourceFolder) -> Look | None:
        """Compare a folder with what is remembered of it; None: nothing is, or it was left for later."""
        ...

    def names(self, folder: SourceFolder) -> bytes:
        """Return the remembered names of a folder, joined by NUL."""
        ...


class SourceFolder:
    """The plain files right in one local folder, sorted by name.

    Parameters
    ----------
    root
        The source that it was found in.
    inside
        Where in there; empty: it is the source itself.
    device
        Number of the file system that it is on.
    below
        The folder of the commit that the files go to.
    names
        What they are called; None: as `recall` remembers.
    count
        How many they are.
    """

    def __init__(
        self,
        root: str,
        inside: str,
        device: int,
        below: bytes,
        names: list[str] | None,
        count: int,
        *,
        recall: Recall | None = None,
    ) -> None:
        self.root = root
        self.inside = inside
        self.device = device
        self.below = below
        self.count = count
        self.recall = recall
        self.same_names = False
        """Whether the names are those remembered."""
        self.stale: Sequence[int] | None = None
        """Numbers of the files that are not as they are remembered; None: nobody looked."""
        self.held = False
        """Whether what is remembered stands so in the tree that the files are to go to, or are compared with."""
        if names is not None:
            self.names = names

    def compare(self) -> None:
        """Look whether all is as it is remembered."""
        look = self.recall.look(self) if self.recall is not None else None
        if look is not None:
            self.same_names, self.stale = look

    @cached_property
    def names(self) -> list[str]:
        """What the files are called."""
        assert self.recall is not None
        return self.recall.names(self).decode("utf-8", "surrogateescape").split("\0")

    @cached_property
    def keys(self) -> list[bytes]:
        """Where each goes in the commit."""
        prefix = self.below + b"/" if self.below else b""
        if self.joined.isascii():
            return [prefix + name for name in self.joined.split(b"\0")]
        return [prefix + normalize_path(os.fsencode(name)) for name in self.names]

    @cached_property
    def joined(self) -> bytes:
        """The names, joined by NUL."""
        return "\0".join(self.names).encode("utf-8", "surrogateescape")

    @property
    def local(self) -> str:
        """Path of the folder."""
        root = self.root.rstrip("/")
        return f"{root}/{self.inside}" if self.inside else root or "/"

    @property
    def other_keys(self) -> Sequence[bytes]:
        """Where those files go in the commit of which it is not known that they stand there as they are."""
        if self.stale is None or not self.held:
            return self.keys
        return [self.keys[number] for number in self.stale] if self.stale else []

    def check(self) -> None:
        """Raise `InvalidInputError` if a name cannot be stored, or two of them are one in a commit."""
        names = self.names
        if self.joined.isascii():
            # As a listing yields them, they break no rule but this one.
            if len(self.below) + 1 + max(map(len, names)) > PATH_MAX_BYTES:
                for key in self.keys:
                    normalize_path(key)
            return
        keys = self.keys
        if max(map(len, keys)) > PATH_MAX_BYTES:
            for key in keys:
                normalize_path(key)
        if len(set(keys)) < len(keys):
            refuse_doubles(self.files())

    def files(self) -> Iterator[SourceFile]:
        """Yield each file by itself."""
        local = self.local.rstrip("/")
        for name, key in zip(self.names, self.keys, strict=True):
            file = f"{local}/{name}"
            yield SourceFile(key, file, file=file)


def refuse_doubles(files: Iterable[SourceFile]) -> None:
    """Raise `InvalidInputError` if two files would be one in a commit."""
    found: dict[bytes, SourceFile] = {}
    for item in files:
        other = found.setdefault(item.path, item)
        if other is not item:
            raise InvalidInputError(
                f"{other.origin} and {item.origin} would both be {show_path(item.path)}", code=ErrorCode.BAD_PATH
            )
