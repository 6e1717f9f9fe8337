"""zstd frames as metadata and packed content are stored in them: with their content's size and a checksum."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import zstandard

from ..digest import Data
from ..errors import CorruptError

_LEVEL = 1
_DESCRIPTOR = 4
"""Place of the byte with a frame's flags (RFC 8878, 3.1.1.1.1)."""
_FIXED_BITS = 0b0001_1100
"""Of the flags: unused, reserved (both 0 here), checksum."""
_WITH_CHECKSUM = 0b0000_0100
_WORTH = 8
"""A frame must be smaller than its content by one part in so many: reading it costs more than reading as it is."""
_TRIALS = 3
_RETRY_AFTER = 64
_RETRY_DOUBLINGS = 4
SAMPLE_BYTES = 16 << 10
_SAMPLE_FROM_BYTES = 128 << 10

MAX_CONTENT_BYTES = 1 << 30
"""A frame that claims more is taken for damaged, before memory is set aside for it."""


_of_thread = threading.local()


def compress(raw: Data) -> bytes:
    """Return one zstd frame that holds `raw`."""
    return own_compressor().zstd.compress(raw)


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


def own_compressor() -> Compressor:
    """Return the compressor of this thread."""
    found: Compressor | None = getattr(_of_thread, "compressor", None)
    if found is None:
        found = _of_thread.compressor = Compressor()
    return found


class Compressor:
    """Compresses content where that pays, and learns where it does not. For one thread at a time."""

    def __init__(self) -> None:
        self.zstd = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        self._skip: dict[str, int] = {}
        """By kind: how many are still to be left out."""
        self._failed: dict[str, int] = {}
        """By kind: how many trials in a row failed."""

    def frame(self, data: Data, kind: str | None = None) -> bytes | None:
        """Return a frame that holds `data`, or None if it had better be stored as it is.

        Parameters
        ----------
        data
            Content. Of large content samples are tried first.
        kind
            Files of one kind are taken to compress alike: after a few that did not, only one in many is tried. None:
            like nothing else.
        """
        if kind is not None and self.pass_over(kind, 1):
            return None
        found = self.zstd.compress(data) if self._may_pay(data) else None
        pays = found is not None and len(found) <= len(data) - len(data) // _WORTH
        if kind is None:
            return found if pays else None
        if pays:
            self._failed[kind] = 0
            return found
        self._failed[kind] = failed = self._failed.get(kind, 0) + 1
        if failed >= _TRIALS:
            self._skip[kind] = _RETRY_AFTER << min(failed - _TRIALS, _RETRY_DOUBLINGS)
        return None

    def pass_over(self, kind: str, most: int) -> int:
        """Return how many of the next `most` files of a kind are left as they are, untried; `frame` is for the next."""
        left = min(self._skip.get(kind, 0), most)
        if left:
            self._skip[kind] -= left
        return left

    def _may_pay(self, data: Data) -> bool:
        if len(data) < _SAMPLE_FROM_BYTES:
            return True
        view = memoryview(data)
        return self.samples_pay([view[start : start + SAMPLE_BYTES] for start in sample_places(len(view))])

    def samples_pay(self, samples: Sequence[Data]) -> bool:
        """Whether large content may compress, given what stands at its `sample_places`."""
        size = sum(len(self.zstd.compress(sample)) for sample in samples)
        return size <= len(samples) * (SAMPLE_BYTES - SAMPLE_BYTES // _WORTH)


def sample_places(size: int) -> Sequence[int]:
    """Return where the samples, of `SAMPLE_BYTES` each, of large content begin."""
    last = size - SAMPLE_BYTES
    return (0, last // 2, last)
