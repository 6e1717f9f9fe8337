"""A child in the foreground, on a declared environment's interpreter: what `try` runs a function in.

It says what a slot's child says and hears what that hears. But it has the terminal: what user code prints is seen at
once, `breakpoint()` is answered, and Ctrl-C ends it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from ...storage.objects.segment import Failure
from .frames import FrameSocket, PeerClosedError
from .main import Child
from .permits import Permits
from .processes import adopt_orphans, end_children

INTERRUPTED = 130
"""Exit code: Ctrl-C, or the debugger was left with ``q``."""


def post_mortem(error: BaseException) -> None:
    """Open the debugger where an exception was raised; one that was returned in place of a result was not."""
    if error.__traceback__ is None:
        return
    import pdb  # for this alone

    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.stdout.flush()
    pdb.post_mortem(error.__traceback__)


def _is_end(error: BaseException) -> bool:
    """Whether somebody at the terminal wants no more of it."""
    return isinstance(error, KeyboardInterrupt) or type(error).__name__ == "BdbQuit"


class _Foreground(Child):
    """A child whose output nobody keeps.

    Parameters
    ----------
    debug
        Open the debugger where user code raises.
    """

    def __init__(self, channel: FrameSocket, permits: Permits, parent: int, *, debug: bool) -> None:
        super().__init__(channel, 1, permits, "", parent)
        self._debug = debug

    def _failure(self, error: BaseException) -> Failure:
        if _is_end(error):
            raise error
        if self._debug:
            post_mortem(error)
        return super()._failure(error)

    def _take_log(self) -> bytes:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                continue
        return b""


def main(sock: int, permits: int, parent: int, *, debug: bool) -> None:
    """Serve until the other side closes the socket: the rest of this process's life."""
    for fd in (sock, permits):
        os.set_inheritable(fd, False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.dont_write_bytecode = True
    adopt_orphans()
    channel = FrameSocket(socket.socket(fileno=sock))
    status = 0
    try:
        _Foreground(channel, Permits(permits), parent, debug=debug).serve()
    except (PeerClosedError, BrokenPipeError):
        pass
    except BaseException as err:
        if not _is_end(err):
            raise
        status = INTERRUPTED
    end_children()
    os._exit(status)
