"""`fsck` as it is typed."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from dmlpipe.cli.main import main
from dmlpipe.scheduler.leases.inline import InlineExecutor
from dmlpipe.scheduler.store import Store as PipelineStore
from dmlpipe.storage.errors import CorruptError, FormatError
from dmlpipe.storage.store import Store

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
    content = random.Random(0).randbytes(1 << 20)  # what compresses well is packed
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


def test_what_is_damaged_is_mended_from_a_clone_or_put_again(cli: Cli, big: Path, here: Path) -> None:
    assert cli("store", "clone", big, "copy").code == 0
    assert cli("fsck", "--repair").out == "all is well: nothing to mend\n"
    spoil(big, "objects")
    answer = cli("fsck", "--repair", "--from", "copy")
    assert answer.code == 0
    assert answer.lines[0].startswith("mended  objects/")
    assert answer.lines[0].endswith(f"from file://{here}/copy")
    assert answer.lines[1] == "1 problem found, 1 object mended: all is well"
    assert "1 damaged object kept in quarantine/" in answer.err
    spoil(big, "objects")
    alone = cli("fsck", "--repair")
    assert alone.code == 1
    assert alone.lines[0].startswith("missing  objects/")
    assert "put the files again" in alone.err
    assert cli("put", "rescued", "many").code == 0
    record = cli("fsck", "--repair", "--json").records[0]
    assert (record["ok"], record["found"]) == (True, [])
    assert cli("fsck").code == 0
    log = cli("log", "--ledger").out
    assert "damage" in log
    assert "repair" in log


@pytest.mark.parametrize(
    "words", [["--from", "x"], ["--no-rederive"], ["--repair", "--sample", "5%"], ["--repair", "--links"]]
)
def test_words_that_do_not_go_together(cli: Cli, store: Path, words: list[str]) -> None:
    assert cli("fsck", *words).code == 2


def test_a_place_to_mend_from_that_is_no_store(cli: Cli, big: Path, here: Path) -> None:
    spoil(big, "objects")
    (here / "empty").mkdir()
    answer = cli("fsck", "--repair", "--from", "empty")
    assert answer.code == 1
    assert "no store at" in answer.err


def test_any_flipped_byte_of_dmlpipe_json_is_found_and_it_is_put_back(cli: Cli, store: Path) -> None:
    assert cli("store", "clone", store, "copy").code == 0
    file = store / "dmlpipe.json"
    body, whole = file.read_bytes(), Store.open(store).info
    for position in range(len(body)):
        file.write_bytes(body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :])
        try:
            info = Store.open(store).info
        except (CorruptError, FormatError):
            continue
        # The name of the check itself: what is left unchecked is as it was.
        assert b'"check"' in body[position - 6 : position + 7]
        assert msgspec.structs.replace(info, check=whole.check) == whole
    assert cli("fsck").code == 1
    assert "fsck --repair --from URL" in cli("fsck", "--repair").err
    answer = cli("fsck", "--repair", "--from", "copy")
    assert (answer.code, file.read_bytes()) == (0, body)
    assert "dmlpipe.json was put back from" in answer.err
    file.unlink()
    assert cli("--store", store, "fsck", "--repair", "--from", "copy").code == 0
    assert cli("init", "other").code == 0
    file.write_bytes(body[:-9])
    assert cli("fsck", "--repair", "--from", "other").code == 1


NOISY = """\
import os

import dmlpipe as dml

dag = dml.DAG("d")


@dag.pipeline(dml.files("texts", "/{stem}.txt"))
def upper(texts: bytes, stem: str) -> dml.Files:
    print("at work")
    os.system("echo a child at work")
    return {f"{stem}.up": texts.upper(), f"{stem}.noise": os.urandom(500 if stem == "b" else 5)}
"""


def test_outputs_are_made_again(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def call(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(list(words))
        out, err = capfd.readouterr()
        return code, out, err

    (here / "dag.py").write_text(NOISY)
    (here / "a.txt").write_text("a" * 500)
    (here / "b.txt").write_text("b" * 500)
    for words in (["init"], ["put", "texts", "a.txt", "b.txt"], ["submit", "dag.py"]):
        assert call(*words)[0] == 0
    opened = PipelineStore.open(here / ".dmlpipe")
    executor = InlineExecutor(opened)
    opened.run(executor=executor)
    executor.close()
    for file in (here / ".dmlpipe" / "results").rglob("*.seg"):
        file.unlink()
    (here / "dag.py").unlink()

    code, out, err = call("fsck", "--repair", "--no-rederive")
    assert (code, "upper@master:/a.up" in out, "at work" in out + err) == (1, True, False)
    code, out, err = call("fsck", "--repair")
    assert (code, err.count("at work"), "at work" in out) == (1, 4, False)
    assert "mended  upper@master:/a.up  made again by its datum" in out
    assert "not made again  upper@master:/b.noise  not reproducible" in out
    assert "dmlpipe pipeline reprocess" in err
    code, out, err = call("fsck", "--repair", "--json")
    assert msgspec.json.decode(out)["refused"] == [{"file": "upper@master:/b.noise", "why": "not reproducible"}]
    assert "at work" in err
    assert call("cat", "upper:/b.up")[1] == "B" * 500
