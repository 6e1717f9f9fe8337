"""A new user's first pipeline: written by `init --dag`, broken, mended, interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dmlpipe.storage.objects.pack import read_rows
from dmlpipe.storage.objects.segment import decode_rows
from tests.integration.terminal import Terminal, wait_for

pytestmark = pytest.mark.timeout(120)

TEXTS = {"a": "to be or not", "b": "To be", "c": "that is the question"}
COUNTS = {
    "a": {"be": 1, "not": 1, "or": 1, "to": 1},
    "b": {"be": 1, "to": 1},
    "c": {"is": 1, "question": 1, "that": 1, "the": 1},
}


@pytest.fixture
def first(terminal: Terminal) -> Terminal:
    """What the first commands leave."""
    terminal.type("init", "--dag")
    for stem, text in TEXTS.items():
        terminal.write(f"texts/{stem}.txt", text)
    terminal.type("put", "texts", "texts")
    return terminal


def edit(first: Terminal, old: str, new: str) -> None:
    """Edit dag.py at one place."""
    text = (first.folder / "dag.py").read_text()
    assert text.count(old) == 1
    first.write("dag.py", text.replace(old, new))


def line_of(first: Terminal, part: str) -> int:
    lines = (first.folder / "dag.py").read_text().splitlines()
    (number,) = (number for number, line in enumerate(lines, 1) if part in line)
    return number


def counts(first: Terminal) -> dict[str, object]:
    view = first.store()["counts"]
    return {file.name.removesuffix(".json"): json.loads(view.read_bytes(file.path)) for file in view.ls("/")}


def test_its_tests_pass_without_a_store_and_it_runs_as_it_stands(terminal: Terminal) -> None:
    terminal.type("init", "--dag")
    for path in (terminal.folder / ".dmlpipe").rglob("*"):
        assert path.is_dir() or "ledger" not in path.parts, "nothing was recorded"
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"],
        cwd=terminal.folder,
        env=terminal.environment | {"DMLPIPE_STORE": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "2 passed" in tested.stdout
    assert list(terminal.store().refresh().repos()) == []

    for stem, text in TEXTS.items():
        terminal.write(f"texts/{stem}.txt", text)
    terminal.type("put", "texts", "texts")
    told = terminal.type("run", "dag.py", "-j", "1")
    assert re.search(r"^done in .* · 4 datums run, 0 skipped", told.stdout)
    assert counts(terminal) == COUNTS
    assert json.loads(terminal.type("cat", "total:/total.json").stdout) == {"words": 10}
    assert re.search(r"dag\.py:\d+", terminal.type("why", "total:/total.json").stdout)


def test_a_broken_function_shows_its_cause_and_line_and_a_mended_one_runs_all(first: Terminal) -> None:
    first.type("run", "dag.py", "-j", "1")
    edit(first, "    words = (text.lower()", "    assert 'not' not in text, text\n    words = (text.lower()")
    failed = first.type("run", "dag.py", "-j", "1", code=1)
    lines = failed.stdout.splitlines()
    assert lines[0] == "counts"
    assert re.fullmatch(r"  1 × AssertionError: to be or not +first: texts:/a\.txt +datum [0-9a-f]{6}", lines[1])
    line = line_of(first, "assert 'not'")
    assert lines[2].split(maxsplit=3) == [f"dag.py:{line}", "in", "counts", "assert 'not' not in text, text"]
    datum = re.search(r"next: dmlpipe try counts --datum ([0-9a-f]{6}) --pdb", lines[3])
    assert datum is not None
    assert len(lines) == 4
    # What was published stays.
    assert "nothing published: counts stays at" in failed.stderr
    assert counts(first) == COUNTS
    # What it says to type works, and shows the same.
    tried = first.type("try", "dag.py", "counts", "--datum", datum[1], code=1)
    assert f"dag.py:{line} in counts" in tried.stdout

    # Mended code is other code: plan says that all run, and why.
    edit(first, "    assert 'not' not in text, text\n", "    words = []\n")
    planned = first.type("plan", "dag.py", "--exit-code", code=3).stdout
    assert re.search(r"counts +3 of 3 +code changed: counts\(\), dag\.py:\d+", planned)
    first.type("run", "dag.py", "-j", "1")
    assert first.jobs(last=2) == [("counts", "done", 3, 0, 0), ("total", "done", 0, 1, 0)]
    # Code as it was before: everything is known.
    edit(first, "    words = []\n", "")
    assert "nothing to do" not in first.type("plan", "dag.py").stdout
    first.type("run", "dag.py", "-j", "1")
    assert sorted(first.jobs(last=2)) == [("counts", "done", 0, 3, 0), ("total", "done", 0, 1, 0)]


def test_after_a_bad_file_is_replaced_only_it_runs(first: Terminal) -> None:
    (first.folder / "texts" / "b.txt").write_bytes(b"\xff\xfe")
    first.type("put", "texts", "texts")
    failed = first.type("run", "dag.py", "-j", "2", code=1).stdout
    assert re.search(r"1 × UnicodeDecodeError: .*first: texts:/b\.txt", failed)
    assert re.search(r"dag\.py:\d+ in counts    text = texts\.read_text\(\)", failed)
    assert "results of 2 datums are kept" in failed
    first.write("texts/b.txt", TEXTS["b"])
    first.type("put", "texts", "texts")
    planned = first.type("plan", "--exit-code", code=3).stdout
    assert re.search(r"counts +1 of 3 ", planned)
    first.type("run", "-j", "1")
    assert first.jobs(last=2) == [("counts", "done", 1, 2, 0), ("total", "done", 1, 0, 0)]
    assert counts(first) == COUNTS


def test_limits_are_not_code_and_only_what_failed_runs_again(first: Terminal) -> None:
    gate = first.folder / "gate"
    code = f"    while 'not' in text and not Path({str(gate)!r}).exists():\n        pass\n"
    edit(first, "    words = (text.lower()", code + "    words = (text.lower()")
    edit(first, 'dml.files("texts", "/{stem}.txt")', 'dml.files("texts", "/{stem}.txt"), timeout=1, tries=1')
    failed = first.type("run", "dag.py", "-j", "2", code=1).stdout
    assert re.search(r"1 × timeout: no result after 1 s .*first: texts:/a\.txt", failed)

    edit(first, "tries=1", "tries=1, max_failures=1")
    planned = first.type("plan", "dag.py", "--exit-code", code=3).stdout
    assert re.search(r"counts +1 of 3 +failed before: timeout: no result after 1 s", planned)
    assert re.search(r"total +may run +.*\(counts\)", planned)
    first.type("run", "dag.py", "-j", "2")
    assert first.jobs(last=2) == [("counts", "done", 0, 2, 1), ("total", "done", 1, 0, 0)]
    assert set(counts(first)) == {"b", "c"}

    # The next job tries it again along with what is new.
    gate.touch()
    edit(first, "timeout=1,", "timeout=30,")
    first.write("texts/d.txt", "more")
    first.type("put", "texts", "texts")
    first.type("run", "dag.py", "-j", "1")
    assert first.jobs(last=2) == [("counts", "done", 2, 2, 0), ("total", "done", 1, 0, 0)]
    assert counts(first) == COUNTS | {"d": {"more": 1}}


def test_a_secret_in_an_error_is_not_stored(first: Terminal) -> None:
    edit(first, "    words = (text.lower()", "    assert not text, os.environ['API_TOKEN']\n    words = (text.lower()")
    edit(first, "import json\n", "import json\nimport os\n")
    edit(first, 'dml.files("texts", "/{stem}.txt")', 'dml.files("texts", "/{stem}.txt"), secrets=["API_TOKEN"]')
    os.environ["API_TOKEN"] = "hunter2-hunter2"
    try:
        failed = first.type("run", "dag.py", "-j", "1", code=1).stdout
    finally:
        del os.environ["API_TOKEN"]
    assert "3 × AssertionError: ***" in failed
    listed = first.type("datum", "list", "counts", "--failed", "--json").stdout
    assert "***" in listed
    assert "hunter2" not in listed


def test_ctrl_c_says_how_many_results_are_kept_and_the_next_run_goes_on(first: Terminal) -> None:
    first.write("texts/z.txt", "wait for it")
    first.type("put", "texts", "texts")
    calls, gate = first.folder / "calls", first.folder / "gate"
    code = f"""\
    with open({str(calls)!r}, "a") as log:
        log.write(stem)
    while stem == "z" and not Path({str(gate)!r}).exists():
        pass
