"""Collecting: mark, decide, publish what dies, and only then delete.

Rules
-----
1. What dies is decided from the state as of entry `n` and published as entry `n + 1`; if another entry came first, its
   references are marked too, before trying again. The order of the ledger decides.
2. Nothing is deleted before the entry that names it. A collector that dies leaves a sweep open: its names are not
   used again, and what it left is collected by the next one.
3. Only who made a sweep closes it, when all its deletions have returned.
4. Of two collectors the later one starts over.
"""

from __future__ import annotations

import datetime
import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from ..backend import Backend
from ..digest import Digest
from ..errors import ConflictError, ErrorCode, NotFoundError
from ..ledger.ledger import Ledger
from ..ledger.sweeps import read_list
from ..objects.compression import compress, decompress
from ..objects.condemned import SweepList, encode_list
from ..objects.content import Content
from ..objects.index import INDEX_PREFIX, BlobIndex, index_key
from ..objects.node import NodeStore
from ..objects.pack import (
    PACK_TARGET_BYTES,
    Location,
    PackBuilder,
    check_blob,
    pack_key,
    parse_footer,
    unpack,
)
from ..records import GcDone, GcSweep, Record
from ..state import State
from .checkpoints import write_missing
from .mark import Marker
from .plan import Aged, Contents, Plan, is_alive, plan_sweep, read_contents, read_orphans
from .token import is_gone, make_token

GRACE_S = 24 * 3600.0
"""Unpublished objects younger than this are left."""
SESSION_SILENCE_S = 3600.0
SESSIONS_PREFIX = "sessions/"
HEARTBEAT = "/heartbeat.json"
MARKS_PREFIX = "gc/"

_CLOCKS_DIFFER_S = 3600.0
# Indexes first: the packs of one that is listed were there before it, and so are listed too.
_PREFIXES = ("index/", "packs/", "results/", "nodes/", "objects/")
_TRIES = 20
_DELETE_TOGETHER = 1000
_FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Swept:
    """What a collection did."""

    sweeps: int = 0
    objects: int = 0
    freed_bytes: int = 0
    closed: int = 0
    """Sweeps of collectors that died, ended for them."""

    def to_dict(self) -> dict[str, int]:
        """Return plain data with stable keys."""
        return {"sweeps": self.sweeps, "objects": self.objects, "bytes": self.freed_bytes, "closed": self.closed}


@dataclass(slots=True)
class _Prepared:
    """A plan with all that is needed to publish it."""

    plan: Plan
    state: State
    contents: Contents
    marker: Marker
    version: int
    moved: dict[Digest, Location] = field(default_factory=dict)
    packs: list[str] = field(default_factory=list)
    token: str = ""
    deleted: tuple[str, ...] = ()


