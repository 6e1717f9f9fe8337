from __future__ import annotations

import io
import sys

import pytest

from dmlpipe.cli.picture import draw

Image = pytest.importorskip("PIL.Image")


def png(width: int, height: int) -> bytes:
    image = Image.new("RGB", (width, height))
    for x in range(width):
        for y in range(height):
            image.putpixel((x, y), (x, y, 7))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_two_pixels_stand_in_one_cell() -> None:
    text = draw(png(3, 4))
    assert text is not None
    assert text.plain == "▀▀▀\n▀▀▀"
    assert str(text.spans[0].style) == "#000007 on #000107"


def test_an_odd_last_row_has_no_lower_half() -> None:
    text = draw(png(1, 3))
    assert text is not None
    assert [str(span.style) for span in text.spans] == ["#000007 on #000107", "#000207"]


def test_a_large_picture_is_scaled_down_and_keeps_its_shape() -> None:
    text = draw(png(256, 128), max_columns=32, max_rows=16)
    assert text is not None
    rows = text.plain.split("\n")
    assert (len(rows), {len(row) for row in rows}) == (8, {32})


@pytest.mark.parametrize("data", [b"", b"no picture", png(8, 8)[:40]])
def test_what_is_no_picture_is_not_drawn(data: bytes) -> None:
    assert draw(data) is None


def test_without_pillow_there_is_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    data = png(2, 2)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert draw(data) is None
