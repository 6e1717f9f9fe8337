"""`dml.testing.run`: the DAG of a test, in this process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import dmlpipe as dml
from dmlpipe.scheduler.errors import JobFailed


def letters() -> dml.DAG:
    dag = dml.DAG("letters")

    @dag.pipeline(dml.files("texts"))
    def longest(texts: Path, *, least: int = 0) -> dml.Files:
        return {"n": str(max(least, *(len(path.read_text()) for path in texts.iterdir())))}

    @dag.pipeline(dml.cross(text=dml.files("texts", "/{stem}.txt"), longest=dml.files("longest")), batch=2)
    class padded:  # noqa: N801 - the name is the pipeline's
        def __init__(self, longest: Path) -> None:
            self.width = int((longest / "n").read_text())

        def __call__(self, text: list[bytes], stem: list[str]) -> list[dml.Files]:
            if b"bad" in text:
                raise ValueError("a bad text")
            return [{f"{name}.out": one.ljust(self.width, b".")} for one, name in zip(text, stem, strict=True)]

    return dag


def test_a_dag_runs_on_mappings_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    (tmp_path / "b.txt").write_text("defgh")
    commits = dml.testing.run(letters(), {"texts": tmp_path})
    assert commits["padded"].read_bytes("/a.out") == b"abc.."
    assert commits["longest"].read_text("/n") == "5"
    again = dml.testing.run(letters(), {"texts": {"a.txt": b"abc", "b.txt": "defgh"}})
    assert again["padded"].tree.root == commits["padded"].tree.root


def test_parameters_are_set(tmp_path: Path) -> None:
    commits = dml.testing.run(letters(), {"texts": {"a.txt": "a"}}, params={"longest": {"least": 3}})
    assert commits["padded"].read_bytes("/a.out") == b"a.."


def test_a_failure_raises_with_what_the_code_raised_as_its_cause() -> None:
    with pytest.raises(JobFailed, match="padded: 1 of 2 datums failed") as caught:
        dml.testing.run(letters(), {"texts": {"a.txt": "fine", "b.txt": "bad"}})
    assert isinstance(caught.value.__cause__, ValueError)
    assert str(caught.value.__cause__) == "a bad text"


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, dmlpipe as dml\n"
        "dag = dml.DAG('d')\n"
        "dag.command('up', 'tr a-z A-Z < $texts > $out/x', dml.files('texts', '/*'))\n"
        "out = dml.testing.run(dag, {'texts': {'a': 'abc'}})\n"
        "assert out['up'].read_bytes('/x') == b'ABC'\n"
        "print([name for name in ('dask', 'distributed', 'zarr', 's3fs') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
