"""docs/guides/versioning.md does what it says: its commands are run in order, on a real S3 server."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "versioning.md"
PLACE = "s3://my-bucket/datasets"


@pytest.mark.s3
def test_the_guide_runs_as_it_stands(s3_url: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```(bash|python)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert [kind for kind, _ in blocks].count("python") == 1
    scans = tmp_path / "scans" / "mon"
    scans.mkdir(parents=True)
    (scans / "a.txt").write_text("scan a\n")
    (scans / "b.txt").write_text("scan b\n")
    (tmp_path / "notes.txt").write_text("notes\n")
    script = ["set -eu", f"cd {shlex.quote(str(tmp_path))}"]
    for kind, body in blocks:
        script.append(body if kind == "bash" else f"{shlex.quote(sys.executable)} - <<'PYTHON'\n{body}PYTHON")
    script.append(
        "echo; echo ==; dmlpipe cat scans:/notes/notes.txt; ls as-it-was/mon\n"
        "dmlpipe --store ./from-archive ls -R scans"
    )
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DMLPIPE_CACHE_DIR": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        ["bash", "-c", "\n".join(script).replace(PLACE, s3_url)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.partition("\n==\n")[2].split() == [
        "notes",
        "a.txt",
        "b.txt",
        "/mon/a.txt",
        "/notes/notes.txt",
        "/tue.txt",
        "/wed.txt",
    ]
