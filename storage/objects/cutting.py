"""Where large content is cut into pieces: by what it holds, in stores that were made so.

A piece that begins at some byte ends at a place that follows from the bytes right before that place: so what stands
behind an insertion is cut as it was, and its pieces are in the store already. The cutting is FastCDC (2020) as
`pyfastcdc` does it; it is part of the format, so a release of that library that cuts otherwise is refused.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blake3 import blake3

from ..digest import Data
from ..errors import ErrorCode, FormatError, InvalidInputError

if TYPE_CHECKING:
    from pyfastcdc import FastCDC

FEATURE = "content-defined-pieces"
"""Name in `read_features` of stores that cut so."""

_KNOWN_BYTES = 1 << 21
_KNOWN_CUTS = (301_870, 321_040, 286_586, 325_174, 309_005, 372_136, 181_341)
"""Lengths of the pieces of so many bytes that blake3 draws from `dmlpipe`: what every release has to find."""


@dataclass(frozen=True, slots=True)
class ContentDefined:
    """How a store cuts by what content holds. Safe for use by many threads.

    Parameters
    ----------
    min, avg, max
        Bytes of a piece; the last one of a file may be shorter.
    level
        How strongly sizes are drawn to `avg` (normalized chunking).
    seed
        Of the rolling hash.
    """

    min: int = 64 << 10
    avg: int = 256 << 10
    max: int = 1 << 20
    level: int = 2
    seed: int = 0

    def parameters(self) -> dict[str, int]:
        """Return what ``dmlpipe.json`` says of it."""
        return {"min": self.min, "avg": self.avg, "max": self.max, "level": self.level, "seed": self.seed}

    def cuts(self, data: Data) -> Iterator[int]:
        """Yield the lengths of the pieces of `data`, in order. A length follows from at most `max` bytes.

        Raises
        ------
        InvalidInputError
            The library that cuts is not installed (code ``unsupported``).
        """
        for piece in _make(_library(), self).cut_buf(memoryview(data)):
            yield piece.length

    def zero_length(self) -> int:
        """Return the length of a piece that begins with at least `max` zeros."""
        return _zero_length(self)


def read_parameters(pieces: Mapping[str, int]) -> ContentDefined:
    """Return how a store cuts, from what its ``dmlpipe.json`` says.

    Raises
    ------
    FormatError
        It does not say.
    """
    try:
        return ContentDefined(**{name: pieces[name] for name in ContentDefined().parameters()})
    except KeyError as error:
        raise FormatError(f"the store cuts files by content and does not say how: no {error} in pieces") from error


def require_cutter() -> None:
    """Refuse to go on where the library that cuts is missing, or cuts otherwise.

    Raises
    ------
    InvalidInputError
        It is (code ``unsupported``); the hint says what to install.
    """
    _library()


@functools.cache
def _library() -> type[FastCDC]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pyfastcdc import FastCDC
    except ImportError as error:
        raise InvalidInputError(
            "this store cuts large files by content, which needs pyfastcdc",
            code=ErrorCode.UNSUPPORTED,
            hint="pip install 'dmlpipe[cdc]'",
        ) from error
    if not FastCDC.__module__.startswith("pyfastcdc.cy"):
        raise InvalidInputError(
            "pyfastcdc is installed without its compiled part: cutting would take minutes for each gigabyte",
            code=ErrorCode.UNSUPPORTED,
            hint="pip install --force-reinstall --only-binary :all: pyfastcdc",
        )
    if _lengths(FastCDC, ContentDefined()) != _KNOWN_CUTS:
        import pyfastcdc

        raise InvalidInputError(
            f"pyfastcdc {pyfastcdc.__version__} cuts otherwise than the format says: equal files would differ",
            code=ErrorCode.UNSUPPORTED,
            hint="pip install 'pyfastcdc==0.3.1'",
        )
    return FastCDC


def _make(kind: type[FastCDC], how: ContentDefined) -> FastCDC:
    return kind(how.avg, min_size=how.min, max_size=how.max, normalized_chunking=how.level, seed=how.seed)  # type: ignore[arg-type]


def _lengths(kind: type[FastCDC], how: ContentDefined) -> tuple[int, ...]:
    known = blake3(b"dmlpipe").digest(length=_KNOWN_BYTES)
    return tuple(piece.length for piece in _make(kind, how).cut_buf(known))


@functools.cache
def _zero_length(how: ContentDefined) -> int:
    return next(how.cuts(bytes(how.max)))
