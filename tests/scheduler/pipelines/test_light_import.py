"""A slot's child imports the user's DAG file before its first datum: only what that needs is loaded then."""

from __future__ import annotations

import subprocess
import sys

DECLARE = """
import sys
from pathlib import Path

import dmlpipe as dml

dag = dml.DAG("light")


@dag.pipeline(dml.cross(item=dml.files("items", "/{stem}"), model=dml.files("model")))
def labels(item: bytes, model: Path, stem: str) -> dml.Files:
    return {stem: item}


print(*sorted(name for name in sys.modules if name.startswith("dmlpipe.")))
"""


def test_declaring_a_pipeline_loads_nothing_that_follows_code_or_reads_a_store() -> None:
    done = subprocess.run([sys.executable, "-c", DECLARE], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "dmlpipe.scheduler.pipelines.dag" in loaded
    heavy = {"pipelines.build", "identity.code", "identity.bundle", "identity.reach"}
    assert not {f"dmlpipe.scheduler.{name}" for name in heavy} & loaded
    assert not [name for name in loaded if name.startswith(("dmlpipe.storage.ledger", "dmlpipe.storage.state"))]
