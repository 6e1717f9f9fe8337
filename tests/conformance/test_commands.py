"""Commands in any language: what they see, how they may end, what becomes of what they leave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dmlpipe as dml
from dmlpipe.scheduler.specs.effective import effective
from dmlpipe.scheduler.specs.to_python import to_python
from tests.conformance.lab import Lab, join, pfs


def say(lab: Lab, *lines: str, **fields: object) -> dict[str, str]:
    """Run lines of shell over one file `a` that holds `1`; what they left."""
    lab.put("source", {"a": "1"})
    lab.submit(lab.spec("say", pfs("source"), *lines, **fields))  # type: ignore[arg-type]  # top-level fields
    ran = lab.run()
    assert ran.states == {"say": "done"}, ran.job("say").reason
    return lab.files("say")


def test_cmd_is_no_shell(lab: Lab) -> None:
    script = "import sys; open('/pfs/out/x', 'w').write('|'.join(sys.argv[1:]))"
    transform = {"cmd": ["python3", "-c", script, "a $HOME", "*", "; exit 1"], "stdin": []}
    assert say(lab, transform=transform) == {"/x": "a $HOME|*|; exit 1"}


def test_stdin_is_lines(lab: Lab) -> None:
    transform = {"cmd": ["sh", "-c", "cat > /pfs/out/x"]}
    assert say(lab, "one", "two  three", transform=transform) == {"/x": "one\ntwo  three\n"}


def test_stdin_need_not_be_read(lab: Lab) -> None:
    assert say(lab, "x" * 100_000, transform={"cmd": ["true"]}) == {}


def test_env_adds_variables(lab: Lab) -> None:
    assert say(lab, "echo $GREETING > /pfs/out/x", transform={"env": {"GREETING": "good day"}}) == {"/x": "good day\n"}


def test_a_variable_of_the_inputs_name_is_its_path_and_another_its_commit(lab: Lab) -> None:
    found = say(lab, 'cat "$source" > /pfs/out/x; echo ${source_COMMIT} > /pfs/out/commit')
    assert found == {"/x": "1", "/commit": lab.head("source") + "\n"}


@pytest.mark.parametrize(
    "name", ["PACH_JOB_ID", "PACH_DATUM_ID", "PACH_OUTPUT_COMMIT_ID", "PPS_SPEC_COMMIT", "FILESET_ID", "DMLPIPE_RUN"]
)
def test_pachyderms_variables_are_there(lab: Lab, name: str) -> None:
    (text,) = say(lab, f"echo ${name} > /pfs/out/x").values()
    assert len(text) > 4


def test_the_pipeline_knows_its_name(lab: Lab) -> None:
    assert say(lab, "echo $PPS_PIPELINE_NAME $PPS_PROJECT_NAME > /pfs/out/x") == {"/x": "say default\n"}


def test_the_variables_of_a_datum_stand_in_a_file(lab: Lab) -> None:
    (text,) = say(lab, "cp /pfs/.env /pfs/out/x").values()
    assert {line.partition("=")[0] for line in text.splitlines()} >= {"source", "out", "PACH_DATUM_ID"}


def test_a_joined_datum_is_told_its_key(lab: Lab) -> None:
    lab.put("left", {"k1.x": "l"})
    lab.put("right", {"k1.y": "r"})
    node = join(pfs("left", "/(*).x", join_on="$1"), pfs("right", "/(*).y", join_on="$1"))
    lab.submit(lab.spec("both", node, "echo $PACH_DATUM_left_JOIN_ON > /pfs/out/x"))
    lab.run()
    assert lab.files("both") == {"/x": "k1\n"}


def test_params_are_variables_and_a_changed_one_computes_anew(lab: Lab) -> None:
    assert say(lab, "echo $depth > /pfs/out/x", params={"depth": 3}) == {"/x": "3\n"}
    lab.submit(
        lab.spec("say", pfs("source"), "echo $depth > /pfs/out/x", params={"depth": 3}),
        params={"say": {"depth": 4}},
    )
    assert lab.run().counts == {"say": (1, 0)}
    assert lab.files("say") == {"/x": "4\n"}


def test_scripts_stand_in_code_and_in_the_working_directory(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "s.sh").write_text('cp /dev/null "$1"')
    lab.put("source", {"a": "1"})
    lab.submit(
        lab.spec("say", pfs("source"), "sh /code/s.sh /pfs/out/x; sh s.sh /pfs/out/y"), code=tmp_path / "scripts"
    )
    lab.run()
    assert set(lab.files("say")) == {"/x", "/y"}


def test_working_dir_is_where_it_starts(lab: Lab) -> None:
    assert say(lab, "pwd > /pfs/out/x", transform={"working_dir": "/usr"}) == {"/x": "/usr\n"}


# --- how it ends ---


def failing(lab: Lab, *lines: str, **transform: object) -> tuple[str, int, int]:
    """Run lines; the job's state, how many datums failed, how many recovered."""
    lab.put("source", {"a": "1"})
    lab.submit(lab.spec("say", pfs("source"), *lines, transform=transform, datum_tries=1))
    job = lab.run().job("say")
    return job.state, job.counters.failed, job.counters.recovered


