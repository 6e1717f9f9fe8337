"""Write the shipped JSON Schema anew: ``python -m tests.scheduler.specs.write_schema``."""

from __future__ import annotations

from dmlpipe.scheduler.specs.schema import SCHEMA_FILE, schema_text

SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
