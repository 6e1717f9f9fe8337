"""Length-prefixed frames with file descriptors over a Unix stream socket.

Between a slot and its child. A frame is an 8-byte header (u32 payload length, u32 number of descriptors), then the
payload; descriptors travel with the header (SCM_RIGHTS), so that they arrive no later than their frame.

The child's side blocks. The parent's side never blocks without looking at what it waits for: while it sends, it reads
what the child sends, since two processes that both only write to each other stand still for ever.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

_HEADER = struct.Struct("<II")
_CHUNK_BYTES = 1 << 18
_SEND_POLL_MS = 200
_CALM_BYTES, _CROWDED_BYTES = 1 << 15, 1 << 16
"""What comes while one looks away: so little, and one may look away for longer; so much, and the sender may have waited
for room (a socket holds about 200 KiB)."""
_AWAY_MIN_S = 0.001
MAX_FDS = 128
"""Descriptors in one frame; Linux takes 253."""
MAX_FRAME_BYTES = 1 << 30
_ANCILLARY_BYTES = socket.CMSG_SPACE(MAX_FDS * 4)


GiveUp = Callable[[float], bool]


class PeerClosedError(ConnectionError):
    """The other side ended."""


class Frame(NamedTuple):
    """One message."""

    payload: bytes
    fds: list[int]
    """Owned by the receiver, close-on-exec."""


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets for frames."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (left, right):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return left, right


class FrameSocket:
    """One end of a pair. Not thread-safe.

    Parameters
    ----------
    sock
        Owned from here on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self._arriving = memoryview(bytearray(_CHUNK_BYTES))
        self._pollers: dict[tuple[int, ...], select.poll] = {}
        self._fds: deque[int] = deque()
        self._frames: deque[Frame] = deque()
        self._closed = False
        self._away_s = _AWAY_MIN_S
        """How long one may look away: so long that the sender does not wait for room."""

    def fileno(self) -> int:
        """Descriptor to poll."""
        return self._sock.fileno()

    def send(self, payload: bytes, fds: Sequence[int] = (), *, give_up: GiveUp | None = None) -> None:
        """Send a frame; block until the socket took it, keeping what arrives meanwhile.

        Parameters
        ----------
        give_up
            Asked now and then while the other side does not read, with the seconds since it last read or said anything.

        Raises
        ------
        TimeoutError
            `give_up` said so; the socket is of no use any more.
        PeerClosedError
            The other side is gone.
        """
        if len(fds) > MAX_FDS:
            raise ValueError(f"a frame carries at most {MAX_FDS} descriptors, got {len(fds)}")
        header = _HEADER.pack(len(payload), len(fds))
        small = len(payload) < 1 << 16
        try:
            first = header + payload if small else header
            if small and not fds:
                # Nearly every frame: it fits at once.
                try:
                    first = first[self._sock.send(first, socket.MSG_DONTWAIT) :]
                except BlockingIOError:
                    pass  # it waits below
                if not first:
                    return
            self._send_all(memoryview(first), memoryview(b"" if small else payload), fds, give_up)
        except (BrokenPipeError, ConnectionResetError) as err:
            raise PeerClosedError("the other side of the slot's socket is closed") from err

    def _send_all(self, view: memoryview, rest: memoryview, fds: Sequence[int], give_up: GiveUp | None) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        heard_at = time.monotonic()
        while view:
            try:
                if ancillary:
                    sent = self._sock.sendmsg([view], ancillary, socket.MSG_DONTWAIT)
                else:
                    sent = self._sock.send(view, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if self._wait_writable():
                    heard_at = time.monotonic()
                elif give_up is not None and give_up(time.monotonic() - heard_at):
                    raise TimeoutError("the other side of the slot's socket does not read") from None
                continue
            ancillary = []
            view = view[sent:]
            if not view and rest:
                view, rest = rest, memoryview(b"")

    def _wait_writable(self) -> bool:
        """Wait a little until the socket takes more, reading what comes; whether anything moved."""
        poller = select.poll()
        poller.register(self._sock, select.POLLIN | select.POLLOUT)
        moved = poller.poll(_SEND_POLL_MS)
        if any(event & select.POLLIN for _, event in moved):
            self._read()
        return bool(moved)

    def pending(self) -> Frame | None:
        """Return a frame that has arrived whole, without waiting."""
        return self._frames.popleft() if self._frames else None

    def receive(
        self, timeout_s: float | None = None, wake: Sequence[int] = (), *, gather_s: float = 0.0
    ) -> Frame | None:
        """Return the next frame; None after `timeout_s`, or when a descriptor of `wake` is readable.

        A frame that has arrived is returned first, whatever the clock and `wake` say.

        Parameters
        ----------
        gather_s
            Where nothing has arrived, look away for so long at most first (from the socket, not from `wake`): many
            small frames then cost one wake-up and one read, and the other side's sends wake nobody.

        Raises
        ------
        PeerClosedError
            The other side is gone, and every frame it sent was returned.
        """
        while not self._frames and timeout_s is None and not wake:
            # Nothing else to look at: the read itself waits.
            self._read(wait=True)
            if self._closed and not self._frames:
                raise PeerClosedError("the other side of the slot's socket is closed")
        if self._frames:
            return self._frames.popleft()
        if gather_s >= _AWAY_MIN_S:
            self._look_away(gather_s, wake)
            if self._frames:
                return self._frames.popleft()
        end = None if timeout_s is None else time.monotonic() + timeout_s
        own = self._sock.fileno()
        poller = self._poller((own, *wake))
        while True:
            left_ms = None if end is None else max(0.0, end - time.monotonic()) * 1000
            ready = {fd for fd, _ in poller.poll(left_ms)}
            if own in ready:
                self._read()
                if self._frames:
                    return self._frames.popleft()
                if self._closed:
                    raise PeerClosedError("the other side of the slot's socket is closed")
                continue
            if ready or end is not None:
                return None

    def _look_away(self, most_s: float, wake: Sequence[int]) -> None:
        """Let the other side go on undisturbed, then take what it sent."""
        away_s = min(most_s, self._away_s)
        if away_s >= _AWAY_MIN_S:
            self._poller(tuple(wake)).poll(away_s * 1000)
        size = self._read()
        if size > _CROWDED_BYTES:
            self._away_s = max(away_s, _AWAY_MIN_S) / 2
        elif size < _CALM_BYTES:
            self._away_s = max(self._away_s, 2 * away_s)

    def _poller(self, descriptors: tuple[int, ...]) -> select.poll:
        found = self._pollers.get(descriptors)
        if found is None:
            found = self._pollers[descriptors] = select.poll()
            for fd in descriptors:
                found.register(fd, select.POLLIN)
        return found

    def _read(self, *, wait: bool = False) -> int:
        """Take what has arrived, and return its size; complete frames go to the queue."""
        flags = socket.MSG_CMSG_CLOEXEC | (0 if wait else socket.MSG_DONTWAIT)
        try:
            size, ancillary, _flags, _ = self._sock.recvmsg_into([self._arriving], _ANCILLARY_BYTES, flags)
        except BlockingIOError:
            return 0
        except ConnectionResetError:
            self._closed = True
            return 0
        for level, kind, raw in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(raw[: len(raw) - len(raw) % received.itemsize])
                self._fds.extend(received)
        if not size:
            self._closed = True
            return 0
        self._buffer += self._arriving[:size]
        self._cut()
        return size

    def _cut(self) -> None:
        start, arrived = 0, len(self._buffer)
        with memoryview(self._buffer) as view:
            while arrived - start >= _HEADER.size:
                length, fd_count = _HEADER.unpack_from(view, start)
                if length > MAX_FRAME_BYTES:
                    raise PeerClosedError(f"a frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
                stop = start + _HEADER.size + length
                if arrived < stop or len(self._fds) < fd_count:
                    break
                payload = bytes(view[start + _HEADER.size : stop])
                self._frames.append(Frame(payload, [self._fds.popleft() for _ in range(fd_count)] if fd_count else []))
                start = stop
        if start:
            del self._buffer[:start]

    def close(self) -> None:
        """Close the socket and every descriptor that nobody took."""
        self._sock.close()
        for fd in self._fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._fds.clear()
        for frame in self._frames:
            for fd in frame.fds:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._frames.clear()
