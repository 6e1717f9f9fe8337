"""One job at one worker: its spec, its shared inputs, its environment, its results on their way to the store."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ...storage.digest import from_hex
from ...storage.objects.node import NodeStore
from ...storage.objects.segment import Failure
from ..child.environment import clean_environment, job_environment, thread_count
from ..child.secrets import read_secrets, redact
from ..child.wire import Setup
from ..job import CommandTransform, JobSpec, PythonTransform
from ..segments import SegmentStore, SegmentWriter
from ..threads import DaemonThreads
from .code import make_code
from .environments import provide
from .files import ContentStore
from .interpreters import installed_in, interpreter, packages_of
from .job_inputs import JobInputs
from .packages import third_party


class WorkerStore(ContentStore, SegmentStore, Protocol):
    """What of a store a worker needs. `storage.store.Store` is one."""

    @property
    def nodes(self) -> NodeStore: ...  # noqa: D102
    @property
    def cache_dir(self) -> Path: ...  # noqa: D102
    def refresh(self) -> object: ...  # noqa: D102


class JobWork:
    """What a worker holds of a job, shared by its slots. Safe for use by many threads.

    Parameters
    ----------
    folder
        Private to this job and worker.
    results
        Takes rows and content.
    environ
        The worker's own environment.

    Raises
    ------
    DmlpipeError
        An input's content, the code or a secret is not there.
    """

    def __init__(
        self, store: WorkerStore, spec: JobSpec, *, folder: Path, results: SegmentWriter, environ: Mapping[str, str]
    ) -> None:
        self.spec = spec
        self.results = results
        self.inputs = JobInputs(store, spec, folder)
        self.cancelled = threading.Event()
        self.secrets = read_secrets(spec.secrets, environ)
        self._base = clean_environment(environ)
        transform = spec.transform
        tree = transform.bundle if isinstance(transform, PythonTransform) else transform.code
        self.code = str(make_code(store, tree, store.cache_dir / "code")) if tree else ""
        self._pickled = b""
        if isinstance(transform, PythonTransform) and transform.pickled:
            self._pickled = store.objects.get_blob(from_hex(transform.pickled))
        environment = transform.environment
        self._provided = provide(environment, store, store.cache_dir, environ)
        self.interpreter: tuple[str, ...] = ()
        """What starts the zygote of a function's own environment; empty: the worker's serves it."""
        if environment is not None and self.command is None:
            self.interpreter = interpreter(environment, self._provided, store.cache_dir, environ)
        self._array = self.inputs.output_array()
        self._lock = threading.Lock()
        self._modules: set[str] = set()
        self._threads = DaemonThreads(1, "dmlpipe-versions")

    @property
    def child_key(self) -> tuple[str, ...]:
        """Jobs with an equal key may share a child: they load the same code with the same variables at import."""
        transform = self.spec.transform
        if isinstance(transform, PythonTransform):
            # Libraries read how many threads they may use once, when they are loaded.
            threads = str(thread_count(self.spec.cpus))
            secrets = sorted(self.spec.secrets)
            return ("python", *self.interpreter, self.code, transform.pickled, threads, *transform.path, *secrets)
        # What a namespace and a batch's process see is fixed when they begin.
        command = self.command
        assert command is not None
        apart = bool(command.user) or command.batching or bool(self.secrets.files)
        return ("command", command.container, self.spec.job if apart else "")

    @property
    def command(self) -> CommandTransform | None:
        """The transform, if it is a command."""
        transform = self.spec.transform
        return transform if isinstance(transform, CommandTransform) else None

    def setup(self, scratch: str, devices: Sequence[str] | None = None, *, folders: str = "") -> Setup:
        """What a child is told first.

        Parameters
        ----------
        scratch
            Its working directory.
        devices
            GPUs that it sees; None: whatever the worker sees.
        folders
            Where it lays out datums.
        """
        spec = self.spec
        return Setup(
            job=spec.job,
            transform=spec.transform,
            parameters=spec.parameters,
            batch=spec.batch,
            constants=self.inputs.constants,
            env=job_environment(
                spec, self._base | self._provided.variables, self.secrets.variables, scratch, devices=devices
            ),
            prefix=self._provided.prefix,
            code=self.code,
            scratch=scratch,
            secret_files=self.secrets.files,
            pickled=self._pickled,
            writes=spec.writes,
            array=self._array,
            folders=folders,
        )

    def put_log(self, log: bytes) -> bytes:
        """Store what a datum printed, without secrets."""
        return self.results.put_log(redact(log, self.secrets)) if log else b""

    def redacted(self, failure: Failure) -> Failure:
        """Return a failure without secrets: messages and lines tell what user code held."""
        if not self.secrets.values():
            return failure
        texts = (failure.message, failure.line, failure.traceback)
        message, line, traceback = (
            redact(text.encode(errors="backslashreplace"), self.secrets).decode(errors="replace") for text in texts
        )
        return Failure(failure.kind, message, failure.where, line, traceback)

    def note_modules(self, modules: Iterable[str]) -> None:
        """Remember the versions of packages that user code imported."""
        with self._lock:
            new = [name for name in modules if name not in self._modules]
            self._modules.update(new)
        if new:
            # Many files are read for it, while the slot goes on.
            self.results.note_versions(self._threads.submit(self._versions_of, new).result)

    def _versions_of(self, modules: Sequence[str]) -> Mapping[str, str]:
        places = packages_of(self.interpreter)
        return installed_in(places, modules) if places else third_party(modules)

    def close(self) -> None:
        """Delete what was laid out."""
        self._threads.shutdown(wait=False)
        self.results.close()
        self.inputs.remove()


class JobTable:
    """The jobs that a worker knows. Safe for use by many threads.

    Parameters
    ----------
    make
        Makes the `JobWork` of a spec's node (hex). May raise.
    """

    KEPT = 8
    """Idle jobs that stay laid out."""

    def __init__(self, make: Callable[[str], JobWork]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._making: dict[str, threading.Lock] = {}
        self._jobs: dict[str, JobWork] = {}
        self._used: dict[str, int] = {}
        self._cancelled: set[str] = set()

    def enter(self, job: str, spec: str) -> JobWork:
        """Return a job for use by one lease; `leave` follows."""
        with self._lock:
            making = self._making.setdefault(job, threading.Lock())
        # One thread lays a job out while others go on with theirs.
        with making:
            with self._lock:
                found = self._jobs.get(job)
            if found is None:
                found = self._make(spec)
            with self._lock:
                # Last used, last dropped.
                self._jobs.pop(job, None)
                self._jobs[job] = found
                self._used[job] = self._used.get(job, 0) + 1
                if job in self._cancelled:
                    found.cancelled.set()
        return found

    def leave(self, job: str) -> None:
        """Undo one `enter`."""
        with self._lock:
            self._used[job] -= 1

    def all(self) -> list[JobWork]:
        """Every job that is laid out."""
        with self._lock:
            return list(self._jobs.values())

    def cancel(self, jobs: Iterable[str]) -> bool:
        """Mark jobs as cancelled; return whether one was not before."""
        news = False
        with self._lock:
            for job in jobs:
                news |= job not in self._cancelled
                self._cancelled.add(job)
                if job in self._jobs:
                    self._jobs[job].cancelled.set()
        return news

    def trim(self) -> None:
        """Drop what has not been used for longest and has nothing to store."""
        with self._lock:
            idle = [job for job, work in self._jobs.items() if not self._used[job] and not work.results.waiting]
            dropped = [self._jobs.pop(job) for job in idle[: max(0, len(idle) - self.KEPT)]]
            for work in dropped:
                del self._used[work.spec.job]
                self._making.pop(work.spec.job, None)
        for work in dropped:
            work.close()

    def close(self) -> None:
        """Drop everything."""
        with self._lock:
            dropped, self._jobs = list(self._jobs.values()), {}
        for work in dropped:
            work.close()


def scratch_folder(folder: Path) -> str:
    """Make a slot's working directory."""
    path = folder / "scratch"
    os.makedirs(path, exist_ok=True)
    return str(path)
