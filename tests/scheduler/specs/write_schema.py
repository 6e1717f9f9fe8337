"""Write what is made from the table of fields: ``python -m tests.scheduler.specs.write_schema``.

The shipped JSON Schema, and the tables in docs/guides/from-pachyderm.md.
"""

from __future__ import annotations

from pathlib import Path

from dmlpipe.scheduler.specs.fields_table import fields_markdown
from dmlpipe.scheduler.specs.schema import SCHEMA_FILE, schema_text

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "guides" / "from-pachyderm.md"
BEGIN, END = "<!-- fields: made from scheduler/specs/table.py -->\n", "<!-- /fields -->\n"


def with_fields(text: str) -> str:
    """A guide's text with its tables as they should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{fields_markdown()}\n{END}{after}"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
    GUIDE.write_text(with_fields(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
