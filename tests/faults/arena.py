"""A cluster whose processes a test holds in its own hands: a scheduler, any number of workers, controllers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dmlpipe.scheduler.leases.dask_executor import DaskExecutor, scheduler_status
from dmlpipe.scheduler.leases.executor import Event, SegmentStored
from dmlpipe.scheduler.leases.inline import InlineExecutor
from dmlpipe.scheduler.store import Store
from dmlpipe.storage.digest import from_hex
from dmlpipe.storage.objects.pack import read_rows
from dmlpipe.storage.objects.segment import decode_rows

ROOT = Path(__file__).parents[2]
LIMIT_S = 90.0


def wait_for(happened: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    """Look until something has happened; fail when it has not in time."""
    until = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


class Watched(DaskExecutor):
    """Calls `strike` when a segment is stored, until it says that it is done."""

    strike: Callable[[], bool] | None = None

    def poll(self, timeout_s: float) -> list[Event]:
        events = super().poll(timeout_s)
        if self.strike is not None and any(isinstance(event, SegmentStored) for event in events) and self.strike():
            self.strike = None
        return events


class Arena:
    """Processes around one store; all are killed at the end.

    Parameters
    ----------
    folder
        For logs and caches.
    url
        Of the store.
    """

    def __init__(self, folder: Path, url: str, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.url = url
        self.environment = {"DMLPIPE_FLUSH_S": "0.1", "DMLPIPE_FSYNC": "never", **(environment or {})}
        self.host = "127.0.0.1"
        self.port = _free_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        self._numbers = 0

    @property
    def address(self) -> str:
        return f"tcp://{self.host}:{self.port}"

    def start(
        self, name: str, argv: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own; its output goes to `<name>-<number>.log`."""
        self._numbers += 1
        log = self.folder / f"{name}-{self._numbers}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                argv,
                cwd=ROOT,
                env={**os.environ, **self.environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def start_scheduler(self, *, options: Sequence[str] = ()) -> None:
        module = "dmlpipe.scheduler.leases.scheduler_process"
        self.scheduler = self.start("scheduler", [sys.executable, "-m", module, self.host, str(self.port), *options])

    def start_worker(
        self,
        *,
        slots: int = 1,
        environment: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
        address: str = "",
        options: Sequence[str] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a worker with a cache of its own; `before` stands before its command line."""
        cache = {"DMLPIPE_CACHE_DIR": str(self.folder / f"cache-{self._numbers}")}
        argv = [sys.executable, "-m", "dmlpipe.worker", address or self.address, "--store", self.url]
        argv += ["--slots", str(slots), *options]
        worker = self.start("worker", [*before, *argv], {**cache, **(environment or {})})
        self.workers.append(worker)
        return worker

    def wait_for_slots(self, slots: int) -> None:
        """Return when the pool has so many slots."""

        def there() -> bool:
            try:
                return scheduler_status(self.address, timeout_s=2.0).slots == slots
            except OSError:
                return False

        wait_for(there)

    def executor(self, store: Store) -> Watched:
        """Drive the scheduler from this process."""
        return Watched(
            self.address, lambda block: store.nodes.get(from_hex(block)), backend=store.backend, connect_s=LIMIT_S
        )

    def logs(self) -> str:
        """What all processes printed, for a failed test to show."""
        return "\n".join(f"== {log.name}\n{log.read_text()[-2000:]}" for log in sorted(self.folder.glob("*.log")))

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)

    def __enter__(self) -> Arena:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def stored_datums(store: Store) -> set[str]:
    """Keys of the datums whose rows are in segments that are in the store now."""
    keys = [key for key, _ in store.backend.list("results") if key.endswith(".seg")]
    return {row.key.decode() for key in keys for row in decode_rows(read_rows(store.backend, key)[0])}


def tally(path: Path) -> Counter[str]:
    """How often user code was called for each datum, as it wrote down itself."""
    return Counter(path.read_text().split()) if path.exists() else Counter()


def undisturbed_trees(dag: Path, data: Mapping[str, Mapping[str, str]], folder: Path) -> dict[str, str]:
    """Run the same DAG on the same data in this process alone; return the tree id of each output."""
    store = Store.init(folder / "undisturbed", cache_dir=folder / "undisturbed-cache")
    fill(store, data)
    store.submit(dag)
    executor = InlineExecutor(store)
    store.run(executor=executor)
    return trees(store)


def fill(store: Store, data: Mapping[str, Mapping[str, str]]) -> None:
    """Commit files to repos."""
    for repo, files in data.items():
        with store.commit(repo, create=True) as session:
            for path, text in files.items():
                session.write(path, text)


def trees(store: Store) -> dict[str, str]:
    """Tree id of the head of each pipeline's output."""
    state = store.refresh()
    return {name: store[name].tree.root.hex() for name, _ in state.pipelines() if state.head(name)}
