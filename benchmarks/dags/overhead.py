"""Transforms that do next to nothing to small files, for the overhead benchmark. Each has a namesake to warm up."""

from __future__ import annotations

from pathlib import Path

import dmlpipe as dml

dag = dml.DAG("overhead")


@dag.pipeline(dml.files("items", "/{stem}.txt"))
def values(items: bytes, stem: str) -> dml.Files:
    """Return a value."""
    return {stem: items}


@dag.pipeline(dml.files("few", "/{stem}.txt"), name="warm-values")
def warm_values(few: bytes, stem: str) -> dml.Files:
    """Return a value."""
    return {stem: few}


@dag.pipeline(dml.files("items", "/{stem}.txt"))
def folders(items: Path, stem: str, out: Path) -> None:
    """Read a file, write a file."""
    (out / stem).write_bytes(items.read_bytes())


@dag.pipeline(dml.files("few", "/{stem}.txt"), name="warm-folders")
def warm_folders(few: Path, stem: str, out: Path) -> None:
    """Read a file, write a file."""
    (out / stem).write_bytes(few.read_bytes())


dag.command("commands", "cp $items $out/", dml.files("items", "/{stem}.txt"))
dag.command("warm-commands", "cp $few $out/", dml.files("few", "/{stem}.txt"))
