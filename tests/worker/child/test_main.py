"""Commands in their namespace, with real child processes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from dmlpipe.storage.objects.segment import Outcome, Row
from dmlpipe.worker.job import Item, JobInput
from tests.worker.bench import Bench, code_tree, command, constant, datum, file_datums, file_item, put, spec, varying


def run_line(bench: Bench, line: str, **options: object) -> tuple[Row, dict[str, bytes], str]:
    """Run a shell line over one file; return its row, its outputs and its log."""
    tree = put(bench.store, "in", {"dir/x.txt": b"content"})
    transform_options = {k: options.pop(k) for k in ("stdin", "env", "accept_return_code", "err_argv") if k in options}
    job = spec(command(line, **transform_options), varying("in", tree), **options)
    (row,) = bench.run(job, file_datums(tree)).values()
    return row, bench.content(job.job), bench.log(row, job.job)


def test_a_shell_line_sees_its_inputs_captures_values_parameters_and_out(bench: Bench) -> None:
    reads, genome = put(bench.store, "reads", {"a_R1.fq": b"ACGT"}), put(bench.store, "genome", {"sub/g.fa": b">g\n"})
    job = spec(
        command('cat $ref/g.fa $r1 > $out/$sample.bam; echo "$r1 $ref $out $cpus $k $depth" > $out/seen'),
        varying("r1", reads, "reads"),
        JobInput(name="k", kind="values", constant=False),
        constant("ref", genome, "sub"),
        cpus=2.0,
        parameters={"depth": 30},
    )
    bench.run(job, [datum(file_item(reads, "a_R1.fq", sample="a"), Item('"v w"', "v"))])
    assert bench.content(job.job) == {
        "a.bam": b">g\nACGT",
        "seen": b"/pfs/r1/a_R1.fq /pfs/ref/sub /pfs/out 2 v w 30\n",
    }


def test_pachyderms_variables_and_folders(bench: Bench) -> None:
    line = "env | sort > /pfs/out/env; cp /pfs/.env /pfs/out/dotenv; find /pfs /code | sort > /pfs/out/tree"
    tree = code_tree(bench.store, {"run.sh": (b"#!/bin/sh\necho ran $0 > /pfs/out/code\n", 0o755)})
    data = put(bench.store, "in", {"dir/x.txt": b"content"})
    job = spec(command(line + "; /code/run.sh", code=tree, env={"EXTRA": "e"}), varying("in", data))
    (row,) = bench.run(job, file_datums(data)).values()
    assert row.failure is None
    content = bench.content(job.job)
    env = dict(text.split("=", 1) for text in content["env"].decode().splitlines() if "=" in text)
    assert env["in"] == "/pfs/in/dir/x.txt"
    assert env["in_COMMIT"] == "c" * 64
    assert env["EXTRA"] == "e"
    assert env["PACH_JOB_ID"] == job.job
    assert env["PACH_DATUM_ID"] == row.fingerprint.hex() == env["DMLPIPE_DATUM"]
    assert env["PPS_PIPELINE_NAME"] == "p"
    assert env["PACH_IN_WORKER"] == "true"
    assert b"in=/pfs/in/dir/x.txt" in content["dotenv"]
    assert content["code"] == b"ran /code/run.sh\n"
    seen = set(content["tree"].decode().split())
    assert {"/pfs/in/dir/x.txt", "/pfs/out", "/code/run.sh"} <= seen


def test_inputs_are_mounted_read_only_and_the_host_shows_no_pfs(bench: Bench) -> None:
    row, content, log = run_line(bench, "set +e; echo x > $in; echo x > /pfs/new; touch /code/y; echo done > $out/ok")
    assert row.failure is None
    assert content == {"ok": b"done\n"}
    assert log.count("Read-only file system") >= 2
    assert not Path("/pfs").exists()


@pytest.mark.parametrize(
    ("line", "options", "outcome", "message"),
    [
        ("exit 3; true", {}, Outcome.FAILED, "ended with exit code 3"),
        ("exit 3; true", {"accept_return_code": (3,)}, Outcome.OK, ""),
        ("echo x > $out/a; false | true", {}, Outcome.FAILED, "exit code 1"),
        ("kill -9 $$; true", {}, Outcome.FAILED, "SIGKILL"),
        ("exit 3; true", {"err_argv": ("sh", "-c", "exit 0")}, Outcome.RECOVERED, "exit code 3"),
        ("exit 3; true", {"err_argv": ("sh", "-c", "exit 1")}, Outcome.FAILED, "exit code 3"),
        ("ln -s /no/such $out/x", {}, Outcome.FAILED, "which does not exist"),
    ],
)
def test_how_commands_end(bench: Bench, line: str, options: dict[str, object], outcome: Outcome, message: str) -> None:
    row, content, _ = run_line(bench, line, **options)
    assert row.outcome is outcome
    assert message in (row.failure.message if row.failure else "")
    assert content == {}


def test_standard_input_is_lines_and_need_not_be_read(bench: Bench) -> None:
    tree = put(bench.store, "in", {"x": b""})
    lines = ("echo one > /pfs/out/a", "echo two >> /pfs/out/a")
    job = spec(command("bash", stdin=lines), varying("in", tree))
    bench.run(job, file_datums(tree))
    assert bench.content(job.job) == {"a": b"one\ntwo\n"}
    unread = spec(command("true", stdin=("x" * 200_000,)), varying("in", tree))
    (row,) = bench.run(unread, file_datums(tree)).values()
    assert row.outcome is Outcome.OK


def test_words_of_an_argv_may_be_variables(bench: Bench) -> None:
    tree = put(bench.store, "in", {"x": b"content"})
    job = spec(command("cp", "$in", "${out}/copy"), varying("in", tree))
    bench.run(job, file_datums(tree))
    assert bench.content(job.job) == {"copy": b"content"}


def test_a_program_inherits_no_descriptors_and_no_ignored_signals(bench: Bench) -> None:
    line = (
        "ls /proc/self/fd > $out/fds; grep SigIgn /proc/self/status > $out/ignored; readlink /proc/self/fd/0 > $out/in"
    )
    row, content, _ = run_line(bench, line)
    assert row.outcome is Outcome.OK
    # ls has the folder open itself.
    assert content["fds"].split() == [b"0", b"1", b"2", b"3"]
    ignored = int(content["ignored"].split()[1], 16)
    assert [each for each in (signal.SIGPIPE, signal.SIGXFSZ) if ignored >> (each - 1) & 1] == []
    assert content["in"] == b"/dev/null\n"


def test_a_program_that_is_not_there_is_named(bench: Bench) -> None:
    tree = put(bench.store, "in", {"x": b""})
    job = spec(command("no-such-program-at-all"), varying("in", tree))
    (row,) = bench.run(job, file_datums(tree)).values()
    assert row.failure is not None
    assert row.failure.message.startswith("cannot run 'no-such-program-at-all': there is no such program")


def test_nothing_that_a_command_leaves_running_survives_its_datum(bench: Bench) -> None:
    tree = put(bench.store, "in", {"a": b"", "b": b""})
    line = "setsid sleep 1000 & echo $! > $out/$(basename $in)"
    job = spec(command(line), varying("in", tree))
    bench.run(job, file_datums(tree))
    for text in bench.content(job.job).values():
        with pytest.raises(ProcessLookupError):
            os.kill(int(text), 0)


def test_a_command_that_hangs_is_ended_and_the_next_datum_runs(bench: Bench) -> None:
    tree = put(bench.store, "in", {"a": b"", "b": b""})
    line = "if [ $in = /pfs/in/a ]; then sleep 1000; fi; echo ok > $out/b"
    job = spec(command(line), varying("in", tree), timeout_s=0.5)
    rows = bench.run(job, file_datums(tree))
    assert rows["a"].failure is not None
    assert rows["a"].failure.kind == "timeout"
    assert bench.content(job.job) == {"b": b"ok\n"}


def test_tries_count(bench: Bench, tmp_path: Path) -> None:
    line = f"echo x >> {tmp_path}/tries; test $(wc -l < {tmp_path}/tries) = 3 && echo $DMLPIPE_TRY > $out/t"
    row, content, _ = run_line(bench, line, tries=3)
    assert row.tries == 3
    assert content == {"t": b"3\n"}


def test_without_a_namespace_words_are_rewritten_and_people_are_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dmlpipe.worker.slots.slot_child.tempfile.mkdtemp", lambda **_: "/no/such/root")
    tree, model = put(bench.store, "in", {"d/x": b"content"}), put(bench.store, "model", {"m": b"M"})
    code = code_tree(bench.store, {"c.txt": (b"code", 0o644)})
    line = "cat /pfs/in/d/x /pfs/model/m $model/m /code/c.txt > /pfs/out/all; cat $DMLPIPE_PFS/model/m > $out/m"
    job = spec(command(line, code=code), varying("in", tree), constant("model", model))
    rows = bench.run(job, file_datums(tree))
    assert [row.failure for row in rows.values()] == [None]
    assert bench.content(job.job) == {"all": b"contentMMcode", "m": b"M"}
    assert "no private /pfs here" in caplog.text


def test_programs_find_the_log_where_it_begins(bench: Bench) -> None:
    items = put(bench.store, "items", {"a": b"a", "b": b"b"})
    place = f"{sys.executable} -c 'import os; print(os.lseek(1, 0, os.SEEK_CUR))'"
    job = spec(command(f"{place}; cat $items"), varying("items", items, "items"))
    rows = bench.run(job, [datum(file_item(items, name)) for name in ("a", "b")])
    assert [bench.log(rows[name], job.job) for name in ("a", "b")] == ["0\na", "0\nb"]
