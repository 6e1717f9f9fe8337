"""Folders of files, taken in at once: by several processes where that is safe, without reading what has not changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from ..digest import Digest
from ..forked import MAX_UNITS, process_count, share_work
from ..objects.cutting import ContentDefined
from ..objects.writer import ObjectWriter
from ..source_files import SourceFolder
from .large import LargeReader
from .memory import Memory, Remembered
from .packer import Packed, Packer
from .reading import LARGE, UNCHANGED, Part, PartReader, ReadPart
from .recall import FolderRecall
from .stats import STAT_BYTES, differing, forget, forget_fresh, pack_stats, replace, sum_sizes
from .taken import Taken, TakenFolder

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


class _Task(NamedTuple):
    """What is to be done with a folder."""

    folder: SourceFolder
    memory: Memory | None
    before: Remembered | None
    part: Part | None
    """Files to be read, or looked at; None: none."""
    numbers: Sequence[int] | None
    """Which of the folder's files they are, all to be read; None: all files, and what is known of them."""


def _decode_work(raw: bytes) -> _Work:
    return msgspec.msgpack.decode(raw, type=_Work)


class Intake:
    """Reads local folders, and stores what is in them if it is given a writer.

    Parameters
    ----------
    recall
        What is remembered of the folders, which was asked when they were listed.
    writer
        Takes the content; None: it is hashed and nothing else.
    held
        Given tree paths and what is remembered of them, returns those paths whose content may not be in the store: they
        are read. Not asked of folders that are held. None: no matter.
    beat
        Called now and then while it takes long.
    cutting
        Without a writer: how the store cuts large files by what they hold; None: at each 16 MiB.
    foresee
        Called with the bytes of the files of 1 MiB and more that will be read, before they are.
    """

    def __init__(
        self,
        recall: FolderRecall,
        writer: ObjectWriter | None = None,
        *,
        held: Callable[[Sequence[bytes], Sequence[bytes]], list[bytes]] | None = None,
        beat: Callable[[], None] = lambda: None,
        cutting: ContentDefined | None = None,
        foresee: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._recall = recall
        self._writer = writer
        self._held = held
        self._beat = beat
        self._foresee = foresee
        self._cutting = writer.cutting if writer is not None else cutting

    def take(self, folders: Sequence[SourceFolder]) -> Taken:
        """Read what is not as it is remembered, and return what all files hold.

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
        tasks = [self._plan(folder) for folder in folders]
        parts = [task.part for task in tasks if task.part is not None]
        found = self._read(parts, began_ns)
        self._read_large(parts, found)
        reads = iter(found)
        taken = [self._settle(task, next(reads) if task.part is not None else None, began_ns) for task in tasks]
        return Taken([folder for folder, _ in taken], sum(size for _, size in taken))

    def _plan(self, folder: SourceFolder) -> _Task:
        """Find out what of a folder must be read, or looked at."""
        memory = self._recall.memory(folder.root)
        if folder.stale is not None and not folder.stale and folder.same_names and (folder.held or self._held is None):
            return _Task(folder, memory, None, None, ())
        before = memory.get(folder.inside) if memory is not None else None
        if before is None or before.device != folder.device:
            return _Task(folder, memory, None, Part(folder.local, folder.names, b"", ()), None)
        stale, lacking = folder.stale, self._lacking(folder, before)
        if stale is None:
            stats = forget(before.align(folder.joined), lacking)
            part = Part(folder.local, folder.names, stats, before.align_values(folder.joined))
            return _Task(folder, memory, before, part, None)
        numbers = sorted({*stale, *lacking}) if lacking else stale
        if not numbers:
            return _Task(folder, memory, before, None, ())
        names = [folder.names[number] for number in numbers]
        return _Task(folder, memory, before, Part(folder.local, names, b"", ()), numbers)

    def _lacking(self, folder: SourceFolder, before: Remembered) -> list[int]:
        """Return the numbers of the files whose content, as it is remembered, may not be in the store."""
        if self._held is None or folder.held:
            return []
        lacking = self._held(folder.keys, before.align_values(folder.joined))
        if not lacking:
            return []
        numbers = {key: number for number, key in enumerate(folder.keys)}
        return [numbers[key] for key in lacking]

    def _settle(self, task: _Task, read: ReadPart | None, began_ns: int) -> tuple[TakenFolder, int]:
        """Join what was read of a folder with what is remembered, and remember it; return it and its bytes."""
        folder, memory, before = task.folder, task.memory, task.before
        if read is None and memory is not None and folder.same_names:
            return TakenFolder(folder, memory, None, ()), memory.keep(folder.inside)
        if task.numbers is None:
            assert read is not None
            values, stats = read.values, read.stats
            numbers = differing(before.align(folder.joined), stats) if before is not None else None
        else:
            assert before is not None
            numbers = list(task.numbers)
            values, stats = before.align_values(folder.joined), before.align(folder.joined)
            if read is not None:
                for number, value in zip(task.numbers, read.values, strict=True):
                    values[number] = value
                stats = replace(stats, task.numbers, read.stats)
        size = sum_sizes(stats)
        if memory is not None:
            kept = forget_fresh(stats, began_ns)
            memory.note(folder.inside, Remembered.of(folder.device, folder.joined, kept, values), size)
        return TakenFolder(folder, memory, values, numbers), size

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
                    ReadPart(list(part.values), part.stats) if read == UNCHANGED else read
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
            whole = ReadPart(list(whole.values), whole.stats)
            stats = [whole.stats]
            while len(whole.values) < len(part.names):
                more = next(pieces)
                whole.values += more.values
                stats.append(more.stats)
            whole.stats = b"".join(stats)
        found.append(whole)
    return found
