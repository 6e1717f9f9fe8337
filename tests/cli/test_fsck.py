"""`fsck` as it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Cli


def spoil(store: Path, folder: str) -> Path:
    """Flip the last byte of an object; return its file."""
    file = sorted(path for path in (store / folder).rglob("*") if path.is_file())[0]
    body = bytearray(file.read_bytes())
    body[-1] ^= 1
    file.chmod(0o644)
    file.write_bytes(body)
    return file


@pytest.fixture
def big(cli: Cli, store: Path, here: Path) -> Path:
    """A store with twelve files that one loose object holds."""
    content = b"x" * (1 << 20)
    (here / "many").mkdir()
    for number in range(12):
        (here / "many" / f"{number}.bin").write_bytes(content)
    assert cli("put", "many", "many").code == 0
    assert cli("put", "many", "week/a.txt").code == 0
    return store


def test_damage_is_named_with_what_it_touches(cli: Cli, big: Path) -> None:
    assert cli("fsck").code == 0
    spoil(big, "objects")
    answer = cli("fsck")
    assert answer.code == 1
    assert answer.lines[0].startswith("damaged  objects/")
    assert answer.lines[1] == "  touches many@master:/0.bin, in 1 other commit too"
    assert answer.lines[11] == "  touches 2 more: --json names all"
    assert answer.lines[12].endswith("1 problem")
    (record,) = cli("fsck", "--json").records
    assert len(record["problems"][0]["touches"]) == 12
    assert [len(touch["others"]) for touch in record["problems"][0]["touches"]] == [1] * 12


def test_samples_say_how_far_they_are(cli: Cli, big: Path, here: Path) -> None:
    (here / "other.bin").write_bytes(b"y" * (1 << 20))
    assert cli("put", "many", "other.bin").code == 0
    answer = cli("fsck", "--sample", "1%")
    assert answer.code == 0
    assert " never checked so far: all is well" in answer.out
    for _ in range(3):
        answer = cli("fsck", "--sample", "50%")
    assert "all were checked before: all is well" in answer.out
    assert cli("fsck", "--sample", "50%", "--json").records[0]["never_checked"] == 0


@pytest.mark.parametrize("share", ["5", "0%", "101%", "-1%", "much%"])
def test_a_share_is_a_percentage(cli: Cli, store: Path, share: str) -> None:
    answer = cli("fsck", "--sample", share)
    assert answer.code == 2
    assert "such as 5%" in answer.err
