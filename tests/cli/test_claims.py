"""`submit --same` and `--if-same`: what they print, what they refuse."""

from __future__ import annotations

from pathlib import Path

from .conftest import Cli
from .test_work_verbs import filled, work

__all__ = ["filled", "work"]


def edit(work: Path) -> None:
    dag = work / "dag.py"
    dag.write_text(dag.read_text().replace("len(texts.read_text()) * factor", "factor * len(texts.read_text())"))


def test_a_claim_is_printed_recorded_and_told(work: Path, cli: Cli) -> None:
    edit(work)
    told = cli("submit", "dag.py", "--same", "counts", "-m", "only turned round")
    assert [line.split()[:3] for line in told.lines] == [["counts", "claimed", "v2"], ["total", "cosmetic", "v2"]]
    assert "only turned round" in told.out
    assert "its code is the same as v1" in cli("plan").err
    assert cli("plan", "--exit-code").code == 0
    assert cli("plan", "dag.py", "--exit-code").code == 0


def test_a_sample_is_compared_and_its_size_told(work: Path, cli: Cli) -> None:
    edit(work)
    told = cli("submit", "dag.py", "--if-same", "2")
    assert "same as v1: 2 datums compared" in told.out
    dag = work / "dag.py"
    dag.write_text(dag.read_text().replace("str(factor", "str(1 + factor"))
    told = cli("submit", "dag.py", "--if-same", "5")
    assert "3 datums compared with those of v1: 3 differ, first texts:/a.txt" in told.err
    assert "changed" in told.out


def test_what_excludes_each_other_is_refused(work: Path, cli: Cli) -> None:
    assert cli("submit", "dag.py", "--reprocess", "--if-same", "1").code == 2
    assert cli("submit", "dag.py", "--same", "nothing").code == 1
