"""The ledger: numbered, hash-chained entries, the only authority on what exists.

Rules
-----
1. Entry `n` is ``ledger/<n // 1000>/<n>.json``, created exclusively and never changed or deleted. Whoever creates
   number `n` first has won it; a loser reads what it missed, checks its records against the newer state, and tries
   the next number.
2. `prev` is the hash of the bytes of entry `n - 1`.
3. Before an entry is created, everything it newly refers to is durable (`sync`). Before an entry is visible, it is.
4. An entry carries a random nonce, so that a writer whose response was lost can tell its own entry from another's.
5. Every client remembers the last (number, hash) that it saw, and refuses a ledger that does not contain it.

A `State` that was handed out never changes: catching up makes a new one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from ..actor import actor_name
from ..backend import Backend
from ..clock import utc_now
from ..digest import digest
from ..errors import (
    BackendError,
    ConflictError,
    CorruptError,
    DmlpipeError,
    ErrorCode,
    FormatError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
)
from ..objects.node import NodeStore
from ..records import Entry, GcDone, GcSweep, Record
from ..state import State
from ..tokens import token_hex
from ..trees.prolly import Tree
from . import checkpoint as ckpt
from .heads import RememberedHead, SeenHead

if TYPE_CHECKING:
    from random import Random

logger = logging.getLogger(__name__)

ENTRY_VERSION = 1
ENTRIES_PER_FOLDER = 1000
PREFIX = "ledger/"

_READ_AHEAD = 32
_REBASE_AFTER = 4 * ckpt.CHECKPOINT_EVERY
_CREATE_TRIES = 8
_LOSSES_BEFORE_PAUSE = 3
_NOTICES_KEPT = 100
_PAUSE_MAX_S = 0.5
_POLL_LOCAL_S = (0.01, 0.1)
_POLL_REMOTE_S = (0.5, 2.0)

_SWEEPS = (GcSweep, GcDone)

Build = Callable[[State], Sequence[Record]]

_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Entry)


def entry_key(n: int) -> str:
    """Key of entry `n`."""
    return f"{PREFIX}{n // ENTRIES_PER_FOLDER:09d}/{n:012d}.json"


def encode_entry(entry: Entry) -> bytes:
    """Return the bytes of an entry; its hash is their digest."""
    return _encoder.encode(entry) + b"\n"


def decode_entry(data: bytes, n: int) -> Entry:
    """Parse entry `n`.

    Raises
    ------
    FormatError
        It was written by a later version of dmlpipe.
    CorruptError
        It is no entry, or one of another number.
    """
    try:
        entry = _decoder.decode(data)
    except msgspec.ValidationError as error:
        raise FormatError(
            f"ledger entry {n} holds what this version does not know: {error}", hint="upgrade dmlpipe"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptError(f"ledger entry {n} is not JSON: {error} ({entry_key(n)})") from error
    if entry.v != ENTRY_VERSION:
        raise FormatError(
            f"ledger entry {n} has version {entry.v}, this dmlpipe reads {ENTRY_VERSION}", hint="upgrade dmlpipe"
        )
    if entry.n != n:
        raise CorruptError(f"ledger entry {n} says that it is entry {entry.n} ({entry_key(n)})")
    return entry


class Ledger:
    """The ledger of one store, as one process sees it. Safe for use by several threads.

    Parameters
    ----------
    backend
        Where the entries are.
    nodes
        Where checkpoints' trees are.
    head
        What this machine remembers of the store; None remembers nothing.
    actor
        ``user@host``, stands in entries.
    read_only
        Refuse `append`.
    clock
        Returns the time that entries carry.
    rng
        Spreads the pauses of losers.
    watch
        Told of every newer state that may know of more sweeps, before anything is appended to it.
    """

    def __init__(
        self,
        backend: Backend,
        nodes: NodeStore,
        *,
        head: RememberedHead | None = None,
        actor: str | None = None,
        read_only: bool = False,
        clock: Callable[[], str] = utc_now,
        rng: Random | None = None,
        watch: Callable[[State], None] | None = None,
    ) -> None:
        self._backend = backend
        self._nodes = nodes
        self._head = head
        self._actor = actor or actor_name()
        self._read_only = read_only
        self._clock = clock
        self._rng = rng
        self._watch = watch
        self._watch_due = False
        self.lost_races = 0
        """How often another writer took the number that this one tried for."""
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._state = State()
        self._base: Tree | None = None
        self._base_n = -1
        self._loaded = False
        self.notices: deque[str] = deque(maxlen=_NOTICES_KEPT)
        """Why entries were ignored, the last hundred."""

    # --- reading --------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state as of the last look; the first use looks."""
        if not self._loaded:
            self.refresh()
        return self._state

    def refresh(self) -> State:
        """Catch up with the store and return the state.

        Costs one failed read when nothing is new. The first call finds the last entry with two listings, then reads
        the newest checkpoint and the entries after it in parallel.

        Raises
        ------
        FormatError
            The ledger does not contain the entry that this machine saw last (code ``history-rewritten``), or an entry
            is of a later version.
        CorruptError
            The chain is broken.
        """
        with self._lock:
            if self._loaded:
                self._catch_up()
            else:
                # Before the listing: a process beside this one may see, and remember, a newer entry meanwhile.
                seen = self._head.read() if self._head is not None else None
                self._load(self._find_last(), seen)
                self._loaded = True
            return self._state

    def entries(self, since: int = 0) -> Iterator[tuple[Entry, str]]:
        """Yield entries from number `since` on with their hashes, verifying the chain; ends at the present state."""
        last = self.state.n
        chain = digest(self._backend.get(entry_key(since - 1))).hex() if 0 < since <= last + 1 else State().chain
        for first in range(since, last + 1, _READ_AHEAD):
            for entry, entry_hash in self._read(first, min(first + _READ_AHEAD, last + 1)):
                _check_link(entry, chain)
                chain = entry_hash
                yield entry, entry_hash

    def wait(self, n: int, timeout_s: float) -> bool:
        """Wait until an entry after number `n` exists; return whether one does.

        The store is asked every 10 to 100 ms, a remote one every 0.5 to 2 s.
        """
        deadline = time.monotonic() + timeout_s
        pause, pause_max = _POLL_REMOTE_S if self._backend.properties.remote else _POLL_LOCAL_S
        with self._lock:
            while self.refresh().n <= n:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(pause, left))
                pause = min(pause * 1.5, pause_max)
        return True

    # --- writing --------------------------------------------------------------------------------------------------

    def append(
        self, build: Build | Sequence[Record], *, sync: Iterable[str] | Callable[[], Iterable[str]] = ()
    ) -> Entry:
        """Append one entry; return it.

        Parameters
        ----------
        build
            The records, or what makes them from a state. Called again whenever the state turns out to be older than
            the ledger: it must decide from its argument alone.
        sync
            Keys that the records newly refer to, or what returns them (called after `build`). They are made durable
            first, and with them every node put so far.

        Raises
        ------
        DmlpipeError
            What makes the records invalid on the newest state, or what `build` raised on it.
        ReadOnlyError
            The store was opened read-only.

        Notes
        -----
        Atomic: after an error other than `BackendError` nothing was published. After a `BackendError` that reading
        back could not settle, the next `refresh` shows whether the entry exists.
        """
        entry = self.try_append(build, sync=sync)
        if entry is None:
            raise InvalidInputError("a ledger entry needs at least one record")
        return entry

    def try_append(
        self, build: Build | Sequence[Record], *, sync: Iterable[str] | Callable[[], Iterable[str]] = ()
    ) -> Entry | None:
        """Like `append`, but return None, without an entry, if `build` returns no records on the newest state."""
        if self._read_only:
            raise ReadOnlyError("this store was opened read-only")
        with self._lock:
            if not self._loaded:
                self.refresh()
            losses = 0
            while True:
                self._tell_watch()
                recs = self._build(build)
                if not recs:
                    if self._catch_up():
                        continue
                    return None
                self._sync(sync() if callable(sync) else sync)
                entry = Entry(
                    v=ENTRY_VERSION,
                    n=self._state.n + 1,
                    prev=self._state.chain,
                    ts=self._clock(),
                    nonce=token_hex(8),
                    actor=self._actor,
                    recs=recs,
                )
                data = encode_entry(entry)
                if self._create(entry_key(entry.n), data):
                    self._take([(entry, digest(data).hex())])
                    self._write_checkpoint()
                    return entry
                losses += 1
                self.lost_races += 1
                if not self._catch_up():
                    raise BackendError(
                        f"ledger entry {entry.n} exists but cannot be read ({entry_key(entry.n)})", retryable=True
                    )
                if losses >= _LOSSES_BEFORE_PAUSE:
                    time.sleep(self._uniform(min(_PAUSE_MAX_S, 0.002 * 2 ** min(losses, 10))))

    def _uniform(self, most: float) -> float:
        """Return a number between 0 and `most`: who lost a race waits that long."""
        if self._rng is None:
            import random

            self._rng = random.Random()
        return self._rng.uniform(0, most)

    def adopt(self, first: int, bodies: Sequence[bytes]) -> None:
        """Append entries byte for byte as another copy of this ledger has them.

        What they refer to must be here, and durable. Each is visible when the next one is created.

        Parameters
        ----------
        first
            Number of the first of `bodies`.
        bodies
            Entries in order.

        Raises
        ------
        ConflictError
            This ledger does not end right before `first`, or got another entry meanwhile.
        CorruptError
            They do not follow from this ledger and from each other.
        ReadOnlyError
            The store was opened read-only.
        """
        if self._read_only:
            raise ReadOnlyError("this store was opened read-only")
        with self._lock:
            self.refresh()
            if first != self._state.n + 1:
                raise ConflictError(
                    f"the ledger of {self._backend.url} goes on to entry {self._state.n}: entry {first} cannot follow",
                    hint="somebody else wrote to it meanwhile: look, then again",
                )
            links: list[tuple[Entry, str]] = []
            chain = self._state.chain
            for n, data in enumerate(bodies, first):
                entry = decode_entry(data, n)
                _check_link(entry, chain)
                chain = digest(data).hex()
                links.append((entry, chain))
            last = first + len(bodies) - 1
            for start in range(0, len(links), _READ_AHEAD):
                part = links[start : start + _READ_AHEAD]
                for (entry, _), data in zip(part, bodies[start : start + _READ_AHEAD], strict=True):
                    if not self._create(entry_key(entry.n), data):
                        raise ConflictError(
                            f"entry {entry.n} of {self._backend.url} was written by somebody else meanwhile"
                        )
                self._adopt_part(part, ckpt.last_due(last))

    def _adopt_part(self, links: list[tuple[Entry, str]], checkpoint: int) -> None:
        """Fold entries that were just created; write the checkpoint after entry `checkpoint` if it is among them."""
        before = [link for link in links if link[0].n <= checkpoint]
        self._take(before)
        if before and before[-1][0].n == checkpoint:
            self._write_checkpoint()
        self._take(links[len(before) :])

    def _build(self, build: Build | Sequence[Record]) -> tuple[Record, ...]:
        """Return records that are valid on the newest state known, catching up only if they are not."""
        while True:
            try:
                recs = tuple(build(self._state) if callable(build) else build)
                self._state.check(recs)
            except DmlpipeError:
                if not self._catch_up():
                    raise
            else:
                return recs

    def _sync(self, keys: Iterable[str]) -> None:
        """Make `keys`, and all nodes put so far, durable in one pass."""
        nodes = self._nodes.take_written()
        try:
            self._backend.sync(dict.fromkeys([*keys, *nodes]))
        except BaseException:
            self._nodes.restore_written(nodes)
            raise

    def _create(self, key: str, data: bytes) -> bool:
        """Create an entry; return whether it is ours.

        A lost response is settled by reading back. An entry that is refused and not there either is another's, on its
        way: asking again with the same bytes under the same number is safe, since at most one of all requests lands.
        """
        failure: BackendError | None = None
        for attempt in range(_CREATE_TRIES):
            try:
                if self._backend.put_if_absent(key, data, durable=True):
                    return True
            except BackendError as error:
                failure = error
            try:
                return self._backend.get(key) == data
            except NotFoundError:
                if failure is not None and not failure.retryable:
                    raise failure from None
            except BackendError as error:
                raise failure or error from None
            time.sleep(self._uniform(min(_PAUSE_MAX_S, 0.01 * 2**attempt)))
        raise failure or BackendError(f"{key} can neither be created nor read in {self._backend.url}", retryable=True)

    def _write_checkpoint(self) -> None:
        state = self._state
        if not ckpt.is_due(state.n):
            return
        try:
            tree = ckpt.fold_tree(self._nodes, self._base, state)
            self._sync(())
            body = ckpt.Checkpoint(n=state.n, chain=state.chain, state=tree.root.hex())
            self._backend.put_if_absent(ckpt.checkpoint_key(state.n), ckpt.encode_checkpoint(body))
        except BackendError as error:
            # The entry is published already, and a checkpoint only saves time.
            logger.warning("checkpoint %d was not written: %s", state.n, error)
            return
        self._rebase(tree, state.n, state.chain)

    # --- catching up ----------------------------------------------------------------------------------------------

    def _find_last(self) -> int:
        folders = [name for name in self._backend.list_folders(PREFIX) if name.isdigit()]
        if not folders:
            return -1
        last = -1
        for key, _ in self._backend.list(f"{PREFIX}{max(folders)}/"):
            stem = key.rpartition("/")[2].removesuffix(".json")
            if stem.isdigit():
                last = max(last, int(stem))
        return last

    def _load(self, last: int, seen: SeenHead | None) -> None:
        """Read the state as of entry `last` from the newest good checkpoint."""
        base = ckpt.last_due(last)
        while base >= 0:
            found = ckpt.read_checkpoint(self._backend, base)
            if found is not None and self._load_from(found, last, seen):
                return
            base -= ckpt.CHECKPOINT_EVERY
        self._load_from(None, last, seen)

    def _load_from(self, start: ckpt.Checkpoint | None, last: int, seen: SeenHead | None) -> bool:
        """Fold the entries after a checkpoint; return False if the checkpoint is not of this ledger."""
        n = start.n if start is not None else -1
        # With no entry after it, the checkpoint is checked against its own entry.
        links = list(self._read(min(n + 1, last), last + 1)) if last >= 0 else []
        if start is not None:
            first, first_hash = links[0]
            if start.chain != (first_hash if first.n == start.n else first.prev):
                logger.warning("checkpoint %d does not belong to this ledger and is ignored", start.n)
                return False
            try:
                tree = ckpt.open_tree(self._nodes, start)
            except (NotFoundError, CorruptError) as error:
                logger.warning("checkpoint %d is unreadable and is ignored: %s", start.n, error)
                return False
            self._rebase(tree, start.n, start.chain)
        else:
            self._base, self._base_n, self._state = None, -1, State()
        if seen is not None:
            self._check_seen(seen, last, {entry.n: entry_hash for entry, entry_hash in links})
        self._take([link for link in links if link[0].n > n], loaded=True)
        return True

    def _check_seen(self, seen: SeenHead, last: int, known: dict[int, str]) -> None:
        """Refuse a ledger that ends before what was seen, or has something else there."""
        problem = ""
        if seen.n > last:
            problem = f"it ends at entry {last}, and this machine has seen entry {seen.n}"
        elif seen.n >= 0:
            there = known.get(seen.n) or digest(self._backend.get(entry_key(seen.n))).hex()
            if there != seen.hash:
                problem = f"entry {seen.n} is {there[:12]}, and this machine has seen {seen.hash[:12]}"
        if problem:
            where = self._head.file if self._head is not None else ""
            raise FormatError(
                f"the history of {self._backend.url} was rewritten: {problem}",
                code=ErrorCode.HISTORY_REWRITTEN,
                hint=f"if you put it back from a backup yourself, remove {where}",
            )

    def _catch_up(self) -> bool:
        """Fold entries that are new; return whether there were any."""
        found = self._read_next()
        if found is None:
            return False
        self._take([found])
        found = self._read_next()
        if found is None:
            return True
        self._take([found])
        # Somebody is well ahead: one listing, then everything in parallel.
        last = self._find_last()
        if last - self._base_n > _REBASE_AFTER and ckpt.last_due(last) > self._base_n:
            self._load(last, SeenHead(n=self._state.n, hash=self._state.chain))
            return True
        for first in range(self._state.n + 1, last + 1, _READ_AHEAD):
            self._take(list(self._read(first, min(first + _READ_AHEAD, last + 1))))
        return True

    def _read_next(self) -> tuple[Entry, str] | None:
        n = self._state.n + 1
        try:
            data = self._backend.get(entry_key(n))
        except NotFoundError:
            return None
        return decode_entry(data, n), digest(data).hex()

    def _read(self, first: int, stop: int) -> Iterator[tuple[Entry, str]]:
        numbers = range(first, stop)
        try:
            bodies = self._backend.get_many([(entry_key(n), None, None) for n in numbers])
        except NotFoundError as error:
            raise CorruptError(f"a ledger entry from {first} to {stop - 1} is missing: {error}") from error
        for n, data in zip(numbers, bodies, strict=True):
            yield decode_entry(data, n), digest(data).hex()

    def _take(self, links: list[tuple[Entry, str]], *, loaded: bool = False) -> None:
        """Fold entries that follow the present state, on a copy of it, and remember the last."""
        state = self._state
        if links:
            state = state.fork()
            for entry, entry_hash in links:
                _check_link(entry, state.chain)
                for notice in state.apply(entry, entry_hash):
                    logger.info("%s", notice)
                    self.notices.append(notice)
            self._state = state
        self._watch_due |= loaded or any(isinstance(r, _SWEEPS) for entry, _ in links for r in entry.recs)
        self._tell_watch()
        if links:
            self._changed.notify_all()
            self._remember()

    def _tell_watch(self) -> None:
        """Have the watch learn of sweeps; what it could not learn is due before anything is appended."""
        if self._watch_due and self._watch is not None:
            self._watch(self._state)
        self._watch_due = False

    def _remember(self) -> None:
        if self._head is None:
            return
        try:
            self._head.write(self._state.n, self._state.chain)
        except BackendError as error:
            # The entry stands; what is lost is the guard against a rewritten history.
            logger.warning("%s", error)
            self._head = None

    def _rebase(self, tree: Tree, n: int, chain: str) -> None:
        self._base, self._base_n = tree, n
        self._state = State(ckpt.TreeBase(tree), n, chain)


def _check_link(entry: Entry, chain: str) -> None:
    if entry.prev != chain:
        raise CorruptError(
            f"the ledger's chain is broken: entry {entry.n} follows {entry.prev[:12]}, "
            f"but the entry before it is {chain[:12]}"
        )
