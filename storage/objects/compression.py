"""zstd frames as metadata is stored in them: with their content's size and a checksum."""

from __future__ import annotations

import zstandard

from ..digest import Data
from ..errors import CorruptError

_LEVEL = 1
_DESCRIPTOR = 4
"""Place of the byte with a frame's flags (RFC 8878, 3.1.1.1.1)."""
_FIXED_BITS = 0b0001_1100
"""Of the flags: unused, reserved (both 0 here), checksum."""
_WITH_CHECKSUM = 0b0000_0100
MAX_CONTENT_BYTES = 1 << 30
"""A frame that claims more is taken for damaged, before memory is set aside for it."""


def compress(raw: Data) -> bytes:
    """Return one zstd frame that holds `raw`."""
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(raw)


def decompress(frame: Data, what: str) -> bytes:
    """Return what a frame made by `compress` holds.

    Parameters
    ----------
    frame
        Exactly one frame.
    what
        Named in the error: ``"node 3f9a01bc22de"``.

    Raises
    ------
    CorruptError
        The frame is damaged.
    """
    try:
        size = zstandard.frame_content_size(frame)
        if not 0 <= size <= MAX_CONTENT_BYTES:
            raise CorruptError(f"{what} is corrupt: its frame claims to hold {size} bytes")
        if memoryview(frame)[_DESCRIPTOR] & _FIXED_BITS != _WITH_CHECKSUM:
            # Without the flag a decoder takes the checksum for something else, and compares nothing.
            raise CorruptError(f"{what} is corrupt: its frame carries no checksum")
        return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as err:
        raise CorruptError(f"{what} is corrupt: {len(frame)} stored bytes do not decompress: {err}") from err
