"""A specification's `egress`."""

from __future__ import annotations

from ..pipelines.spec import Egress
from .fields import Fields

_KINDS = ("url", "object_storage", "sql_database")


def read_egress(data: object, where: str) -> Egress | None:
    """Read an `egress`; None if it is empty.

    Raises
    ------
    InvalidInputError
        A field is unknown, missing, wrong or not supported.
    """
    fields = Fields(data, f"{where}: egress", "egress")
    given = [kind for kind in _KINDS if kind in fields.given()]
    if not given:
        return None
    if len(given) > 1:
        raise fields.bad(f"expected one of {', '.join(_KINDS)}, got {', '.join(given)}")
    if given[0] == "url":
        return Egress(url=fields.required_text("url"))
    if given[0] == "object_storage":
        place = Fields(fields.value("object_storage"), f"{fields.where}.object_storage", "object_storage")
        return Egress(url=place.required_text("url"))
    database = Fields(fields.value("sql_database"), f"{fields.where}.sql_database", "sql_database")
    form = Fields(database.value("file_format") or {}, f"{database.where}.file_format", "file_format")
    kind = form.required_text("type").lower()
    if kind == "parquet":
        raise form.unsupported("type", "PARQUET never worked in Pachyderm either: write CSV or JSON")
    if kind not in ("csv", "json"):
        raise form.bad(f"type: expected CSV or JSON, got {form.text('type')!r}")
    secret = Fields(database.value("secret") or {}, f"{database.where}.secret", "sql_secret")
    name = secret.text("name")
    return Egress(
        url=database.required_text("url"),
        rows=kind,
        columns=form.texts("columns"),
        secret=f"{name}/{secret.text('key') or 'PACHYDERM_SQL_PASSWORD'}" if name else "",
    )
