"""Unions, joins and groups from the DAG to the output, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

import dmlpipe as dml
from dmlpipe.scheduler.errors import JobFailed

READS = {"a_R1": "1", "a_R2": "2", "b_R1": "3"}


def test_an_outer_join_gives_none_for_what_is_missing() -> None:
    dag = dml.DAG("d")

    @dag.pipeline(dml.join(r1=dml.files("reads", "/{s}_R1"), r2=dml.files("reads", "/{s}_R2"), outer="r1"))
    def pairs(r1: Path, r2: bytes | None, s: str) -> dml.Files:
        return {s: r1.read_bytes() + (r2 or b"-")}

    made = dml.testing.run(dag, {"reads": READS})["pairs"]
    assert {path: made.read_bytes(f"/{path}") for path in "ab"} == {"a": b"12", "b": b"3-"}


def test_a_group_gives_its_files_batch_by_batch() -> None:
    dag = dml.DAG("d")

    @dag.pipeline(dml.group(x=dml.files("x", "/{n}/*"), y=dml.files("y", "/{n}.txt")), batch=2)
    class listed:  # noqa: N801 - the name is the pipeline's
        def __call__(self, x: list[list[Path]], y: list[list[Path]], n: list[str]) -> list[dml.Files]:
            folders = [{path.name: sorted(p.name for p in path.glob("*")) for path in paths} for paths in x]
            shown = [f"{found} {[path.read_text() for path in ys]}" for found, ys in zip(folders, y, strict=True)]
            return [{name: text} for name, text in zip(n, shown, strict=True)]

    data = {"x": {"a/1": "", "a/2/z": "", "b/1": ""}, "y": {"a.txt": "A", "c.txt": "C"}}
    made = dml.testing.run(dag, data)["listed"]
    assert {path: made.read_text(f"/{path}") for path in "abc"} == {
        "a": "{'1': [], '2': ['z']} ['A']",
        "b": "{'1': []} []",
        "c": "{} ['C']",
    }


def test_a_command_finds_exactly_the_files_of_its_datum() -> None:
    dag = dml.DAG("d")
    files = "find . -path ./out -prune -o -type f ! -name .env -print | sort"
    look = f'(cd "$(dirname "$out")"; {files}; ls -d r2 2>/dev/null || true)'
    joined = dml.join(r1=dml.files("reads", "/{s}_R1"), r2=dml.files("reads", "/{s}_R2"), outer="r1")
    dag.command("joined", f'{look} > "$out/$s"', joined)
    dag.command("grouped", f'{look} > "$out/$s"', dml.group(dml.files("reads", "/{s}_{end}"), by="s"))
    made = dml.testing.run(dag, {"reads": READS})
    assert made["joined"].read_text("/a") == "./r1/a_R1\n./r2/a_R2\nr2\n"
    assert made["joined"].read_text("/b") == "./r1/b_R1\n"
    assert made["grouped"].read_text("/a") == "./reads/a_R1\n./reads/a_R2\n"


def test_members_of_a_union_come_in_by_one_name() -> None:
    dag = dml.DAG("d")
    both = dml.union(dml.files("north", "/*", name="shop"), dml.files("south", "/*", name="shop"))

    @dag.pipeline(both)
    def shops(shop: Path) -> dml.Files:
        return {shop.name: shop.read_bytes()}

    dag.command("same", 'cp "$shop" "$out"', both)
    made = dml.testing.run(dag, {"north": {"a": "1"}, "south": {"b": "2"}})
    assert made["shops"].tree.root == made["same"].tree.root
    assert [path for path, _ in made["shops"].tree.scan()] == [b"a", b"b"]


def test_two_files_of_one_path_cannot_be_in_one_folder() -> None:
    dag = dml.DAG("d")
    both = dml.union(dml.files("north", "/{n}", name="shop"), dml.files("south", "/{n}", name="shop"))
    dag.command("same", "true", dml.group(both, by="n"))
    assert dml.testing.run(dag, {"north": {"a": "1"}, "south": {"a": "1"}})["same"].tree.is_empty()
    with pytest.raises(JobFailed, match="1 of 1 datums failed"):
        dml.testing.run(dag, {"north": {"a": "1"}, "south": {"a": "2"}})
