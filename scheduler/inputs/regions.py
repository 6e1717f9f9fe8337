"""Array inputs: the chunks of a Zarr v3 array as pieces, without importing zarr.

What of a chunk counts: the bounds of its region after clipping, the content ids of the chunks that the region touches
(an absent chunk counts as absent), and the array's metadata but for its shape. So an append reruns the chunks it
touched and the new ones.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.trees.prolly import Tree
from ...worker.job import Item, Region
from .expression import canonical_json
from .items import Piece, PieceChange

__all__ = ["ArrayGrid", "ArraySource", "parse_grid"]

_BATCH = 1024
"""Regions whose chunks are looked up together."""

_NOT_COUNTED = ("shape", "zarr_format", "node_type", "chunk_key_encoding", "consolidated_metadata")

_SEPARATORS = {"default": "/", "v2": "."}
"""Chunk key encodings, and what each puts between numbers unless it says otherwise."""

Index = tuple[int, ...]

_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class _Named(msgspec.Struct, frozen=True):
    name: str
    configuration: dict[str, Any] = {}


class _Metadata(msgspec.Struct, frozen=True):
    shape: tuple[int, ...]
    chunk_grid: _Named
    chunk_key_encoding: _Named = _Named("default")


@dataclasses.dataclass(frozen=True, slots=True)
class ArrayGrid:
    """A regular chunk grid, from an array's ``zarr.json``."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    encoding: str
    """Name of the chunk key encoding: `default` or `v2`."""
    separator: str
    metadata: bytes
    """Canonical encoding of all metadata that counts; not the shape."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of chunks in each dimension."""
        return tuple(-(-cells // chunk) for cells, chunk in zip(self.shape, self.chunks, strict=True))

    def key(self, index: Index) -> str:
        """Key of a chunk, relative to the array: `c/0/1`."""
        parts = [str(number) for number in index]
        if self.encoding == "default":
            return self.separator.join(["c", *parts])
        return self.separator.join(parts) if parts else "0"

    def index(self, key: str) -> Index | None:
        """Inverse of `key`; None if it is no chunk of this grid."""
        text = key
        if self.encoding == "default":
            head, *rest = key.split(self.separator)
            if head != "c":
                return None
            parts = rest
        else:
            parts = text.split(self.separator) if self.shape else []
        if not all(part.isascii() and part.isdigit() for part in parts):
            return None
        index = tuple(map(int, parts))
        inside = len(index) == len(self.shape) and all(map(int.__lt__, index, self.counts))
        return index if inside and self.key(index) == key else None

    def indices(self) -> Iterator[Index]:
        """Every chunk, sorted by key."""
        return itertools.product(*(sorted(range(count), key=str) for count in self.counts))

    def core(self, index: Index) -> tuple[tuple[int, int], ...]:
        """Cells of a chunk, clipped to the shape."""
        return tuple(
            (number * chunk, min((number + 1) * chunk, cells))
            for number, chunk, cells in zip(index, self.chunks, self.shape, strict=True)
        )

    def read(self, index: Index, halo: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Cells of a chunk and its halo, clipped."""
        return tuple(
            (max(start - width, 0), min(stop + width, cells))
            for (start, stop), width, cells in zip(self.core(index), halo, self.shape, strict=True)
        )

    def touching(self, box: Iterable[tuple[int, int]]) -> Iterator[Index]:
        """Chunks that a box of cells touches."""
        return itertools.product(
            *(range(start // chunk, -(-stop // chunk)) for (start, stop), chunk in zip(box, self.chunks, strict=True))
        )


def parse_grid(raw: bytes, where: str) -> ArrayGrid:
    """Parse the ``zarr.json`` of an array.

    Raises
    ------
    InvalidInputError
        It is no Zarr v3 array on a regular grid (code ``bad-input``); `where` is named.
    """
    try:
        plain = json.loads(raw)  # not msgspec: attributes may hold a bare NaN
    except ValueError as error:
        raise _bad(f"{where}/zarr.json is no JSON: {error}") from error
    kind = plain.get("node_type") if isinstance(plain, dict) else type(plain).__name__
    if kind != "array":
        raise _bad(f"{where} is no Zarr array but {kind!r}", hint="an array input names one array, not its group")
    try:
        meta = msgspec.convert(plain, _Metadata)
        if meta.chunk_grid.name != "regular" or meta.chunk_key_encoding.name not in _SEPARATORS:
            raise _bad(
                f"{where} has chunk grid {meta.chunk_grid.name!r} with keys {meta.chunk_key_encoding.name!r}:"
                " not supported"
            )
        chunks = msgspec.convert(meta.chunk_grid.configuration.get("chunk_shape"), tuple[int, ...])
    except msgspec.ValidationError as error:
        raise _bad(f"{where}/zarr.json describes no Zarr v3 array: {error}") from error
    if len(meta.shape) != len(chunks) or min(chunks, default=1) < 1 or min(meta.shape, default=0) < 0:
        raise _bad(f"{where} has shape {meta.shape} and chunks {chunks}")
    encoding = meta.chunk_key_encoding
    separator = encoding.configuration.get("separator", _SEPARATORS[encoding.name])
    counted = {name: value for name, value in plain.items() if name not in _NOT_COUNTED}
    return ArrayGrid(meta.shape, chunks, encoding.name, separator, canonical_json(_finite(counted)).encode())


@dataclasses.dataclass(frozen=True, slots=True)
class ArraySource:
    """The chunks of an array in a commit."""

    name: str
    path: str
    """Of the array in the commit, without slashes at the ends."""
    tree: Tree | None
    """None: the branch has no commit, and there is no chunk."""
    grid: ArrayGrid | None
    halo: tuple[int, ...]
    """One width per dimension."""

    @classmethod
    def bind(
        cls, name: str, path: str, halo: tuple[int, ...], tree: Tree | None, read: Callable[[bytes], bytes]
    ) -> ArraySource:
        """Bind to a commit's tree.

        Parameters
        ----------
        read
            Content of a file, given its encoded tree value.

        Raises
        ------
        InvalidInputError
            There is no such array, or the halo does not fit it.
        """
        path = path.strip("/")
        if tree is None:
            return cls(name, path, None, None, halo)
        folder = f"{path}/" if path else ""
        value = tree.get(f"{folder}zarr.json".encode())
        if value is None:
            raise _bad(
                f"input {name!r} has no array at /{path}: there is no /{folder}zarr.json",
                hint="Zarr format 3 is needed" if tree.get(f"{folder}.zarray".encode()) is not None else None,
            )
        grid = parse_grid(read(value), f"/{path}")
        widths = halo or (0,)
        if len(widths) == 1:
            widths *= len(grid.shape)
        if len(widths) != len(grid.shape):
            raise _bad(f"input {name!r} has a halo of {len(widths)} widths, /{path} has {len(grid.shape)} dimensions")
        return cls(name, path, tree, grid, widths)

    def pieces(self) -> Iterator[Piece]:
        """Every chunk's region, whether the chunk is written or not."""
        if self.grid is not None:
            yield from self._pieces(self.grid.indices())

    def get(self, key: bytes) -> Piece | None:
        """Return the chunk with that key."""
        index = self.grid.index(key.decode()) if self.grid is not None else None
        return None if index is None else next(self._pieces([index]))

    def count(self) -> int:
        """Number of chunks of the grid."""
        if self.grid is None:
            return 0
        total = 1
        for count in self.grid.counts:
            total *= count
        return total

    def changes(self, new: ArraySource) -> Iterator[PieceChange]:
        """Chunks whose region differs: from the trees' difference, and where the shape did."""
        before, after = self.grid, new.grid
        if before is None or after is None or (before.metadata, self.halo) != (after.metadata, new.halo):
            # Other metadata changes every chunk: there is nothing to be saved.
            keys = {grid.key(index) for grid in (before, after) if grid is not None for index in grid.indices()}
        else:
            touched = self._moved_edges(before, after) | self._rewritten(new, before, after)
            keys = {after.key(index) for index in touched}
        ordered = sorted(key.encode() for key in keys)
        for batch in _batches(ordered):
            old_pieces, new_pieces = self._some(batch), new._some(batch)
            for key in batch:
                old_piece, new_piece = old_pieces.get(key), new_pieces.get(key)
                old_content = old_piece.content if old_piece else None
                if old_content != (new_piece.content if new_piece else None):
                    yield PieceChange(key, old_piece, new_piece)

    def record(self) -> str:
        """Root of the commit's tree, hex; empty if there is no commit."""
        return self.tree.root.hex() if self.tree is not None else ""

    def _moved_edges(self, before: ArrayGrid, after: ArrayGrid) -> set[Index]:
        """Chunks whose region is clipped otherwise, or that are only in one of the grids."""
        found: set[Index] = set()
        most = [max(pair) for pair in zip(before.counts, after.counts, strict=True)]
        for axis, (old_cells, new_cells) in enumerate(zip(before.shape, after.shape, strict=True)):
            if old_cells == new_cells:
                continue
            # A region that ends at or before both edges is the same in both.
            chunk, width = after.chunks[axis], self.halo[axis]
            first = max((min(old_cells, new_cells) - width) // chunk, 0)
            ranges = [range(first if at == axis else 0, count) for at, count in enumerate(most)]
            found.update(itertools.product(*ranges))
        return found

    def _rewritten(self, new: ArraySource, before: ArrayGrid, after: ArrayGrid) -> set[Index]:
        """Chunks whose region touches a chunk that was written, rewritten or deleted."""
        if self.tree is None or new.tree is None:
            return set()
        folder = f"{self.path}/".encode() if self.path else b""
        found: set[Index] = set()
        for path, _, _ in self.tree.diff(new.tree):
            if not path.startswith(folder):
                continue
            key = path[len(folder) :].decode()
            for grid in (before, after):
                index = grid.index(key)
                if index is not None:
                    found.update(grid.touching(grid.read(index, self.halo)))
        return found

    def _some(self, keys: Sequence[bytes]) -> dict[bytes, Piece]:
        if self.grid is None:
            return {}
        indices = [index for key in keys if (index := self.grid.index(key.decode())) is not None]
        return {piece.key: piece for piece in self._pieces(indices)}

    def _pieces(self, indices: Iterable[Index]) -> Iterator[Piece]:
        tree, grid = self.tree, self.grid
        if tree is None or grid is None:
            return
        folder = f"{self.path}/" if self.path else ""
        for batch in _batches(indices):
            boxes = [(grid.core(index), grid.read(index, self.halo)) for index in batch]
            touched = [[f"{folder}{grid.key(other)}".encode() for other in grid.touching(read)] for _, read in boxes]
            wanted = sorted(set(itertools.chain.from_iterable(touched)))
            found = dict(zip(wanted, tree.get_many(wanted), strict=True))
            for index, (core, read), chunks in zip(batch, boxes, touched, strict=True):
                key = grid.key(index)
                region = Region(self.path, tree.root, core, read)
                content = _encode([core, read, [found[chunk] for chunk in chunks], grid.metadata])
                yield Piece(key.encode(), Item(key, "a", msgspec.msgpack.encode(region)), content)


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    source = iter(items)
    while batch := list(itertools.islice(source, _BATCH)):
        yield batch


def _finite(value: Any) -> Any:
    """Spell out what JSON lacks: NaN and infinities that a lenient writer left bare."""
    match value:
        case dict():
            return {key: _finite(inner) for key, inner in value.items()}
        case list():
            return [_finite(inner) for inner in value]
        case float() if value != value or value in (float("inf"), float("-inf")):
            return repr(value)
        case _:
            return value


def _bad(message: str, *, hint: str | None = None) -> InvalidInputError:
    return InvalidInputError(message, code=ErrorCode.BAD_INPUT, hint=hint)
