"""`dmlpipe bench`, small, on a Dask cluster that dmlpipe did not start: counts are asserted, seconds are not."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dmlpipe.benchmarks.comparing import compare, differences
from dmlpipe.benchmarks.points import Point, Result, Row, all_points, levels, read_result, resume, save
from dmlpipe.cli.main import main
from dmlpipe.storage.errors import InvalidInputError
from tests.benchmarks.slurm import slurm, why_not


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from distributed import LocalCluster

    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=":0"
    ) as made:
        yield made


class Bench:
    """Runs `dmlpipe bench` in this process, in a folder of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def __call__(self, *words: str, code: int | None = 0) -> tuple[str, str]:
        found = main(["bench", *words])
        out, err = self._capsys.readouterr()
        assert code is None or found == code, err
        assert code is not None or found in (1, 2)
        return out, err


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("DMLPIPE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("DMLPIPE_STORE", raising=False)
    return Bench(tmp_path, capsys)


def test_points_are_measured_once_on_so_many_workers_of_a_cluster(cluster: Any, bench: Bench, tmp_path: Path) -> None:
    words = ["overhead", "--cluster", cluster.scheduler_address, "--datums", "30", "--each", "20"]
    words += ["--store", str(tmp_path / "stores")]
    bench(*words, "--workers", "1", "--scaling", "weak")
    _, told = bench(*words, "--workers", "1,2,3", "--scaling", "weak", "--wait", "2")
    # What was measured is not measured again; what cannot be measured is said.
    assert "holds 1 of 3 points already" in told
    assert "has 2 workers, 3 are wanted" in told
    result = read_result(tmp_path / "bench-overhead.json")
    assert sorted((row.workers, row.slots, row.items) for row in result.rows) == [(1, 1, 20), (2, 2, 40)]
    assert {host["cores"] for host in result.hosts} == {len(os.sched_getaffinity(0))}
    assert (tmp_path / "bench-overhead.svg").read_text().startswith("<?xml")
    assert result.cluster == {"kind": "given"}
    # Other work is not mixed in.
    _, told = bench(*words, "--workers", "1", "--datums", "31", code=2)
    assert "holds figures of another workload" in told
    # The store of the first call was removed at its end, the one that has a point to go is there.
    assert len(list((tmp_path / "stores").iterdir())) == 1

    faster = read_result(tmp_path / "bench-overhead.json")
    faster.rows = [Row(**{**_plain(row), "seconds": row.seconds / 2}) for row in faster.rows]
    save(tmp_path / "faster.json", faster)
    out, _ = bench("compare", "bench-overhead.json", "faster.json", "--out", "both.png", "--json")
    pairs = [json.loads(line) for line in out.splitlines()]
    assert [(each["workers"], round(each["ratio"], 6)) for each in pairs] == [(1, 2.0), (2, 2.0)]
    assert (tmp_path / "both.png").stat().st_size > 1000


def test_a_file_comes_to_every_worker_and_folders_go_and_come(cluster: Any, bench: Bench, tmp_path: Path) -> None:
    where = ["--cluster", cluster.scheduler_address, "--store", str(tmp_path / "stores"), "--workers", "2"]
    bench("broadcast", *where, "--mib", "3", "--no-plot")
    (row,) = read_result(tmp_path / "bench-broadcast.json").rows
    # Both workers share this host's cache.
    assert (row.items, row.origin_bytes, row.more["receivers"], row.more["origin_models"]) == (6, 3 << 20, 2, 1)
    assert not (tmp_path / "bench-broadcast.svg").exists()
    bench("storage", *where, "--files", "30", "--each", "20", "--no-plot")
    rows = read_result(tmp_path / "bench-storage.json").rows
    assert sorted((row.scaling, row.items) for row in rows) == [("strong", 30), ("weak", 40)]
    assert list((tmp_path / "stores").iterdir()) == []


def _plain(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


SBATCH = """#!/bin/bash
# Stands for Slurm: runs the tasks of the array here, in the background.
script="${@: -1}"
echo "$@" > {folder}/asked
count=$(sed -n 's/^#SBATCH --array=1-//p' "$script")
for number in $(seq "$count"); do
  SLURM_ARRAY_TASK_ID=$number setsid bash "$script" > {folder}/task-$number.log 2>&1 &
  echo $! >> {folder}/pids
done
echo "42;cluster"
"""
SCANCEL = """#!/bin/bash
[ "$1" = 42 ] && while read -r pid; do kill -- "-$pid" 2> /dev/null; done < {folder}/pids
exit 0
"""


def test_workers_are_tasks_of_a_job_array(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tools / name).write_text(text.replace("{folder}", str(tmp_path)))
        (tools / name).chmod(0o755)
    (tools / "hostname").write_text("#!/bin/bash\necho 127.0.0.1\n")
    (tools / "hostname").chmod(0o755)
    words = ["overhead", "--cluster", "slurm", "--workers", "2", "--each", "20", "--scaling", "weak", "--no-plot"]
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    bench(*words, "--host", "127.0.0.1", "--sbatch", "-p cpu", "--wait", "60")
    (row,) = read_result(tmp_path / "bench-overhead.json").rows
    assert (row.workers, row.slots, row.items) == (2, 2, 40)
    assert (tmp_path / "asked").read_text().startswith("--parsable -p cpu ")
    # Nothing is left: the workers heard that the session ended, or were cancelled.
    deadline = time.monotonic() + 30
    for pid in (tmp_path / "pids").read_text().split():
        while subprocess.run(["pgrep", "-g", pid], capture_output=True, check=False).stdout:
            assert time.monotonic() < deadline, pid


@pytest.mark.skipif(bool(why_not()), reason=f"no Slurm: {why_not()}")
def test_a_real_slurm_gives_workers_and_has_nothing_left_to_do(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with slurm(cpus=2) as variables:
        for name, text in variables.items():
            monkeypatch.setenv(name, text)
        words = ["overhead", "--cluster", "slurm", "--workers", "2", "--each", "20", "--scaling", "weak", "--no-plot"]
        bench(*words, "--host", "127.0.0.1", "--sbatch", "-p cpu", "--wait", "60")
        (row,) = read_result(tmp_path / "bench-overhead.json").rows
        assert (row.workers, row.slots, row.items) == (2, 2, 40)
        # Cancelled tasks are listed until their processes have ended.
        deadline = time.monotonic() + 60
        while left := subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True).stdout:
            assert time.monotonic() < deadline, left
        _, told = bench(*words, "--out", "other.json", "--sbatch", "-p nowhere", code=None)
        assert "sbatch refused: " in told
        assert "invalid partition" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["overhead", "--cluster", "nowhere"], "neither local, slurm, nor the address"),
        (["overhead", "--workers", "0,2"], "no list of numbers above 0"),
        (["overhead", "--cluster", "tcp://127.0.0.1:1", "--wait", "1"], "no Dask scheduler answers"),
        (["broadcast", "--scaling", "strong"], "its scaling is weak"),
        (["compare", "a.json", "b.json"], "there is no result file a.json"),
        (["overhead", "--store", "memory://x", "--no-plot"], "only this process sees it"),
    ],
)
def test_what_cannot_work_is_said(bench: Bench, words: list[str], said: str) -> None:
    _, told = bench(*words, code=None)
    assert said in told
    assert "Traceback" not in told


