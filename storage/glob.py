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

from .errors import ErrorCode, InvalidInputError

__all__ = ["Glob", "Match", "TreeView", "compile_glob", "glob_tree", "with_folders"]

_V = TypeVar("_V")

_IN_PART = "[^/]*"
_CLASSES = {
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "alnum": "a-zA-Z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "space": r" \t-\r",
    "blank": r" \t",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
    "punct": r"!-.:-@\[-`{-~",
    "graph": "!-~",
    "print": " -~",
    "cntrl": r"\x00-\x1f\x7f",
    "ascii": r"\x00-\x7f",
}
_CLASS = re.compile(r"\[:(\^?)(\w+):\]")
_REPEATS = {"": "", "@": "", "*": "*", "+": "+", "?": "?", "!": ""}


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
    nodes: tuple[_Node, ...] = field(default=(), repr=False)
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
        names = _groups(self.captures)
        if len(names) == 1:
            return {self.captures[0]: found[names[0]] or ""}
        return {name: text or "" for name, text in zip(self.captures, found.group(*names), strict=True)}

    def given(self, captures: Mapping[str, str]) -> Glob:
        """Return a glob that `glob_tree` reads faster, for paths whose captures are these.

        It matches what this one matches; only what is known of the beginnings of its parts is narrower, so that
        whoever uses it still compares the captures. Equal to this one where nothing is gained.
        """
        nodes = _filled(self.nodes, captures)
        if nodes == self.nodes:
            return self
        parts = self.parts
        if parts is not None:
            split = _split(nodes)
            if len(split) != len(parts) or not all(split):
                # A slash or nothing, where no path has that: nothing matches.
                return self
            parts = tuple(
                Part(_literal(filled), part.regex, _begins(filled)) for part, filled in zip(parts, split, strict=True)
            )
        return replace(self, prefix=_prefix(nodes), parts=parts)


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
        raise _bad(pattern, "it is empty", hint='the whole repo is "/"')
    nodes, _ = _Parser(pattern, text).sequence(0, "")
    parts = _split(nodes)
    if not text:
        return Glob("/", b"", (), (), True, re.compile(""))
    for part in parts:
        literal = _literal(part)
        if literal in ("", ".", ".."):
            raise _bad(pattern, f"a part of a path cannot be {literal!r}")
    emitter = _Emitter()
    full = emitter.whole(parts)
    deep = any(_is_deep(node) for node in nodes)
    open_ = deep or any(_has_slash(node) for node in nodes)
    plain = _Emitter(capture=False)
    compiled = (
        None
        if open_
        else tuple(Part(_literal(part), re.compile(plain.part(part), re.DOTALL), _begins(part)) for part in parts)
    )
    captures = tuple(emitter.names)
    regex = re.compile(full, re.DOTALL)
    return Glob("/" + text, _prefix(nodes), compiled, captures, folders or not deep, regex, nodes)


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
        for key, folder, found in _descend(tree, glob.parts, b""):
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


def _descend(tree: TreeView, parts: tuple[Part, ...], base: bytes) -> Iterator[tuple[bytes, bool, bytes | None]]:
    part, below = parts[0], parts[1:]
    if part.literal is not None:
        key = base + part.literal.encode()
        if below:
            yield from _descend(tree, below, key + b"/")
            return
        value = tree.get(key)
        if value is not None:
            yield key, False, value
        elif next(iter(tree.prefix(key + b"/")), None) is not None:
            yield key, True, None
        return
    for name, folder, value in tree.list_dir(base, part.begins.encode()):
        if (folder or not below) and part.regex.fullmatch(name.decode()):
            if below:
                yield from _descend(tree, below, base + name + b"/")
            else:
                yield base + name, folder, value


# --- parsing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Lit:
    text: str


@dataclass(frozen=True, slots=True)
class _Slash:
    pass


@dataclass(frozen=True, slots=True)
class _Wild:
    regex: str
    deep: bool = False


@dataclass(frozen=True, slots=True)
class _Name:
    name: str


@dataclass(frozen=True, slots=True)
class _Group:
    kind: str
    """Character before the parenthesis, ``""`` for none, ``{`` for braces."""
    number: int
    choices: tuple[tuple[_Node, ...], ...]


_Node = _Lit | _Slash | _Wild | _Name | _Group


