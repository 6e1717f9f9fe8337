"""The JSON Schema of a specification, for editors: made from `table`, shipped as ``pipeline.schema.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .fields import camel_case
from .table import IGNORED, OBJECTS, REFUSED, Field

SCHEMA_FILE = Path(__file__).with_name("pipeline.schema.json")

_FORMS: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "texts": {"type": "array", "items": {"type": "string"}},
    "integer": {"type": ["integer", "string"], "pattern": "^-?[0-9]+$"},
    "integers": {"type": "array", "items": {"type": ["integer", "string"]}},
    "number": {"type": ["number", "string"]},
    "flag": {"type": "boolean"},
    "duration": {"type": "string"},
    "size": {"type": "string"},
    "share": {"type": ["integer", "string"]},
    "variables": {"type": "object", "additionalProperties": {"type": "string"}},
    "scalars": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
    "any": {},
}
_ALSO = {"url": ("URL",)}
"""Spellings that Pachyderm's own specifications have."""
_REQUIRED = {
    "spec": ["pipeline", "transform"],
    "pipeline": ["name"],
    "transform": ["cmd"],
    "secret": ["name"],
    "pfs": ["repo", "glob"],
}


def json_schema() -> dict[str, Any]:
    """Return the schema of a file: one specification, or a list of them; both spellings of names."""
    one = {"$ref": "#/$defs/spec"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dmlpipe pipeline specification",
        "description": "Pachyderm's specification, and what each field is in dmlpipe.",
        "anyOf": [one, {"type": "array", "items": one}],
        "$defs": {kind: _object(kind) for kind in OBJECTS},
    }


def schema_text() -> str:
    """Return the shipped file's text."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def _object(kind: str) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for field in OBJECTS[kind]:
        for name in dict.fromkeys((field.name, camel_case(field.name), *_ALSO.get(field.name, ()))):
            properties[name] = _property(field)
    found: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": properties}
    if kind in _REQUIRED:
        found["required"] = _REQUIRED[kind]
    return found


def _property(field: Field) -> dict[str, Any]:
    # Null is a field that is not given.
    wanted = _form(field.form)
    found: dict[str, Any] = {"anyOf": [wanted, {"type": "null"}]} if wanted else {}
    if field.verdict == REFUSED:
        return {"description": f"Not supported: {field.here}.", "deprecated": True, **found}
    if field.verdict == IGNORED:
        return {"description": f"Without meaning here: {field.here}.", "deprecated": True, **found}
    return {"description": f"{field.here[:1].upper()}{field.here[1:]}.", **found}


def _form(form: str) -> dict[str, Any]:
    if form in _FORMS:
        return dict(_FORMS[form])
    if form.endswith("[]"):
        return {"type": "array", "items": {"$ref": f"#/$defs/{form[:-2]}"}}
    return {"$ref": f"#/$defs/{form}"}
