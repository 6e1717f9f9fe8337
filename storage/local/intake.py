"""Folders of files, taken in at once: by several processes where that is safe, without reading what has not changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from ..digest import Digest
from ..forked import MAX_UNITS, process_count, share_work
from ..objects.cutting import ContentDefined
from ..objects.writer import ObjectWriter
from ..sources import SourceFolder
from .large import LargeReader
from .packer import Packed, Packer
from .reading import LARGE, UNCHANGED, Part, PartReader, ReadPart
from .stats import STAT_BYTES, Memory, Remembered, StatCache, forget, forget_fresh, pack_stats, sum_sizes

_FILES_PER_UNIT = 250
_FILES_PER_PROCESS = 4000
_NAMES_PER_FILE = 4
"""A put looks into the store's index file by file, unless that has no more than so many entries for each."""


class _Work(msgspec.Struct, array_like=True):
    """What one process did. Pickles as a whole, not value by value."""

    parts: dict[int, list[ReadPart]]
    """By number of unit."""
    stored: list[Packed]
    known: list[bytes]
    rest: list[tuple[bytes, bytes, int, int]]
    """Blobs that did not fill a pack: hash, stored bytes, size, codec."""

    def __reduce__(self) -> tuple[Callable[[bytes], _Work], tuple[bytes]]:
        return _decode_work, (msgspec.msgpack.encode(self),)


def _decode_work(raw: bytes) -> _Work:
    return msgspec.msgpack.decode(raw, type=_Work)


