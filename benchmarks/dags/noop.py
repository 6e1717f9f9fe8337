"""A transform that returns what it is given: what a datum costs beside its own work."""

from __future__ import annotations

import dmlpipe as dml

ITEMS = "items"

dag = dml.DAG("overhead")


@dag.pipeline(dml.files(ITEMS, "/{stem}", name="items"))
def noop(items: bytes, stem: str, *, point: str = "") -> dml.Files:
    """Return a value."""
    return {stem: items}
