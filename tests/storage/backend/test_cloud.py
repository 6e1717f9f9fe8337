"""Google's and Azure's storage through the contract, on their emulators. Left out where these are not installed.

``make test-cloud`` installs the extras `gcs` and `azure` and the emulator of Google's; Azure's is `azurite`, from npm.
"""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dmlpipe.storage.backend import Backend, open_backend, probe_exclusive_create
from dmlpipe.storage.errors import BackendError, ErrorCode
from dmlpipe.storage.store import Store
from dmlpipe.storage.testing import BackendTests
from tests.storage.backend import gcs_server

_AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The key that every emulator has: it is published, and opens nothing else."""
_START_S = 60.0

_numbers = itertools.count()

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # warnings of the client libraries


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def google() -> Iterator[dict[str, Any]]:
    pytest.importorskip("gcsfs")
    with gcs_server.serving(free_port()) as options:
        yield options


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    adlfs = pytest.importorskip("adlfs")
    program = shutil.which("azurite-blob") or os.environ.get("AZURITE_BLOB")
    if not program:
        pytest.skip("needs azurite: npm install -g azurite")
    port = free_port()
    words = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--silent"]
    words += ["--skipApiVersionCheck", "--disableTelemetry"]
    where = tmp_path_factory.mktemp("azurite")
    with subprocess.Popen([program, *words], stdout=subprocess.DEVNULL, cwd=where) as process:
        try:
            deadline = time.monotonic() + _START_S
            while time.monotonic() < deadline:
                with socket.socket() as asked:
                    if asked.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            place = f"http://127.0.0.1:{port}/devstoreaccount1"
            login = f"AccountName=devstoreaccount1;AccountKey={_AZURE_KEY}"
            options = {"connection_string": f"DefaultEndpointsProtocol=http;{login};BlobEndpoint={place};"}
            adlfs.AzureBlobFileSystem(account_name="devstoreaccount1", **options).mkdir("bucket")
            yield options
        finally:
            process.kill()


def store_tells_what_it_was_told(url: str, options: dict[str, Any], tmp_path: Path) -> None:
    files = {"small": os.urandom(3000), "large": os.urandom(2 << 20), "tiny": b"t"}
    store = Store.init(url, storage_options=options, cache_dir=tmp_path / "cache")
    for turn in range(3):
        store.put("r", *((f"{turn}/{name}", data) for name, data in files.items()))
    again = Store.open(url, storage_options=options, cache_dir=tmp_path / "other")
    assert {name: again["r"].read_bytes(f"2/{name}") for name in files} == files
    assert again.fsck().ok
    key = next(key for key, _ in again.backend.list("objects/"))
    again.backend.delete_many([key])
    assert not again.repair().ok
    again.put("r", ("again", files["large"]))
    assert again.fsck().ok


class TestGoogle(BackendTests):
    @pytest.fixture
    def backend(self, google: dict[str, Any]) -> Backend:
        return open_backend(f"gs://bucket/contract-{next(_numbers)}", google)


class TestAzure(BackendTests):
    @pytest.fixture
    def backend(self, azure: dict[str, Any]) -> Backend:
        return open_backend(f"az://bucket/contract-{next(_numbers)}", azure)


def test_a_store_on_google(google: dict[str, Any], tmp_path: Path) -> None:
    store_tells_what_it_was_told(f"gs://bucket/store-{next(_numbers)}", google, tmp_path)


def test_a_store_on_azure(azure: dict[str, Any], tmp_path: Path) -> None:
    store_tells_what_it_was_told(f"az://bucket/store-{next(_numbers)}", azure, tmp_path)


def test_a_server_that_ignores_the_condition_is_refused() -> None:
    pytest.importorskip("gcsfs")
    with gcs_server.serving(free_port(), conditional=False) as options:
        with pytest.raises(BackendError, match="does not create exclusively") as caught:
            probe_exclusive_create(open_backend("gs://bucket/careless", options))
        assert caught.value.code is ErrorCode.UNSAFE_BACKEND


def test_a_body_that_breaks_off_makes_no_object(google: dict[str, Any]) -> None:
    where = urlsplit(google["endpoint_url"])
    body = b'--b\r\nContent-Type: application/json\r\n\r\n{"name": "broken-off/key"}\r\n'
    body += b"--b\r\nContent-Type: application/octet-stream\r\n\r\nhalf of the content"
    head = [
        "POST /upload/storage/v1/b/bucket/o?uploadType=multipart HTTP/1.1",
        f"Host: {where.netloc}",
        "Content-Type: multipart/related; boundary=b",
        f"Content-Length: {len(body) + 1000}",
    ]
    with socket.create_connection((where.hostname, where.port)) as client:
        client.sendall("\r\n".join([*head, "", ""]).encode() + body)
        client.shutdown(socket.SHUT_WR)
        while client.recv(4096):
            pass  # when it closes, it is done
    assert list(open_backend("gs://bucket/broken-off", google).list()) == []
