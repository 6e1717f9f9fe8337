from __future__ import annotations

import os
import tempfile

import pytest

from dmlpipe.worker.child.frames import FrameSocket, PeerClosedError, socket_pair
from dmlpipe.worker.child.permits import PermitPipe
from dmlpipe.worker.child.zygote import Zygote, ZygoteError
from tests.worker.bench import start_zygote


def spawn(zygote: Zygote) -> tuple[int, FrameSocket]:
    ours, theirs = socket_pair()
    pipe = PermitPipe()
    try:
        with tempfile.TemporaryFile() as log, theirs:
            return zygote.spawn(theirs.fileno(), log.fileno(), pipe.child_end), FrameSocket(ours)
    finally:
        pipe.close()


def test_a_zygote_holds_neither_dask_nor_threads_nor_our_variables(zygote: Zygote) -> None:
    zygote.wait_started()
    assert len(os.listdir(f"/proc/{zygote.pid}/task")) == 1
    with open(f"/proc/{zygote.pid}/maps") as file:
        assert "tornado" not in file.read()
    with open(f"/proc/{zygote.pid}/environ") as file:
        assert "PYTEST_CURRENT_TEST" not in file.read()


def test_a_child_is_a_group_of_its_own_and_ends_as_it_is_told(zygote: Zygote) -> None:
    pid, channel = spawn(zygote)
    assert os.getpgid(pid) == pid
    assert zygote.end(pid) == (-9, True)
    with pytest.raises(PeerClosedError):
        channel.receive(10)
    assert zygote.end(pid) == (0, False)
    channel.close()


def test_children_end_with_their_zygote() -> None:
    zygote = start_zygote()
    children = [spawn(zygote) for _ in range(3)]
    zygote.close()
    zygote.close()
    for pid, channel in children:
        with pytest.raises(PeerClosedError):
            channel.receive(10)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        channel.close()


def test_a_zygote_that_cannot_start_says_so() -> None:
    broken = Zygote({}, python="/bin/false")
    with pytest.raises(ZygoteError, match="ended while it should start"):
        broken.wait_started()
    broken.close()
