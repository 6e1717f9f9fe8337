from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dmlpipe.storage.trees.text_diff import TEXT_MAX_BYTES, diff_text

contents = st.lists(st.sampled_from(["a", "b", "c\r", "", "ä\x0b", "-- x"]), max_size=8).flatmap(
    lambda lines: st.sampled_from(["\n".join(lines), "\n".join([*lines, ""])])
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("patched")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=st.none() | contents, new=st.none() | contents)
def test_git_makes_the_new_text_of_the_old_one(folder: Path, old: str | None, new: str | None) -> None:
    before, after = (None if text is None else text.encode() for text in (old, new))
    found = diff_text("/f.txt", before, after)
    assert found is not None
    # An empty file that comes or goes has no lines to show.
    if (before or b"") == (after or b"") or None in (old, new):
        assert (found.added, found.removed) == (_lines(after), _lines(before)) or before == after
        return
    file = folder / "f.txt"
    file.write_bytes(before or b"")
    subprocess.run(
        ["git", "apply", "--whitespace=nowarn", "-"], cwd=folder, input=found.patch.encode(), check=True, timeout=20
    )
    assert file.read_bytes() == (after or b"")
    assert found.added - found.removed == _lines(after) - _lines(before)


def _lines(text: bytes | None) -> int:
    return (text or b"").count(b"\n") + (not (text or b"\n").endswith(b"\n"))


def test_a_missing_newline_is_said() -> None:
    found = diff_text("/f", b"one", b"one\n")
    assert found is not None
    assert found.patch.splitlines()[3:] == ["-one", "\\ No newline at end of file", "+one"]


def test_a_file_that_comes_or_goes_is_dev_null_on_one_side() -> None:
    made, gone = diff_text("/f", None, b"one\n"), diff_text("/f", b"one\n", None)
    assert made is not None
    assert gone is not None
    assert made.patch.splitlines() == ["--- /dev/null", "+++ b/f", "@@ -0,0 +1 @@", "+one"]
    assert gone.patch.splitlines() == ["--- a/f", "+++ /dev/null", "@@ -1 +0,0 @@", "-one"]


@pytest.mark.parametrize("data", [b"\0", b"\xff", b"x" * (TEXT_MAX_BYTES + 1)])
def test_what_is_binary_or_large_is_not_compared(data: bytes) -> None:
    assert diff_text("/f", b"text\n", data) is None
    assert diff_text("/f", data, None) is None
