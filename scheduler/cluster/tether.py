"""Run a module as a child that dies with its parent.

``python -m dmlpipe.scheduler.cluster.tether PARENT MODULE [ARG...]``.

The kernel kills this process when the parent's *thread* that started it ends (Linux, ``PR_SET_PDEATHSIG``); so a parent
starts tethered children from a thread that lives as long as they may. Elsewhere a thread watches the parent's pid.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1


def tether(parent: int) -> None:
    """Die when process `parent` does."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    else:
        threading.Thread(target=_watch, args=(parent,), name="dmlpipe-tether", daemon=True).start()
    # The parent may have died before prctl.
    if os.getppid() != parent:
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    tether(int(sys.argv[1]))
    module = sys.argv[2]
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
