"""Datums run in this very process: for tests of pipelines, where breakpoints shall work and nothing shall be started.

The same layout of inputs, calls, checks of outputs, tries, splitting of batches and rows as in a slot. Left out on
purpose: timeouts (nobody can end a function of one's own process), captured output (it goes where the test's output
goes), a private `/pfs` (commands see their words rewritten). A function with a declared environment needs another
interpreter: it runs in a child of this process that shares its terminal (`foreground`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from ..storage.errors import DmlpipeError
from ..storage.objects.segment import Outcome, Row
from ..storage.objects.value import encode_value
from .child.call import Loaded, load_transform
from .child.collect import Output
from .child.commands import Commands
from .child.environment import datum_environment
from .child.failure import UserFrames, failure_of
from .child.foreground import post_mortem
from .child.wire import Result
from .foreground import Foreground
from .job import CommandTransform, Datum, JobSpec, Parameter, PythonTransform
from .messages import Stored
from .segments import FlushLimits, SegmentWriter, worker_host
from .slots.attempts import Attempts, Call, resident_key
from .slots.failures import wrote_to_input
from .slots.interpreters import in_foreground
from .slots.job_work import JobWork, WorkerStore
from .slots.materialize import Materializer
from .slots.prepared import Prepared


class InlineWorker:
    """A worker with one slot that is this process.

    Parameters
    ----------
    store
        Where inputs come from and results go; `memory://` will do.
    folder
        An empty or missing folder, private to this worker. On the file system of the store's cache, inputs are linked.
    worker
        Unique name.
    targets
        The user's own functions and classes by pipeline, called as they are, in this process and with what is installed
        here: breakpoints in their file are hit. A pipeline that is not here is loaded from its bundle.
    environ
        Where secrets and commands' variables come from.
    on_error
        Is handed each exception that user code raises in this process, with its traceback.
    debug
        Open the debugger where user code raises.
    """

    def __init__(
        self,
        store: WorkerStore,
        folder: Path,
        *,
        worker: str = "inline",
        targets: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
        on_error: Callable[[BaseException], None] = lambda error: None,
        debug: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._folder = folder
        self._on_error = post_mortem if debug else on_error
        self._debug = debug
        self._worker = worker
        self._targets = dict(targets or {})
        self._environ = dict(os.environ if environ is None else environ)
        self._clock = clock
        self._seq = itertools.count()
        self._number = itertools.count()

    def run(
        self,
        spec: JobSpec,
        datums: Sequence[Datum],
        *,
        fold: int = 0,
        lease: int = 0,
        stop: Callable[[], bool] = lambda: False,
    ) -> tuple[list[Row], list[Stored]]:
        """Run datums and store their results.

        Parameters
        ----------
        datums
            A block; the indexes in the reports count from its start.
        stop
            Asked between calls; True: the rest is not begun.

        Returns
        -------
        rows
            One per datum that ended, in the order in which they ended.
        stored
            What was stored, as a worker would report it.

        Raises
        ------
        DmlpipeError
            The job's inputs or code are not there, or results cannot be stored.
        """
        writer = SegmentWriter(
            self._store,
            spec.job,
            worker=self._worker,
            host=worker_host(),
            next_seq=self._seq.__next__,
            limits=FlushLimits(),
            clock=self._clock,
        )
        folder = self._folder / f"{spec.job}-{next(self._number)}"
        (folder / "d").mkdir(parents=True)
        (folder / "scratch").mkdir()
        target = self._targets.get(spec.pipeline)
        if target is not None and isinstance(spec.transform, PythonTransform):
            # It runs here, whatever it declares: nothing is made for it.
            spec = msgspec.structs.replace(spec, transform=msgspec.structs.replace(spec.transform, environment=None))
        job = JobWork(self._store, spec, folder=folder / "job", results=writer, environ=self._environ)
        try:
            run = _InlineRun(self._store, job, folder, target, self._clock, self._on_error, debug=self._debug)
            rows = []
            for index, row in run.rows(datums, stop):
                writer.add(fold, lease, [(index, row)])
                rows.append(row)
            return rows, writer.flush()
        finally:
            job.close()


class _InlineRun:
    def __init__(
        self,
        store: WorkerStore,
        job: JobWork,
        folder: Path,
        target: object,
        clock: Callable[[], float],
        on_error: Callable[[BaseException], None],
        *,
        debug: bool,
    ) -> None:
        self._job = job
        self._on_error = on_error
        self._clock = clock
        self._target = target
        self._materializer = Materializer(store, folder / "d")
        self._setup = job.setup(str(folder / "scratch"))
        self._frames = UserFrames((job.code,) if job.code and target is None else ())
        self._loaded: Loaded | None = None
        self._commands: Commands | None = None
        self._elsewhere: Foreground | None = None
        if job.interpreter:
            self._elsewhere = Foreground(in_foreground(job.interpreter), self._setup, debug=debug)

    def rows(self, datums: Sequence[Datum], stop: Callable[[], bool]) -> Iterator[tuple[int, Row]]:
        """Yield (index, row) as datums end."""
        spec = self._job.spec
        names = {p.input or p.name for p in self._signature() if p.resident}
        positions = [i for i, item in enumerate(self._job.inputs.varying) if item.name in names]
        attempts = Attempts(
            len(datums),
            batch=spec.batch,
            tries=spec.tries,
            together=lambda a, b: resident_key(datums[a], positions) == resident_key(datums[b], positions),
        )

        def row(index: int, result: Result, outputs: list[tuple[str, bytes]], seconds: float) -> Row:
            datum, outcome, tries = datums[index], Outcome(result.outcome), attempts.tries_of(index)
            return Row(datum.key, datum.fingerprint, outcome, outputs, tries, seconds, b"", result.failure)

        with self._surroundings():
            while not stop() and (call := attempts.take()) is not None:
                begin = self._clock()
                try:
                    results = self._call([datums[i] for i in call.indexes], call)
                except DmlpipeError as err:
                    # An input that is not to be had: halves are tried, until it is alone.
                    results = [(Result(Outcome.FAILED, failure_of(err, self._frames)), [])]
                seconds = (self._clock() - begin) / len(call.indexes)
                if len(results) < len(call.indexes):
                    attempts.call_failed(call)
                    continue
                for index, (result, outputs) in zip(call.indexes, results, strict=True):
                    if result.outcome != Outcome.FAILED:
                        attempts.succeeded(index)
                    elif not attempts.failed(index):
                        continue
                    yield index, row(index, result, outputs, seconds)

    def _signature(self) -> Sequence[Parameter]:
        transform = self._job.spec.transform
        return transform.signature if isinstance(transform, PythonTransform) else ()

    @contextlib.contextmanager
    def _surroundings(self) -> Iterator[None]:
        """Variables and module path of a slot, taken back afterwards."""
        environ, path, bytecode = dict(os.environ), list(sys.path), sys.dont_write_bytecode
        modules = dict(sys.modules) if self._target is None else None
        declared = ("DMLPIPE_", "PACH_", "PPS_")
        own = {name: text for name, text in self._setup.env.items() if name.startswith(declared)}
        os.environ.update(own | self._job.secrets.variables)
        sys.dont_write_bytecode = True
        try:
            yield
        finally:
            if self._commands is not None:
                self._commands.close()
            if self._elsewhere is not None:
                self._elsewhere.close()
            os.environ.clear()
            os.environ.update(environ)
            sys.path[:] = path
            if modules is not None:
                hide_modules(self._job.code)
                sys.modules.update({name: module for name, module in modules.items() if name not in sys.modules})
            sys.dont_write_bytecode = bytecode

    def _call(self, datums: Sequence[Datum], call: Call) -> list[tuple[Result, list[tuple[str, bytes]]]]:
        """Make one call; fewer results than datums mean that it failed as a whole."""
        prepared = self._materializer.prepare(self._job.inputs, [(datum, call.attempt) for datum in datums])
        try:
            os.environ.update(datum_environment(prepared[0].payload.id, call.attempt))
            transform = self._job.spec.transform
            if isinstance(transform, CommandTransform):
                results = [self._command(prepared[0])]
            elif self._elsewhere is not None:
                made = self._elsewhere.call([item.payload for item in prepared])
                results = [
                    self._stored(result, item, files) for (result, files), item in zip(made, prepared, strict=False)
                ]
            else:
                results = self._python(transform, prepared)
            if len(results) < len(prepared):
                return results
            shared = self._job.inputs.changed()
            return [self._checked(result, item, shared) for result, item in zip(results, prepared, strict=True)]
        finally:
            for item in prepared:
                item.remove()

    def _checked(
        self, result: tuple[Result, list[tuple[str, bytes]]], prepared: Prepared, shared: str | None
    ) -> tuple[Result, list[tuple[str, bytes]]]:
        problem = prepared.problem()
        if problem is not None:
            return Result(Outcome.FAILED, failure_of(problem, self._frames)), []
        changed = prepared.changed()
        if changed is None and shared is not None:
            changed = os.path.relpath(shared, self._job.inputs.folder / "constants")
        if changed is None:
            return result
        return Result(Outcome.FAILED, wrote_to_input(changed)), []

    def _python(
        self, transform: PythonTransform, prepared: Sequence[Prepared]
    ) -> list[tuple[Result, list[tuple[str, bytes]]]]:
        try:
            made = self._load(transform).call([item.payload for item in prepared])
        except Exception as err:
            if type(err).__name__ == "BdbQuit":
                raise
            self._on_error(err)
            return [(Result(Outcome.FAILED, failure_of(err, self._frames)), [])]
        results: list[tuple[Result, list[tuple[str, bytes]]]] = []
        for item, outputs in zip(prepared, made, strict=True):
            if isinstance(outputs, Exception):
                self._on_error(outputs)
                results.append((Result(Outcome.FAILED, failure_of(outputs, self._frames)), []))
                continue
            results.append(self._stored(Result(Outcome.OK), item, outputs))
        return results

    def _stored(
        self, result: Result, prepared: Prepared, outputs: Iterable[Output]
    ) -> tuple[Result, list[tuple[str, bytes]]]:
        try:
            return result, self._put(prepared, outputs)
        except DmlpipeError as err:
            return Result(Outcome.FAILED, failure_of(err, self._frames)), []

    def _load(self, transform: PythonTransform) -> Loaded:
        if self._loaded is None:
            setup = self._setup
            target = self._target
            if target is None:
                hide_modules(setup.code)
                target = load_transform(transform, setup.code, setup.pickled)
            self._loaded = Loaded(
                target,
                transform,
                constants=setup.constants,
                parameters=setup.parameters,
                batch=setup.batch,
                writes=setup.writes,
                array=setup.array,
            )
        return self._loaded

    def _command(self, prepared: Prepared) -> tuple[Result, list[tuple[str, bytes]]]:
        if self._commands is None:
            # Nothing is ended between datums: this process has children of its own.
            self._commands = Commands("", tidy=lambda keep: None)
            self._commands.set_up(self._setup)
        try:
            ran = self._commands.run(prepared.payload)
            outputs = self._put(prepared, ran.outputs)
        except DmlpipeError as err:
            return Result(Outcome.FAILED, failure_of(err, self._frames)), []
        return Result(ran.outcome, ran.failure), outputs

    def _put(self, prepared: Prepared, outputs: Iterable[Output]) -> list[tuple[str, bytes]]:
        """Store the files of one datum."""
        results = self._job.results
        found = []
        for output in outputs:
            if output.source:
                value = prepared.stood_for(output.source)
            elif output.fd < 0:
                value = results.put(output.data)
            else:
                try:
                    value = results.put_file(output.fd)
                finally:
                    os.close(output.fd)
            found.append((output.path, encode_value(value)))
        return sorted(found)


def hide_modules(code: str) -> None:
    """Forget modules that have the name of one in the folder `code`: another pipeline's `dag` is not this one's."""
    own = {entry.removesuffix(".py") for entry in os.listdir(code)} if code else set()
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]
