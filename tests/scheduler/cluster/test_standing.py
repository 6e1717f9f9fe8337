"""Spouts and services: what is to stand, and real processes that do, are killed, and are there again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dmlpipe.scheduler.cluster.standing import Keeper, Stood, read_standing, wanted
from dmlpipe.scheduler.cluster.supervise import ChildSpec, Supervisor
from dmlpipe.scheduler.inputs.leaf import files
from dmlpipe.scheduler.pipelines.dag import DAG
from dmlpipe.scheduler.pipelines.spec import decode_pipeline
from dmlpipe.scheduler.store import Store
from dmlpipe.storage.digest import from_hex
from dmlpipe.storage.store import Store as VersionedStore

SOON_S = 40.0


def until(found: Callable[[], object]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + SOON_S
    while not found():
        assert time.monotonic() < end, "it does not come to be"
        time.sleep(0.02)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")


@pytest.fixture
def keep(store: Store, tmp_path: Path) -> Iterator[Callable[[], Keeper]]:
    """Start a keeper in a thread that lives as long as the test."""
    running: list[tuple[Keeper, threading.Thread]] = []

    def start() -> Keeper:
        own = VersionedStore.open(tmp_path / "store", cache_dir=tmp_path / "cache")
        keeper = Keeper(own, tmp_path / "standing", holds=lambda state: True)
        thread = threading.Thread(target=keeper.run)
        thread.start()
        running.append((keeper, thread))
        return keeper

    yield start
    for keeper, thread in running:
        keeper.stop()
        thread.join(SOON_S)
        assert not thread.is_alive()


def runs(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def standing(store: Store) -> dict[str, Stood]:
    return read_standing(store.cache_dir, store.repo_id)


def names(store: Store) -> list[tuple[str, list[str]]]:
    """What is to stand, and the commits it sees."""
    found = wanted(store.refresh(), lambda pipeline: decode_pipeline(store.nodes.get(from_hex(pipeline.spec))))
    return [(spec.name, [each.commit for each in job.inputs]) for spec, job in found]


def both() -> DAG:
    dag = DAG("standing")
    dag.spout("clock", "echo $$ > tick; dmlpipe put clock tick; exec sleep 600")
    dag.service("web", "cat $pages/page >> $seen; exec sleep 600", files("pages"), port=80)
    return dag


def test_what_stands_is_what_has_its_inputs_and_is_not_stopped(store: Store) -> None:
    store.create_repo("pages")
    store.submit(both())
    assert names(store) == [("clock", [])]
    with store.commit("pages") as session:
        session.write("page", "one")
    assert names(store) == [("clock", []), ("web", [store["pages"].id])]
    store.stop_pipeline("clock")
    assert [name for name, _ in names(store)] == ["web"]


def test_a_spout_commits_and_is_there_again_when_it_was_killed(store: Store, keep: Callable[[], Keeper]) -> None:
    dag = DAG("standing")
    dag.spout("clock", "echo $$ > tick; dmlpipe put clock tick; exec sleep 600")
    store.submit(dag)
    keep()
    until(lambda: store.refresh().head("clock") and "clock" in standing(store))
    first = standing(store)["clock"]
    command = int(store["clock"].read_bytes("/tick"))
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: len(list(store.refresh().history("clock"))) == 2)
    assert standing(store)["clock"].pid != first.pid
    assert int(store["clock"].read_bytes("/tick")) != command
    # Nothing of the first one is left.
    assert not runs(command)


def test_a_service_serves_the_newest_commit(store: Store, keep: Callable[[], Keeper], tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    dag = DAG("standing")
    dag.service("web", "cat $pages/page >> $seen; exec sleep 600", files("pages"), variables={"seen": str(seen)})
    with store.commit("pages", create=True) as session:
        session.write("page", "one ")
    store.submit(dag)
    keep()
    until(lambda: seen.exists() and seen.read_text() == "one ")
    with store.commit("pages") as session:
        session.write("page", "two ")
    until(lambda: seen.read_text() == "one two ")
    store.stop_pipeline("web")
    until(lambda: not standing(store))


def test_children_come_and_go(tmp_path: Path) -> None:
    def spec(name: str, text: str) -> ChildSpec:
        return ChildSpec(name=name, module="timeit", args=("-n1", "-r1", text), log=tmp_path / f"{name}.log")

    sleeps = "import time; time.sleep(600)"
    supervisor = Supervisor([spec("a", sleeps)])
    plans = iter([[spec("a", sleeps), spec("b", sleeps)], [spec("b", sleeps)], [spec("b", sleeps + " ")], []])
    seen: list[dict[str, int]] = []

    def each() -> None:
        seen.append({name: process.pid for name, process in supervisor.processes().items()})
        plan = next(plans, None)
        if plan is None:
            supervisor.stop()
        else:
            supervisor.adapt(plan)

    supervisor.run(each=each)
    first, two, one, changed, none = seen
    assert (list(first), list(two), list(one), list(changed), none) == (["a"], ["a", "b"], ["b"], ["b"], {})
    assert first["a"] == two["a"]
    assert two["b"] == one["b"] != changed["b"]
