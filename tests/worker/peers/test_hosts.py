"""Hosts with caches of their own, as processes, over TLS on loopback; what the store is asked for is counted."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dmlpipe.scheduler.cluster.local import reserve_port
from dmlpipe.storage.digest import digest
from dmlpipe.storage.objects.value import Pieces
from tests.storage.objects.cache_process import PART, Folder

WAIT_S = 60
PARTS = 24
SIZE = PARTS * PART - 7


class Host:
    """A host process."""

    def __init__(self, cluster: Cluster, name: str, cache: str) -> None:
        self.name = name
        folder, folders = cluster.folder, [cluster.folder.source, cluster.folder.log, cluster.folder.gates]
        self.cache = cluster.root / "caches" / cache
        self.log = cluster.root / f"{name}.log"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.worker.peers.host_process", cluster.address, name, str(self.cache)),
                *map(str, folders),
                str(cluster.root / "key"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("wb"),
            text=True,
        )
        self.folder = folder

    def ask(self, **line: Any) -> None:
        """Send one line."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        """Read one line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"{self.name} ended with {self.process.wait(WAIT_S)}:\n{self.log.read_text()[-3000:]}"
        return json.loads(line)

    def get(self, value: Pieces) -> Any:
        """Fetch a file."""
        self.ask(get=self.folder.spell(value))
        return self.hear()

    def mode(self, mode: str) -> None:
        """Serve so from now on."""
        self.ask(mode=mode)
        self.hear()

    def served(self) -> int:
        """How often peers asked it."""
        self.ask(served=True)
        return int(self.hear()["served"])

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait(WAIT_S)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


class Cluster:
    """A scheduler process, and hosts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("source", "gates", "caches", "key"):
            (root / name).mkdir()
        self.folder = Folder(root / "source", root / "log", root / "gates")
        make_key(root / "key")
        # Held until the end: another process that looks for a free port must not find this one.
        self.held, port = reserve_port()
        self.address = f"tls://127.0.0.1:{port}"
        self.scheduler = subprocess.Popen(
            [
                *(sys.executable, "-m", "dmlpipe.scheduler.leases.scheduler_process", "127.0.0.1", str(port)),
                *("--key", str(root / "key")),
            ],
            stderr=(root / "scheduler.log").open("wb"),
        )
        self.hosts: dict[str, Host] = {}

    def start(self, *names: str, cache: str = "") -> list[Host]:
        """Start hosts, each with a cache of its name or all with one; all have joined when it returns."""
        hosts = [Host(self, name, cache or name) for name in names]
        for host in hosts:
            host.hear()
            self.hosts[host.name] = host
        return hosts

    def add(self) -> tuple[Pieces, str]:
        """Put a file into the store; return its value and hash."""
        data = os.urandom(SIZE)
        return self.folder.add(data), digest(data).hex()

    def reads(self, value: Pieces) -> int:
        """Parts of a file that were read from the store so far."""
        names = {part.hash.hex() for part in self.folder.parts(value)}
        return sum(1 for name in self.folder.reads() if name in names)

    def close(self) -> None:
        """End everything."""
        for host in self.hosts.values():
            host.end()
        self.scheduler.kill()
        self.scheduler.wait(WAIT_S)
        self.held.close()


def make_key(folder: Path) -> None:
    """Make a cluster's key."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"), "-days", "2", "-subj", "/CN=dml"),
        ],
        check=True,
        capture_output=True,
    )
    (folder / "key.pem").chmod(0o600)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start("a", "b", "c", "d")
        yield made
    finally:
        made.close()


def test_a_herd_reads_the_store_once(cluster: Cluster) -> None:
    value, expected = cluster.add()
    hosts = list(cluster.hosts.values())
    for host in hosts:
        host.ask(get=cluster.folder.spell(value))
    answers = [host.hear() for host in hosts]
    assert [answer["hash"] for answer in answers] == [expected] * 4
    assert cluster.reads(value) == PARTS
    assert sum(answer["from_store"] for answer in answers) == SIZE
    assert sum(answer["from_peers"] for answer in answers) == 3 * SIZE


# Processes come and go: on two busy cores one of them now and then does not start in time.
@pytest.mark.slow
def test_who_joins_later_takes_from_those_who_have_it_and_gives_what_its_cache_held(cluster: Cluster) -> None:
    value, expected = cluster.add()
    cluster.hosts["a"].get(value)
    assert cluster.reads(value) == PARTS
    (late,) = cluster.start("late")
    assert late.get(value) == {"hash": expected, "from_store": 0, "from_peers": SIZE}
    late.end()
    # Another worker with the same cache: what that holds is known as soon as it has joined.
    (heir,) = cluster.start("heir", cache="late")
    for host in (late, heir):
        del cluster.hosts[host.name]
    try:
        assert cluster.hosts["b"].get(value) == {"hash": expected, "from_store": 0, "from_peers": SIZE}
        assert heir.served() + cluster.hosts["a"].served() >= PARTS
        assert heir.served() > 0
    finally:
        heir.end()
    assert cluster.reads(value) == PARTS


@pytest.mark.parametrize("mode", ["garbage", "stall", "pickle", "vanish"])
def test_a_peer_that_misbehaves_costs_nothing_but_reads_of_the_store(cluster: Cluster, mode: str) -> None:
    (bad,) = cluster.start(f"bad {mode}")
    try:
        value, expected = cluster.add()
        again, again_expected = cluster.add()
        bad.get(value)
        bad.get(again)
        bad.mode(mode)
        first, second = cluster.hosts["c"], cluster.hosts["d"]
        for host in (first, second):
            host.ask(get=cluster.folder.spell(value))
        assert [host.hear()["hash"] for host in (first, second)] == [expected] * 2
        assert PARTS < cluster.reads(value) <= 2 * PARTS
        if mode == "vanish":
            assert bad.process.wait(WAIT_S) == 9
        else:
            asked = bad.served()
            assert asked > 0
            # Nobody asks it for anything else.
            assert first.get(again)["hash"] == again_expected
            assert bad.served() == asked
        assert not (cluster.folder.gates / "ran").exists()
    finally:
        bad.end()
        del cluster.hosts[bad.name]


def test_a_stranger_without_the_key_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    make_key(tmp_path)
    stranger = subprocess.run(
        [
            *(sys.executable, "-m", "tests.worker.peers.host_process", cluster.address, "x", str(tmp_path / "cache")),
            *(str(tmp_path),) * 4,
        ],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        input="",
        env=os.environ | {"DML_CONNECT_S": "2"},
    )
    assert stranger.returncode != 0
    assert "no scheduler answers" in stranger.stderr
    assert stranger.stdout == ""