class Collector:
    """Collects garbage of one store.

    Parameters
    ----------
    backend, nodes, objects, ledger
        Of the store. The ledger's watch must feed `nodes.condemned`.
    grace_s
        Leave unpublished objects that were written less than so many seconds ago. 0: none. A collection without grace
        is as safe for what is published, and makes writers at work repeat what they did.
    clock
        Seconds since the epoch.
    """

    def __init__(
        self,
        backend: Backend,
        nodes: NodeStore,
        objects: Content,
        ledger: Ledger,
        *,
        grace_s: float = GRACE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._backend = backend
        self._nodes = nodes
        self._objects = objects
        self._ledger = ledger
        self._grace_s = grace_s
        self._clock = clock

    def plan(
        self, only: frozenset[str] | None = None, *, foresee: Callable[[State], State] = lambda state: state
    ) -> Plan:
        """Say what a sweep would take. Writes nothing but checkpoints that are missing.

        Parameters
        ----------
        only
            Take nothing but these.
        foresee
            Returns the state for which to plan, from the present one.
        """
        return self._look(only, foresee).plan

    def mark(self) -> tuple[str, Plan]:
        """Plan, and keep the list for `collect(only=...)`; return its id and the plan."""
        plan = self.plan()
        name = secrets.token_hex(6)
        body = json.dumps(plan.to_dict()).encode()
        self._backend.put_if_absent(f"{MARKS_PREFIX}{name}.json.zst", compress(body))
        return name, plan

    def marked(self, name: str) -> frozenset[str]:
        """Return the keys of a list that `mark` kept.

        Raises
        ------
        NotFoundError
            There is no such list.
        """
        key = f"{MARKS_PREFIX}{name}.json.zst"
        try:
            raw = self._backend.get(key)
        except NotFoundError as error:
            raise NotFoundError(f"there is no mark {name}", hint="make one: dmlpipe gc --mark") from error
        found: dict[str, Any] = msgspec.json.decode(decompress(raw, key))
        return frozenset([*found["keys"], *found["dead_packs"], *found["repacked"]])

    def collect(self, only: frozenset[str] | None = None) -> Swept:
        """Sweep until nothing is left to take.

        Parameters
        ----------
        only
            Take nothing but these objects; what has come into use meanwhile is left.

        Raises
        ------
        NotFoundError, CorruptError
            The store is damaged: `fsck` says where. Nothing is taken from a damaged store.
        ConflictError
            Other collectors were faster, again and again.
        """
        done = self._end_abandoned()
        while True:
            prepared = self._sweep_once(only)
            if prepared is None:
                return done
            done = replace(
                done,
                sweeps=done.sweeps + 1,
                objects=done.objects + len(prepared.deleted),
                freed_bytes=done.freed_bytes + prepared.plan.freed_bytes,
            )
            if not prepared.plan.more:
                return done

    # --- looking --------------------------------------------------------------------------------------------------

    def _look(self, only: frozenset[str] | None, foresee: Callable[[State], State] = lambda state: state) -> _Prepared:
        for _ in range(_TRIES):
            self._ledger.refresh()
            write_missing(self._backend, self._nodes, self._ledger)
            version = self._nodes.condemned.begin()
            state = foresee(self._ledger.refresh())
            if self._nodes.condemned.version != version:
                continue
            try:
                return self._look_at(state, version, only)
            except NotFoundError:
                # Dropped and swept under our eyes, or else really missing.
                if self._ledger.refresh().n == state.n:
                    raise
        raise ConflictError("other collectors are faster, again and again")

    def _look_at(self, state: State, version: int, only: frozenset[str] | None) -> _Prepared:
        marker = Marker(self._backend, self._nodes)
        marked = marker.mark(state)
        contents = read_contents(self._backend, state)
        listed = [item for prefix in _PREFIXES for item in self._list(prefix)]
        plan = plan_sweep(
            state,
            marked,
            contents,
            listed,
            orphan_indexes=read_orphans(self._backend, listed, contents),
            written_before_s=self._written_before(state),
            only=only,
        )
        return _Prepared(plan, state, contents, marker, version)

    def _list(self, prefix: str) -> Iterator[Aged]:
        for key, size, written_s in self._backend.list_written(prefix):
            yield Aged(key, size, written_s)

    def _written_before(self, state: State) -> float:
        """Until when an unpublished object must have been written to be taken."""
        if not self._grace_s:
            return _FOREVER
        # What running jobs and living sessions wrote is theirs, however long they take.
        begun = [job.started for _, job in state.running_jobs()]
        now = self._clock()
        for key, _, written_s in self._backend.list_written(SESSIONS_PREFIX):
            if key.endswith(HEARTBEAT) and (written_s is None or now - written_s < SESSION_SILENCE_S):
                begun.append(str(msgspec.json.decode(self._backend.get(key)).get("started", "")))
        limits = [now - self._grace_s, *(_seconds(time_) - _CLOCKS_DIFFER_S for time_ in begun if time_)]
        return min(limits)

    # --- sweeping -------------------------------------------------------------------------------------------------

    def _sweep_once(self, only: frozenset[str] | None) -> _Prepared | None:
        for _ in range(_TRIES):
            prepared = self._look(only)
            if not prepared.plan.objects:
                return None
            prepared.token = make_token()
            try:
                self._repack(prepared)
                entry = self._ledger.append(
                    lambda state, p=prepared: self._records(p, state),  # type: ignore[misc]
                    sync=lambda p=prepared: p.packs,  # type: ignore[misc]
                )
            except ConflictError as error:
                if error.code is not ErrorCode.COLLECTED:
                    raise
                continue
            self._delete(prepared.deleted)
            self._ledger.append([GcDone(sweep=entry.n)])
            return prepared
        raise ConflictError("other collectors are faster, again and again")

    def _delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), _DELETE_TOGETHER):
            self._backend.delete_many(keys[start : start + _DELETE_TOGETHER])

    def _repack(self, prepared: _Prepared) -> None:
        """Write what is alive in packs that are mostly dead into new ones."""
        old = frozenset(key for key, _, _ in prepared.plan.repack)
        if not old:
            return
        elsewhere = {name for name, _ in prepared.contents.entries(self._dying(prepared))}
        alive: dict[str, list[tuple[Digest, Location]]] = {key: [] for key in sorted(old)}
        seen: set[Digest] = set()
        for name, at in prepared.contents.entries():
            if at.key in old and name in prepared.marker.marked.blobs and name not in elsewhere and name not in seen:
                seen.add(name)
                alive[at.key].append((name, at))
        builder = PackBuilder()
        for key, blobs in alive.items():
            body = memoryview(self._backend.get(key))
            for name, at in sorted(blobs, key=lambda blob: blob[1].offset):
                stored = bytes(body[at.offset : at.offset + at.stored])
                content = unpack(stored, at.codec, name)
                check_blob(name, content, f"{key}, offset {at.offset}")
                builder.add_stored(name, stored, at.size, at.codec)
            if builder.size >= PACK_TARGET_BYTES:
                self._store_pack(prepared, builder)
                builder = PackBuilder()
        self._store_pack(prepared, builder)

    def _store_pack(self, prepared: _Prepared, builder: PackBuilder) -> None:
        if not len(builder):
            return
        body = builder.finish()
        key = pack_key(body)
        self._backend.put_if_absent(key, body)
        prepared.packs.append(key)
        prepared.moved.update(parse_footer(body, key).locations(key))

    def _dying(self, prepared: _Prepared) -> frozenset[str]:
        plan = prepared.plan
        return frozenset([key for key, _ in plan.dead] + [key for key, _, _ in plan.repack])

    def _records(self, prepared: _Prepared, state: State) -> Sequence[Record]:
        """Return the record of the sweep on the newest state, without what came into use since it was planned."""
        if self._nodes.condemned.version != prepared.version:
            raise ConflictError("another collector published a sweep meanwhile", code=ErrorCode.COLLECTED)
        marked = prepared.marker.mark(state)
        newer = read_contents_since(self._backend, state, prepared.contents)
        published = set(state.packs()) | {pack for index in newer.values() for pack in index.containers}
        keys = [
            key
            for key, _ in prepared.plan.keys
            if (not is_alive(key, marked) if key.startswith(("nodes/", "objects/")) else key not in published)
            and key not in newer
        ]
        dying = self._dying(prepared) - {pack for index in newer.values() for pack in index.containers}
        dying -= marked.segments
        kept = {name for name, _ in prepared.contents.entries(dying)} | set(prepared.moved)
        kept |= {name for index in newer.values() for name, _ in index}
        # A blob that came into use since: its pack stays.
        dying -= {at.key for name, at in prepared.contents.entries() if name in marked.blobs and name not in kept}
        kept |= {name for name, _ in prepared.contents.entries(dying)}
        gone = {name for name, at in prepared.contents.entries() if at.key in dying} - kept
        old = prepared.contents.touching(dying)
        index = self._index(prepared, old, dying)
        prepared.deleted = (*keys, *sorted(dying), *old)
        if not prepared.deleted:
            raise ConflictError("all of it came into use meanwhile", code=ErrorCode.COLLECTED)
        listed = SweepList(nonce=secrets.token_bytes(16), keys=prepared.deleted, blobs=tuple(sorted(gone)))
        return [
            GcSweep(
                list=self._nodes.put(encode_list(listed)).hex(),
                token=prepared.token,
                packs=tuple(key for key in prepared.packs if not key.startswith(f"{INDEX_PREFIX}/")),
                index=index,
                drop_packs=tuple(sorted(dying)),
                drop_indexes=tuple((prepared.contents.indexes[key][0], key) for key in old),
            )
        ]

    def _index(self, prepared: _Prepared, old: Sequence[str], dying: frozenset[str]) -> str:
        """Store the index that takes the place of `old`, and says where what was moved is."""
        entries = [*prepared.moved.items()]
        for key in old:
            entries += [(name, at) for name, at in prepared.contents.indexes[key][1] if at.key not in dying]
        if not entries:
            return ""
        body = BlobIndex.build(entries)
        key = index_key(body)
        self._backend.put_if_absent(key, body)
        if key not in prepared.packs:
            prepared.packs.append(key)
        return key

    # --- those who died -------------------------------------------------------------------------------------------

    def _end_abandoned(self) -> Swept:
        """Delete again what sweeps of dead collectors of this machine named, and close them."""
        done = Swept()
        if self._backend.properties.remote:
            return done
        for n, sweep in list(self._ledger.refresh().sweeps()):
            if not sweep.open or not is_gone(sweep.token):
                continue
            listed = read_list(self._nodes, sweep)
            if listed is None:
                continue
            self._delete(listed.keys)
            try:
                self._ledger.append([GcDone(sweep=n)])
            except ConflictError:
                continue  # another collector closed it
            done = replace(done, closed=done.closed + 1)
        return done


def read_contents_since(backend: Backend, state: State, before: Contents) -> dict[str, BlobIndex]:
    """Return the published indexes that `before` does not have."""
    return {key: BlobIndex(backend.get(key), key) for _, key in state.named_indexes() if key not in before.indexes}


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


__all__ = ["GRACE_S", "Collector", "Swept"]
