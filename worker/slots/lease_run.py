"""One slot at work: datums of a lease go to its child, their results to the store; the next are laid out meanwhile.

Rules:

- The child does units in order. The first sent unit that has not ended is the one that runs, and the one that a death
  or the deadline is blamed on; units behind it are made again in a new child, for free.
- At most two frames are in the child's hands: while it computes one, the next is laid out and the one before is stored.
  Units that it has not begun can be taken out of its hands: for a recall, or when the worker drains.
- Results are held until the job's shared inputs were compared with what they were, at most `_VERIFY_S`.
- Nothing is begun while more than `FULL_FLUSHES` segments wait for the store.
- A lost child never loses a result that it sent.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ...storage.errors import BackendError, DmlpipeError, ErrorCode
from ...storage.objects.segment import Failure, Outcome, Row
from ...storage.objects.value import encode_value
from ..child.commands import remove_container
from ..child.failure import UserFrames, exit_failure, failure_of, located, said, timeout_failure
from ..child.wire import Ended, Loading, OutFile, Produced, Ready, SetupFailed, Unit
from ..child.zygote import Zygote
from ..job import CommandTransform, Datum, PythonTransform
from .ahead import Ahead
from .attempts import Attempts, Call, resident_key
from .devices import Devices
from .job_work import JobWork, WorkerStore, scratch_folder
from .materialize import Materializer
from .prepared import Prepared
from .slot import ChildDiedError, Message, SlotChild

logger = logging.getLogger(__name__)

FRAME_TARGET_S = 0.05
"""Work in one frame to the child."""
FRAME_MAX_UNITS = 256
FRAME_MAX_FOLDERS = 32
"""The same where each has folders: so many times two of them are made when a job begins, and removed in the end."""
_FRAMES_OUT_MAX = 2
_VERIFY_S = 0.2
_LOADING_MIN_S = 600.0
"""With a timeout set: what importing and loading a model may take at least."""
_TIDY_S = 1.0
"""Without anything to wait for: how often to look whether the job was cancelled."""
_ROOM_S = 0.05
"""How often to look whether the store took results that keep a slot waiting."""
_GATHER_S = 0.001
"""How long a slot looks away from a child whose units are short, so that their ends come together."""
_GATHER_UNIT_S = 0.0002
"""Units at most so long are short."""
_GATHER_UNITS = 32
"""It looks away only while the child has so many left: at the end of a lease nothing waits."""
_WATCH_S = 0.1
"""How often to look at the memory of a child that has a limit, and at the length of its log."""


class LeaseReport:
    """What became of a lease's datums, for whoever reports; called from the slot's thread."""

    def ended(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Datums ended, by index in their block (their rows go to the segment writer at the same time)."""

    def given_back(self, indexes: Sequence[int]) -> None:
        """Datums that were not begun and will not be."""

    def notice(self, text: str) -> None:
        """Something that people should be told once."""


@dataclass(slots=True)
class _Sent:
    """A unit in the child's hands."""

    unit: Unit
    call: Call
    prepared: list[Prepared]
    frame: int
    last_in_frame: bool = False
    outputs: dict[int, list[tuple[str, bytes]]] = field(default_factory=dict)
    """What was stored of each datum, by its place in the unit."""
    broken: dict[int, Failure] = field(default_factory=dict)
    """Datums whose outputs could not be stored."""


