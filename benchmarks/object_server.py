"""An S3 server on loopback, for benchmarks: SeaweedFS, which the dev dependencies bring."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

BUCKET = "bench"
START_S = 60.0


class ObjectServer(NamedTuple):
    """A running server."""

    port: int
    environment: dict[str, str]
    """Says who one is; the endpoint is the caller's business."""


@contextlib.contextmanager
def object_server(folder: Path) -> Iterator[ObjectServer]:
    """Start a server that keeps its data in `folder`, with the bucket `BUCKET`; it ends with the block."""
    secret = secrets.token_hex(16)
    config = folder / "s3.json"
    identity = {"name": "bench", "credentials": [{"accessKey": "bench", "secretKey": secret}], "actions": ["Admin"]}
    config.write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    ports = {name: _free_port() for name in ("master", "volume", "filer", "s3")}
    command = [str(Path(sys.executable).with_name("weed")), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-dir={folder / 'data'}", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={config}"]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    command += ["-master.volumeSizeLimitMB=1024", "-volume.max=20", "-master.telemetry=false"]
    environment = {
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        _make_bucket(f"http://127.0.0.1:{ports['s3']}", secret)
        yield ObjectServer(ports["s3"], environment)
    finally:
        server.kill()
        server.wait(timeout=30)


def _free_port() -> int:
    """A free port whose double, 10,000 above it, is free too: weed takes that for its own calls."""
    while True:
        port = 20_000 + secrets.randbelow(30_000)
        with socket.socket() as low, socket.socket() as high, contextlib.suppress(OSError):
            low.bind(("127.0.0.1", port))
            high.bind(("127.0.0.1", port + 10_000))
            return port


def _make_bucket(endpoint: str, secret: str) -> None:
    import s3fs

    deadline = time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(endpoint, timeout=2).close()
        except urllib.error.HTTPError as answer:
            answer.close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
            continue
        break
    options: dict[str, Any] = {"endpoint_url": endpoint, "key": "bench", "secret": secret}
    fs = s3fs.S3FileSystem(**options, use_listings_cache=False, skip_instance_cache=True)
    while True:
        try:
            fs.mkdir(BUCKET)
            fs.pipe_file(f"{BUCKET}/ready", b"")  # the first volume takes a moment
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