class _Parser:
    def __init__(self, pattern: str, text: str) -> None:
        self.pattern = pattern
        self.text = text
        self.groups = 0

    def sequence(self, at: int, stop: str) -> tuple[tuple[_Node, ...], int]:
        """Parse up to one of the characters in `stop` (outside nested groups), or the end."""
        nodes: list[_Node] = []
        while at < len(self.text) and self.text[at] not in stop:
            node, at = self.one(at)
            if isinstance(node, _Lit) and nodes and isinstance(nodes[-1], _Lit):
                nodes[-1] = _Lit(nodes[-1].text + node.text)
            else:
                nodes.append(node)
        return tuple(nodes), at

    def one(self, at: int) -> tuple[_Node, int]:
        char = self.text[at]
        following = self.text[at + 1 : at + 2]
        if char == "/":
            return _Slash(), at + 1
        if char in "@*+?!" and following == "(":
            return self.group(at + 2, char)
        if char == "(":
            return self.group(at + 1, "")
        if char == "*":
            end = at
            while self.text[end : end + 1] == "*" and self.text[end + 1 : end + 2] != "(":
                end += 1
            return (_Wild(".*", deep=True), end) if end - at > 1 else (_Wild(_IN_PART), end)
        if char == "?":
            return _Wild("[^/]"), at + 1
        if char == "[":
            return self.char_class(at)
        if char == "{":
            return self.braces(at)
        if char in ")}":
            raise _bad(self.pattern, f"{char!r} closes nothing", at=at)
        if char == "\\":
            if not following or following == "/":
                raise _bad(self.pattern, "'\\' needs a character other than '/' after it", at=at)
            return _Lit(following), at + 2
        if char == "\0":
            raise _bad(self.pattern, "a path has no NUL", at=at)
        return _Lit(char), at + 1

    def group(self, at: int, kind: str) -> tuple[_Node, int]:
        self.groups += 1
        number = self.groups
        choices, end = self.choices(at, "|", ")")
        return _Group(kind, number, choices), end

    def braces(self, at: int) -> tuple[_Node, int]:
        found = re.compile(r"\{([^{},()\\/]*)\}").match(self.text, at)
        if found:
            name = found[1]
            if not name.isidentifier():
                raise _bad(
                    self.pattern, f"{{{name}}} is no capture", at=at, hint="a capture is {name}, alternatives are {a,b}"
                )
            if re.fullmatch(r"_\d+", name):
                raise _bad(self.pattern, f"the capture name {name!r} is reserved", at=at)
            return _Name(name), found.end()
        choices, end = self.choices(at + 1, ",", "}")
        return _Group("{", 0, choices), end

    def choices(self, at: int, separator: str, close: str) -> tuple[tuple[tuple[_Node, ...], ...], int]:
        start = at - 1
        found: list[tuple[_Node, ...]] = []
        while True:
            nodes, at = self.sequence(at, separator + close)
            found.append(nodes)
            if at >= len(self.text):
                raise _bad(self.pattern, f"{self.text[start]!r} is not closed", at=start)
            at += 1
            if self.text[at - 1] == close:
                return tuple(found), at

    def char_class(self, at: int) -> tuple[_Node, int]:
        start = at
        at += 1
        negated = self.text[at : at + 1] in ("!", "^") and at < len(self.text)
        at += negated
        body: list[str] = []
        others: list[str] = []
        while at < len(self.text) and (self.text[at] != "]" or not (body or others)):
            named = _CLASS.match(self.text, at)
            if named:
                if named[2] not in _CLASSES:
                    raise _bad(self.pattern, f"no class [:{named[2]}:]", at=at, hint=f"there are {', '.join(_CLASSES)}")
                (others if named[1] else body).append(_CLASSES[named[2]])
                at = named.end()
                continue
            low, at = self.class_char(at)
            if self.text[at : at + 1] == "-" and self.text[at + 1 : at + 2] not in ("]", ""):
                high, at = self.class_char(at + 1)
                if low > high:
                    raise _bad(self.pattern, f"the range {low}-{high} is empty", at=start)
                body.append(f"{re.escape(low)}-{re.escape(high)}")
            else:
                body.append(re.escape(low))
        if at >= len(self.text):
            raise _bad(self.pattern, "'[' is not closed", at=start)
        # A range may span the slash ('+-9'), hence the look-ahead.
        kinds = [f"[{''.join(body)}]"] * bool(body) + [f"[^{one}]" for one in others]
        if not negated:
            return _Wild(f"(?!/)(?:{'|'.join(kinds)})" if others else f"(?!/){kinds[0]}"), at + 1
        return _Wild(f"(?!{'|'.join(kinds)})[^/]"), at + 1

    def class_char(self, at: int) -> tuple[str, int]:
        if self.text[at] == "\\":
            at += 1
        char = self.text[at : at + 1]
        if char in ("", "/"):
            raise _bad(self.pattern, "'/' cannot stand in brackets" if char else "'[' is not closed", at=at)
        return char, at + 1


# --- emitting regular expressions -------------------------------------------------------------------------------


