from __future__ import annotations

import pytest

from dmlpipe.storage.objects.segment import Failure
from dmlpipe.worker.child.failure import exit_failure, said


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (b"so far\nit broke\n\n  \n", "it broke"),
        (b"\xff no newline", "\ufffd no newline"),
        (b"x" * 10_000, "x" * 300),
        (b"\n", ""),
        (b"", ""),
    ],
)
def test_the_last_words_of_a_process_are_its_line(log: bytes, line: str) -> None:
    assert said(exit_failure(3), log) == Failure("exit", "the process ended with exit code 3", "", line)
    assert said(exit_failure(-9), log).line == line


@pytest.mark.parametrize("known", [Failure("ValueError", "no"), Failure("exit", "x", "dag.py:3 in f", "f()")])
def test_what_is_known_better_is_kept(known: Failure) -> None:
    assert said(known, b"printed") == known
