"""Inputs whose paths are too long for files where the worker runs: an error of the datum that says so."""

from __future__ import annotations

import pytest

from dmlpipe.storage.objects.segment import Outcome
from tests.worker.bench import Bench, command, constant, file_datums, parameter, put, python, spec, varying

DEEP = "/".join(["d" * 200] * 20 + ["f" * 75])
WIDE = "w" * 256
SOURCE = "def f(given): return {'n': str(len(given))}"


@pytest.mark.parametrize(("path", "why"), [(DEEP, "bytes with its folder"), (WIDE, "a part of 256 bytes")])
def test_such_a_datum_fails_alone(bench: Bench, path: str, why: str) -> None:
    tree = put(bench.store, "given", {path: b"1", "short": b"2"})
    job = spec(command("cat $given > $out/n; true"), varying("given", tree))
    rows = bench.run(job, file_datums(tree))
    assert {key: row.outcome for key, row in rows.items()} == {path: Outcome.FAILED, "short": Outcome.OK}
    failure = rows[path].failure
    assert failure is not None
    assert "a file of the datum has a path that is too long for a file on this machine" in failure.message
    assert why in failure.message


def test_its_content_alone_has_no_path(bench: Bench) -> None:
    tree = put(bench.store, "given", {DEEP: b"1", WIDE: b"22"})
    job = spec(python(bench.store, SOURCE, "f", parameter("given", "bytes")), varying("given", tree))
    rows = bench.run(job, file_datums(tree))
    assert {row.outcome for row in rows.values()} == {Outcome.OK}


def test_a_constant_input_names_itself(bench: Bench) -> None:
    tree, model = put(bench.store, "given", {"a": b"1"}), put(bench.store, "model", {WIDE: b"1"})
    job = spec(command("true 1"), varying("given", tree), constant("model", model))
    (row,) = bench.run(job, file_datums(tree)).values()
    assert row.failure is not None
    assert "a file of input 'model' has a path that is too long" in row.failure.message
