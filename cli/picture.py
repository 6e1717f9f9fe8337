"""Small pictures as text: two pixels a character cell, the upper as foreground and the lower as background.

Pillow is imported when a picture is drawn; where it is not installed there is no picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

MAX_BYTES = 1 << 20
"""Files above this size are not drawn."""

SUFFIXES = (".png", ".gif", ".bmp", ".jpg", ".jpeg", ".pgm", ".ppm")

_HALF = "▀"


def draw(data: bytes, *, max_columns: int = 32, max_rows: int = 16) -> Text | None:
    """Draw an image file.

    Parameters
    ----------
    data
        Content of the file.
    max_columns, max_rows
        Character cells; a larger image is scaled down, a smaller one is drawn pixel by pixel.

    Returns
    -------
    Text or None
        None if Pillow is not installed or `data` is no image.
    """
    from rich.text import Text

    try:
        from PIL import Image, UnidentifiedImageError
    except ModuleNotFoundError:
        return None
    import io

    try:
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
        # A picture is an ornament of `why`: a file that cannot be drawn must not hide the answer.
        return None
    image.thumbnail((max_columns, max_rows * 2))
    pixels = image.load()
    if pixels is None:
        return None
    text = Text()
    for top in range(0, image.height, 2):
        if top:
            text.append("\n")
        for column in range(image.width):
            upper = _colour(pixels[column, top])
            lower = f" on {_colour(pixels[column, top + 1])}" if top + 1 < image.height else ""
            text.append(_HALF, style=f"{upper}{lower}")
    return text


def _colour(pixel: object) -> str:
    assert isinstance(pixel, tuple)
    return "#{:02x}{:02x}{:02x}".format(*pixel)