def test_a_code_that_is_not_accepted_fails_the_datum(lab: Lab) -> None:
    assert failing(lab, "exit 3") == ("failed", 1, 0)


def test_a_code_that_is_accepted_is_success_and_its_output_counts(lab: Lab) -> None:
    assert failing(lab, "echo x > /pfs/out/x", "exit 3", accept_return_code=[3]) == ("done", 0, 0)
    assert lab.files("say") == {"/x": "x\n"}


def test_err_cmd_recovers_the_datum_and_keeps_no_output(lab: Lab) -> None:
    assert failing(lab, "echo x > /pfs/out/x", "exit 3", err_cmd=["true"]) == ("done", 0, 1)
    assert lab.files("say") == {}


def test_a_recovered_datum_is_tried_again_by_the_next_job(lab: Lab) -> None:
    assert failing(lab, "exit 3", err_cmd=["true"]) == ("done", 0, 1)
    lab.put("source", {"b": "2"})
    assert lab.run().job("say").counters.recovered == 2


def test_an_err_cmd_that_fails_changes_nothing(lab: Lab) -> None:
    assert failing(lab, "exit 3", err_cmd=["false"]) == ("failed", 1, 0)


def test_err_stdin_is_read_by_err_cmd(lab: Lab, tmp_path: Path) -> None:
    failing(lab, "exit 3", err_cmd=["sh"], err_stdin=[f"echo seen > {tmp_path}/seen"])
    assert (tmp_path / "seen").read_text() == "seen\n"


def test_err_cmd_is_not_run_where_nothing_failed(lab: Lab, tmp_path: Path) -> None:
    failing(lab, "true", err_cmd=["touch", f"{tmp_path}/seen"])
    assert not (tmp_path / "seen").exists()


def test_a_datum_is_tried_three_times_if_nothing_is_said(lab: Lab, tmp_path: Path) -> None:
    lab.put("source", {"a": "1"})
    lab.submit(lab.spec("say", pfs("source"), f"echo x >> {tmp_path}/tries", "exit 1"))
    lab.run()
    assert (tmp_path / "tries").read_text() == "x\n" * 3


def test_a_program_that_is_not_there_is_named(lab: Lab) -> None:
    lab.put("source", {"a": "1"})
    lab.submit(lab.spec("say", pfs("source"), transform={"cmd": ["no-such-program"]}))
    job = lab.run().job("say")
    assert "no-such-program" in job.failures[0].failure.message


# --- what it leaves ---


def test_an_empty_file_is_kept_and_an_empty_folder_is_lost(lab: Lab) -> None:
    assert say(lab, "mkdir -p /pfs/out/d/e; touch /pfs/out/x") == {"/x": ""}


def test_names_are_utf_8(lab: Lab) -> None:
    assert say(lab, "echo x > '/pfs/out/Übung [1] (a+b).txt'") == {"/Übung [1] (a+b).txt": "x\n"}


def test_a_link_to_an_input_becomes_its_content(lab: Lab) -> None:
    assert say(lab, 'ln -s "$source" /pfs/out/x') == {"/x": "1"}


