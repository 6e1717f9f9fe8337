"""Half an hour of kills and commits at random, then the books are checked.

`DMLPIPE_SOAK_S=60 make test-slow ARGS=tests/faults/test_soak.py` tries it for a minute; `DMLPIPE_SOAK_SEED` chooses
who is killed when.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from dmlpipe.scheduler.cluster.daemon import SUPERVISOR, down, status, up
from dmlpipe.scheduler.errors import ClusterError
from dmlpipe.scheduler.store import Store
from dmlpipe.storage.gc.run import collect
from dmlpipe.storage.objects.pack import read_rows
from dmlpipe.storage.objects.segment import decode_rows
from tests.faults.arena import tally, trees, undisturbed_trees, wait_for

SOAK_S = float(os.environ.get("DMLPIPE_SOAK_S", "1800"))
SEED = int(os.environ.get("DMLPIPE_SOAK_SEED", "1"))

DAG = """
import os
import time
from pathlib import Path

import dmlpipe as dml

dag = dml.DAG("soak")


@dag.pipeline(dml.files("numbers", "/{{stem}}"))
def work(numbers: Path, stem: str) -> dml.Files:
    if {log!r}:
        time.sleep(0.03)
        handle = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, (os.environ["DMLPIPE_DATUM"] + "\\n").encode())
        os.close(handle)
    return {{f"{{stem}}.out": numbers.read_text() * 20}}


@dag.pipeline(dml.files("work"))
def total(work: Path) -> dml.Files:
    return {{"total": "".join(path.read_text() for path in sorted(work.iterdir()))}}
"""


class Soak:
    """The store under test, what it should hold, and who is to be killed."""

    def __init__(self, folder: Path) -> None:
        self.random = random.Random(SEED)
        self.folder = folder
        self.log = folder / "calls"
        (folder / "dag.py").write_text(DAG.format(log=str(self.log)))
        (folder / "quiet").mkdir()
        (folder / "quiet" / "dag.py").write_text(DAG.format(log=""))
        self.store = Store.init(folder / "store", cache_dir=folder / "cache")
        self.files: dict[str, str] = {}
        self.written = 0
        self.done = Counter[str]()
        self.stored: dict[str, int] = {}
        """Fingerprint of a datum that is stored to how often it was computed until then."""
        self.commit(40)
        self.store.submit(folder / "dag.py")

    def commit(self, changes: int) -> None:
        """Write, change and delete some files."""
        with self.store.commit("numbers", create=True) as session:
            for _ in range(changes):
                self.written += 1
                name = f"n{self.random.randrange(120):03}"
                if name in self.files and self.random.random() < 0.3 and len(self.files) > 20:
                    session.delete(name)
                    del self.files[name]
                else:
                    self.files[name] = f"{name} {self.written} "
                    session.write(name, self.files[name])
        self.done["commits"] += 1

    def up(self) -> None:
        for _ in range(5):
            if status(self.store.cache_dir, self.store.info.repo_id) is not None:
                return
            try:
                up(self.store.url, 2, repo_id=self.store.info.repo_id, cache_dir=self.store.cache_dir, timeout_s=180.0)
                return
            except ClusterError:
                # Killed while it came up; nothing of it is left.
                continue
        raise AssertionError("no cluster comes up")

    def kill(self) -> None:
        """Kill a process of the cluster, perhaps the one that starts the others; or freeze the controller a while."""
        state = status(self.store.cache_dir, self.store.info.repo_id)
        if state is None:
            self.up()
            return
        name = self.random.choice(["worker", "worker", "scheduler", "controller", "controller", SUPERVISOR])
        process = state.processes.get(name)
        if process is None or not process.alive():
            return
        if name == "controller" and self.random.random() < 0.3:
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(self.random.uniform(0.1, 2.0))
            if process.alive():
                os.kill(process.pid, signal.SIGCONT)
            self.done["frozen"] += 1
            return
        os.kill(process.pid, signal.SIGKILL)
        self.done[name] += 1
        if name == SUPERVISOR:
            wait_for(lambda: not any(other.alive() for other in state.processes.values()))
            self.up()

    def collect(self) -> None:
        """Give back what nothing refers to, however young: those at work may be about to."""
        self.done["objects collected"] += collect(self.store, grace_s=0).swept.objects
        self.done["collections"] += 1

    def look(self) -> None:
        """Note what is stored now: from here on it must not be computed again."""
        fresh = self.rows() - set(self.stored)
        # Counted after the row was seen: a call that is counted later than this began after the datum was stored.
        calls = tally(self.log)
        for fingerprint in fresh:
            self.stored[fingerprint] = calls[fingerprint]

    def rows(self) -> set[str]:
        return {
            row.fingerprint.hex()
            for job, state in self.store.refresh().jobs("work")
            if state.pipeline == "work"
            for key, _ in self.store.backend.list(f"results/{job}/")
            if key.endswith(".seg")
            for row in decode_rows(read_rows(self.store.backend, key)[0])
        }

    def quiet(self) -> bool:
        """Whether everything that was committed has been worked off."""
        state = self.store.refresh()
        wanted = "".join(self.files[name] * 20 for name in sorted(self.files))
        return state.open_run() is None and bool(state.head("total")) and self.total() == wanted

    def figures(self) -> str:
        """What happened, for people."""
        jobs = Counter(f"{job.pipeline} {job.state}" for _, job in self.store.refresh().jobs())
        calls = tally(self.log)
        return (
            f"soak of {SOAK_S:.0f} s, seed {SEED}: {dict(self.done)}; jobs {dict(jobs)}; {len(calls)} datums computed"
            f" with {calls.total()} calls, {len(self.stored)} of them seen stored"
        )

    def total(self) -> str:
        return self.store["total"].read_bytes("/total").decode()


@pytest.mark.slow
@pytest.mark.timeout(SOAK_S + 3600)
def test_after_kills_and_commits_at_random_the_books_are_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DMLPIPE_FLUSH_S", "0.2")
    monkeypatch.setenv("DMLPIPE_FOLD_SEGMENTS", "4")
    soak = Soak(tmp_path)
    soak.up()
    try:
        until = time.monotonic() + SOAK_S
        while time.monotonic() < until:
            time.sleep(soak.random.uniform(0.0, 3.0))
            step = soak.random.random()
            if step < 0.4:
                soak.commit(soak.random.randrange(1, 15))
            elif step < 0.8:
                soak.kill()
            elif step < 0.85:
                soak.collect()
            else:
                soak.look()
        soak.look()
        soak.up()
        wait_for(soak.quiet, 900)
        state = status(soak.store.cache_dir, soak.store.info.repo_id)
        assert state is not None
    finally:
        down(soak.store.cache_dir, soak.store.info.repo_id)
    with capsys.disabled():
        print(f"\n{soak.figures()}")
    assert not [name for name, process in state.processes.items() if process.alive()]
    assert trees(soak.store) == undisturbed_trees(tmp_path / "quiet" / "dag.py", {"numbers": soak.files}, tmp_path)
    calls = tally(soak.log)
    assert {datum: calls[datum] for datum, known in soak.stored.items() if calls[datum] != known} == {}
    assert soak.stored
    assert soak.store.fsck().problems == ()
    assert {job.state for _, job in soak.store.refresh().jobs()} == {"done"}, "only user code makes a job fail"
