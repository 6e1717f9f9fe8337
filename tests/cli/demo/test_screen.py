"""The screen shows what a terminal would show last."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.live import Live
from rich.text import Text

from dmlpipe.cli.demo.screen import Screen


@given(st.lists(st.text(st.characters(categories=["L", "N"]), max_size=20), max_size=8))
def test_plain_lines_come_out_as_they_went_in(lines: list[str]) -> None:
    screen = Screen()
    screen.feed("".join(f"{line}\n" for line in lines))
    while lines and not lines[-1]:
        lines.pop()
    assert screen.lines() == lines


def test_a_live_table_leaves_its_last_state_only() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=40, color_system=None)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        for n in range(5):
            live.update(Text(f"model {n}\npredictions {n}"), refresh=True)
    console.print("done")
    screen = Screen()
    screen.feed("before\n" + stream.getvalue())
    assert [line for line in screen.lines() if line] == ["before", "done"]


def test_colours_are_kept() -> None:
    screen = Screen()
    screen.feed("\x1b[1Ma\n\x1b[1A\x1b[2K\x1b[32mok\x1b[0m\n")
    assert screen.lines() == ["\x1b[32mok\x1b[0m"]


def test_a_row_written_over_after_a_return_is_replaced() -> None:
    screen = Screen()
    screen.feed("10%\r20%\r\nend")
    assert screen.lines() == ["20%", "end"]
