"""What ends a job or a datum early ends every process of it: timeouts, `job stop`."""

from __future__ import annotations

import json

from tests.integration.terminal import Terminal, wait_for

HANG = [
    "if grep -q hang /pfs/in/*; then",
    '  (trap "" TERM; sleep 300) &',
    "  setsid sleep 300 &",
    "  sleep 300",
    "fi",
    "cp /pfs/in/* /pfs/out/",
]


def submit(terminal: Terminal, **fields: object) -> None:
    spec = {
        "pipeline": {"name": "copies"},
        "transform": {"cmd": ["sh", "-e"], "stdin": HANG},
        "input": {"pfs": {"repo": "images", "name": "in", "glob": "/*"}},
        "datum_tries": 1,
    }
    terminal.write("copies.json", json.dumps(spec | fields))
    terminal.type("submit", "copies.json")


def put(terminal: Terminal, **contents: str) -> None:
    for name, text in contents.items():
        terminal.write(f"images/{name}", text)
    terminal.type("put", "images", "images")


def test_a_job_whose_time_is_over_keeps_what_is_finished_and_leaves_no_process(terminal: Terminal) -> None:
    terminal.type("init")
    put(terminal, a="1", b="hang", c="3")
    submit(terminal, job_timeout="3s")
    done = terminal.type("run", "-j", "2", code=1)
    assert "job_timeout of 3 s is over" in done.stdout + done.stderr
    ((_, state, run, _, failed),) = terminal.jobs(last=1)
    assert (state, failed) == ("stopped", 0)
    wait_for(lambda: not terminal.processes(), 10.0)

    put(terminal, b="2")
    terminal.type("run", "-j", "1")
    # Under load it can be over before any datum has ended; what has is not computed again.
    assert terminal.jobs(last=1) == [("copies", "done", 3 - run, run, 0)]


def test_a_datum_whose_time_is_over_fails_alone_and_leaves_no_process(terminal: Terminal) -> None:
    terminal.type("init")
    put(terminal, a="1", b="hang", c="3")
    submit(terminal, datum_timeout="1s")
    done = terminal.type("run", "-j", "2", code=1)
    assert "no result after 1 s (timeout)" in done.stdout + done.stderr
    assert terminal.jobs(last=1) == [("copies", "failed", 2, 0, 1)]
    wait_for(lambda: not terminal.processes(), 10.0)


def test_a_job_that_is_stopped_says_why_and_the_next_run_goes_on(terminal: Terminal) -> None:
    terminal.type("init")
    put(terminal, a="1", b="hang", c="3")
    submit(terminal)
    running = terminal.begin("run", "-j", "2")
    try:
        # Segments are stored as they are made: two of the three datums end at once.
        wait_for(lambda: len(list(terminal.folder.glob(".dmlpipe/results/*/*/*.seg"))) >= 1)
        (job,) = [name for name, _ in terminal.store().refresh().jobs()]
        terminal.type("job", "stop", job[:8], "-m", "enough")
        out, err = running.communicate(timeout=30)
    finally:
        running.kill()
        running.wait(10)
    assert running.returncode == 1
    assert "enough" in out + err
    assert terminal.jobs(last=1) == [("copies", "stopped", 2, 0, 0)]
    wait_for(lambda: not terminal.processes(), 10.0)
    put(terminal, b="2")
    terminal.type("run", "-j", "1")
    assert terminal.jobs(last=1) == [("copies", "done", 1, 2, 0)]
