"""Pages of the documentation, typed line by line in a folder."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from dmlpipe.cli.main import main
from dmlpipe.storage.store import Store

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def blocks(page: Path, language: str = "") -> list[list[str]]:
    """Lines of the fenced blocks of a page, in order."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [block.splitlines() for name, block in found if name == language]


def type_line(line: str) -> int:
    """Type one line of a page: dmlpipe in this process, Python in another."""
    words = shlex.split(line, comments=True)
    match words:
        case []:
            return 0
        case ["dmlpipe", *rest]:
            return main(rest)
        case ["python", *rest]:
            subprocess.run([sys.executable, *rest], check=True, timeout=60)
            return 0
    raise AssertionError(f"what is this line? {line}")


def copy_example(name: str, here: Path) -> None:
    shutil.copytree(EXAMPLES / name, here, dirs_exist_ok=True)


def jobs(*, last: int) -> list[tuple[str, int, int]]:
    """Pipeline, datums run, datums skipped of the last jobs, oldest first."""
    state = Store.open(read_only=True).state
    done = [(job.pipeline, job.end.counters.run, job.end.counters.skipped) for _, job in state.jobs()]
    return done[:last][::-1]