class _Emitter:
    def __init__(self, *, capture: bool = True) -> None:
        self.capture = capture
        self.names: list[str] = []

    def whole(self, parts: list[tuple[_Node, ...]]) -> str:
        out: list[str] = []
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            if not last and part == (_Wild(".*", deep=True),):
                out.append("(?:.*/)?")
            else:
                out.append(self.part(part) + ("" if last else "/"))
        return "".join(out)

    def part(self, nodes: tuple[_Node, ...]) -> str:
        return "".join(self.node(node, nodes[index + 1 :]) for index, node in enumerate(nodes))

    def node(self, node: _Node, after: tuple[_Node, ...]) -> str:
        match node:
            case _Lit():
                return re.escape(node.text)
            case _Wild():
                return node.regex
            case _Slash():
                return "/"
            case _Name():
                return self.named(node.name)
            case _Group():
                return self.group(node, after)

    def named(self, name: str) -> str:
        if not self.capture:
            return _IN_PART
        if name in self.names:
            return f"(?P={name})"
        self.names.append(name)
        return f"(?P<{name}>{_IN_PART})"

    def group(self, node: _Group, after: tuple[_Node, ...]) -> str:
        opening = "(?:"
        if self.capture and node.kind != "{":
            self.names.append(str(node.number))
            opening = f"(?P<{_group(str(node.number))}>"
        if node.kind == "!":
            plain = _Emitter(capture=False)
            choices = "|".join(plain.part(choice) for choice in node.choices)
            return f"{opening}(?!(?:{choices}){plain.part(after)}(?:/|\\Z)){_IN_PART})"
        choices = "|".join(self.part(choice) for choice in node.choices)
        repeat = _REPEATS.get(node.kind, "")
        return f"{opening}(?:{choices}){repeat})"


@functools.lru_cache(maxsize=256)
def _groups(captures: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_group(name) for name in captures)


def _group(capture: str) -> str:
    return f"_{capture}" if capture.isdigit() else capture


def _split(nodes: tuple[_Node, ...]) -> list[tuple[_Node, ...]]:
    parts: list[list[_Node]] = [[]]
    for node in nodes:
        if isinstance(node, _Slash):
            parts.append([])
        else:
            parts[-1].append(node)
    return [tuple(part) for part in parts]


def _literal(part: tuple[_Node, ...]) -> str | None:
    if not part:
        return ""
    return part[0].text if len(part) == 1 and isinstance(part[0], _Lit) else None


def _begins(part: tuple[_Node, ...]) -> str:
    return part[0].text if part and isinstance(part[0], _Lit) else ""


def _filled(nodes: tuple[_Node, ...], captures: Mapping[str, str]) -> tuple[_Node, ...]:
    """The nodes with captured text in the place of what captured it, but for what is inside groups."""
    found: list[_Node] = []
    for node in nodes:
        text: str | None = None
        match node:
            case _Name():
                text = captures.get(node.name)
            case _Group() if node.kind != "{":
                text = captures.get(str(node.number))
            case _:
                pass
        new: list[_Node] = [node]
        if text is not None:
            new = []
            for at, piece in enumerate(text.split("/")):
                new += [_Slash()] if at else []
                new += [_Lit(piece)] if piece else []
        for one in new:
            if isinstance(one, _Lit) and found and isinstance(found[-1], _Lit):
                found[-1] = _Lit(found[-1].text + one.text)
            else:
                found.append(one)
    return tuple(found)


def _is_deep(node: _Node) -> bool:
    if isinstance(node, _Group):
        # What `!(..)` excludes does not match, so it cannot reach over a slash.
        return node.kind != "!" and any(_is_deep(inner) for choice in node.choices for inner in choice)
    return isinstance(node, _Wild) and node.deep


def _has_slash(node: _Node) -> bool:
    """Whether a group can reach over a slash."""
    if not isinstance(node, _Group) or node.kind == "!":
        return False
    return any(isinstance(inner, _Slash) or _has_slash(inner) for choice in node.choices for inner in choice)


def _prefix(nodes: tuple[_Node, ...]) -> bytes:
    text = ""
    for node in nodes:
        if isinstance(node, _Lit):
            text += node.text
        elif isinstance(node, _Slash):
            text += "/"
        else:
            break
    return text.encode()


def _bad(pattern: str, why: str, *, at: int | None = None, hint: str | None = None) -> InvalidInputError:
    # Positions count in the pattern without its leading slashes; say it as people count.
    skipped = len(pattern) - len(pattern.lstrip("/"))
    where = "" if at is None else f" at character {at + skipped + 1}"
    return InvalidInputError(f"bad glob {pattern!r}: {why}{where}", code=ErrorCode.BAD_GLOB, hint=hint)
