r"""Patterns of paths: ``* ** ? [..] {a,b} {name} (..)``.

A pattern matches files and the folders that files imply. A pattern with ``**`` matches files only, unless it is
compiled with `folders`. Matching is by whole path; the leading slash may be left out, one at the end is ignored; ``/``
is the whole repo.

=============  ===========================================================================
``*``          any run within one part of a path
``**``         any run, slashes included; as a whole part also no part (``/**/a`` matches ``/a``)
``?``          one character but ``/``
``[a-z] [!x]``  one of, none of; ``[[:digit:]]`` and its like, ``[[:^digit:]]``: none of them
``{a,b}``      either
``{name}``     like ``*``, and captured as ``name``; a second ``{name}`` must match the same text
``(..)``       what is inside, captured as ``1``, ``2``, ... by opening parenthesis; ``|`` separates alternatives
``@(a|b)``     one of the alternatives, captured; ``*( )`` any number of times, ``+( )`` at least once,
               ``?( )`` at most once, ``!( )`` none of them
``\x``          the character x itself
=============  ===========================================================================

No I/O but through the tree that `glob_tree` is given.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, TypeVar

from .glob_syntax import (
    Emitter,
    Node,
    Parser,
    bad_glob,
    beginning,
    filled,
    group_names,
    has_slash,
    is_deep,
    literal_prefix,
    literal_text,
    split_parts,
)

__all__ = ["Glob", "Match", "TreeView", "compile_glob", "glob_tree", "with_folders"]

_V = TypeVar("_V")


class TreeView(Protocol):
    """What `glob_tree` needs of a tree of paths."""

    def get(self, key: bytes) -> bytes | None:
        """Value of a path."""
        ...

    def prefix(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Entries whose path begins with `prefix`, sorted."""
        ...

    def list_dir(self, prefix: bytes, begins: bytes = ...) -> Iterator[tuple[bytes, bool, bytes | None]]:
        """(name, is folder, value) of what stands directly below `prefix`, in the order of the tree's keys.

        `begins`: only names that begin so.
        """
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of a path (between slashes) must look like."""

    literal: str | None
    """The only text that matches, if there is one."""
    regex: re.Pattern[str]
    """Matches the part alone; without captures."""
    begins: str = ""
    """What every text that matches begins with."""


class Match(NamedTuple):
    """A file or folder that a glob matches."""

    path: str
    """Without slashes at the ends; empty for the whole repo."""
    folder: bool
    value: bytes | None
    """Encoded value of a file; None for a folder."""
    captures: dict[str, str]


@dataclass(frozen=True, slots=True)
class Glob:
    """A compiled pattern. Make one with `compile_glob`."""

    pattern: str
    """As given, with a slash in front and none at the end."""
    prefix: bytes
    """Every match begins with these bytes."""
    parts: tuple[Part, ...] | None
    """One per part of the path; None where ``**``, or a slash inside a group, leaves their number open."""
    captures: tuple[str, ...]
    """Names of the captures in order; ``1``, ``2``, ... for parentheses."""
    folders: bool
    """Whether a folder can match."""
    regex: re.Pattern[str] = field(repr=False)
    nodes: tuple[Node, ...] = field(default=(), repr=False)
    """The pattern, parsed."""

    @property
    def is_root(self) -> bool:
        """Whether this is ``/``: the whole repo as one match."""
        return self.parts == ()

    @property
    def depth(self) -> int | None:
        """Number of parts that every match has; None if it is open."""
        return None if self.parts is None else len(self.parts)

    def match(self, path: str) -> dict[str, str] | None:
        """Return the captures if `path` (no slash in front or at the end) matches, else None.

        Examples
        --------
        >>> compile_glob("/{split}/*.png").match("train/1.png")
        {'split': 'train'}
        >>> compile_glob("/*.png").match("train/1.png") is None
        True
        """
        found = self.regex.fullmatch(path)
        if found is None:
            return None
        if not self.captures:
            return {}
        names = group_names(self.captures)
        if len(names) == 1:
            return {self.captures[0]: found[names[0]] or ""}
        return {name: text or "" for name, text in zip(self.captures, found.group(*names), strict=True)}

    def given(self, captures: Mapping[str, str]) -> Glob:
        """Return a glob that `glob_tree` reads faster, for paths whose captures are these.

        It matches what this one matches; only what is known of the beginnings of its parts is narrower, so that
        whoever uses it still compares the captures. Equal to this one where nothing is gained.
        """
        nodes = filled(self.nodes, captures)
        if nodes == self.nodes:
            return self
        parts = self.parts
        if parts is not None:
            split = split_parts(nodes)
            if len(split) != len(parts) or not all(split):
                # A slash or nothing, where no path has that: nothing matches.
                return self
            parts = tuple(
                Part(literal_text(filled), part.regex, beginning(filled))
                for part, filled in zip(parts, split, strict=True)
            )
        return replace(self, prefix=literal_prefix(nodes), parts=parts)


@functools.lru_cache(maxsize=256)
def compile_glob(pattern: str, *, folders: bool = False) -> Glob:
    """Compile `pattern`.

    Parameters
    ----------
    folders
        Folders match, too, where there is a ``**``.

    Raises
    ------
    InvalidInputError
        The pattern is malformed (code ``bad-glob``); the message says where.
    """
    text = unicodedata.normalize("NFC", pattern).strip("/") if pattern else pattern
    if not pattern:
        raise bad_glob(pattern, "it is empty", hint='the whole repo is "/"')
    nodes, _ = Parser(pattern, text).sequence(0, "")
    parts = split_parts(nodes)
    if not text:
        return Glob("/", b"", (), (), True, re.compile(""))
    for part in parts:
        literal = literal_text(part)
        if literal in ("", ".", ".."):
            raise bad_glob(pattern, f"a part of a path cannot be {literal!r}")
    emitter = Emitter()
    full = emitter.whole(parts)
    deep = any(is_deep(node) for node in nodes)
    open_ = deep or any(has_slash(node) for node in nodes)
    plain = Emitter(capture=False)
    compiled = (
        None
        if open_
        else tuple(Part(literal_text(part), re.compile(plain.part(part), re.DOTALL), beginning(part)) for part in parts)
    )
    captures = tuple(emitter.names)
    regex = re.compile(full, re.DOTALL)
    return Glob("/" + text, literal_prefix(nodes), compiled, captures, folders or not deep, regex, nodes)


def glob_tree(tree: TreeView, glob: Glob) -> Iterator[Match]:
    """Yield what `glob` matches in `tree`, sorted by path, where a folder sorts as if it ended in ``/``.

    Reads the folders that can hold matches, not what lies below the matches; where the number of parts is open, all
    that begins with the glob's literal prefix. The whole repo (``/``) is one match, empty or not.
    """
    if glob.is_root:
        yield Match("", True, None, {})
    elif glob.parts is None:
        entries = tree.prefix(glob.prefix)
        for key, value in with_folders(entries) if glob.folders else entries:
            path = key.decode().removesuffix("/")
            captures = glob.match(path)
            if captures is not None:
                yield Match(path, value is None, value, captures)
    else:
        # The whole path is matched here, which says of its last part what that part's own pattern would.
        for key, folder, found in _descend(tree, glob.parts, b"", last=False):
            path = key.decode()
            captures = glob.match(path)
            if captures is not None:
                yield Match(path, folder, found, captures)


def with_folders(entries: Iterable[tuple[bytes, _V]]) -> Iterator[tuple[bytes, _V | None]]:
    """Yield the entries, sorted by path, and before the first one inside it each folder: its path with a slash, None.

    Examples
    --------
    >>> [key for key, _ in with_folders([(b"a/b/c", 1), (b"a/d", 2)])]
    [b'a/', b'a/b/', b'a/b/c', b'a/d']
    """
    inside = b""
    for key, value in entries:
        folder = key[: key.rfind(b"/") + 1]
        at = 0
        while at < len(folder):
            at = folder.index(b"/", at) + 1
            if not inside.startswith(folder[:at]):
                yield folder[:at], None
        inside = folder
        yield key, value


def count_matches(tree: TreeView, glob: Glob) -> int:
    """Return the number of what `glob_tree` yields."""
    if glob.is_root or glob.parts is None or "(?P=" in glob.regex.pattern:
        # Where a capture stands twice, what it holds must be the same: only the whole pattern says.
        return sum(1 for _ in glob_tree(tree, glob))
    return sum(1 for _ in _descend(tree, glob.parts, b"", last=True))


def _descend(
    tree: TreeView, parts: tuple[Part, ...], base: bytes, *, last: bool
) -> Iterator[tuple[bytes, bool, bytes | None]]:
    """Yield (path, whether it is a folder, value) of what matches part by part; `last`: the last part, too."""
    part, below = parts[0], parts[1:]
    if part.literal is not None:
        key = base + part.literal.encode()
        if below:
            yield from _descend(tree, below, key + b"/", last=last)
            return
        value = tree.get(key)
        if value is not None:
            yield key, False, value
        elif next(iter(tree.prefix(key + b"/")), None) is not None:
            yield key, True, None
        return
    matches = part.regex.fullmatch
    if not below:
        for name, folder, value in tree.list_dir(base, part.begins.encode()):
            if not last or matches(name.decode()):
                yield base + name, folder, value
        return
    for name, folder, _ in tree.list_dir(base, part.begins.encode()):
        if folder and matches(name.decode()):
            yield from _descend(tree, below, base + name + b"/", last=last)
