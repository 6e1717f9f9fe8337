"""Where and with what a figure was taken."""

from __future__ import annotations

import dataclasses
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent if (HERE.parent / ".git").exists() else None
"""The repository that this is run from; None in an installed package."""
RESULTS = HERE / "results" if CHECKOUT else Path.cwd()
"""Where figures go that nobody gave a place."""
ONE_THREAD: dict[str, str] = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "BLIS_NUM_THREADS"), "1"
)
"""For every contender alike: a slot is one thread of computation, so that slots are what is compared."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A description for people; nothing reads it back."""

    cpu: str
    cores: int
    """That this process may use."""
    memory_mib: int
    system: str
    python: str
    load_before: float
    """Load of the last minute before the benchmark: other work on the machine."""


def describe() -> Machine:
    """Describe this machine as it is now."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return Machine(
        cpu=names[0] if names else platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        load_before=round(os.getloadavg()[0], 2),
    )


def describe_here() -> dict[str, Any]:
    """Describe this machine by what does not change from call to call, its name included."""
    found = dataclasses.asdict(describe())
    del found["load_before"]
    return {"host": platform.node(), **found}


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return installed versions."""
    return {name: version(name) for name in packages}


def commit() -> str:
    """Return the short commit of this checkout, with `+` if tracked files differ; empty in an installed package."""
    head = _git("rev-parse", "--short=8", "HEAD")
    return head + ("+" if head and _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str:
    if CHECKOUT is None:
        return ""
    try:
        done = subprocess.run(["git", "-C", str(CHECKOUT), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
