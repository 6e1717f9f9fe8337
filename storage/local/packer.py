"""Packs of small files, which are read into one buffer: the fast lane beside `PackBuilder`.

What comes out is an ordinary pack. There is no object per file: a blob is a row of its footer. The buffer is so small
that it stays in the processor's cache: what it holds goes to a draft of the pack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from itertools import accumulate, repeat

import msgspec

from ..backend import Backend, Draft
from ..objects.compression import compress, own_compressor
from ..objects.index import PackRow, decode_records, encode_records
from ..objects.pack import CODEC_RAW, CODEC_ZSTD, MAGIC, NONCE_BYTES, PACK_TARGET_BYTES, VERSION, pack_key
from ..objects.value import PACK_BELOW_BYTES
from ..tokens import token_bytes

ROWS_MAX = 1 << 16
BATCH_MAX = 1024
"""Blobs that are taken together at most."""

_BUFFER_BYTES = 512 << 10
_KIND_LETTERS = 4


class Packed(msgspec.Struct, array_like=True):
    """A pack that was stored."""

    key: str
    records: bytes
    """See `encode_records`."""


class Packer:
    """Builds and stores packs. For one thread.

    Parameters
    ----------
    backend
        Where packs go.
    known_among
        Given hashes of blobs, returns those that the store has packed already; asked once for each new one.
    packed
        Blobs that were packed before, by whoever else.
    """

    def __init__(
        self, backend: Backend, known_among: Callable[[Sequence[bytes]], Sequence[bytes]], packed: Set[bytes]
    ) -> None:
        self._backend = backend
        self._known_among = known_among
        self._before = packed
        self.view = memoryview(bytearray(_BUFFER_BYTES + PACK_BELOW_BYTES))
        """Read files into it, one behind the other, from `position` on, while they begin below `full`."""
        self.position = 0
        self._begun = 0
        """Bytes of the pack that stand before the buffer, in the draft."""
        self._draft: Draft | None = None
        self._rows: list[PackRow] = []
        self._seen: set[bytes] = set()
        self._compressor = own_compressor()
        self.stored: list[Packed] = []
        """What was stored so far."""
        self.known: list[bytes] = []
        """Blobs that the store had before."""

    def take(self, names: Sequence[bytes], sizes: Sequence[int], files: Sequence[str]) -> None:
        """Take blobs that stand one behind the other from `position` on: `BATCH_MAX` at most.

        Parameters
        ----------
        names, sizes
            Hash and length of each; below `PACK_BELOW_BYTES`.
        files
            What they are called: files of one kind are taken to compress alike.
        """
        places = list(accumulate(sizes, initial=self._begun + self.position))
        new = self._new_among(names)
        frames = self._compress(new, places, files)
        if frames or len(new) < len(names):
            self._move_up(new, names, places, frames)
        else:
            # There is one place more than names: where the last one ends.
            self._rows += zip(names, places, sizes, sizes, repeat(CODEC_RAW))
            self.position = places[-1] - self._begun
        if self._begun + self.position >= PACK_TARGET_BYTES or len(self._rows) > ROWS_MAX - BATCH_MAX:
            self.flush()
        elif self.position >= _BUFFER_BYTES:
            self._write()

    @property
    def full(self) -> int:
        """Where in the buffer no file may begin any more."""
        return min(_BUFFER_BYTES, PACK_TARGET_BYTES - self._begun)

    def _write(self) -> Draft:
        """Add what the buffer holds to the draft, and return that."""
        if self._draft is None:
            self._draft = self._backend.draft()
        self._draft.write(self.view[: self.position])
        self._begun += self.position
        self.position = 0
        return self._draft

    def _new_among(self, names: Sequence[bytes]) -> Sequence[int]:
        """Return the numbers of the blobs that nobody has packed yet."""
        seen, before = self._seen, self._before
        fresh: Sequence[bytes] = names
        if len(set(names)) < len(names) or not (seen.isdisjoint(names) and before.isdisjoint(names)):
            fresh = [name for name in dict.fromkeys(names) if name not in seen and name not in before]
        known = self._known_among(fresh)
        self.known += known
        seen.update(fresh)
        if not known and len(fresh) == len(names):
            return range(len(names))
        wanted = set(fresh).difference(known)
        numbers = []
        for number, name in enumerate(names):
            if name in wanted:
                wanted.discard(name)
                numbers.append(number)
        return numbers

    def _compress(self, numbers: Sequence[int], places: Sequence[int], files: Sequence[str]) -> dict[int, bytes]:
        """Return the frames of those blobs that compress well."""
        kinds: dict[str, Sequence[int]] = {}
        letters = {files[number][-_KIND_LETTERS:] for number in numbers}
        if len(letters) == 1:
            kinds[letters.pop()] = numbers
        else:
            mixed: dict[str, list[int]] = {}
            for number in numbers:
                mixed.setdefault(files[number][-_KIND_LETTERS:], []).append(number)
            kinds.update(mixed)
        frames: dict[int, bytes] = {}
        for kind, mine in kinds.items():
            done = self._compressor.pass_over(kind, len(mine))
            while done < len(mine):
                number = mine[done]
                start, stop = places[number] - self._begun, places[number + 1] - self._begun
                frame = self._compressor.frame(self.view[start:stop], kind)
                if frame is not None:
                    frames[number] = frame
                done += 1
                done += self._compressor.pass_over(kind, len(mine) - done)
        return frames

    def _move_up(
        self, numbers: Sequence[int], names: Sequence[bytes], places: Sequence[int], frames: Mapping[int, bytes]
    ) -> None:
        """Let the blobs of `numbers` stand without gaps, compressed where there is a frame."""
        view, position, begun = self.view, self.position, self._begun
        for number in numbers:
            at, size = places[number] - begun, places[number + 1] - places[number]
            frame = frames.get(number)
            stored = size if frame is None else len(frame)
            if frame is not None:
                view[position : position + stored] = frame
            elif at > position:
                view[position : position + stored] = view[at : at + size]
            codec = CODEC_RAW if frame is None else CODEC_ZSTD
            self._rows.append((names[number], begun + position, stored, size, codec))
            position += stored
        self.position = position

    def rest(self) -> list[tuple[bytes, bytes, int, int]]:
        """Give away what is not in a stored pack: hash, stored bytes, size and codec of each blob."""
        body = self.view if self._draft is None else self._write().read()
        found = [
            (name, bytes(body[offset : offset + stored]), size, codec)
            for name, offset, stored, size, codec in self._rows
        ]
        self._begin()
        return found

    def flush(self) -> None:
        """Store the pack that is being built, if there is anything in it."""
        if not self._rows:
            return
        records = encode_records(self._rows)
        # Read from there, rows lie in memory in the order in which they are encoded: twice as fast as sorting them.
        blobs = list(decode_records(records))
        footer = {"v": VERSION, "nonce": token_bytes(NONCE_BYTES), "blobs": blobs}
        frame = compress(msgspec.msgpack.encode(footer))
        end = b"".join([frame, len(frame).to_bytes(4, "little"), MAGIC])
        key = pack_key(end)
        draft = self._write()
        draft.write(end)
        draft.put_if_absent(key)
        self.stored.append(Packed(key, records))
        self._begin()

    def _begin(self) -> None:
        self.drop()
        self._rows = []
        self.position = self._begun = 0

    def drop(self) -> None:
        """Leave nothing of a pack that is being built: call it in the end, whatever happened."""
        draft, self._draft = self._draft, None
        if draft is not None:
            draft.drop()
