"""Globs as trees that hypothesis grows, and what they match, found by trying every position: no regular expressions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hypothesis import strategies as st

LETTERS = "ab.-"


class Node(NamedTuple):
    """A piece of a pattern: `kind` is one of ``lit * ** ? [ [! slash name { @ * + ? ! (`` with `(` before groups."""

    kind: str
    text: str = ""
    choices: tuple[tuple[Node, ...], ...] = ()


def render(nodes: Sequence[Node]) -> str:
    """Write a pattern as people do."""
    return "".join(_render(node) for node in nodes)


def _render(node: Node) -> str:
    inside = [render(choice) for choice in node.choices]
    match node.kind:
        case "lit":
            return node.text
        case "slash":
            return "/"
        case "[" | "[!":
            return f"{node.kind}{node.text}]"
        case "braces":
            return "{" + ",".join(inside) + "}"
        case "@(" | "*(" | "+(" | "?(" | "!(" | "(":
            return node.kind + "|".join(inside) + ")"
        case _:
            return node.kind


def ends(nodes: Sequence[Node], text: str, at: int) -> set[int]:
    """Where a match of `nodes` that begins at `at` can end."""
    found = {at}
    for place, node in enumerate(nodes):
        found = {end for start in found for end in _ends(node, text, start, nodes[place + 1 :])}
    return found


def _ends(node: Node, text: str, at: int, after: Sequence[Node]) -> set[int]:
    char = text[at : at + 1]
    match node.kind:
        case "lit" | "slash":
            wanted = "/" if node.kind == "slash" else node.text
            return {at + len(wanted)} if text.startswith(wanted, at) else set()
        case "*":
            return _run(text, at)
        case "**":
            return set(range(at, len(text) + 1))
        case "?":
            return {at + 1} if char not in ("", "/") else set()
        case "[" | "[!":
            return {at + 1} if char not in ("", "/") and (char in node.text) == (node.kind == "[") else set()
        case "!(":
            # What follows is literal: it is no match iff a choice and what follows reach the end of the part.
            stop = len(text) if "/" not in text[at:] else text.index("/", at)
            rest = tuple(itertools.takewhile(lambda each: each.kind != "slash", after))
            if any(stop in ends((*choice, *rest), text, at) for choice in node.choices):
                return set()
            return _run(text, at)
        case _:
            once = {end for choice in node.choices for end in ends(choice, text, at)}
            if node.kind in ("@(", "(", "braces"):
                return once
            if node.kind == "?(":
                return once | {at}
            return _repeated(node, text, at) | (once if node.kind == "+(" else {at})


def _repeated(node: Node, text: str, at: int) -> set[int]:
    found: set[int] = set()
    todo = {at}
    while todo:
        start = todo.pop()
        new = {end for choice in node.choices for end in ends(choice, text, start)} - found
        found |= new
        todo |= new
    return found


def _run(text: str, at: int) -> set[int]:
    stop = text.find("/", at)
    return set(range(at, (len(text) if stop < 0 else stop) + 1))


def kinds(nodes: Sequence[Node]) -> Iterator[str]:
    """The kind of every node, also inside groups."""
    for node in nodes:
        yield node.kind
        for choice in node.choices:
            yield from kinds(choice)


def matches(nodes: Sequence[Node], path: str) -> bool:
    """Whether the whole path matches; ``**`` as a whole part, but the last, may be no part."""
    return any(len(path) in ends(variant, path, 0) for variant in _variants(tuple(nodes)))


def _variants(nodes: tuple[Node, ...]) -> list[tuple[Node, ...]]:
    deep, slash = Node("**"), Node("slash")
    for at, node in enumerate(nodes[:-1]):
        begins = at == 0 or nodes[at - 1] == slash
        if node == deep and begins and nodes[at + 1] == slash:
            rest = _variants(nodes[at + 2 :])
            return [nodes[:at] + middle + tail for tail in rest for middle in ((), (deep, slash))]
    return [nodes]


@st.composite
def part(draw: st.DrawFn, depth: int = 2, *, slashes: bool = False) -> tuple[Node, ...]:
    """One part of a pattern, perhaps with a slash inside its groups."""
    nodes = []
    for _ in range(draw(st.integers(1, 3))):
        kinds = ["lit", "lit", "*", "?", "[", "[!"]
        if depth:
            kinds += ["braces", "@(", "*(", "+(", "?(", "("]
        kind = draw(st.sampled_from(kinds))
        if kind == "lit":
            nodes.append(Node("lit", draw(st.text(st.sampled_from(LETTERS), min_size=1, max_size=2))))
        elif kind in ("[", "[!"):
            nodes.append(Node(kind, draw(st.sampled_from(["a", "b", "ab", "a.", "b-"]))))
        elif kind in ("*", "?"):
            nodes.append(Node(kind))
        else:
            choices = (draw(part(depth - 1, slashes=slashes)), draw(part(depth - 1)))
            if slashes and draw(st.booleans()):
                choices = ((*choices[0], Node("slash"), *choices[1]), choices[1])
            nodes.append(Node(kind, choices=choices))
    if depth and not slashes and draw(st.integers(0, 3)) == 0:
        tail = (Node("lit", draw(st.sampled_from(["a", ".b"]))),) if draw(st.booleans()) else ()
        head = (Node("lit", "b"),) if draw(st.booleans()) else ()
        nodes = [*head, Node("!(", choices=(draw(part(0)), draw(part(0)))), *tail]
    return _apart(nodes)


def _apart(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes, kept from running into each other: no sign before a plain group, no two stars, no ``..`` alone."""
    found: list[Node] = []
    for node in nodes:
        before = render(found)[-1:]
        if (node.kind == "(" and before and before in "*?+@!") or (node.kind == before == "*"):
            found.append(Node("lit", "a"))
        found.append(node)
    return (*found, Node("lit", "a")) if render(found) in (".", "..") else tuple(found)


@st.composite
def patterns(draw: st.DrawFn, *, slashes: bool = False, deep: bool = True) -> tuple[Node, ...]:
    """A pattern of one to three parts."""
    parts: list[tuple[Node, ...]] = []
    for _ in range(draw(st.integers(1, 3))):
        whole = deep and draw(st.integers(0, 4)) == 0
        parts.append((Node("**"),) if whole else draw(part(slashes=slashes)))
    nodes: list[Node] = []
    for at, one in enumerate(parts):
        nodes += [Node("slash")] * bool(at) + list(one)
    return tuple(nodes)


def paths() -> st.SearchStrategy[str]:
    """A path of one to three parts."""
    one = st.text(st.sampled_from(LETTERS), min_size=1, max_size=4).filter(lambda text: text not in (".", ".."))
    return st.lists(one, min_size=1, max_size=3).map("/".join)


def trees() -> st.SearchStrategy[list[str]]:
    """Paths of files, none of which stands where another has a folder; sorted."""
    return st.sets(paths(), max_size=12).map(
        lambda drawn: sorted(path for path in drawn if not any(other.startswith(path + "/") for other in drawn))
    )
