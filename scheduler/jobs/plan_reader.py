"""A plan as it is read: what has to run goes into blocks, the rest is sorted for the fold."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec

from ...storage.objects.node import NodeStore
from ...worker.job import BLOCK_MAX_BYTES, BLOCK_MAX_DATUMS, Datum, encode_block
from ..planning.plan_items import Drop, Hit, PlanItem, Run, Twin
from .cycles import without_cycles
from .sorting import SortedRecords

__all__ = ["PlanReader"]

_encode = msgspec.msgpack.Encoder().encode
_decode_drop = msgspec.msgpack.Decoder(tuple[bytes, bool]).decode
_decode_hit = msgspec.msgpack.Decoder(tuple[bytes, bytes, tuple[tuple[str, bytes], ...]]).decode


class PlanReader:
    """Reads the items of a plan, in order, as far as is asked for.

    Parameters
    ----------
    nodes
        Where blocks are stored.
    items
        Of the plan.
    """

    def __init__(self, nodes: NodeStore, items: Iterator[PlanItem]) -> None:
        self._nodes = nodes
        self._items: Iterator[PlanItem] | None = items
        self._block: list[Datum] = []
        self._block_bytes = 0
        self._drops = SortedRecords()
        self._hits = SortedRecords()
        self.blocks: deque[tuple[str, int]] = deque()
        """(node, datums) of blocks that were not offered yet."""
        self.twins: list[Twin] = []
        self.to_run = 0
        """Datums read so far that have to run."""

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to read."""
        return self._items is None

    @property
    def finds_work(self) -> bool:
        """Whether some datum is to run, or may be found to be."""
        return bool(self.blocks or self._block or self._items is not None)

    @property
    def hit_count(self) -> int:
        """Results from memory read so far."""
        return len(self._hits)

    @property
    def change_count(self) -> int:
        """Results read so far that leave or come from memory."""
        return len(self._drops) + len(self._hits)

    def read(self, blocks: int) -> None:
        """Read items until so many blocks are full or the plan ends."""
        with without_cycles():
            self._read(blocks)

    def abandon(self) -> None:
        """Leave the rest unread, and offer no more blocks."""
        self._items = None
        self.blocks.clear()

    def drops(self) -> Iterator[Drop]:
        """Results that leave, sorted by key."""
        return (Drop(key, *_decode_drop(raw)) for key, raw in self._drops)

    def hits(self) -> Iterator[Hit]:
        """Results from memory, sorted by key."""
        return (Hit(key, *_decode_hit(raw)) for key, raw in self._hits)

    def close(self) -> None:
        """Give back what was sorted."""
        self._drops.close()
        self._hits.close()

    def _read(self, blocks: int) -> None:
        if self._items is None:
            return
        made = 0
        while made < blocks:
            item = next(self._items, None)
            match item:
                case None:
                    self._items = None
                    if self._block:
                        self._close_block()
                    return
                case Run():
                    self._block.append(item.datum)
                    self.to_run += 1
                    self._block_bytes += sum(len(given.value) for given in item.datum.items)
                    if len(self._block) >= BLOCK_MAX_DATUMS or self._block_bytes >= BLOCK_MAX_BYTES:
                        self._close_block()
                        made += 1
                case Hit():
                    self._hits.add(item.key, _encode((item.fingerprint, item.origin, item.outputs)))
                case Twin():
                    self.twins.append(item)
                case Drop():
                    self._drops.add(item.key, _encode((item.old_fingerprint, item.gone)))

    def _close_block(self) -> None:
        # Renewed: nothing published refers to a block, and a collector leaves what is younger than the job.
        name = self._nodes.put(encode_block(self._block), renew=True)
        self.blocks.append((name.hex(), len(self._block)))
        self._block = []
        self._block_bytes = 0
