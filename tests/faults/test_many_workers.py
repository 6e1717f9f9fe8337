"""Workers that go in numbers, come with other versions, or with a clock of their own."""

from __future__ import annotations

import ctypes.util
import datetime
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dmlpipe.scheduler.report import Notice, Report
from dmlpipe.scheduler.store import Store
from tests.faults.arena import Arena, fill, stored_datums, trees, undisturbed_trees, wait_for
from tests.faults.case import Case

OTHER_VERSION = """
import sys
import {module} as changed
changed.{name} = {value}
from dmlpipe.worker.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


SIZES = """
from pathlib import Path
import dmlpipe as dml

dag = dml.DAG("sizes")


@dag.pipeline(dml.files("numbers", "/{stem}"))
def sizes(numbers: Path, stem: str) -> dml.Files:
    return {stem: str(numbers.stat().st_size)}
"""


def run(case: Case, strike: object = None) -> list[Report]:
    reports: list[Report] = []
    executor = case.arena.executor(case.store)
    executor.strike = strike  # type: ignore[assignment]  # a function without arguments
    summary = case.store.run(executor=executor, observer=reports.append)
    assert summary.ok
    return reports


def test_half_of_the_workers_are_killed_at_once(case: Case) -> None:
    case.arena.start_scheduler()
    for _ in range(4):
        case.arena.start_worker()
    kept: set[str] = set()

    def strike() -> bool:
        for worker in case.arena.workers[:2]:
            os.killpg(worker.pid, signal.SIGKILL)
        kept.update(stored_datums(case.store))
        return True

    run(case, strike)
    assert kept
    case.check(kept)


def test_workers_of_other_versions_are_turned_away_by_name_and_the_others_do_the_work(case: Case) -> None:
    case.arena.start_scheduler()
    changes = [
        ("dmlpipe.storage.version", "__version__", "'0.0.9'"),
        ("dmlpipe.worker.messages", "COMPARED_PACKAGES", "('distributed', 'msgspec')"),
    ]
    others = []

    def join() -> bool:
        # In the middle of the job: where there are no other workers it ends, since nobody could do it.
        for number, (module, name, value) in enumerate(changes):
            script = case.folder / f"other-{number}.py"
            source = OTHER_VERSION.format(module=module, name=name, value=value)
            if number:
                source = (
                    "import importlib.metadata as m\nreal = m.version\n"
                    "m.version = lambda name: '0.1.2' if name == 'msgspec' else real(name)\n" + source
                )
            script.write_text(source)
            argv = [sys.executable, str(script), case.arena.address, "--store", case.arena.url, "--slots", "1"]
            others.append(case.arena.start("other", [*argv, "--name", f"other-{number}"]))
        wait_for(lambda: all(process.poll() == 1 for process in others))
        return True

    case.arena.start_worker(slots=2)
    reports = run(case, join)
    notices = [report.text for report in reports if isinstance(report, Notice)]
    assert any("worker other-0 has dmlpipe 0.0.9" in text for text in notices), notices
    assert any("worker other-1 has msgspec 0.1.2" in text for text in notices), notices
    case.check(set())


def _faketime() -> str:
    for folder in ("/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib/faketime"):
        if (found := Path(folder) / "libfaketimeMT.so.1").exists():
            return str(found)
    return ctypes.util.find_library("faketimeMT") or ""


@pytest.mark.slow
@pytest.mark.skipif(not _faketime(), reason="libfaketime is not installed (apt-get install libfaketime)")
def test_clocks_an_hour_apart_change_nothing(case: Case) -> None:
    case.arena.start_scheduler()
    for skew in ("+1h", "-1h"):
        skewed = {"LD_PRELOAD": _faketime(), "FAKETIME": skew, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        case.arena.start_worker(environment=skewed)
    case.arena.wait_for_slots(2)
    now = datetime.datetime.now()
    for log in case.folder.glob("worker-*.log"):
        told = datetime.datetime.strptime(log.read_text()[:19], "%Y-%m-%d %H:%M:%S")
        assert abs(told - now) > datetime.timedelta(minutes=50), "the clock is not faked"
    kept: set[str] = set()

    def strike() -> bool:
        # One of the two is lost as well: what it stored is found by its name, never by its time.
        os.killpg(case.arena.workers[0].pid, signal.SIGKILL)
        kept.update(stored_datums(case.store))
        return True

    run(case, strike)
    case.check(kept)


@pytest.mark.slow
def test_twenty_four_leases_lost_in_a_row_cost_no_datum_a_try(case: Case) -> None:
    case.arena.start_scheduler()
    losses = 0
    kept: dict[str, int] = {}

    def replace_worker() -> bool:
        nonlocal losses
        if losses:
            case.look(kept)
        losses += 1
        os.killpg(case.arena.workers[-1].pid, signal.SIGKILL)
        case.arena.workers[-1].wait(30)
        case.arena.start_worker(slots=1, environment={"DMLPIPE_FLUSH_S": "0.02"})
        return losses >= 24

    case.arena.start_worker(slots=1, environment={"DMLPIPE_FLUSH_S": "0.02"})
    run(case, replace_worker)
    assert losses == 24
    assert kept
    case.check(kept)


def test_a_worker_whose_cache_has_no_room_for_its_inputs_works_on(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(small)], check=False)
    if mounted.returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        dag = tmp_path / "sizes.py"
        dag.write_text(SIZES)
        # 9.6 MB of inputs, and a third of the disk taken by somebody else.
        data = {"numbers": {f"n{number:02}": f"{number:02}" * 300_000 for number in range(16)}}
        store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
        fill(store, data)
        store.submit(dag)
        (small / "foreign").write_bytes(bytes(2 << 20))
        with Arena(tmp_path, store.url) as arena:
            arena.start_scheduler()
            worker = arena.start_worker(environment={"DMLPIPE_CACHE_DIR": str(small / "cache")})
            assert store.run(executor=arena.executor(store)).ok
            assert worker.poll() is None
            assert trees(store) == undisturbed_trees(dag, data, tmp_path)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)
