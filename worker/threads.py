"""Threads that do not keep their process from ending."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_Task = Callable[[], None]


class DaemonThreads(Executor):
    """An executor whose threads are daemons: a call that never returns holds up nobody at the end of the process.

    `concurrent.futures.ThreadPoolExecutor` joins its threads at exit. A slot in the process of a `run` may stand in a
    call to a store that is away, or in the file system's, when Ctrl-C is pressed.

    Examples
    --------
    >>> with DaemonThreads(2) as threads:
    ...     list(threads.map(abs, [-1, 2]))
    [1, 2]
    """

    def __init__(self, threads: int, name: str = "dmlpipe") -> None:
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._limit = threads
        self._name = name
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `Executor.submit`."""
        future = Future[T]()

        def task() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as err:  # noqa: BLE001 - whoever waits for it is told
                future.set_exception(err)

        with self._lock:
            if self._closed:
                raise RuntimeError("no new calls after shutdown")
            self._tasks.put(task)
            if len(self._threads) < self._limit:
                number = len(self._threads)
                thread = threading.Thread(target=self._work, name=f"{self._name}_{number}", daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
            # What the call returned is its future's.
            del task

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `Executor.shutdown`."""
        with self._lock:
            self._closed = True
        if cancel_futures:
            raise ValueError("calls are not cancelled here")
        for _ in self._threads:
            self._tasks.put(None)
        if wait:
            for thread in self._threads:
                thread.join()


__all__ = ["DaemonThreads"]