class SlotWorker:
    """A slot: runs leases one after the other, keeping its child between them.

    Parameters
    ----------
    number
        Of the slot.
    folder
        Private to the slot; made here.
    devices
        GPUs of the worker.
    clock
        Monotonic seconds, the child's clock.
    """

    def __init__(
        self,
        store: WorkerStore,
        zygote: Zygote,
        number: int,
        folder: Path,
        *,
        devices: Devices | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.number = number
        self._store = store
        self._zygote = zygote
        self._clock = clock
        self._folder = folder
        (folder / "d").mkdir(parents=True)
        self._scratch = scratch_folder(folder)
        self._materializer = Materializer(store, folder / "d")
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._devices = devices or Devices()
        self._seen: tuple[str, ...] = ()
        """Devices of the present lease."""
        self._busy = threading.Lock()
        self._child: SlotChild | None = None
        self._child_key: tuple[str, ...] = ()
        self._child_job: JobWork | None = None
        self._next_unit = 0
        self.seconds_per_unit = 0.0
        """Moving average of the present job's calls."""
        self.draining = threading.Event()
        self.recalled = -1
        """The last lease that somebody else wants to help with."""

    def recall(self, lease: int) -> None:
        """Let the slot give back what it need not begin of a lease, if it is at that one. From any thread."""
        self.recalled = lease
        self.wake()

    def wake(self) -> None:
        """Let the slot look at once whether its job was cancelled or the worker drains. From any thread."""
        try:
            os.write(self._wake_write, b"x")
        except BlockingIOError:
            pass  # it is full, so the slot will wake

    def run(
        self, job: JobWork, datums: Sequence[Datum], *, start: int, fold: int, lease: int, report: LeaseReport
    ) -> None:
        """Try every datum of a lease until it ended; rows go to the job's segment writer.

        Parameters
        ----------
        start
            Index of the first datum in its block.

        Raises
        ------
        ZygoteError
            No child can be started any more.
        BackendError
            Results cannot be stored.
        """
        seen = self._devices.acquire(self.number, job.spec.gpus, self._yield_devices)
        try:
            with self._busy:
                if seen != self._seen:
                    # What it was told of devices no longer holds.
                    self._child_job = None
                self._seen = seen
                _LeaseRun(self, job, datums, start, fold, lease, report).run()
        finally:
            self._devices.release(seen)

    def _yield_devices(self) -> None:
        """End a child that holds devices which another slot was given. From that slot's thread."""
        with self._busy:
            if self._seen:
                self.end_child()
                self._seen = ()

    # --- the child ---

    def child_for(self, job: JobWork) -> SlotChild | None:
        """The child if it lives and is set up for this job."""
        return self._child if self._child_job is job else None

    def set_up(self, job: JobWork) -> SlotChild:
        """Return a child that was sent the job's setup; `Ready` or `SetupFailed` follows."""
        key = (*job.child_key, "devices", *self._seen)
        if self._child is None or self._child_key != key:
            self.end_child()
            command = job.command
            self._child = SlotChild(
                self._zygote.of(job.interpreter),
                self._folder,
                # A container program mounts by itself.
                namespace=command is not None and not command.container,
                users=command is not None and bool(command.user),
                wake=self._wake_read,
            )
            self._child_key = key
        self.seconds_per_unit = 0.0
        self._child_job = job
        self._child.set_up(job.setup(self._scratch, self._seen if self._devices.ids else None))
        return self._child

    def end_child(self, *, ask_where: bool = False) -> ChildDiedError | None:
        """End the child, if there is one; return how."""
        child, self._child = self._child, None
        job, self._child_job = self._child_job, None
        if child is None:
            return None
        died = child.end(ask_where=ask_where)
        if job is not None and job.command is not None:
            remove_container(job.command, self._scratch)
        # What a dead child left in its working directory is nobody's.
        shutil.rmtree(self._scratch, ignore_errors=True)
        scratch_folder(self._folder)
        return died

    def drain_wake(self) -> None:
        """Forget wake-ups."""
        try:
            while os.read(self._wake_read, 4096):
                pass
        except BlockingIOError:
            pass

    def number_unit(self) -> int:
        """A number for the next unit."""
        self._next_unit += 1
        return self._next_unit

    def prepare(self, job: JobWork, datums: Sequence[tuple[Datum, int]]) -> list[Prepared]:
        """Lay out datums."""
        return self._materializer.prepare(job.inputs, datums)

    def ahead_of(self, datums: Sequence[Datum]) -> Ahead:
        """Begin to fetch what a lease's datums will need."""
        return Ahead(self._store, datums)

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock()

    def close(self) -> None:
        """End the child and delete the folder."""
        self.end_child()
        os.close(self._wake_read)
        os.close(self._wake_write)
        shutil.rmtree(self._folder, ignore_errors=True)


class _LeaseRun:
    """The run of one lease."""

    def __init__(
        self,
        slot: SlotWorker,
        job: JobWork,
        datums: Sequence[Datum],
        start: int,
        fold: int,
        lease: int,
        report: LeaseReport,
    ) -> None:
        self._slot = slot
        self._job = job
        self._datums = datums
        self._start = start
        self._fold = fold
        self._lease = lease
        self._report = report
        self._sent: deque[_Sent] = deque()
        self._frames_out = 0
        self._frames_sent = 0
        self._frames = UserFrames((job.code,) if job.code else ())
        self._held: list[tuple[int, Row]] = []
        """Ended datums, by index in their block, until the shared inputs were looked at."""
        self._verified_at = slot.now()
        self._wall = time.time() - slot.now()
        """What the child's clock lacks to the time of day."""
        self._ended_at: float | None = None
        """When the child ended the unit that is being taken in."""
        self._began = slot.now()
        self._watched_at = slot.now()
        self._loading = False
        self._cramped = False
        """The inputs of one frame did not fit on the disk: from then on one call is laid out at a time."""
        self._no_room = False
        """Nothing more can be laid out until a call has ended and its inputs are removed."""
        self._setup_deaths = 0
        positions = self._resident_positions()
        spec = job.spec
        self._ahead = slot.ahead_of(datums)
        self._attempts = Attempts(
            len(datums),
            batch=spec.batch,
            tries=spec.tries,
            together=lambda a, b: resident_key(datums[a], positions) == resident_key(datums[b], positions),
        )

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
            while self._attempts.waiting or self._sent:
                if self._job.cancelled.is_set():
                    self._abandon()
                    break
                if self._slot.draining.is_set():
                    self._withdraw()
                    self._give_rest()
                    if not self._sent:
                        break
                elif self._slot.recalled == self._lease:
                    self._slot.recalled = -1
                    self._share()
                try:
                    self._step()
                except ChildDiedError as died:
                    self._on_death(died)
            self._settle()
            self._give_rest()
        finally:
            self._ahead.close()
            for sent in self._sent:
                self._remove(sent)
            self._sent.clear()

    def _step(self) -> None:
        child = self._slot.child_for(self._job)
        if child is None:
            if not self._set_up():
                return
            child = self._slot.child_for(self._job)
            assert child is not None
        self._no_room = self._no_room and bool(self._sent)
        may_send = self._frames_out < _FRAMES_OUT_MAX and not self._no_room
        if not self._stopping and may_send and self._attempts.waiting:
            if not self._job.results.full:
                self._fill(child)
                return
            if not self._sent:
                # The worker's pulse stores them; nothing is computed meanwhile.
                self._settle()
                self._job.cancelled.wait(_ROOM_S)
                return
        if not self._sent:
            return
        message = child.receive(self._patience(), gather_s=self._gather_s())
        if message is not None:
            # What came together is taken in together, until there is room for a frame: the child must not run dry.
            while message is not None:
                self._on_message(message)
                message = child.pending() if self._frames_out >= _FRAMES_OUT_MAX or not self._attempts.waiting else None
        else:
            # Only here: a system call per message lets the other slots' threads take turns at each.
            self._slot.drain_wake()
            if self._is_late():
                self._on_timeout()
        now = self._slot.now()
        if now - self._watched_at >= _WATCH_S:
            self._watched_at = now
            failure = self._watch(child)
            if failure is not None and self._sent:
                died = self._slot.end_child()
                self._blame(failure, died.log if died else b"")
        if now - self._verified_at >= _VERIFY_S:
            self._settle()

    def _watch(self, child: SlotChild) -> Failure | None:
        """Keep the child's log short; return what is wrong if it holds more memory than its job may."""
        child.bound_log()
        limit = self._job.spec.memory_bytes
        if not limit:
            return None
        used = child.memory_bytes()
        return memory_failure(used, limit) if used > limit else None

    # --- setting up ---

    def _set_up(self) -> bool:
        """Load the transform in a child; False if that failed and every waiting datum with it."""
        child = self._slot.set_up(self._job)
        limit = self._job.spec.timeout_s
        deadline = self._slot.now() + max(limit, _LOADING_MIN_S) if limit else None
        while True:
            patience = _WATCH_S if deadline is None else min(_WATCH_S, deadline - self._slot.now())
            try:
                message = child.receive(max(0.0, patience))
            except ChildDiedError as died:
                self._slot.end_child()
                self._setup_deaths += 1
                if self._setup_deaths < 2 and not self._stopping:
                    return False
                self._fail_all(self._death_failure(died, "loading the code"), died.log)
                return False
            self._slot.drain_wake()
            if self._job.cancelled.is_set():
                self._slot.end_child()
                return False
            if message is None and (failure := self._watch(child)) is not None:
                ended = self._slot.end_child()
                self._fail_all(failure, ended.log if ended else b"")
                return False
            match message.body if message else None:
                case Ready(notice=notice):
                    if notice:
                        self._report.notice(notice)
                    return True
                case SetupFailed(failure=failure, log=log):
                    self._slot.end_child()
                    self._fail_all(failure, log)
                    return False
            if deadline is not None and self._slot.now() >= deadline:
                died_ = self._slot.end_child(ask_where=True)
                log = died_.log if died_ else b""
                self._fail_all(located(timeout_failure(max(limit, _LOADING_MIN_S)), log, self._frames), log)
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
        most = FRAME_MAX_FOLDERS if self._job.inputs.in_folders else FRAME_MAX_UNITS
        wanted = 1 if not per_unit or self._cramped else max(1, min(most, int(FRAME_TARGET_S / per_unit)))
        # Two slots' worth of tail: never take so much that the deadline of the last could not be told.
        calls: list[Call] = []
        while len(calls) < wanted and (call := self._attempts.take()) is not None:
            calls.append(call)
        ready: list[_Sent] = []
        self._frames_sent += 1
        laid_out = self._prepare(calls)
        for call in reversed(calls[len(laid_out) :]):
            self._attempts.put_back(call)
        for call, prepared in zip(calls, laid_out, strict=False):
            if prepared is not None:
                unit = Unit(self._slot.number_unit(), tuple(p.payload for p in prepared))
                ready.append(_Sent(unit, call, prepared, self._frames_sent))
        if not ready:
            return
        ready[-1].last_in_frame = True
        self._frames_out += 1
        if not self._sent:
            self._began = self._slot.now()
        self._sent.extend(ready)
        try:
            child.work([sent.unit for sent in ready], give_up=self._must_give_up)
        except TimeoutError:
            if not self._job.cancelled.is_set():
                self._on_timeout()

    def _prepare(self, calls: Sequence[Call]) -> list[list[Prepared] | None]:
        """Lay out calls together; one by one if that fails, to find the datum whose input is not to be had.

        Returns
        -------
        list of (list of Prepared, or None)
            Of the first calls, in order: what was laid out, or None where the call cannot be made. It is shorter than
            `calls` where the disk is full of the inputs of those that are laid out: the others wait for them.
        """
        self._ahead.reached(max((index for call in calls for index in call.indexes), default=0))
        try:
            return [*self._lay_out(calls)]
        except DmlpipeError as err:
            if len(calls) == 1:
                return [*self._not_laid_out(calls[0], err)]
        found: list[list[Prepared] | None] = []
        for call in calls:
            try:
                found += self._lay_out([call])
            except DmlpipeError as err:
                one = self._not_laid_out(call, err, others=any(found))
                if not one:
                    break
                found += one
        return found

    def _lay_out(self, calls: Sequence[Call]) -> list[list[Prepared]]:
        wanted = [(self._datums[index], call.attempt) for call in calls for index in call.indexes]
        prepared = iter(self._retrying(wanted))
        return [[next(prepared) for _ in call.indexes] for call in calls]

    def _not_laid_out(self, call: Call, err: DmlpipeError, *, others: bool = False) -> Sequence[None]:
        """Handle a call whose inputs are not to be had; empty if it is to wait for the room that others hold."""
        if err.code is ErrorCode.DISK_FULL and (others or self._sent):
            self._cramped = self._no_room = True
            return []
        if len(call.indexes) == 1:
            failure = failure_of(err, self._frames)
            self._hold(call.indexes[0], Outcome.FAILED, [], 0.0, b"", failure, tries=call.attempt)
        else:
            # One batch: halves are tried as calls of their own.
            self._attempts.call_failed(call)
        return [None]

    def _retrying(self, wanted: Sequence[tuple[Datum, int]]) -> list[Prepared]:
        for pause_s in (0.1, 1.0, 4.0):
            try:
                return self._slot.prepare(self._job, wanted)
            except BackendError as err:
                if not err.retryable or self._stopping:
                    raise
                logger.warning("reading inputs failed (%s); trying again in %g s", err, pause_s)
                self._job.cancelled.wait(pause_s)
        return self._slot.prepare(self._job, wanted)

    # --- waiting ---

    def _limit(self) -> float | None:
        """Seconds that the running unit may take, or None."""
        limit = self._job.spec.timeout_s
        if not limit:
            return None
        if self._loading:
            return max(limit, _LOADING_MIN_S)
        return limit * len(self._sent[0].call.indexes)

    def _patience(self) -> float:
        limit = self._limit()
        wait = min(_VERIFY_S, _WATCH_S) if self._held or self._job.spec.memory_bytes else min(_TIDY_S, 4 * _WATCH_S)
        if limit is None:
            return wait
        return max(0.0, min(wait, self._began + limit - self._slot.now()))

    def _gather_s(self) -> float:
        """How long to look away from the child before it is listened to."""
        short = 0.0 < self._slot.seconds_per_unit <= _GATHER_UNIT_S
        return _GATHER_S if short and len(self._sent) >= _GATHER_UNITS and not self._loading else 0.0

    def _must_give_up(self, silent_s: float) -> bool:
        """Whether to end a child that neither reads nor says anything."""
        limit = self._limit()
        return self._job.cancelled.is_set() or (limit is not None and silent_s >= limit)

    def _is_late(self) -> bool:
        limit = self._limit()
        return limit is not None and bool(self._sent) and self._slot.now() >= self._began + limit

    # --- what comes back ---

    def _on_message(self, message: Message) -> None:
        match message.body:
            case Produced() as produced:
                self._store(produced, message.fds)
            case Loading(begin=begin, at=at):
                self._loading = begin
                self._began = at
            case Ended() as ended:
                self._on_ended(ended)

    def _store(self, produced: Produced, fds: Sequence[int]) -> None:
        sent = self._sent[0]
        try:
            self._take_files(sent, produced.index, produced.files, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _take_files(self, sent: _Sent, index: int, files: Sequence[OutFile], fds: Sequence[int] = ()) -> None:
        outputs = sent.outputs.setdefault(index, [])
        try:
            for file in files:
                if file.source:
                    outputs.append((file.path, encode_value(sent.prepared[index].stood_for(file.source))))
                else:
                    outputs.append((file.path, self._put(file, fds)))
        except (DmlpipeError, OSError) as err:
            # Not the user's fault, but theirs to know: a full disk fails the datum with its reason.
            sent.broken[index] = failure_of(err, self._frames)

    def _put(self, file: OutFile, fds: Sequence[int]) -> bytes:
        results = self._job.results
        return encode_value(results.put(file.data) if file.fd < 0 else results.put_file(fds[file.fd]))

    def _on_ended(self, ended: Ended) -> None:
        sent = self._sent.popleft()
        self._frames_out -= sent.last_in_frame
        self._no_room = False
        if ended.unit != sent.unit.number:
            raise RuntimeError(f"the slot's child ended unit {ended.unit}, expected {sent.unit.number}")
        self._began = self._ended_at = ended.at
        self._loading = False
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
            self._remove(sent)
            self._attempts.call_failed(sent.call)
            return
        for place, (index, result) in enumerate(zip(sent.call.indexes, ended.results, strict=True)):
            failure = said(result.failure, ended.log) if result.failure else None
            outcome = Outcome(result.outcome)
            if result.files:
                self._take_files(sent, place, result.files)
            if sent.broken.get(place) is not None:
                outcome, failure = Outcome.FAILED, sent.broken[place]
            if (problem := problems[place]) is not None:
                outcome, failure = Outcome.FAILED, failure_of(problem, self._frames)
            if written[place] is not None:
                outcome, failure = Outcome.FAILED, wrote_to_input(written[place] or "")
            if outcome is Outcome.FAILED:
                self._failed(index, failure, seconds, log)
                continue
            self._attempts.succeeded(index)
            outputs = sorted(sent.outputs.get(place, ())) if outcome is Outcome.OK else []
            self._hold(index, outcome, outputs, seconds, log, failure)
        self._remove(sent, reuse=ended.alone)

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
        if self._sent:
            self._blame(self._death_failure(died, ""), died.log)

    def _death_failure(self, died: ChildDiedError, doing: str) -> Failure:
        what = f"the process ({doing})" if doing else "the process"
        return said(located(exit_failure(died.exit.status, what=what), died.log, self._frames), died.log)

    def _blame(self, failure: Failure, log: bytes) -> None:
        """The first unit made the child end: it fails, those behind it are made again."""
        self._ended_at = None
        first = self._sent.popleft()
        for sent in reversed(self._sent):
            self._attempts.put_back(sent.call)
            self._remove(sent)
        self._sent.clear()
        self._frames_out = 0
        self._loading = False
        seconds = max(0.0, self._slot.now() - self._began)
        if len(first.call.indexes) != 1:
            self._attempts.call_failed(first.call)
        else:
            changed = first.prepared[0].changed()
            known = wrote_to_input(changed) if changed is not None else failure
            (index,) = first.call.indexes
            self._failed(index, known, seconds, self._job.put_log(log))
        self._remove(first)

    def _abandon(self) -> None:
        """The job was cancelled: end what runs."""
        if self._sent:
            self._slot.end_child()
        for sent in reversed(self._sent):
            self._attempts.put_back(sent.call)
            self._remove(sent)
        self._sent.clear()
        self._frames_out = 0

    @staticmethod
    def _remove(sent: _Sent, *, reuse: bool = False) -> None:
        for prepared in sent.prepared:
            prepared.remove(reuse=reuse)

    def _withdraw(self) -> None:
        """Take what the child has not begun out of its hands; those calls wait again."""
        child = self._slot.child_for(self._job)
        numbers = set(child.withdraw()) if child is not None and self._sent else None
        if not numbers:
            return
        kept: deque[_Sent] = deque()
        for sent in reversed(self._sent):
            if sent.unit.number in numbers:
                self._attempts.put_back(sent.call)
                self._remove(sent)
            else:
                sent.last_in_frame = not kept or kept[0].frame != sent.frame
                kept.appendleft(sent)
        self._sent = kept
        self._frames_out = sum(sent.last_in_frame for sent in kept)

    def _give_rest(self) -> None:
        """Give back all that waits: others need not wait for what runs here."""
        left = self._attempts.rest()
        if left:
            self._report.given_back([self._start + index for index in left])

    def _share(self) -> None:
        """Give back half of what was not begun: slots without work wait for it."""
        self._withdraw()
        given = self._attempts.give_half()
        if given:
            self._report.given_back([self._start + index for index in given])

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
        datum = self._datums[index]
        used = self._attempts.tries_of(index) if tries is None else tries
        failure = self._job.redacted(failure) if failure else None
        ended = self._wall + (self._ended_at if self._ended_at is not None else self._slot.now())
        row = Row(datum.key, datum.fingerprint, outcome, outputs, used, seconds, log, failure, ended, self._slot.number)
        self._held.append((self._start + index, row))

    def _settle(self) -> None:
        """Compare the shared inputs, then let the held results go."""
        self._verified_at = self._slot.now()
        if not self._held:
            return
        held, self._held = self._held, []
        changed = self._job.inputs.changed()
        if changed is not None:
            failure = wrote_to_input(os.path.relpath(changed, self._job.inputs.folder / "constants"))
            held = [(index, row if row.outcome is Outcome.FAILED else _spoilt(row, failure)) for index, row in held]
        self._job.results.add(self._fold, self._lease, held)
        self._report.ended(held)


def _spoilt(row: Row, failure: Failure) -> Row:
    return msgspec.structs.replace(row, outcome=Outcome.FAILED, outputs=[], failure=failure)


def memory_failure(used_bytes: int, limit_bytes: int) -> Failure:
    """The failure of a datum that was ended because it held too much memory."""
    return Failure(
        kind="memory",
        message=f"held {used_bytes / 2**20:,.0f} MiB, more than the {limit_bytes / 2**20:,.0f} MiB of memory=",
    )


def wrote_to_input(path: str) -> Failure:
    """The failure of a datum that changed what it was given."""
    return Failure(
        kind="dmlpipe",
        message=f"wrote to its input {path}: inputs are read-only, write to `out` or return files",
    )
