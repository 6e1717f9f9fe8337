"""How processes log: lines for people, or one JSON object a line where `$DMLPIPE_LOG_FORMAT` is `json`."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

FORMAT_VARIABLE = "DMLPIPE_LOG_FORMAT"
FIELDS = "fields"
"""`logger.info(…, extra={FIELDS: {…}})` adds keys to a line."""
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (UTC), `level`, `process`, `pid`, `logger`, `message`, and what a record adds.

    Examples
    --------
    >>> record = logging.LogRecord("dmlpipe.x", logging.INFO, "", 0, "took %d", (3,), None)
    >>> record.fields = {"event": "datum"}
    >>> told = msgspec.json.decode(JsonFormatter("worker").format(record))
    >>> told["process"], told["level"], told["message"], told["event"]
    ('worker', 'info', 'took 3', 'datum')
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        told.update(getattr(record, FIELDS, {}))
        return msgspec.json.encode(told).decode()


def is_json() -> bool:
    """Whether this process logs JSON."""
    return os.environ.get(FORMAT_VARIABLE) == "json"


def log_to_stderr(process: str) -> None:
    """Log to stderr, whose reader is a person or a file, as a process of that name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process) if is_json() else logging.Formatter(TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


_lock = threading.Lock()
_taken: dict[str, tuple[int, int, bool]] = {}
"""Logger to how many files take its lines now, and its level and whether it propagated before."""


@contextlib.contextmanager
def to_file(path: Path, process: str, logger: str) -> Iterator[int]:
    """Let a part of this process log to the end of a file, and only there, as a process of that name would.

    Yields the file's descriptor, for what child processes print. Where several such parts are at work at a time, each
    file has the lines of all.
    """
    found = logging.getLogger(logger)
    stream = path.open("a", encoding="utf-8")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(process) if is_json() else logging.Formatter(TEXT))
    with _lock:
        count, level, propagate = _taken.get(logger, (0, found.level, found.propagate))
        _taken[logger] = (count + 1, level, propagate)
        found.addHandler(handler)
        found.setLevel(logging.INFO)
        found.propagate = False
    try:
        yield stream.fileno()
    finally:
        with _lock:
            found.removeHandler(handler)
            count, level, propagate = _taken.pop(logger)
            if count > 1:
                _taken[logger] = (count - 1, level, propagate)
            else:
                found.setLevel(level)
                found.propagate = propagate
        handler.close()
        stream.close()
