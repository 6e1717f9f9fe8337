"""What `join_on` and `group_by` of a spec say: text with captures in it, ``$1-$2``."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence

__all__ = ["Template"]

_REFERENCE = re.compile(r"\$(?:(\d+)|\{(\w+)\}|(\$))")


@dataclasses.dataclass(frozen=True, slots=True)
class Template:
    """A text in which ``$1`` or ``${1}`` stands for a capture of the glob, ``${name}`` for a named one, ``$$`` for $.

    A reference to what the glob does not capture stays as it is written, as in Pachyderm: then all files have one key.
    """

    pieces: tuple[tuple[str, bool], ...]
    """Texts, and whether each names a capture."""

    @classmethod
    @functools.cache
    def parse(cls, text: str) -> Template:
        """Parse a template; any text is one."""
        pieces: list[tuple[str, bool]] = []
        at = 0
        for found in _REFERENCE.finditer(text):
            pieces.append((text[at : found.start()], False))
            pieces.append(("$", False) if found[3] else (found[1] or found[2], True))
            at = found.end()
        pieces.append((text[at:], False))
        return cls(tuple(piece for piece in pieces if piece[0]))

    def fill(self, captures: Mapping[str, str]) -> str:
        """Return the text with captures in their places."""
        return "".join(captures.get(text, f"${text}") if is_capture else text for text, is_capture in self.pieces)

    def invert(self, text: str, captures: Sequence[str]) -> dict[str, str] | None:
        """Return the captures that give `text`, which it has but one of; None if that cannot be said."""
        used = [name for name, is_capture in self.pieces if is_capture and name in captures]
        if len(used) != 1:
            return None
        at = self.pieces.index((used[0], True))
        before = "".join(Template(self.pieces[:at]).fill({}))
        after = "".join(Template(self.pieces[at + 1 :]).fill({}))
        if len(text) < len(before) + len(after) or not (text.startswith(before) and text.endswith(after)):
            # No file gives this text; what it would be is of no use, and one that cannot match is as good.
            return {used[0]: "\0"}
        return {used[0]: text[len(before) : len(text) - len(after)]}