class Intake:
    """Reads local folders, and stores what is in them if it is given a writer.

    Parameters
    ----------
    stats
        What is remembered of folders that were read; None: nothing.
    writer
        Takes the content; None: it is hashed and nothing else.
    trust
        Whether an unchanged stat means an unchanged file.
    held
        Given tree paths and what is remembered of them, returns those paths whose content may not be in the store: they
        are read. None: no matter.
    beat
        Called now and then while it takes long.
    cutting
        Without a writer: how the store cuts large files by what they hold; None: at each 16 MiB.
    foresee
        Called with the bytes of the files of 1 MiB and more that will be read, before they are.
    """

    def __init__(
        self,
        stats: StatCache | None,
        writer: ObjectWriter | None = None,
        *,
        trust: bool = True,
        held: Callable[[Sequence[bytes], Sequence[bytes]], list[bytes]] | None = None,
        beat: Callable[[], None] = lambda: None,
        cutting: ContentDefined | None = None,
        foresee: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._stats = stats
        self._writer = writer
        self._trust = trust
        self._held = held
        self._beat = beat
        self._foresee = foresee
        self._cutting = writer.cutting if writer is not None else cutting
        self._memories: dict[str, Memory] = {}
        self.given_bytes = 0
        """Bytes of content of all files."""
        self.read_bytes = 0
        """Bytes of content that were read."""

    def take(self, folders: Sequence[SourceFolder]) -> list[bytes]:
        """Return the encoded values of all files, in the order of the folders and of their names.

        Raises
        ------
        InvalidInputError
            A file cannot be read.
        ConflictError
            One changes all the time.
        BackendError
            The store cannot be written.
        """
        began_ns = time.time_ns()
        joined = ["\0".join(folder.names).encode("utf-8", "surrogateescape") for folder in folders]
        parts = [self._part(folder, names) for folder, names in zip(folders, joined, strict=True)]
        found = self._read(parts, began_ns)
        self._read_large(parts, found)
        for folder, names, read in zip(folders, joined, found, strict=True):
            self.given_bytes += sum_sizes(read.stats)
            memory = self._memories.get(folder.root)
            if memory is not None:
                kept = forget_fresh(read.stats, began_ns)
                memory.now[folder.inside] = Remembered(folder.device, names, kept, read.values)
        self.read_bytes += sum(read.size for read in found)
        return [value for read in found for value in read.values]

    def remember(self) -> None:
        """Keep the stats of what was taken: call when its values are where they will be looked for."""
        for memory in self._memories.values():
            memory.save()

    def _part(self, folder: SourceFolder, joined: bytes) -> Part:
        if self._stats is None:
            return Part(folder.local, folder.names, b"", ())
        memory = self._memories.get(folder.root)
        if memory is None:
            memory = self._memories[folder.root] = self._stats.load(folder.root, trust=self._trust)
        before = memory.before.get(folder.inside)
        if before is None or before.device != folder.device:
            return Part(folder.local, folder.names, b"", ())
        stats, values = before.align(joined)
        lacking = self._held(folder.keys, values) if self._held is not None else []
        if lacking:
            numbers = {key: number for number, key in enumerate(folder.keys)}
            stats = forget(stats, [numbers[key] for key in lacking])
        return Part(folder.local, folder.names, stats, values)

    def _read(self, parts: Sequence[Part], began_ns: int) -> list[ReadPart]:
        """Read all parts, cut and grouped into units of about equal size."""
        total = sum(len(part.names) for part in parts)
        units = _plan_units(parts, max(_FILES_PER_UNIT, total // (MAX_UNITS // 4)))
        writer = self._writer
        version = writer.begin() if writer is not None else 0
        known_among = _known_among(writer, total)
        own = os.getpid()

        def work(numbers: Iterator[int]) -> _Work:
            done: dict[int, list[ReadPart]] = {}
            packer = Packer(writer.backend, known_among, writer.packed.keys()) if writer is not None else None
            try:
                reader = PartReader(packer, began_ns)
                for number in numbers:
                    done[number] = [reader.read(part) for part in units[number]]
                    if os.getpid() == own:
                        self._beat()
                if packer is None:
                    return _Work(done, [], [], [])
                if processes > 1:
                    packer.flush()
                return _Work(done, packer.stored, packer.known, packer.rest())
            finally:
                if packer is not None:
                    packer.drop()

        remote = writer is not None and writer.backend.properties.path is None
        processes = 1 if remote else process_count(min(total // _FILES_PER_PROCESS, len(units)))
        results = share_work(work, len(units), processes)
        by_unit: dict[int, list[ReadPart]] = {}
        for result in results:
            for number, reads in result.parts.items():
                by_unit[number] = [
                    ReadPart(list(part.values), part.stats, 0) if read == UNCHANGED else read
                    for part, read in zip(units[number], reads, strict=True)
                ]
            if writer is not None:
                writer.adopt([(pack.key, pack.records) for pack in result.stored], result.known, result.rest, version)
        return _join_parts(parts, [read for number in range(len(units)) for read in by_unit[number]])

    def _read_large(self, parts: Sequence[Part], found: Sequence[ReadPart]) -> None:
        """Read what does not stand in packs, and put its values where they belong."""
        places = [
            (number, place)
            for number, read in enumerate(found)
            if LARGE in read.values
            for place, value in enumerate(read.values)
            if value == LARGE
        ]
        files = [f"{parts[number].local.rstrip('/')}/{parts[number].names[place]}" for number, place in places]
        reader = LargeReader(self._writer, self._beat, self._cutting, self._foresee)
        for (number, place), (value, status) in zip(places, reader.read(files), strict=True):
            read = found[number]
            read.values[place] = value
            at = place * STAT_BYTES
            read.stats = read.stats[:at] + pack_stats([status]) + read.stats[at + STAT_BYTES :]
            read.size += status.st_size


def _known_among(writer: ObjectWriter | None, files: int) -> Callable[[Sequence[bytes]], Sequence[bytes]]:
    """Return what tells which of some packed blobs the store has."""
    names: frozenset[bytes] | None = None
    asked = False

    def known_among(wanted: Sequence[bytes]) -> Sequence[bytes]:
        nonlocal names, asked
        if writer is None:
            return []
        if not asked:
            # Not before: a put of what the store has already asks nothing.
            names, asked = writer.known_names(files * _NAMES_PER_FILE), True
        if names is not None and names.isdisjoint(wanted):
            return []
        return [name for name in wanted if (names is None or name in names) and writer.is_known(Digest(name))]

    return known_among


def _plan_units(parts: Sequence[Part], files: int) -> list[list[Part]]:
    """Cut and group parts, in order, into units of about `files` files."""
    units: list[list[Part]] = []
    room = 0
    for part in parts:
        done = 0
        while done < len(part.names):
            if room <= 0:
                units.append([])
                room = files
            stop = min(len(part.names), done + room)
            units[-1].append(
                part
                if stop - done == len(part.names)
                else Part(
                    part.local,
                    part.names[done:stop],
                    part.stats[done * STAT_BYTES : stop * STAT_BYTES],
                    part.values[done:stop],
                )
            )
            room -= stop - done
            done = stop
    return units


def _join_parts(parts: Sequence[Part], read: Sequence[ReadPart]) -> list[ReadPart]:
    """Join what was read of cut parts."""
    found: list[ReadPart] = []
    pieces = iter(read)
    for part in parts:
        whole = next(pieces)
        if len(whole.values) < len(part.names):
            whole = ReadPart(list(whole.values), whole.stats, whole.size)
            stats = [whole.stats]
            while len(whole.values) < len(part.names):
                more = next(pieces)
                whole.values += more.values
                stats.append(more.stats)
                whole.size += more.size
            whole.stats = b"".join(stats)
        found.append(whole)
    return found
