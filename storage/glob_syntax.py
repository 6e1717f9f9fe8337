"""The language of globs: from text to nodes, and from nodes to regular expressions and to what is known of paths.

What the signs mean is said in `glob.py`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import ErrorCode, InvalidInputError

__all__ = [
    "Emitter",
    "Node",
    "Parser",
    "bad_glob",
    "beginning",
    "filled",
    "group_names",
    "has_slash",
    "is_deep",
    "literal_prefix",
    "literal_text",
    "split_parts",
]

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
    choices: tuple[tuple[Node, ...], ...]


Node = _Lit | _Slash | _Wild | _Name | _Group


class Parser:
    """Reads a pattern; `sequence(0, "")` is all of it.

    Parameters
    ----------
    pattern
        As given, for messages.
    text
        The same without slashes at the ends, NFC.
    """

    def __init__(self, pattern: str, text: str) -> None:
        self.pattern = pattern
        self.text = text
        self.groups = 0

    def sequence(self, at: int, stop: str) -> tuple[tuple[Node, ...], int]:
        """Parse up to one of the characters in `stop` (outside nested groups), or the end."""
        nodes: list[Node] = []
        while at < len(self.text) and self.text[at] not in stop:
            node, at = self._one(at)
            if isinstance(node, _Lit) and nodes and isinstance(nodes[-1], _Lit):
                nodes[-1] = _Lit(nodes[-1].text + node.text)
            else:
                nodes.append(node)
        return tuple(nodes), at

    def _one(self, at: int) -> tuple[Node, int]:
        char = self.text[at]
        following = self.text[at + 1 : at + 2]
        if char == "/":
            return _Slash(), at + 1
        if char in "@*+?!" and following == "(":
            return self._group(at + 2, char)
        if char == "(":
            return self._group(at + 1, "")
        if char == "*":
            end = at
            while self.text[end : end + 1] == "*" and self.text[end + 1 : end + 2] != "(":
                end += 1
            return (_Wild(".*", deep=True), end) if end - at > 1 else (_Wild(_IN_PART), end)
        if char == "?":
            return _Wild("[^/]"), at + 1
        if char == "[":
            return self._char_class(at)
        if char == "{":
            return self._braces(at)
        if char in ")}":
            raise bad_glob(self.pattern, f"{char!r} closes nothing", at=at)
        if char == "\\":
            if not following or following == "/":
                raise bad_glob(self.pattern, "'\\' needs a character other than '/' after it", at=at)
            return _Lit(following), at + 2
        if char == "\0":
            raise bad_glob(self.pattern, "a path has no NUL", at=at)
        return _Lit(char), at + 1

    def _group(self, at: int, kind: str) -> tuple[Node, int]:
        self.groups += 1
        number = self.groups
        choices, end = self._choices(at, "|", ")")
        return _Group(kind, number, choices), end

    def _braces(self, at: int) -> tuple[Node, int]:
        found = re.compile(r"\{([^{},()\\/]*)\}").match(self.text, at)
        if found:
            name = found[1]
            if not name.isidentifier():
                raise bad_glob(
                    self.pattern, f"{{{name}}} is no capture", at=at, hint="a capture is {name}, alternatives are {a,b}"
                )
            if re.fullmatch(r"_\d+", name):
                raise bad_glob(self.pattern, f"the capture name {name!r} is reserved", at=at)
            return _Name(name), found.end()
        choices, end = self._choices(at + 1, ",", "}")
        return _Group("{", 0, choices), end

    def _choices(self, at: int, separator: str, close: str) -> tuple[tuple[tuple[Node, ...], ...], int]:
        start = at - 1
        found: list[tuple[Node, ...]] = []
        while True:
            nodes, at = self.sequence(at, separator + close)
            found.append(nodes)
            if at >= len(self.text):
                raise bad_glob(self.pattern, f"{self.text[start]!r} is not closed", at=start)
            at += 1
            if self.text[at - 1] == close:
                return tuple(found), at

    def _char_class(self, at: int) -> tuple[Node, int]:
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
                    raise bad_glob(
                        self.pattern, f"no class [:{named[2]}:]", at=at, hint=f"there are {', '.join(_CLASSES)}"
                    )
                (others if named[1] else body).append(_CLASSES[named[2]])
                at = named.end()
                continue
            low, at = self._class_char(at)
            if self.text[at : at + 1] == "-" and self.text[at + 1 : at + 2] not in ("]", ""):
                high, at = self._class_char(at + 1)
                if low > high:
                    raise bad_glob(self.pattern, f"the range {low}-{high} is empty", at=start)
                body.append(f"{re.escape(low)}-{re.escape(high)}")
            else:
                body.append(re.escape(low))
        if at >= len(self.text):
            raise bad_glob(self.pattern, "'[' is not closed", at=start)
        # A range may span the slash ('+-9'), hence the look-ahead.
        kinds = [f"[{''.join(body)}]"] * bool(body) + [f"[^{one}]" for one in others]
        if not negated:
            return _Wild(f"(?!/)(?:{'|'.join(kinds)})" if others else f"(?!/){kinds[0]}"), at + 1
        return _Wild(f"(?!{'|'.join(kinds)})[^/]"), at + 1

    def _class_char(self, at: int) -> tuple[str, int]:
        if self.text[at] == "\\":
            at += 1
        char = self.text[at : at + 1]
        if char in ("", "/"):
            raise bad_glob(self.pattern, "'/' cannot stand in brackets" if char else "'[' is not closed", at=at)
        return char, at + 1


# --- emitting regular expressions -------------------------------------------------------------------------------


class Emitter:
    """Writes nodes as a regular expression; `names` are the captures met so far, in order."""

    def __init__(self, *, capture: bool = True) -> None:
        self.capture = capture
        self.names: list[str] = []

    def whole(self, parts: list[tuple[Node, ...]]) -> str:
        """All parts of a path."""
        out: list[str] = []
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            if not last and part == (_Wild(".*", deep=True),):
                out.append("(?:.*/)?")
            else:
                out.append(self.part(part) + ("" if last else "/"))
        return "".join(out)

    def part(self, nodes: tuple[Node, ...]) -> str:
        """One part."""
        return "".join(self._node(node, nodes[index + 1 :]) for index, node in enumerate(nodes))

    def _node(self, node: Node, after: tuple[Node, ...]) -> str:
        match node:
            case _Lit():
                return re.escape(node.text)
            case _Wild():
                return node.regex
            case _Slash():
                return "/"
            case _Name():
                return self._named(node.name)
            case _Group():
                return self._group(node, after)

    def _named(self, name: str) -> str:
        if not self.capture:
            return _IN_PART
        if name in self.names:
            return f"(?P={name})"
        self.names.append(name)
        return f"(?P<{name}>{_IN_PART})"

    def _group(self, node: _Group, after: tuple[Node, ...]) -> str:
        opening = "(?:"
        if self.capture and node.kind != "{":
            self.names.append(str(node.number))
            opening = f"(?P<{_group(str(node.number))}>"
        if node.kind == "!":
            plain = Emitter(capture=False)
            choices = "|".join(plain.part(choice) for choice in node.choices)
            return f"{opening}(?!(?:{choices}){plain.part(after)}(?:/|\\Z)){_IN_PART})"
        choices = "|".join(self.part(choice) for choice in node.choices)
        repeat = _REPEATS.get(node.kind, "")
        return f"{opening}(?:{choices}){repeat})"


@functools.lru_cache(maxsize=256)
def group_names(captures: tuple[str, ...]) -> tuple[str, ...]:
    """Names of regular expressions' groups for captures."""
    return tuple(_group(name) for name in captures)


