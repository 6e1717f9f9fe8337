"""Inputs of Python DAGs that specifications have no words for: named captures, grids of values, one repo twice."""

from __future__ import annotations

from pathlib import Path

from dmlpipe import DAG, Files, cross, files, group, join, values
from tests.conformance.lab import Lab, Ran

READS = {"/ann_R1.fq": "A1", "/ann_R2.fq": "A2", "/bob_R1.fq": "B1", "/bob_R2.fq": "B2", "/eve_R1.fq": "E1"}


def run(lab: Lab, dag: DAG) -> Ran:
    lab.store.submit([dag])
    ran = lab.run(dag=dag)
    assert set(ran.states.values()) <= {"done"}, ran.summary.jobs
    return ran


def pairs() -> DAG:
    """Both reads of a sample, found by the name that they share."""
    dag = DAG("pairs")

    @dag.pipeline(join(r1=files("reads", "/{sample}_R1.fq"), r2=files("reads", "/{sample}_R2.fq")))
    def both(r1: bytes, r2: bytes, sample: str) -> Files:
        return {f"{sample}.txt": r1 + r2}

    return dag


def test_a_join_pairs_files_of_one_repo_by_a_named_capture(lab: Lab) -> None:
    lab.put("reads", READS)
    assert run(lab, pairs()).counts == {"both": (2, 0)}
    assert lab.files("both") == {"/ann.txt": "A1A2", "/bob.txt": "B1B2"}
    # The partner that was missing makes one datum.
    lab.put("reads", {"/eve_R2.fq": "E2"})
    assert lab.run(dag=pairs()).counts == {"both": (1, 2)}


def test_a_command_finds_a_capture_as_a_variable(lab: Lab) -> None:
    lab.put("reads", READS)
    dag = DAG("pairs")
    both = join(r1=files("reads", "/{sample}_R1.fq"), r2=files("reads", "/{sample}_R2.fq"))
    dag.command("both", "cat $r1 $r2 > $out/$sample.txt", both)
    assert run(lab, dag).counts == {"both": (2, 0)}
    assert lab.files("both") == {"/ann.txt": "A1A2", "/bob.txt": "B1B2"}


def test_a_group_holds_the_files_of_one_named_capture(lab: Lab) -> None:
    lab.put("reads", READS)
    dag = DAG("groups")

    @dag.pipeline(group(files("reads", "/{sample}_{read}.fq"), by="sample"))
    def gathered(reads: list[Path], sample: str) -> Files:
        return {sample: b"".join(path.read_bytes() for path in reads)}

    assert run(lab, dag).counts == {"gathered": (3, 0)}
    assert lab.files("gathered") == {"/ann": "A1A2", "/bob": "B1B2", "/eve": "E1"}
    lab.put("reads", {"/eve_R2.fq": "E2"})
    assert lab.run(dag=dag).counts == {"gathered": (1, 2)}


def test_a_folder_where_one_file_is_asked_for_fails_in_words(lab: Lab) -> None:
    lab.put("texts", {"/a": "a", "/b/c": "c"})
    dag = DAG("loud")

    @dag.pipeline(files("texts", "/{name}"))
    def loud(texts: bytes, name: str) -> Files:
        return {name: texts.upper()}

    lab.store.submit([dag])
    (group,) = lab.run(dag=dag).job("loud").failures
    assert (group.count, group.path) == (1, "texts:/b/")
    assert group.failure.message == (
        "parameter 'texts' is annotated bytes, the content of one file, and is a folder here; "
        "annotate it Path, or choose a glob that matches files only"
    )


def test_one_repo_may_be_read_twice_by_two_names(lab: Lab) -> None:
    lab.put("texts", {"/a": "a", "/b": "b"})
    dag = DAG("squares")

    @dag.pipeline(cross(left=files("texts", "/{x}"), right=files("texts", "/{y}")))
    def square(left: bytes, right: bytes, x: str, y: str) -> Files:
        return {f"{x}{y}": left + right}

    assert run(lab, dag).counts == {"square": (4, 0)}
    assert lab.files("square") == {f"/{name}": name for name in ("aa", "ab", "ba", "bb")}
    lab.put("texts", {"/b": "c"})
    assert lab.run(dag=dag).counts == {"square": (3, 1)}


def grid(*c: float) -> DAG:
    dag = DAG("grid")

    @dag.pipeline(cross(files("points"), values(C=list(c), kind=["linear", "rbf"])))
    def fit(points: Path, C: float, kind: str) -> Files:
        return {f"{kind}-{C:g}": (points / "p").read_bytes()}

    return dag


def test_a_grid_is_a_datum_for_each_value_and_a_longer_one_computes_the_new_ones(lab: Lab) -> None:
    lab.put("points", {"/p": "1"})
    assert run(lab, grid(0.1, 1)).counts == {"fit": (4, 0)}
    assert run(lab, grid(0.1, 1, 10)).counts == {"fit": (2, 4)}
    assert run(lab, grid(1)).counts == {"fit": (0, 2)}
    assert sorted(lab.files("fit")) == ["/linear-1", "/rbf-1"]
