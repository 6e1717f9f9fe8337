"""One slot at work: datums of a lease go to its child, their results to the store; the next are laid out meanwhile.

Rules:

- The child does units in order. The first sent unit that has not ended is the one that runs, and the one that a death
  or the deadline is blamed on; units behind it are made again in a new child, for free.
- At most two frames are in the child's hands: while it computes one, the next is laid out and the one before is stored.
- Datums whose files are small are laid out by the child (`datum_folders.py`), until it says that it cannot: then by the
  worker, whose errors say why. What it could not begin is nobody's try.
  Units that it has not begun can be taken out of its hands: for a recall, or when the worker drains.
- Results are held until the job's shared inputs were compared with what they were, at most `_VERIFY_S`.
- Nothing is begun while more than `FULL_FLUSHES` segments wait for the store.
- A lost child never loses a result that it sent.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ...storage.errors import DmlpipeError
from ...storage.objects.segment import Failure, Outcome
from ..child.failure import UserFrames, exit_failure, failure_of, located, said, timeout_failure
from ..child.wire import Ended, Loading, Produced, Unit
from ..job import CommandTransform, Datum, PythonTransform
from .attempts import Attempts, Call, resident_key
from .call_layout import CallLayout
from .failures import wrote_to_input
from .hands import Hands, Sent
from .job_work import JobWork
from .lease_rows import LeaseReport, LeaseRows
from .outputs import Outputs
from .setting_up import LOADING_MIN_S, WATCH_S, NotLoadedError, set_up, watch
from .slot import Slot
from .slot_child import ChildDiedError, Message, SlotChild

logger = logging.getLogger(__name__)

FRAME_TARGET_S = 0.05
"""Work in one frame to the child."""
FRAME_MAX_UNITS = 256
_FRAMES_OUT_MAX = 2
_VERIFY_S = 0.2
_TIDY_S = 1.0
"""Without anything to wait for: how often to look whether the job was cancelled."""
_ROOM_S = 0.05
"""How often to look whether the store took results that keep a slot waiting."""
_GATHER_MAX_S = 0.025
"""How long a slot looks away from its child, so that the ends of many units come together: each that is listened to
takes a core from the child, twice."""
_GATHER_SHARE = 0.25
"""Of the time that what the child still has will take: by then the next frame must be there."""
_GATHER_MIN_S, _GATHER_UNITS = 0.001, 31
"""With so many left it looks away for so long, however short they are: a unit takes more than its own seconds."""


class LeaseRun:
    """The run of one lease."""

    def __init__(
        self,
        slot: Slot,
        job: JobWork,
        datums: Sequence[Datum],
        start: int,
        fold: int,
        lease: int,
        report: LeaseReport,
    ) -> None:
        self._slot = slot
        self._job = job
        self._lease = lease
        self._report = report
        self._frames = UserFrames((job.code,) if job.code else ())
        self._ended_at: float | None = None
        """When the child ended the unit that is being taken in."""
        self._began = slot.now()
        self._watched_at = slot.now()
        self._loading = False
        self._setup_deaths = 0
        positions = self._resident_positions()
        spec = job.spec
        self._rows = LeaseRows(job, datums, report, start=start, fold=fold, lease=lease, slot=slot.number, now=slot.now)
        self._layout = CallLayout(slot, job, datums, stopping=lambda: self._stopping, refused=self._refused)
        self._attempts = Attempts(
            len(datums),
            batch=spec.batch,
            tries=spec.tries,
            together=lambda a, b: resident_key(datums[a], positions) == resident_key(datums[b], positions),
        )
        self._hands = Hands(self._attempts)
        self._outputs = Outputs(job.results, self._frames)

    def _resident_positions(self) -> list[int]:
        transform = self._job.spec.transform
        if not isinstance(transform, PythonTransform):
            return []
        names = {p.input or p.name for p in transform.signature if p.resident}
        return [i for i, item in enumerate(self._job.inputs.varying) if item.name in names]

    @property
    def _stopping(self) -> bool:
        return self._job.cancelled.is_set() or self._slot.draining.is_set()

    def run(self) -> None:
        """Try every datum until it ended, the job is cancelled or the worker drains."""
        try:
            while self._attempts.waiting or self._hands:
                if self._job.cancelled.is_set():
                    self._abandon()
                    break
                if self._slot.draining.is_set():
                    self._withdraw()
                    self._give_rest()
                    if not self._hands:
                        break
                elif self._slot.recalled == self._lease:
                    self._slot.recalled = -1
                    self._share()
                try:
                    self._step()
                except ChildDiedError as died:
                    self._on_death(died)
            self._rows.settle()
            self._give_rest()
        finally:
            self._layout.close()
            self._hands.drop()

    def _step(self) -> None:
        child = self._slot.child_for(self._job)
        if child is None:
            if not self._set_up():
                return
            child = self._slot.child_for(self._job)
            assert child is not None
        self._layout.no_room = self._layout.no_room and bool(self._hands)
        may_send = self._hands.frames < _FRAMES_OUT_MAX and not self._layout.no_room
        if not self._stopping and may_send and self._attempts.waiting:
            if not self._job.results.full:
                self._fill(child)
                return
            if not self._hands:
                # The worker's pulse stores them; nothing is computed meanwhile.
                self._rows.settle()
                self._job.cancelled.wait(_ROOM_S)
                return
        if not self._hands:
            return
        patience = self._patience()
        message = child.receive(patience, gather_s=min(patience, self._gather_s()))
        if message is not None:
            # What came together is taken in together, until there is room for a frame: the child must not run dry.
            while message is not None:
                self._on_message(message)
                message = (
                    child.pending() if self._hands.frames >= _FRAMES_OUT_MAX or not self._attempts.waiting else None
                )
        else:
            # Only here: a system call per message lets the other slots' threads take turns at each.
            self._slot.drain_wake()
            if self._is_late():
                self._on_timeout()
        now = self._slot.now()
        if now - self._watched_at >= WATCH_S:
            self._watched_at = now
            failure = watch(child, self._job)
            if failure is not None and self._hands:
                died = self._slot.end_child()
                self._blame(failure, died.log if died else b"")
        if now - self._rows.settled_at >= _VERIFY_S:
            self._rows.settle()

    # --- setting up ---

    def _set_up(self) -> bool:
        """Load the transform in a child; False if that failed and every waiting datum with it."""
        try:
            return set_up(self._slot, self._job, self._frames, notice=self._report.notice)
        except NotLoadedError as err:
            self._fail_all(err.failure, err.log)
        except ChildDiedError as died:
            self._slot.end_child()
            self._setup_deaths += 1
            if self._setup_deaths >= 2 or self._stopping:
                self._fail_all(self._death_failure(died, "loading the code"), died.log)
        return False

    def _fail_all(self, failure: Failure, log: bytes) -> None:
        """The transform cannot be loaded: every datum that waits fails."""
        name = self._job.put_log(log)
        for index in self._attempts.rest():
            self._hold(index, Outcome.FAILED, [], 0.0, name, failure, tries=1)

    # --- sending ---

    def _fill(self, child: SlotChild) -> None:
        """Lay out and send one frame."""
        per_unit = self._slot.seconds_per_unit
        one = not per_unit or self._layout.cramped
        wanted = 1 if one else max(1, min(FRAME_MAX_UNITS, int(FRAME_TARGET_S / per_unit)))
        # Two slots' worth of tail: never take so much that the deadline of the last could not be told.
        calls: list[Call] = []
        full = 0.0
        while len(calls) < wanted and full < 1.0 and (call := self._attempts.take()) is not None:
            calls.append(call)
            full += self._layout.share(call)
        ready: list[Sent] = []
        laid_out = self._layout.lay_out(calls, others=bool(self._hands))
        for call in reversed(calls[len(laid_out) :]):
            self._attempts.put_back(call)
        for call, prepared in zip(calls, laid_out, strict=False):
            if prepared is not None:
                unit = Unit(self._slot.number_unit(), tuple(p.payload for p in prepared))
                ready.append(Sent(unit, call, prepared))
        if not ready:
            return
        if not self._hands:
            self._began = self._slot.now()
        self._hands.give(ready)
        try:
            child.work([sent.unit for sent in ready], give_up=self._must_give_up)
        except TimeoutError:
            if not self._job.cancelled.is_set():
                self._on_timeout()

    def _refused(self, call: Call, err: DmlpipeError) -> None:
        """Handle a call whose inputs are not to be had."""
        if len(call.indexes) == 1:
            failure = failure_of(err, self._frames)
            self._hold(call.indexes[0], Outcome.FAILED, [], 0.0, b"", failure, tries=call.attempt)
        else:
            # One batch: halves are tried as calls of their own.
            self._attempts.call_failed(call)

    # --- waiting ---

    def _limit(self) -> float | None:
        """Seconds that the running unit may take, or None."""
        limit = self._job.spec.timeout_s
        if not limit:
            return None
        if self._loading:
            return max(limit, LOADING_MIN_S)
        return limit * len(self._hands.first.call.indexes)

    def _patience(self) -> float:
        limit = self._limit()
        wait = min(_VERIFY_S, WATCH_S) if self._rows.held or self._job.spec.memory_bytes else min(_TIDY_S, 4 * WATCH_S)
        if limit is None:
            return wait
        return max(0.0, min(wait, self._began + limit - self._slot.now()))

    def _gather_s(self) -> float:
        """How long to look away from the child before it is listened to."""
        if self._loading:
            return 0.0
        behind = max(0, len(self._hands) - 1)
        least = _GATHER_MIN_S if behind >= _GATHER_UNITS else 0.0
        return max(least, min(_GATHER_MAX_S, _GATHER_SHARE * behind * self._slot.seconds_per_unit))

    def _must_give_up(self, silent_s: float) -> bool:
        """Whether to end a child that neither reads nor says anything."""
        limit = self._limit()
        return self._job.cancelled.is_set() or (limit is not None and silent_s >= limit)

    def _is_late(self) -> bool:
        limit = self._limit()
        return limit is not None and bool(self._hands) and self._slot.now() >= self._began + limit

    # --- what comes back ---

    def _on_message(self, message: Message) -> None:
        match message.body:
            case Produced() as produced:
                self._outputs.produced(self._hands.first, produced, message.fds)
            case Loading(begin=begin, at=at):
                self._loading = begin
                self._began = at
            case Ended() as ended:
                self._on_ended(ended)

    def _on_ended(self, ended: Ended) -> None:
        sent = self._hands.take_first()
        self._layout.no_room = False
        if ended.unit != sent.unit.number:
            raise RuntimeError(f"the slot's child ended unit {ended.unit}, expected {sent.unit.number}")
        self._began = self._ended_at = ended.at
        self._loading = False
        if ended.unlaid:
            # Why, the worker will find out itself, and can say.
            self._layout.by_child = False
            sent.remove()
            self._attempts.put_back(sent.call)
            return
        average = self._slot.seconds_per_unit
        self._slot.seconds_per_unit = ended.seconds if not average else 0.7 * average + 0.3 * ended.seconds
        self._slot.seconds_per_unit = max(self._slot.seconds_per_unit, 1e-6)
        if ended.modules:
            self._job.note_modules(ended.modules)
        log = self._job.put_log(ended.log) if ended.log else b""
        seconds = ended.seconds / len(sent.call.indexes)
        written = [prepared.changed() for prepared in sent.prepared]
        problems = [prepared.problem() for prepared in sent.prepared]
        if len(ended.results) == 1 and len(sent.call.indexes) > 1:
            sent.remove()
            self._attempts.call_failed(sent.call)
            return
        for place, (index, result) in enumerate(zip(sent.call.indexes, ended.results, strict=True)):
            failure = said(result.failure, ended.log) if result.failure else None
            outcome = Outcome(result.outcome)
            if result.files:
                self._outputs.take(sent, place, result.files)
            if sent.broken.get(place) is not None:
                outcome, failure = Outcome.FAILED, sent.broken[place]
            if (problem := problems[place]) is not None:
                outcome, failure = Outcome.FAILED, failure_of(problem, self._frames)
            if changed := result.changed or written[place]:
                outcome, failure = Outcome.FAILED, wrote_to_input(changed)
            if outcome is Outcome.FAILED:
                self._failed(index, failure, seconds, log)
                continue
            self._attempts.succeeded(index)
            outputs = sorted(sent.outputs.get(place, ())) if outcome is Outcome.OK else []
            self._hold(index, outcome, outputs, seconds, log, failure)
        sent.remove(reuse=ended.alone)

    def _failed(self, index: int, failure: Failure | None, seconds: float, log: bytes) -> None:
        if self._attempts.failed(index):
            self._hold(index, Outcome.FAILED, [], seconds, log, failure)

    def _on_timeout(self) -> None:
        limit = self._limit() or 0.0
        command = isinstance(self._job.spec.transform, CommandTransform)
        died = self._slot.end_child(ask_where=not command)
        log = died.log if died else b""
        self._blame(located(timeout_failure(limit), log, self._frames), log)

    def _on_death(self, died: ChildDiedError) -> None:
        self._slot.end_child()
        if self._hands:
            self._blame(self._death_failure(died, ""), died.log)

    def _death_failure(self, died: ChildDiedError, doing: str) -> Failure:
        what = f"the process ({doing})" if doing else "the process"
        return said(located(exit_failure(died.exit.status, what=what), died.log, self._frames), died.log)

    def _blame(self, failure: Failure, log: bytes) -> None:
        """The first unit made the child end: it fails, those behind it are made again."""
        self._ended_at = None
        first = self._hands.take_first()
        self._hands.take_back()
        self._loading = False
        seconds = max(0.0, self._slot.now() - self._began)
        if len(first.call.indexes) != 1:
            self._attempts.call_failed(first.call)
        else:
            changed = first.prepared[0].changed()
            known = wrote_to_input(changed) if changed is not None else failure
            (index,) = first.call.indexes
            self._failed(index, known, seconds, self._job.put_log(log))
        first.remove()

    def _abandon(self) -> None:
        """The job was cancelled: end what runs."""
        if self._hands:
            self._slot.end_child()
        self._hands.take_back()

    def _withdraw(self) -> None:
        """Take what the child has not begun out of its hands; those calls wait again."""
        child = self._slot.child_for(self._job)
        numbers = set(child.withdraw()) if child is not None and self._hands else None
        if numbers:
            self._hands.take_back(numbers)

    def _give_rest(self) -> None:
        """Give back all that waits: others need not wait for what runs here."""
        self._rows.give_back(self._attempts.rest())

    def _share(self) -> None:
        """Give back half of what was not begun: slots without work wait for it."""
        self._withdraw()
        self._rows.give_back(self._attempts.give_half())

    # --- results ---

    def _hold(
        self,
        index: int,
        outcome: Outcome,
        outputs: list[tuple[str, bytes]],
        seconds: float,
        log: bytes,
        failure: Failure | None,
        *,
        tries: int | None = None,
    ) -> None:
        used = self._attempts.tries_of(index) if tries is None else tries
        self._rows.hold(index, outcome, outputs, seconds, log, failure, tries=used, ended_at=self._ended_at)