def _group(capture: str) -> str:
    return f"_{capture}" if capture.isdigit() else capture


def split_parts(nodes: tuple[Node, ...]) -> list[tuple[Node, ...]]:
    """The nodes of each part of the path."""
    parts: list[list[Node]] = [[]]
    for node in nodes:
        if isinstance(node, _Slash):
            parts.append([])
        else:
            parts[-1].append(node)
    return [tuple(part) for part in parts]


def literal_text(part: tuple[Node, ...]) -> str | None:
    """The only text that matches a part; None if there is no such."""
    if not part:
        return ""
    return part[0].text if len(part) == 1 and isinstance(part[0], _Lit) else None


def beginning(part: tuple[Node, ...]) -> str:
    """What every text that matches a part begins with."""
    return part[0].text if part and isinstance(part[0], _Lit) else ""


def filled(nodes: tuple[Node, ...], captures: Mapping[str, str]) -> tuple[Node, ...]:
    """The nodes with captured text in the place of what captured it, but for what is inside groups."""
    found: list[Node] = []
    for node in nodes:
        text: str | None = None
        match node:
            case _Name():
                text = captures.get(node.name)
            case _Group() if node.kind != "{":
                text = captures.get(str(node.number))
            case _:
                pass
        new: list[Node] = [node]
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


def is_deep(node: Node) -> bool:
    """Whether it can reach over any number of slashes."""
    if isinstance(node, _Group):
        # What `!(..)` excludes does not match, so it cannot reach over a slash.
        return node.kind != "!" and any(is_deep(inner) for choice in node.choices for inner in choice)
    return isinstance(node, _Wild) and node.deep


def has_slash(node: Node) -> bool:
    """Whether a group can reach over a slash."""
    if not isinstance(node, _Group) or node.kind == "!":
        return False
    return any(isinstance(inner, _Slash) or has_slash(inner) for choice in node.choices for inner in choice)


def literal_prefix(nodes: tuple[Node, ...]) -> bytes:
    """What every path that matches begins with."""
    text = ""
    for node in nodes:
        if isinstance(node, _Lit):
            text += node.text
        elif isinstance(node, _Slash):
            text += "/"
        else:
            break
    return text.encode()


def bad_glob(pattern: str, why: str, *, at: int | None = None, hint: str | None = None) -> InvalidInputError:
    """Return the error that says what is wrong with a pattern, and where."""
    # Positions count in the pattern without its leading slashes; say it as people count.
    skipped = len(pattern) - len(pattern.lstrip("/"))
    where = "" if at is None else f" at character {at + skipped + 1}"
    return InvalidInputError(f"bad glob {pattern!r}: {why}{where}", code=ErrorCode.BAD_GLOB, hint=hint)
