"""Nothing listens beyond this machine without a key."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dmlpipe.scheduler.leases.scheduler_process import main as scheduler_main
from dmlpipe.storage.errors import InvalidInputError
from dmlpipe.worker.cluster_key import check_listen, is_loopback, read_cluster_key
from dmlpipe.worker.dask_seam import DaskLink, serve


def key_in(folder: Path, mode: int) -> Path:
    (folder / "cert.pem").write_text("certificate")
    (folder / "key.pem").write_text("key")
    (folder / "key.pem").chmod(mode)
    return folder


def test_a_key_is_read_by_its_owner_alone(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"there is no cert\.pem"):
        read_cluster_key(tmp_path)
    assert read_cluster_key(key_in(tmp_path, 0o600)).key == tmp_path / "key.pem"
    with pytest.raises(InvalidInputError, match="mode 0640: others may read"):
        read_cluster_key(key_in(tmp_path, 0o640))


LOOPBACK = ("127.0.0.1", "127.3.2.1", "::1", "localhost")
BEYOND = ("0.0.0.0", "::", "10.1.2.3", "node7", "")


@pytest.mark.parametrize("host", [*LOOPBACK, *BEYOND])
def test_only_loopback_needs_no_key(host: str, tmp_path: Path) -> None:
    loopback = host in LOOPBACK
    assert is_loopback(host) == loopback
    if not loopback:
        with pytest.raises(InvalidInputError, match="without a key"):
            check_listen(host, None)
    check_listen(host, None, insecure=True)
    check_listen(host, read_cluster_key(key_in(tmp_path, 0o600)))


def test_processes_refuse_to_listen_beyond_loopback(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    async def body(link: DaskLink) -> str:
        raise AssertionError("never joined")

    joining = serve(
        "tcp://127.0.0.1:1",
        body,
        name="w",
        slots=1,
        host="0.0.0.0",
        local_directory=str(tmp_path),
        connect_timeout_s=1,
    )
    with pytest.raises(InvalidInputError, match=r"refusing to listen on 0\.0\.0\.0"):
        asyncio.run(joining)
    assert scheduler_main(["0.0.0.0", "0"]) == 1
    assert "refusing to listen on 0.0.0.0 without a key" in caplog.text