def row(scaling: str, workers: int, seconds: float, number: int = 0) -> Row:
    assert scaling in ("strong", "weak")
    items = 100 if scaling == "strong" else 100 * workers
    return Row(
        scaling="strong" if scaling == "strong" else "weak",
        workers=workers,
        round=number,
        slots=2 * workers,
        items=items,
        seconds=seconds,
        wait_s=0.0,
        origin_bytes=workers << 20,
    )


def test_efficiency_is_a_slots_rate_beside_that_in_the_smallest_cluster() -> None:
    rows = [row("strong", 1, 10.0), row("strong", 4, 5.0), row("weak", 1, 10.0), row("weak", 4, 12.5)]
    rows += [row("strong", 4, 4.0, 1), row("strong", 4, 2.0, 2)]
    found = {(level.scaling, level.workers): level for level in levels(rows)}
    assert found["strong", 1].efficiency == found["weak", 1].efficiency == 1.0
    assert found["strong", 4].rate == 25.0
    assert (found["strong", 4].low, found["strong", 4].high, found["strong", 4].rounds) == (20.0, 50.0, 3)
    assert found["strong", 4].efficiency == pytest.approx(2.5 / 4)
    assert found["weak", 4].efficiency == pytest.approx(0.8)
    assert found["weak", 4].origin_bytes == 4 << 20


def test_what_is_there_is_taken_up_and_nothing_else(tmp_path: Path) -> None:
    points = all_points([1, 2], ["strong", "weak"], 2)
    assert len(set(points)) == 8
    result = Result(benchmark="overhead", unit="datums", workload={"strong": 1}, rows=[row("weak", 2, 1.0)])
    path = tmp_path / "found.json"
    save(path, result)
    again = resume(path, Result(benchmark="overhead", unit="datums", workload={"strong": 1}))
    assert set(points) - set(again.missing(points)) == {Point("weak", 2, 0)}
    with pytest.raises(InvalidInputError, match="another benchmark"):
        resume(path, Result(benchmark="storage", unit="files", workload={"strong": 1}))
    path.write_text("{}")
    with pytest.raises(InvalidInputError, match="no result of dmlpipe bench"):
        resume(path, result)


def test_only_what_both_have_is_compared() -> None:
    a = Result(benchmark="x", unit="u", rows=[row("weak", 1, 2.0), row("weak", 2, 2.0)], machine={"cores": 2})
    b = Result(benchmark="x", unit="u", rows=[row("weak", 2, 1.0), row("weak", 8, 1.0)], machine={"cores": 4})
    (pair,) = compare(a, b)
    assert (pair.a.workers, pair.ratio) == (2, 2.0)
    assert differences(a, b) == ["machine: cores 2 / 4"]
    with pytest.raises(InvalidInputError, match="no number of workers in common"):
        compare(a, Result(benchmark="x", unit="u", rows=[row("weak", 9, 1.0)]))
    with pytest.raises(InvalidInputError, match="of the benchmark x, B of y"):
        compare(a, Result(benchmark="y", unit="u"))
