"""The table of every field, for the guide: Markdown from `table`."""

from __future__ import annotations

from .table import IGNORED, OBJECTS, REFUSED

_TITLES = {
    "spec": "At the top",
    "pipeline": "`pipeline`",
    "transform": "`transform`",
    "secret": "`transform.secrets[]`",
    "input": "`input`",
}
_WORDS = {IGNORED: "no meaning here", REFUSED: "**refused**"}


def fields_markdown() -> str:
    """Return one table per object: field, what becomes of it, what it is here."""
    parts = []
    for kind, fields in OBJECTS.items():
        lines = [f"### {_TITLES.get(kind, f'`{kind}`')}", "", "| field | | here |", "|---|---|---|"]
        for field in fields:
            verdict = _WORDS.get(field.verdict, "ours" if field.ours else "used")
            lines.append(f"| `{field.name}` | {verdict} | {field.here.replace('|', chr(92) + '|')} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"
