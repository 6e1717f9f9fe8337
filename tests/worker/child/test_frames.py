from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.worker.child.frames import Frame, FrameSocket, PeerClosedError, socket_pair


def pair() -> tuple[FrameSocket, FrameSocket]:
    left, right = socket_pair()
    return FrameSocket(left), FrameSocket(right)


@given(st.lists(st.binary(max_size=3000), max_size=20))
def test_frames_arrive_whole_and_in_order(payloads: list[bytes]) -> None:
    left, right = pair()
    for payload in payloads:
        left.send(payload)
    received = [right.receive(5) for _ in payloads]
    assert [frame.payload for frame in received if frame] == payloads
    left.close()
    right.close()


def test_descriptors_arrive_with_their_frame(tmp_path: Path) -> None:
    left, right = pair()
    for number in range(3):
        (tmp_path / str(number)).write_text(f"content {number}")
        with (tmp_path / str(number)).open("rb") as file:
            left.send(f"frame {number}".encode(), [file.fileno()] * number)
    for number in range(3):
        frame = right.receive(5)
        assert frame is not None
        assert frame.payload == f"frame {number}".encode()
        assert [os.pread(fd, 100, 0) for fd in frame.fds] == [f"content {number}".encode()] * number
        assert not any(os.get_inheritable(fd) for fd in frame.fds)
        for fd in frame.fds:
            os.close(fd)
    left.close()
    right.close()


def test_two_sides_that_send_much_at_once_do_not_stand_still() -> None:
    left, right = pair()
    big = os.urandom(8 << 20)
    heard: list[Frame | None] = []

    def talk() -> None:
        left.send(big)
        heard.append(left.receive(30))  # whoever is done with sending goes on reading, or the other could not end

    thread = threading.Thread(target=talk)
    thread.start()
    right.send(big[::-1])
    theirs = right.receive(30)
    thread.join(30)
    assert not thread.is_alive()
    (ours,) = heard
    assert ours is not None
    assert theirs is not None
    assert (ours.payload, theirs.payload) == (big[::-1], big)
    left.close()
    right.close()


def test_what_was_sent_before_the_end_is_received_before_the_error() -> None:
    left, right = pair()
    left.send(b"last words")
    left.close()
    frame = right.receive(5)
    assert frame is not None
    assert frame.payload == b"last words"
    with pytest.raises(PeerClosedError):
        right.receive(5)
    right.close()


def test_receive_returns_nothing_after_its_time_or_when_woken() -> None:
    left, right = pair()
    assert right.receive(0.01) is None
    read, write = os.pipe()
    os.write(write, b"x")
    assert right.receive(60, [read]) is None
    os.close(read)
    os.close(write)
    left.close()
    right.close()


def test_sending_to_one_who_does_not_read_can_be_given_up() -> None:
    left, right = pair()
    with pytest.raises(TimeoutError):
        left.send(bytes(64 << 20), give_up=lambda silent_s: silent_s > 0)
    left.close()
    right.close()


def looking_away(right: FrameSocket, wake: int) -> None:
    """Let a socket look away for long: nothing came whenever it was asked to."""
    for _ in range(20):
        assert right.receive(0, [wake], gather_s=60) is None


def test_what_comes_while_one_looks_away_is_taken_in_together() -> None:
    left, right = pair()
    wake, waker = os.pipe()
    os.write(waker, b"x")
    looking_away(right, wake)
    os.read(wake, 1)

    def talk() -> None:
        for number in range(5):
            left.send(b"%d" % number)
        os.write(waker, b"x")

    thread = threading.Thread(target=talk)
    thread.start()
    first = right.receive(60, [wake], gather_s=60)
    others = [right.pending() for _ in range(4)]
    thread.join()
    assert [frame.payload for frame in (first, *others) if frame] == [b"0", b"1", b"2", b"3", b"4"]
    left.close()
    right.close()


def test_one_looks_away_for_less_where_much_comes() -> None:
    left, right = pair()
    wake, waker = os.pipe()
    os.write(waker, b"x")
    looking_away(right, wake)
    much = os.urandom(100_000)
    for _ in range(30):
        left.send(much)
        frame = right.receive(60, [wake], gather_s=60)
        assert frame is not None
        assert frame.payload == much
    os.read(wake, 1)
    # Nobody wakes it: it would not see this for a minute.
    left.send(b"more")
    frame = right.receive(0, [wake], gather_s=60)
    assert frame is not None
    assert frame.payload == b"more"
    left.close()
    right.close()
