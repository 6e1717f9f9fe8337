"""`dmlpipe.worker` with little patience for peers, which serves them as its first argument says.

``good``; ``garbage``: other bytes; ``stall``: nothing, for ever; ``vanish``: ends when it is asked.
"""

from __future__ import annotations

import os
import sys
import threading

from dmlpipe.worker import __main__ as worker
from dmlpipe.worker import dask_seam
from dmlpipe.worker.peers import exchange
from dmlpipe.worker.peers.fill import PeerSettings
from dmlpipe.worker.peers.transport import ReadRange


def serving(mode: str, read: ReadRange) -> ReadRange:
    """Wrap what peers are served by."""

    def served(file: bytes, start: int, stop: int) -> bytes | None:
        if mode == "vanish":
            os._exit(9)
        if mode == "stall":
            threading.Event().wait()
        return os.urandom(stop - start) if mode == "garbage" else read(file, start, stop)

    return served


def main(mode: str, arguments: list[str]) -> int:
    """Run the worker."""
    real = dask_seam.DaskPeers.serve

    def serve(self: dask_seam.DaskPeers, read: ReadRange) -> None:
        real(self, serving(mode, read))

    dask_seam.DaskPeers.serve = serve  # type: ignore[method-assign]
    impatient = PeerSettings(stall_min_s=0.5, connect_s=1.0, stall_factor=0.2)
    setattr(exchange, "PeerSettings", lambda: impatient)  # noqa: B010
    return worker.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