def test_a_link_to_a_folder_becomes_its_files(lab: Lab) -> None:
    assert say(lab, "mkdir t; echo x > t/y; ln -s $PWD/t /pfs/out/d") == {"/d/y": "x\n"}


def test_a_dangling_link_fails_the_datum(lab: Lab) -> None:
    assert failing(lab, "ln -s /no/such /pfs/out/x")[0] == "failed"


def test_what_is_neither_file_nor_folder_fails_the_datum(lab: Lab) -> None:
    assert failing(lab, "mkfifo /pfs/out/x")[0] == "failed"


# --- one process for many datums ---

LOOP = (
    "echo $$ >> starts",
    "while pachctl next datum $args; do",
    "  args=; . $DMLPIPE_PFS/.env",
    '  cp "$source" $out/$(basename $source); wc -l < starts > $out/starts-$(basename $source)',
    '  grep -q bad "$source" && args="--error spoilt" || true',
    "done",
)


def test_a_batching_command_asks_for_its_datums(lab: Lab) -> None:
    lab.put("source", {"a": "1", "b": "2", "c": "3"})
    lab.submit(lab.spec("say", pfs("source"), *LOOP, transform={"datum_batching": True}))
    assert lab.run().counts == {"say": (3, 0)}
    assert lab.files("say")["/starts-c"].strip() == "1"


def test_an_error_it_reports_fails_one_datum(lab: Lab) -> None:
    lab.put("source", {"a": "1", "b": "bad", "c": "3"})
    lab.submit(lab.spec("say", pfs("source"), *LOOP, transform={"datum_batching": True}, datum_tries=1, max_failures=1))
    job = lab.run().job("say")
    assert (job.state, job.counters.run, job.counters.failed) == ("done", 2, 1)
    assert job.failures[0].failure.message == "spoilt"


def test_after_batch_datums_another_process_is_started(lab: Lab) -> None:
    lab.put("source", {name: name for name in "abcd"})
    lab.submit(lab.spec("say", pfs("source"), *LOOP, batch=2))
    lab.run()
    assert sorted(text.strip() for path, text in lab.files("say").items() if "starts" in path) == ["1", "1", "2", "2"]


# --- in Python and in the shell ---


def test_functions_and_commands_that_do_the_same_make_equal_trees(lab: Lab) -> None:
    lab.put("source", {"a.txt": "b a\n", "c.txt": "c\n"})
    functions, commands = dml.DAG("functions"), dml.DAG("commands")

    @functions.pipeline(dml.files("source", "/{name}.txt"), name="upper-f")
    def upper(source: bytes, name: str) -> dml.Files:
        return {f"{name}.up": source.upper()}

    @functions.pipeline(dml.files("upper-f", name="words"), name="all-f")
    def all_(words: Path) -> dml.Files:
        return {"all": b"".join(path.read_bytes() for path in sorted(words.iterdir()))}

    commands.command("upper-c", "tr a-z A-Z < $source > $out/$name.up", dml.files("source", "/{name}.txt"))
    commands.command("all-c", "cat $words/* > $out/all", dml.files("upper-c", name="words"))
    lab.store.submit([functions, commands])
    lab.run(dag=[functions])
    assert lab.files("all-c") == {"/all": "B A\nC\n"}
    for name in ("upper", "all"):
        assert lab.tree(f"{name}-f") == lab.tree(f"{name}-c")


def test_a_spec_and_the_python_made_of_it_share_their_results(lab: Lab, tmp_path: Path) -> None:
    assert say(lab, "cp /pfs/source/* /pfs/out/") == {"/a": "1"}
    path = tmp_path / "moved.py"
    path.write_text(to_python([lab.store.pipeline_spec("say")], name="moved"))
    (told,) = lab.store.submit(path)
    assert told.status == "cosmetic"
    assert lab.run().computed == 0


def test_what_a_spec_says_can_be_read_back(lab: Lab) -> None:
    say(lab, "true", params={"depth": 3})
    spec = effective(lab.store.pipeline_spec("say"))
    assert json.loads(json.dumps(spec))["params"] == {"depth": 3}
    (told,) = lab.submit(spec)
    assert told.status == "same"
