"""The README does what it says: its lines are typed here, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dmlpipe.storage.store import Store
from tests.integration.pages import ROOT, blocks, jobs, type_line

pytestmark = pytest.mark.timeout(150)


def test_the_readmes_ten_lines_do_what_it_says(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (python,) = blocks(ROOT / "README.md", "python")
    commands = next(block for block in blocks(ROOT / "README.md") if block[0] == "dmlpipe init")
    Path("dag.py").write_text("\n".join(python) + "\n")
    for path, text in {
        "2025/a.txt": "1 2 3 2 1 2 3",
        "2026/b.txt": "9 8 9",
        "week/mon.txt": "2 7 2",
        "week/tue.txt": "2 2 2",
        "late/sun.txt": "1 8",
    }.items():
        (here / "sensors" / path).parent.mkdir(parents=True, exist_ok=True)
        (here / "sensors" / path).write_text(text)
    counts = {
        "dmlpipe run dag.py": [("model", 1, 0), ("alarms", 2, 0)],
        "dmlpipe run # one datum": [("alarms", 1, 2)],
        "dmlpipe run # a new model": [("model", 1, 0), ("alarms", 3, 0)],
        "dmlpipe run # zero datums": [("alarms", 0, 3)],
    }
    seen = []
    for line in commands:
        assert type_line(line) == 0, line
        for start, expected in counts.items():
            if re.sub(r" +", " ", line).startswith(start):
                seen.append(start)
                assert jobs(last=len(expected)) == expected, line
    assert seen == list(counts)
    assert "7" in Store.open(read_only=True)["alarms"].read_bytes("/mon.txt").decode()
    assert "~ /mon.txt" in capfd.readouterr().out.replace("~  /", "~ /")


def test_the_readme_says_things_in_their_order() -> None:
    readme = (ROOT / "README.md").read_text()
    order = [
        "Data-versioned machine-learning",
        "docs/pictures/why.svg",
        "make demo",
        "make test",
        "```python",
        "dmlpipe init",
        "not there yet",
    ]
    places = [readme.index(text) for text in order]
    assert places == sorted(places)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/adr/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target
