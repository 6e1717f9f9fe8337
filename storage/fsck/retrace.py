"""Tree nodes of jobs that were lost, made again from what else the store says of the same jobs. No code runs.

A job leaves its results several times over: in its segments, and in trees that are turned differently. So

- `rows` (datum key to segment and row) follows from the segments,
- `p` (output path to datum key and origin) from `t` (datum key to output paths and origin), and `t` from `p`,
- `out` (output path to value) from `p` and the rows of the origin jobs.

Whatever is made so and has a lost node's hash is that node.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

import msgspec

from ..backend import Backend
from ..digest import Digest, from_hex
from ..errors import CorruptError, FormatError, InvalidInputError, NotFoundError
from ..objects.bodies import read_job
from ..objects.node import NodeStore, OverlayNodes
from ..objects.pack import read_rows
from ..objects.segment import Outcome, decode_rows
from ..records import JobRecord, JobState
from ..state import State
from ..trees.prolly import Tree
from ..trees.tree_build import build_root

logger = logging.getLogger(__name__)

Items = dict[bytes, bytes]

_ORIGIN = msgspec.msgpack.Decoder(tuple[bytes, bytes])
_PATHS = msgspec.msgpack.Decoder(tuple[list[str], bytes])
_PLACE = msgspec.msgpack.Decoder(tuple[str, int])
_encode = msgspec.msgpack.Encoder().encode


class Retrace:
    """Makes nodes of jobs' trees again.

    Parameters
    ----------
    backend, nodes
        Of the damaged store; only read.
    state
        Names the jobs.
    """

    def __init__(self, backend: Backend, nodes: NodeStore, state: State) -> None:
        self._backend = backend
        self._nodes = nodes
        self._state = state
        self._rows: dict[str, dict[bytes, list[tuple[str, bytes]]]] = {}

    def find(self, wanted: Iterable[Digest]) -> Iterator[bytes]:
        """Yield those of the nodes `wanted` that can be made again.

        Notes
        -----
        Goes through jobs, newest first, until all are found; holds one job's trees in memory at a time.
        """
        left = set(wanted)
        for name, job in self._state.jobs():
            if not left:
                return
            self._rows.clear()
            made = OverlayNodes(self._nodes)
            for items in self._trees(name, job):
                try:
                    build_root(made, sorted(items().items()))
                except (NotFoundError, CorruptError, FormatError, InvalidInputError, msgspec.DecodeError) as error:
                    logger.debug("a tree of job %s is not made again: %s", name, error)
            for node in sorted(left):
                raw = made.own(node)
                if raw is not None:
                    left.discard(node)
                    yield raw

    def _trees(self, name: str, job: JobState) -> Iterator[Callable[[], Items]]:
        if job.end.rows:
            yield lambda: self._places(job.end.packs)
        if not job.end.record:
            return
        try:
            record = read_job(self._nodes, job.end.record)
        except (NotFoundError, CorruptError):
            return
        yield lambda: self._by_path(record)
        yield lambda: self._by_datum(record)
        yield lambda: self._outputs(record)

    def _scan(self, root: str) -> Iterator[tuple[bytes, bytes]]:
        return Tree(self._nodes, from_hex(root)).scan()

    def _places(self, packs: Sequence[str]) -> Items:
        """Make `rows`: of two rows for one datum the first success counts, else the first."""
        found: dict[bytes, tuple[bool, bytes]] = {}
        for segment in packs:
            if not segment.endswith(".seg"):
                continue
            for number, row in enumerate(decode_rows(read_rows(self._backend, segment)[0])):
                done = row.outcome == Outcome.OK
                if row.key not in found or (done and not found[row.key][0]):
                    found[row.key] = done, _encode((segment, number))
        return {key: place for key, (_, place) in found.items()}

    def _by_path(self, record: JobRecord) -> Items:
        """Make `p` from `t`."""
        found = {}
        for key, raw in self._scan(record.t):
            paths, origin = _PATHS.decode(raw)
            for path in paths:
                found[path.encode()] = _encode((key, origin))
        return found

    def _by_datum(self, record: JobRecord) -> Items:
        """Make `t` from `p`."""
        pairs = sorted((*_ORIGIN.decode(raw), path.decode()) for path, raw in self._scan(record.p) if b"\0" not in path)
        return {
            key: _encode(([path for _, _, path in group], origin))
            for (key, origin), group in ((head, list(rows)) for head, rows in groupby(pairs, lambda item: item[:2]))
        }

    def _outputs(self, record: JobRecord) -> Items:
        """Make `out` from `p` and the rows of those jobs that made what it names."""
        try:
            origins = [(path, *_ORIGIN.decode(raw)) for path, raw in self._scan(record.p) if b"\0" not in path]
        except (NotFoundError, CorruptError):
            origins = [(path, *_ORIGIN.decode(raw)) for path, raw in self._by_path(record).items()]
        found = {}
        for path, key, origin in origins:
            for output, value in self._rows_of(origin.hex()).get(key, ()):
                if output.encode() == path:
                    found[path] = value
        return found

    def _rows_of(self, name: str) -> dict[bytes, list[tuple[str, bytes]]]:
        """Return what each datum of a job made."""
        known = self._rows.get(name)
        if known is None:
            known = self._rows[name] = {}
            job = self._state.job(name)
            for segment in job.end.packs if job is not None else ():
                if segment.endswith(".seg"):
                    for row in decode_rows(read_rows(self._backend, segment)[0]):
                        if row.outcome == Outcome.OK:
                            known.setdefault(row.key, row.outputs)
        return known
