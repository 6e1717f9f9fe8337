"""Sending what is owed, in a thread, and recording what arrived: at least once.

What did not arrive stays owed in the ledger's eyes, so that the next controller sends it. A pipeline whose egress
failed waits before it is tried again, longer each time; `run` tries it once.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...storage import records as r
from ...storage.digest import from_hex
from ...storage.errors import CorruptError, DmlpipeError, NotFoundError
from ...storage.state import State
from ...storage.store import Store
from ...worker.child.secrets import read_secrets
from ..pipelines.spec import PipelineSpec
from .files import changed_paths, send_files
from .owed import Owed, owed
from .rows import send_rows

_FIRST_PAUSE_S = 2.0
_LAST_PAUSE_S = 300.0


@dataclass(slots=True)
class _Sending:
    what: Owed
    thread: threading.Thread
    cancelled: threading.Event
    files: int = 0
    rows: int = 0
    arrived: bool = False
    error: DmlpipeError | None = None


class Egresses:
    """The sendings of one controller: one at a time.

    Parameters
    ----------
    store
        Is read, and told what arrived.
    spec_of
        Spec of a pipeline's version.
    tell
        Is told, in sentences, what began, arrived and failed.
    once
        A pipeline whose egress failed is not tried again.
    """

    def __init__(
        self, store: Store, spec_of: Callable[[str, int], PipelineSpec], tell: Callable[[str], object], *, once: bool
    ) -> None:
        self._store = store
        self._spec_of = spec_of
        self._tell = tell
        self._once = once
        self._present: _Sending | None = None
        self._pauses: dict[tuple[str, str, str], tuple[float, float]] = {}
        """What failed, with when it may be tried again and the pause after that."""
        self.failures: dict[str, str] = {}
        """Pipeline to why its egress failed last."""

    def tend(self, state: State, *, wait_s: float = 0.0) -> bool:
        """Begin what is owed, record what arrived; return whether something is on its way.

        Parameters
        ----------
        wait_s
            How long to wait for what is on its way.
        """
        if self._present is None:
            self._begin(state)
        sending = self._present
        if sending is None:
            return False
        sending.thread.join(wait_s)
        if sending.thread.is_alive():
            return True
        self._present = None
        self._end(sending)
        return True

    def _begin(self, state: State) -> None:
        now = time.monotonic()
        for what in owed(state, self._spec_of):
            key = (what.pipeline, what.commit, what.target)
            after, _ = self._pauses.get(key, (0.0, 0.0))
            if key in self._pauses and (self._once or now < after):
                continue
            cancelled = threading.Event()
            sending = _Sending(what, threading.Thread(), cancelled)
            sending.thread = threading.Thread(
                target=self._send, args=(sending,), name=f"egress-{what.pipeline}", daemon=True
            )
            self._tell(f"{what.pipeline}: egressing to {_shown(what.egress.url)}")
            self._present = sending
            sending.thread.start()
            return

    def _send(self, sending: _Sending) -> None:
        what = sending.what
        try:
            view = self._store[f"{what.pipeline}@{what.commit}"]
            if what.egress.rows:
                sending.rows = send_rows(view, what.egress, _password(what, os.environ), sending.cancelled)
                sending.arrived = True
                return
            before = self._store.tree(from_hex(what.before) if what.before else "")
            try:
                paths = changed_paths(view.tree, before)
            except (NotFoundError, CorruptError):
                # What arrived last is no longer here to compare with: all of it is sent.
                paths = changed_paths(view.tree, self._store.tree(""))
            sending.files = send_files(view, paths, what.egress.url, sending.cancelled)
            sending.arrived = not sending.cancelled.is_set()
        except DmlpipeError as error:
            sending.error = error

    def _end(self, sending: _Sending) -> None:
        what = sending.what
        key = (what.pipeline, what.commit, what.target)
        if sending.cancelled.is_set() and sending.error is None:
            return
        if sending.error is not None or not sending.arrived:
            # Without an error the thread died of a defect, which Python has printed.
            why = sending.error.message if sending.error else "egress ended unexpectedly"
            _, pause = self._pauses.get(key, (0.0, _FIRST_PAUSE_S))
            self._pauses[key] = (time.monotonic() + pause, min(2 * pause, _LAST_PAUSE_S))
            self.failures[what.pipeline] = why
            self._tell(f"{what.pipeline}: {why}; what it published is kept, and sent by the next run")
            return
        self._pauses.pop(key, None)
        self.failures.pop(what.pipeline, None)
        done = r.EgressDone(
            pipeline=what.pipeline, commit=what.commit, target=what.target, files=sending.files, rows=sending.rows
        )
        self._store.publish(lambda state: [done] if state.pipeline(what.pipeline) is not None else [])
        amount = f"{sending.rows:,} rows" if what.egress.rows else f"{sending.files:,} files"
        self._tell(f"{what.pipeline}: {amount} sent to {_shown(what.egress.url)}")

    def close(self) -> None:
        """Interrupt what is on its way; it stays owed."""
        if self._present is not None:
            self._present.cancelled.set()
            self._present.thread.join(5.0)
            self._present = None


def _password(what: Owed, environ: Mapping[str, str]) -> str:
    if not what.egress.secret:
        return ""
    variable = "PACHYDERM_SQL_PASSWORD"
    return read_secrets((f"{variable}={what.egress.secret}",), environ).variables[variable]


def _shown(url: str) -> str:
    """A URL without a password."""
    scheme, mark, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}{mark}{user.partition(':')[0]}{at}{place}" if at else url
