"""How processes log: lines for people, or one JSON object a line where `$DMLPIPE_LOG_FORMAT` is `json`."""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
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
