"""A run whose pipelines ask for more than a core: refused in words, or given what they asked for."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from dmlpipe.scheduler.errors import ClusterError
from dmlpipe.scheduler.store import Store
from tests.integration.terminal import Terminal, wait_for

DAG = """
import os
import time
import dmlpipe as dml

dag = dml.DAG("needs")


@dag.pipeline(dml.files("numbers", "/*"), gpus=1, resources={"licence": 1}, priority=3)
def seen(numbers: bytes) -> dml.Files:
    time.sleep(0.02)
    return {numbers.decode(): os.environ["CUDA_VISIBLE_DEVICES"]}


@dag.pipeline(dml.files("numbers", "/*"), memory="150MiB")
def hungry(numbers: bytes) -> dml.Files:
    if numbers == b"3":
        held = bytearray(300 << 20)
        held[::4096] = b"x" * len(held[::4096])
        time.sleep(60)
    return {numbers.decode(): os.environ["CUDA_VISIBLE_DEVICES"]}
"""


def test_what_is_not_there_is_named_and_what_is_there_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLPIPE_CACHE_DIR", str(tmp_path / "cache"))
    store = Store.init(tmp_path / "store")
    with store.commit("numbers") as session:
        for number in range(8):
            session.write(str(number), str(number))
    (tmp_path / "dag.py").write_text(DAG)
    store.submit(tmp_path / "dag.py")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(
        ClusterError, match=r"seen needs gpu: 1 \(the most that a worker has is 0\), licence: 1"
    ) as info:
        store.run(slots=2)
    assert info.value.hint

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    monkeypatch.setenv("DMLPIPE_RESOURCES", "licence=2")
    summary = store.run(slots=2, check=False)
    failures = [group.failure for job in summary.jobs for group in job.failures]
    assert [failure.kind for failure in failures] == ["memory"]
    assert "more than the 150 MiB of memory=" in failures[0].message
    store.refresh()
    found = {info.path: store["seen"].read_bytes(info.path) for info in store["seen"].ls("/")}
    assert set(found) == {f"/{number}" for number in range(8)}
    assert set(found.values()) == {b"GPU-a", b"GPU-b"}


WIDE = """
import os
import time
from pathlib import Path
import dmlpipe as dml

dag = dml.DAG("wide")


def timed(name: str, folder: Path, at_once: int) -> dml.Files:
    # Nobody ends before as many have begun as may run beside each other.
    began = time.monotonic()
    (folder / name).touch()
    while len(list(folder.iterdir())) < at_once:
        time.sleep(0.001)
    time.sleep(0.05)
    return {name: f"{began} {time.monotonic()} {os.environ['OMP_NUM_THREADS']}"}


@dag.pipeline(dml.files("numbers", "/{name}"), cpus=2)
def pairs(numbers: bytes, name: str, *, folder: str = "") -> dml.Files:
    return timed(name, Path(folder), 2)


@dag.pipeline(dml.files("pairs", "/{name}"), cpus=9)
def whole(pairs: bytes, name: str, *, folder: str = "") -> dml.Files:
    return timed(name, Path(folder), 1)
"""


def test_a_datum_of_several_cpus_has_as_many_slots_to_itself_or_the_whole_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMLPIPE_CACHE_DIR", str(tmp_path / "cache"))
    store = Store.init(tmp_path / "store")
    with store.commit("numbers") as session:
        for number in range(8):
            session.write(str(number), str(number))
    folders = {"pairs": str(tmp_path / "pairs"), "whole": str(tmp_path / "whole")}
    for folder in folders.values():
        Path(folder).mkdir()
    (tmp_path / "dag.py").write_text(WIDE)
    store.submit(tmp_path / "dag.py", params={name: {"folder": folder} for name, folder in folders.items()})
    store.run(slots=4)
    store.refresh()
    for pipeline, at_once, threads in (("pairs", 2, "2"), ("whole", 1, "9")):
        rows = [store[pipeline].read_bytes(info.path).decode().split() for info in store[pipeline].ls("/")]
        assert len(rows) == 8
        assert {said for _, _, said in rows} == {threads}
        moments = sorted([(float(began), 1) for began, _, _ in rows] + [(float(ended), -1) for _, ended, _ in rows])
        assert max(itertools.accumulate(step for _, step in moments)) == at_once, pipeline


HUGE = """
import dmlpipe as dml

dag = dml.DAG("huge")


@dag.pipeline(dml.files("numbers", "/*"), memory="4096GiB")
def huge(numbers: bytes) -> dml.Files:
    return {numbers.decode(): b""}
"""

LACKS = "memory: 4,096 GiB (the most that a worker has is "


def test_memory_that_no_worker_has_is_refused_by_name_or_waited_for_in_words(terminal: Terminal) -> None:
    terminal.type("init")
    terminal.write("numbers/1", "1")
    terminal.type("put", "numbers", "numbers")
    terminal.write("dag.py", HUGE)
    # A cluster of this run only will not grow: it says so and ends.
    refused = terminal.type("run", "dag.py", "-j", "2", code=1)
    assert f"error: huge needs {LACKS}" in refused.stderr
    assert "ask for less" in refused.stderr
    # One that stands may be joined by a larger worker: whoever looks is told what it waits for.
    terminal.type("up", "-j", "1")
    try:

        def detail() -> str:
            lines = [json.loads(line) for line in terminal.type("status", "--json").stdout.splitlines()]
            (pipeline,) = (line for line in lines if line["type"] == "pipeline")
            return str((pipeline["progress"] or {}).get("lacks", ""))

        wait_for(lambda: detail().startswith(LACKS))
        assert f"waits for a worker that has {LACKS}" in terminal.type("status").stdout
    finally:
        terminal.type("down")