"""
    edit(first, "    words = (text.lower()", code + "    words = (text.lower()")
    running = first.begin("run", "dag.py", "-j", "2")
    wait_for(lambda: stored(first) >= {"a.txt", "b.txt", "c.txt"} and running.poll() is None)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "counts: 3 of 4 results are kept; the next run goes on there" in err
    assert "Traceback" not in out + err
    wait_for(lambda: not first.processes(), 15.0)

    gate.touch()
    told = first.type("run", "-j", "1")
    assert "counts  4 datums, 3 kept from before" in told.stderr
    assert sorted(calls.read_text()) == ["a", "b", "c", "z", "z"]
    assert set(counts(first)) == {"a", "b", "c", "z"}


def stored(first: Terminal) -> set[str]:
    """Datums of counts whose rows are in stored segments."""
    store = first.store()
    found: set[str] = set()
    for job, _ in store.refresh().jobs("counts"):
        for key, _ in store.backend.list(f"results/{job}/"):
            if key.endswith(".seg"):
                found |= {row.key.decode() for row in decode_rows(read_rows(store.backend, key)[0])}
    return found


def test_nothing_of_it_stands_outside_the_folder(first: Terminal, tmp_path: Path) -> None:
    first.type("run", "dag.py", "-j", "1")
    assert {path.name for path in tmp_path.iterdir()} == {"work", "cache"}
    assert {path.name for path in first.folder.iterdir()} <= {".dmlpipe", "dag.py", "test_dag.py", "texts"}
