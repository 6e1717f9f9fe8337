"""Interleavings of real code: actors that give way at every request to the store, in an order drawn from a seed.

Each actor is a thread; one runs at a time. Whoever asks the store for something hands the turn to an actor that chance
names, so that a run is a function of its seed, and any order of requests can come up.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator

from ..backend import Backend
from ..digest import Data
from .faults import WrappedBackend

_STUCK_S = 60.0


class Schedule:
    """Runs actors in turns.

    Parameters
    ----------
    rng
        Draws who is next.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._gates: dict[str, threading.Semaphore] = {}
        self._failures: list[BaseException] = []
        self._end = threading.Event()

    def run(self, actors: dict[str, Callable[[], None]]) -> None:
        """Run all actors to their ends.

        Raises
        ------
        BaseException
            What the first of them that failed raised.
        """
        threads = []
        for name, act in actors.items():
            self._gates[name] = threading.Semaphore(0)
            threads.append(threading.Thread(target=self._act, args=(name, act), name=name, daemon=True))
        for thread in threads:
            thread.start()
        self._pass_on()
        if not self._end.wait(_STUCK_S):
            raise TimeoutError(f"the schedule is stuck: {', '.join(self._gates)} did not end")
        for thread in threads:
            thread.join(_STUCK_S)
        if self._failures:
            raise self._failures[0]

    def yield_(self) -> None:
        """Give way; returns when it is this actor's turn again. Outside of a run: at once."""
        gate = self._gates.get(threading.current_thread().name)
        if gate is not None:
            self._pass_on()
            gate.acquire()

    def _act(self, name: str, act: Callable[[], None]) -> None:
        self._gates[name].acquire()
        try:
            act()
        except BaseException as error:  # noqa: BLE001  (raised again by `run`)
            self._failures.append(error)
        finally:
            del self._gates[name]
            self._pass_on()

    def _pass_on(self) -> None:
        if self._gates:
            self._gates[self._rng.choice(sorted(self._gates))].release()
        else:
            self._end.set()


class YieldingBackend(WrappedBackend):
    """Gives way before every request.

    Parameters
    ----------
    inner
        What holds the objects.
    schedule
        Whose turn it is.
    """

    def __init__(self, inner: Backend, schedule: Schedule) -> None:
        super().__init__(inner)
        self._schedule = schedule

    def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
        """Give way, then pass on."""
        self._schedule.yield_()
        return super().put_if_absent(key, data, durable=durable)

    def put(self, key: str, data: Data) -> None:
        """Give way, then pass on."""
        self._schedule.yield_()
        super().put(key, data)

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """Give way, then pass on."""
        self._schedule.yield_()
        return super().get(key, start, end)

    def size(self, key: str) -> int | None:
        """Give way, then pass on."""
        self._schedule.yield_()
        return super().size(key)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Give way, then pass on."""
        self._schedule.yield_()
        return super().list(prefix)

    def list_written(self, prefix: str = "") -> Iterator[tuple[str, int, float | None]]:
        """Give way, then pass on."""
        self._schedule.yield_()
        return super().list_written(prefix)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Give way before each key."""
        for key in keys:
            self._schedule.yield_()
            super().delete_many([key])
