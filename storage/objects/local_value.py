"""The value that a local file would have in a store, without storing it."""

from __future__ import annotations

from pathlib import Path

from ..digest import digest
from .cutting import ContentDefined
from .file_pieces import piece_digest, read_pieces
from .object_store import Piece, encode_manifest
from .value import INLINE_MAX_BYTES, Inline, Pieces, Value, Whole


def value_of_file(file: Path, cutting: ContentDefined | None = None) -> Value:
    """Hash a file as `ObjectWriter.put_file` would store it; a piece or two are in memory at a time.

    Parameters
    ----------
    file
        A plain file.
    cutting
        How the store cuts large files by what they hold; None: at each 16 MiB.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    pieces: list[Piece] = []
    with open(file, "rb", buffering=0) as stream:
        for part in read_pieces(stream.fileno(), cutting):
            if not pieces and len(part) <= INLINE_MAX_BYTES:
                return Inline(part)
            pieces.append(Piece(piece_digest(part), len(part)))
    if not pieces:
        return Inline(b"")
    if len(pieces) == 1:
        return Whole(pieces[0].size, pieces[0].hash)
    return Pieces(sum(piece.size for piece in pieces), digest(encode_manifest(pieces)))
