"""The verbs on work, over one small store that a real cluster filled."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dmlpipe as dml
from dmlpipe.cli.verbs.run import _look
from dmlpipe.scheduler.leases.inline import InlineExecutor

from .conftest import Cli

DAG = """
from pathlib import Path
import dmlpipe as dml
dag = dml.DAG("words")

@dag.pipeline(dml.files("texts", "/{stem}.txt"))
def counts(texts: Path, stem: str, *, factor: int = 1) -> dml.Files:
    print("counting", stem)
    return {f"{stem}.json": str(len(texts.read_text()) * factor)}

@dag.pipeline(dml.files("counts"))
def total(counts: Path, out: Path) -> None:
    (out / "total.txt").write_text(str(sum(int(each.read_text()) for each in counts.iterdir())))
"""
COPIES = """
import dmlpipe as dml
dag = dml.DAG("copies")

@dag.pipeline(dml.files("texts", "/{stem}"))
def copies(texts: bytes, stem: str) -> dml.Files:
    return {stem: texts}
"""
PROGRAM = Path(sys.executable).with_name("dmlpipe")
TIMEOUT_S = 90


def _environment(cache: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "DMLPIPE_CACHE_DIR": str(cache), "DMLPIPE_FSYNC": "never", "HOME": str(cache)}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store in which both pipelines have run, and what `run` printed."""
    folder = tmp_path_factory.mktemp("filled")
    (folder / "texts").mkdir()
    for stem in ("a", "b", "c"):
        (folder / "texts" / f"{stem}.txt").write_text(stem * 10)
    (folder / "dag.py").write_text(DAG)
    environment = _environment(folder / "cache")
    for words in (["init"], ["put", "texts", "texts", "-m", "week 34"]):
        subprocess.run([PROGRAM, *words], cwd=folder, env=environment, check=True, timeout=TIMEOUT_S)
    done = subprocess.run(
        [PROGRAM, "run", "dag.py", "-j", "1"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    (folder / "run.out").write_text(done.stdout)
    (folder / "run.err").write_text(done.stderr)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def work(filled: Path, here: Path) -> Iterator[Path]:
    """A copy of it to stand in."""
    for name in (".dmlpipe", "texts", "dag.py"):
        source = filled / name
        if source.is_dir():
            shutil.copytree(source, here / name)
        else:
            shutil.copy(source, here / name)
    yield here
    sys.modules.pop("dag", None)


def _run(work: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *words],
        cwd=work,
        env=_environment(work.parent / "cache"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def _masked(text: str) -> str:
    """Ids, times and durations replaced by what they are."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "TIME", text)
    text = re.sub(r"\b\d[\d,.]* (ms|s|min)\b", "SECONDS", text)
    text = re.sub(r"(?<=[@ ])[0-9a-f]{6}\b", "ID", text)
    text = re.sub(r"host [\w.-]+", "host HOST", text)
    return re.sub(r"put by \w+", "put by USER", text)


def test_a_run_tells_what_it_does_and_where_to_look(filled: Path) -> None:
    lines = _masked((filled / "run.err").read_text()).splitlines()
    assert lines[0] == "words  counts new · total new   (texts: 3 files)"
    assert lines[1].startswith("run ID  ")
    assert [line for line in lines if "✔" in line] == [
        "  counts  ✔ 3 run   SECONDS   counts@ID",
        "  total  ✔ 1 run   SECONDS   total@ID",
    ]
    last = (filled / "run.out").read_text()
    assert re.fullmatch(r"done in [\d.]+ m?s · 4 datums run, 0 skipped · look: dmlpipe why counts:/a\.json\n", last)


def test_why_leads_to_the_texts_and_the_code(cli: Cli, work: Path) -> None:
    lines = [re.sub(r" {3,}", "   ", line) for line in _masked(cli("why", "total:/total.txt").out).splitlines()]
    assert lines[0] == "total@ID:/total.txt   30   datum ID  SECONDS   job ID (TIME, host HOST)"
    assert lines[1].startswith("├─ code   total  v1  dag.py:")
    assert lines[2] == "└─ counts   counts@ID:/   job ID (TIME, host HOST)"
    assert lines[-1].startswith("   └─ texts   texts@ID:/   ")
    assert lines[-1].endswith('3 files, put by USER, "week 34"')
    one = cli("why", "counts:/b.json").out
    assert re.search(r"texts +texts@[0-9a-f]{6}:/b.txt +put by \w+, \"week 34\"", one)
    assert re.search(r"code +counts  v1  dag.py:\d+ +factor=1", one)


def test_why_as_json_is_one_line(cli: Cli, work: Path) -> None:
    [record] = cli("why", "counts:/b.json", "--json").records
    assert record["inputs"][0]["path"] == "/b.txt"
    assert record["code"]["parameters"] == {"factor": 1}


def test_a_run_with_nothing_to_do_says_so_and_imports_no_dask(work: Path) -> None:
    code = (
        "import sys; from dmlpipe.cli.main import main; code = main(['run']);"
        "print(sorted(name for name in ('dask', 'distributed', 'zarr', 's3fs', 'numpy') if name in sys.modules));"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=work,
        env=_environment(work.parent / "cache"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["nothing to do: everything is up to date", "[]"]


def test_plan_says_that_nothing_would_run(cli: Cli, work: Path) -> None:
    answer = cli("plan", "--exit-code")
    assert answer.code == 0
    assert answer.lines == ["counts   up to date", "total    up to date", "nothing to do"]


def test_plan_of_an_edited_comment_is_nothing_to_do(cli: Cli, work: Path) -> None:
    (work / "dag.py").write_text(DAG.replace("    return {f", "    # a comment\n    return {f"))
    assert cli("plan", "dag.py", "--exit-code").code == 0


def test_plan_of_a_changed_parameter_says_which_datums_and_why(cli: Cli, work: Path) -> None:
    before = cli("log", "counts").out
    answer = cli("plan", "dag.py", "--set", "counts.factor=3", "--exit-code")
    assert answer.code == 3
    assert re.match(r"counts   3 of 3 +parameter changed: factor: 1 -> 3 \(first: texts:/a.txt\) +≈ ", answer.lines[0])
    assert re.match(r"total    1 of 1 runs +if counts changes", answer.lines[1])
    assert cli("log", "counts").out == before
    assert cli("plan").lines[-1] == "nothing to do"


def test_plan_of_changed_code_says_where(cli: Cli, work: Path) -> None:
    (work / "dag.py").write_text(DAG.replace("len(texts.read_text())", "len(texts.read_text()) + 1"))
    line = DAG.splitlines().index("def counts(texts: Path, stem: str, *, factor: int = 1) -> dml.Files:")
    assert re.search(
        rf"code changed: counts\(\), dag\.py:{line}\b|dag\.py:{line + 1}\b", cli("plan", "dag.py").lines[0]
    )


def test_plan_compares_nothing_but_what_was_named(cli: Cli, work: Path) -> None:
    other = cli("plan", "dag.py:wrods")
    assert (other.code, other.err) == (
        1,
        "error: dag.py: no DAG 'wrods' in this file\n  did you mean dag.py:words?\n",
    )
    assert cli("plan", "dag.py:words").lines[-1] == "nothing to do"
    for words in (("--set", "counts.factor=3"), ("--code", ".")):
        lost = cli("plan", *words)
        assert lost.code == 2
        assert f"{words[0]} needs a FILE to compare" in lost.err


def test_submit_tells_verdicts_and_check_writes_nothing(cli: Cli, work: Path) -> None:
    assert [line.split() for line in cli("submit", "dag.py").lines] == [
        ["counts", "same", "v1"],
        ["total", "same", "v1"],
    ]
    (work / "dag.py").write_text(
        DAG.partition('@dag.pipeline(dml.files("counts"))')[0].replace("* factor", "* factor * 2")
    )
    answer = cli("submit", "dag.py", "--check")
    assert answer.lines[0].startswith("counts  changed  v2  code changed: counts(), dag.py:")
    assert answer.lines[1] == "total   orphan   v1  no longer in the file; --prune removes it"
    assert answer.lines[2] == "nothing was written"
    assert cli("pipeline", "list", "--json").records[0]["version"] == 1


def test_status_shows_where_everything_stands(cli: Cli, work: Path) -> None:
    lines = [re.sub(r" {2,}", "  ", _masked(line)) for line in cli("status").lines]
    assert re.fullmatch(r"store file://\S+  \d+ entries  controller: none", lines[0])
    assert lines[1] == "pipeline  state  head  files  last job  ended"
    assert lines[2] == "counts  v1  idle  ID  3  ID  3 run, 0 skipped  TIME"
    run = cli("job", "list", "--json").records[0]["run"]
    assert {each["run"] for each in cli("status", run[:8], "--json").records} == {run}


def test_revert_holds_and_release_ends_it(cli: Cli, work: Path) -> None:
    assert cli("revert", "counts", "--to", "counts@master", "-m", "looked better").code == 0
    status = cli("status").out
    assert re.search(r"held .*looked better", status)
    assert cli("release", "counts").out == "counts is released; next: dmlpipe run\n"
    again = cli("release", "counts")
    assert (again.code, again.err) == (2, "error: pipeline 'counts' is not held\n")


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (
            "status",
            "type url entries controller run cluster"
            "|type name version state head files job counters detail ended progress",
        ),
        ("plan", "name status change total run skipped removed reasons if_upstream detail notices seconds jobs"),
        ("submit dag.py", "pipeline version status why inputs notices"),
        ("pipeline list", "pipeline version dag inputs head stopped held last_job last_state"),
        ("pipeline inspect counts", "pipeline spec versions"),
        ("job list", "job run pipeline version state commit started ended reason because inputs counters"),
        ("datum list counts", "datum job pipeline key outcome outputs seconds tries log failure"),
        ("datum inspect counts:/a.json", "datum job pipeline key outcome outputs seconds tries log failure"),
        ("datum logs texts:/a.txt", "datum job log"),
        ("why counts:/a.json", "repo commit path size content put job computed_by datum code inputs"),
        ("wait", "job run pipeline version state commit started ended reason because inputs counters"),
        ("pipeline stop counts", "pipeline stopped"),
        ("pipeline reprocess counts", "pipeline reprocess datums"),
        ("release counts", "error code hint exit"),
    ],
)
def test_json_lines_have_stable_keys(words: str, keys: str, cli: Cli, work: Path) -> None:
    answer = cli(*words.split(), "--json")
    records = answer.records or [json.loads(answer.err)]
    assert {tuple(record) for record in records} == {tuple(each.split()) for each in keys.split("|")}


def test_datums_are_found_by_id_input_and_output(cli: Cli, work: Path) -> None:
    rows = cli("datum", "list", "counts", "--json").records
    assert sorted(row["outputs"][0] for row in rows) == ["a.json", "b.json", "c.json"]
    wanted = next(row for row in rows if row["outputs"] == ["b.json"])
    for name in (wanted["datum"][:8], "texts:/b.txt", "counts:/b.json"):
        assert cli("datum", "inspect", name, "--json").records == [wanted]
        assert cli("datum", "logs", name).out == "counting b\n"


def test_a_list_without_datums_says_why(cli: Cli, work: Path) -> None:
    job = cli("job", "list", "counts", "--json").records[0]["job"]
    assert cli("datum", "list", "counts", "--failed").err == f"note: no datum failed in job {job[:6]}\n"
    assert cli("submit", "dag.py", "--set", "counts.factor=3").code == 0
    assert cli("run").code == 0
    assert cli("submit", "dag.py").code == 0
    assert cli("run").code == 0
    answer = cli("datum", "list", "counts")
    assert (answer.out, "computed no datum; what made a result: dmlpipe why" in answer.err) == ("", True)


def test_an_output_that_is_not_there_yet_leads_to_its_jobs(cli: Cli, work: Path) -> None:
    (work / "late.py").write_text(
        'import dmlpipe as dml\n\ndag = dml.DAG("late")\n\n\n@dag.pipeline(dml.files("texts", "/*"))\n'
        "def late(texts: bytes) -> dml.Files:\n    raise ValueError\n"
    )
    assert cli("submit", "late.py").code == 0
    assert cli("why", "late:/a").err.splitlines()[1] == "  its pipeline makes them: dmlpipe run late"
    assert cli("run").code == 1
    assert cli("why", "late:/a").err.splitlines()[1] == "  its pipeline makes them: dmlpipe job list late"


def test_jobs_are_inspected_and_waited_for(cli: Cli, work: Path) -> None:
    job = cli("job", "list", "counts", "--json").records[0]["job"]
    assert json.loads(cli("job", "inspect", job[:8]).out)["record"]["pipeline"] == "counts"
    assert cli("job", "wait", job[:8]).code == 0
    assert cli("wait", "--timeout", "5").code == 0
    stopped = cli("job", "stop", job[:8])
    assert stopped.code == 2
    assert "has ended" in stopped.err


def test_waiting_for_what_nobody_does_ends_with_4(cli: Cli, work: Path) -> None:
    (work / "texts" / "d.txt").write_text("d")
    assert cli("put", "texts", "texts").code == 0
    answer = cli("wait", "--timeout", "0.2")
    assert answer.code == 4
    assert "dmlpipe status" in answer.err


@pytest.mark.parametrize(("datums", "more"), [(99, ()), (100, ("dmlpipe job report copies -o copies.html",))])
def test_the_page_of_a_large_job_is_worth_a_look(tmp_path: Path, datums: int, more: tuple[str, ...]) -> None:
    store = dml.init(f"memory://look-{datums}", cache_dir=tmp_path)
    store.put("texts", *((f"{number:03d}", b"%d" % number) for number in range(datums)))
    (tmp_path / "dag.py").write_text(COPIES)
    store.submit(tmp_path / "dag.py")
    summary = store.run(executor=InlineExecutor(store))
    assert _look(store, summary) == ("dmlpipe why copies:/000", *more)


def test_a_failing_function_shows_cause_and_line_and_exits_1(work: Path) -> None:
    broken = DAG.replace("    return {f", '    if stem == "b":\n        raise ValueError("no b please")\n    return {f')
    (work / "dag.py").write_text(broken)
    done = _run(work, "run", "dag.py", "-j", "1")
    assert done.returncode == 1
    lines = _masked(done.stdout).splitlines()
    assert lines[0] == "counts"
    assert re.fullmatch(r"  1 × ValueError: no b please      first: texts:/b\.txt   datum ID", lines[1])
    assert re.fullmatch(r"      dag\.py:\d+ in counts    raise ValueError\(\"no b please\"\)", lines[2])
    assert lines[3] == "results of 2 datums are kept. next: dmlpipe try counts --datum ID --pdb"
    assert "nothing published: counts stays at" in done.stderr
    assert "total  – did not run" in done.stderr
    assert "Traceback" not in done.stderr
    failed = json.loads(_run(work, "datum", "list", "counts", "--failed", "--json").stdout)
    assert failed["failure"]["kind"] == "ValueError"


def test_a_run_as_json_is_a_stream_that_ends_with_a_summary(work: Path) -> None:
    (work / "texts" / "d.txt").write_text("d")
    assert _run(work, "put", "texts", "texts").returncode == 0
    done = _run(work, "run", "--json", "-j", "1")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    kinds = [record["type"] for record in records]
    assert kinds[-1] == "summary"
    assert {"run-began", "job-planned", "job-ended", "run-ended"} <= set(kinds)
    jobs = {job["pipeline"]: job["counters"] for job in records[-1]["jobs"]}
    assert jobs["counts"] == {"total": 4, "run": 1, "skipped": 3}
    assert records[-1]["ok"] is True


def test_ctrl_c_says_how_many_results_are_kept(work: Path) -> None:
    (work / "gate").mkdir()
    os.mkfifo(work / "gate" / "c")
    slow = DAG.replace(
        "    print(", f'    if stem == "c":\n        open({str(work / "gate" / "c")!r}).read()\n    print('
    )
    (work / "dag.py").write_text(slow)
    process = subprocess.Popen(
        [PROGRAM, "run", "dag.py", "-j", "1", "--json"],
        cwd=work,
        env=_environment(work.parent / "cache"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        record = json.loads(line)
        if record["type"] == "job-advanced" and record["run"] == 2:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, err
    records = [json.loads(line) for line in out.splitlines()]
    assert records[-1] == {"type": "interrupted"}
    assert any("2 of 3 results are kept" in record.get("text", "") for record in records)


def test_try_runs_present_code_and_commits_nothing(cli: Cli, work: Path) -> None:
    (work / "dag.py").write_text(DAG.replace("* factor)", "* factor * 100)"))
    answer = cli("try", "dag.py", "counts", "--datum", "texts:/b.txt", "--set", "factor=2", "--keep", "out")
    assert answer.code == 0
    assert answer.lines[0] == "counting b"
    assert re.fullmatch(r"✔ texts:/b\.txt   [\d.]+ m?s   /b\.json \(4 B\)", answer.lines[1])
    assert answer.lines[2] == "1 of 3 datums, 0 failed; output in out; nothing was committed"
    assert (work / "out" / "b.json").read_text() == "2000"
    assert cli("cat", "counts:/b.json").out == "10"


def test_try_with_pdb_stops_where_it_fails(
    cli: Cli, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "dag.py").write_text(
        DAG.replace("    return {f", "    hidden = stem * 3\n    assert not hidden\n    return {f")
    )
    monkeypatch.setattr("sys.stdin", io.StringIO("p hidden\nq\n"))
    answer = cli("try", "dag.py", "counts", "--datum", "counts:/b.json", "--pdb")
    assert answer.code == 1
    assert "'bbb'" in answer.out
    assert "AssertionError" in answer.out
    assert re.search(r"dag\.py:\d+ in counts    assert not hidden", answer.out)


def test_up_serves_a_put_and_down_ends_it(work: Path) -> None:
    assert _run(work, "up", "-j", "1").returncode == 0
    try:
        status = _run(work, "status").stdout
        assert re.search(r"controller: up\b", status)
        assert re.search(r"cluster: 1 slot at tcp://127\.0\.0\.1:\d+", status)
        assert _run(work, "up").returncode == 4
        (work / "texts" / "d.txt").write_text("d")
        assert _run(work, "put", "texts", "texts").returncode == 0
        assert _run(work, "wait", "--timeout", "60").returncode == 0
        assert _run(work, "cat", "total:/total.txt").stdout == "31"
        assert _run(work, "run").stdout == "nothing to do: everything is up to date\n"
    finally:
        down = _run(work, "down")
    assert down.stdout == "down\n"
    assert _run(work, "down").stdout == "nothing was up\n"
    assert "cluster" not in _run(work, "status").stdout
