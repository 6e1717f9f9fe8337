from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

import pytest

from dmlpipe.storage.objects.segment import Outcome, Row
from dmlpipe.storage.store import Store
from dmlpipe.worker.child.zygote import Zygote
from dmlpipe.worker.inline import InlineWorker
from dmlpipe.worker.job import Datum, JobSpec
from tests.worker.bench import (
    Bench,
    command,
    constant,
    datum,
    file_datums,
    file_item,
    parameter,
    put,
    python,
    spec,
    varying,
)
from tests.worker.slots.test_lease_run import BATCHED, IMAGES


@pytest.fixture
def memory(tmp_path: Path) -> Store:
    return Store.init(f"memory://{uuid.uuid4().hex}", cache_dir=tmp_path / "cache")


@pytest.fixture
def bench(memory: Store, zygote: Zygote, tmp_path: Path) -> Bench:
    return Bench(memory, zygote, tmp_path / "work")


def run(bench: Bench, job: JobSpec, datums: list[Datum], **targets: object) -> dict[str, Row]:
    worker = InlineWorker(bench.store, bench.folder / "inline", targets=targets, environ=bench.environ)
    rows, stored = worker.run(job, datums)
    assert sorted(row.key for row in bench.rows(job.job)) == sorted(row.key for row in rows)
    assert sum(report.rows for report in stored) == len(rows)
    return {row.key.decode(): row for row in rows}


def test_the_users_own_function_is_called_in_this_process(bench: Bench) -> None:
    tree = put(bench.store, "in", IMAGES)
    pids = set()

    def f(x: Path) -> dict[str, bytes]:
        pids.add(os.getpid())
        if x.name == "3.png":
            raise ValueError("three")
        return {x.name: x.read_bytes()}

    job = spec(python(bench.store, "def f(x): ...", "f", parameter("x")), varying("x", tree))
    rows = run(bench, job, file_datums(tree), p=f)
    assert pids == {os.getpid()}
    failure = rows["3.png"].failure
    assert failure is not None
    assert failure.kind == "ValueError"
    assert failure.where.startswith("test_inline.py:")
    assert failure.line == 'raise ValueError("three")'
    assert failure.traceback.count("File ") == 1
    assert bench.content(job.job) == {k: v for k, v in IMAGES.items() if k != "3.png"}


@pytest.mark.parametrize(("bad", "kind"), [("", ""), ("element", "KeyError"), ("raise", "ValueError")])
def test_a_slot_and_this_process_agree(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str, kind: str
) -> None:
    images, model = put(bench.store, "images", IMAGES), put(bench.store, "model", {"m": b"M:"})
    bench.environ |= {"BAD": bad, "CALLS": str(tmp_path / "calls")}
    monkeypatch.setenv("BAD", bad)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls-inline"))
    transform = python(
        bench.store,
        BATCHED,
        "predict",
        parameter("model", resident=True),
        parameter("image"),
        parameter("stem", "str", source="capture", input="image"),
        kind="class",
    )
    first, second = (spec(transform, varying("image", images), constant("model", model), batch=4) for _ in range(2))
    before = set(sys.modules)
    datums = [datum(file_item(images, name, stem=name[0])) for name in IMAGES]
    inline = run(bench, first, datums)
    slot = bench.run(second, datums)
    assert bench.content(first.job) == bench.content(second.job)
    assert {k: (r.outcome, r.outputs, r.tries, r.failure) for k, r in inline.items()} == {
        k: (r.outcome, r.outputs, r.tries, r.failure) for k, r in slot.items()
    }
    assert {k for k, r in inline.items() if r.failure} == ({"3.png"} if kind else set())
    # A slot sends its next batch before it knows that this one failed.
    sizes = [sorted((tmp_path / name).read_text().split()) for name in ("calls", "calls-inline")]
    assert sizes[0] == sizes[1]
    assert "dag" not in set(sys.modules) - before


def test_commands_run_with_their_words_rewritten(bench: Bench) -> None:
    tree, model = put(bench.store, "in", {"d/x": b"content"}), put(bench.store, "model", {"m": b"M"})
    job = spec(command("cat $in /pfs/model/m $model/m > /pfs/out/all"), varying("in", tree), constant("model", model))
    rows = run(bench, job, file_datums(tree))
    assert [row.failure for row in rows.values()] == [None]
    assert bench.content(job.job) == {"all": b"contentMM"}


def test_writing_to_an_input_fails(bench: Bench) -> None:
    tree = put(bench.store, "in", {"x": b"content"})

    def f(x: Path) -> dict[str, bytes]:
        x.chmod(0o600)
        x.write_bytes(b"mine")
        return {}

    job = spec(python(bench.store, "def f(x): ...", "f", parameter("x")), varying("x", tree), tries=2)
    (row,) = run(bench, job, file_datums(tree), p=f).values()
    assert row.failure is not None
    assert "wrote to its input" in row.failure.message
    assert (row.outcome, row.tries) == (Outcome.FAILED, 2)


def test_the_environment_is_as_before(bench: Bench) -> None:
    tree = put(bench.store, "in", {"x": b""})
    seen: dict[str, str] = {}

    def f(x: Path) -> dict[str, bytes]:
        seen.update(os.environ)
        return {}

    before, path = dict(os.environ), list(sys.path)
    job = spec(python(bench.store, "def f(x): ...", "f", parameter("x")), varying("x", tree))
    run(bench, job, file_datums(tree), p=f)
    assert (dict(os.environ), sys.path) == (before, path)
    assert seen["DMLPIPE_PIPELINE"] == "p"
    assert len(seen["DMLPIPE_DATUM"]) == 64


def test_what_is_stopped_is_not_begun(bench: Bench) -> None:
    tree = put(bench.store, "in", IMAGES)
    calls: list[str] = []

    def f(x: Path) -> dict[str, bytes]:
        calls.append(x.name)
        return {}

    job = spec(python(bench.store, "def f(x): ...", "f", parameter("x")), varying("x", tree))
    worker = InlineWorker(bench.store, bench.folder / "inline", targets={"p": f})
    rows, stored = worker.run(job, file_datums(tree), stop=lambda: len(calls) == 2)
    assert [row.key.decode() for row in rows] == calls == ["0.png", "1.png"]
    assert [report.rows for report in stored] == [2]
