"""The stage shows what a command prints, and fails loudly when a claim does not hold."""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from dmlpipe.cli.demo.stage import BrokenClaimError, Stage


def fake_main(words: Sequence[str]) -> int:
    match words:
        case ["list", n]:
            for k in range(int(n)):
                click.echo(f"{click.style('M', fg='yellow')} /{k}.json")
            click.echo(f"{n} changed")
        case ["bytes"]:
            sys.stdout.buffer.write(b'{"label": 7}\n')
        case ["warn"]:
            click.echo("note: careful", err=True)
        case ["width"]:
            click.echo(os.environ.get("COLUMNS", "none"))
        case ["exit", code]:
            return int(code)
    return 0


def make_stage(out: io.StringIO, pictures: Path | None = None) -> Stage:
    return Stage(fake_main, out=out, pictures=pictures)


def test_what_a_command_prints_is_shown_and_returned() -> None:
    out = io.StringIO()
    stage = make_stage(out)
    assert stage.type("dmlpipe list 1") == ["M /0.json", "1 changed"]
    assert stage.type("dmlpipe bytes") == ['{"label": 7}']
    assert out.getvalue() == '$ dmlpipe list 1\nM /0.json\n1 changed\n$ dmlpipe bytes\n{"label": 7}\n'


def test_a_long_listing_is_cut_and_says_so_but_returned_whole() -> None:
    out = io.StringIO()
    lines = make_stage(out).type("dmlpipe list 100", head=2)
    assert len(lines) == 101
    assert out.getvalue().splitlines()[1:] == ["M /0.json", "M /1.json", "  … 98 more lines", "100 changed"]


def test_a_command_that_fails_ends_the_story() -> None:
    with pytest.raises(BrokenClaimError, match="`dmlpipe exit 3` ended with exit code 3"):
        make_stage(io.StringIO()).type("dmlpipe exit 3")


def test_an_interrupted_command_interrupts_the_story() -> None:
    with pytest.raises(KeyboardInterrupt):
        make_stage(io.StringIO()).type("dmlpipe exit 130")


def test_a_claim_that_does_not_hold_is_an_error_with_both_sides() -> None:
    stage = make_stage(io.StringIO())
    stage.claim("two", 2, 2)
    with pytest.raises(BrokenClaimError, match="the demo said 'ten datums run': expected 10, found 11"):
        stage.claim("ten datums run", 10, 11)
    assert stage.claims == ["two"]
    assert BrokenClaimError.exit_code == 1


def test_a_picture_holds_what_was_printed(tmp_path: Path) -> None:
    before = dict(os.environ)
    stage = make_stage(io.StringIO(), tmp_path / "pictures")
    stage.type("dmlpipe list 2", picture="list")
    assert stage.type("dmlpipe width") == ["100"]
    assert dict(os.environ) == before
    picture = (tmp_path / "pictures" / "list.svg").read_text()
    assert "/1.json" in picture
    assert "2&#160;changed" in picture
