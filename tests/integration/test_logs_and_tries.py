"""What datums printed, found again; a shell where a datum would run."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.integration.terminal import PROGRAM, Terminal, wait_for

LINES = [
    "echo saw $(cat /pfs/in/*)",
    'while test "$(cat /pfs/in/*)" = wait && ! test -e $GATE; do sleep 0.1; done',
    "cp /pfs/in/* /pfs/out/",
]
SPEC = {
    "pipeline": {"name": "copies"},
    "transform": {
        "cmd": ["sh", "-e"],
        "stdin": LINES,
    },
    "input": {"pfs": {"repo": "images", "name": "in", "glob": "/*"}},
}


@pytest.fixture
def copies(terminal: Terminal) -> Terminal:
    """A store with two images and the pipeline, not run."""
    spec = json.loads(json.dumps(SPEC))
    spec["transform"]["env"] = {"GATE": str(terminal.folder / "gate")}
    terminal.write("copies.json", json.dumps(spec))
    terminal.write("images/a", "one")
    terminal.write("images/b", "wait")
    terminal.type("init")
    terminal.type("put", "images", "images")
    terminal.type("submit", "copies.json")
    return terminal


def test_logs_are_followed_while_a_job_runs_and_found_again_from_an_output(copies: Terminal) -> None:
    running = copies.begin("run", "-j", "1")
    try:
        wait_for(lambda: list(copies.store().refresh().jobs()))
        following = copies.begin("job", "logs", "copies", "-f")
        try:
            assert following.stdout is not None
            # The first datum's log comes while the second one waits for this very test.
            assert "ok  images:/a" in following.stdout.readline()
            assert following.stdout.readline() == "saw one\n"
            copies.write("gate", "")
            rest, _ = following.communicate(timeout=60)
            assert "saw wait" in rest
            assert following.returncode == 0
        finally:
            following.kill()
            following.wait(10)
        running.communicate(timeout=60)
    finally:
        running.kill()
        running.wait(10)
    assert running.returncode == 0
    # Later, by way of an output that newer jobs only carried over.
    copies.write("images/c", "three")
    copies.type("put", "images", "images")
    copies.type("run", "-j", "1")
    assert copies.type("datum", "logs", "copies:/a").stdout == "saw one\n"
    assert copies.type("datum", "logs", "images:/c").stdout == "saw three\n"
    assert copies.type("job", "logs", "copies").stdout.splitlines()[1:] == ["saw three"]
    assert "printed anything" in copies.type("job", "logs", "copies", "--failed").stderr


def test_a_shell_stands_where_the_datum_would_run(copies: Terminal) -> None:
    words = f"{PROGRAM} try copies --datum images:/a --shell --keep kept"
    done = subprocess.run(
        ["script", "-qec", words, "/dev/null"],
        cwd=copies.folder,
        env=copies.environment | {"SHELL": "/bin/sh", "PS1": "", "TERM": "dumb"},
        input='cat in/a; echo " by $PPS_PIPELINE_NAME"; cp "$in" out/made\nexit 3\n',
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "one by copies" in done.stdout, done.stdout + done.stderr
    assert "the command: sh -e" in done.stdout
    assert done.returncode == 0
    assert (copies.folder / "kept" / "made").read_text() == "one"
    assert copies.store().refresh().head("copies") is None
    refused = copies.type("try", "copies", "--shell", code=2)
    assert "--shell needs a terminal" in refused.stderr
