"""The root of every error that dmlpipe raises on purpose.

::

    DmlpipeError
    ├── InvalidInputError (ValueError)   what was typed, written or declared is wrong: mend it
    ├── NotFoundError (KeyError)         the thing named does not exist: look at the list
    ├── ConflictError                    somebody else changed it meanwhile: look, then again
    ├── HeldError                        somebody else holds it: wait or end them
    ├── ReadOnlyError (PermissionError)  this store or ref takes no writes
    ├── FormatError                      no store, or one of another format version
    ├── CorruptError                     stored bytes are not what their name says
    ├── BackendError (OSError)           the medium failed; `retryable` says whether it may pass
    └── UserCodeError                    code of a pipeline failed (raised by the layers above)

A class exists only where a caller would do something different; the detail is in `code`.
"""

from __future__ import annotations

import enum
from typing import Any


class ErrorCode(enum.StrEnum):
    """What went wrong, for programs. Append-only."""

    INVALID = "invalid"
    BAD_NAME = "bad-name"
    BAD_PATH = "bad-path"
    BAD_REF = "bad-ref"
    BAD_GLOB = "bad-glob"
    BAD_SPEC = "bad-spec"
    BAD_CODE = "bad-code"
    BAD_INPUT = "bad-input"
    CYCLE = "cycle"
    NAME_CLASH = "name-clash"
    NOT_FOUND = "not-found"
    NO_REPO = "no-repo"
    NO_BRANCH = "no-branch"
    NO_COMMIT = "no-commit"
    NO_FILE = "no-file"
    NO_PIPELINE = "no-pipeline"
    NO_JOB = "no-job"
    NO_DATUM = "no-datum"
    EXISTS = "exists"
    CONFLICT = "conflict"
    OUTPUT_CONFLICT = "output-conflict"
    HELD = "held"
    READ_ONLY = "read-only"
    NO_STORE = "no-store"
    FORMAT = "format"
    HISTORY_REWRITTEN = "history-rewritten"
    CORRUPT = "corrupt"
    BACKEND = "backend"
    DISK_FULL = "disk-full"
    PERMISSION = "permission"
    UNSAFE_BACKEND = "unsafe-backend"
    USER_CODE = "user-code"
    JOB_FAILED = "job-failed"
    CLUSTER = "cluster"
    UNSUPPORTED = "unsupported"
    COLLECTED = "collected"


class DmlpipeError(Exception):
    """Base of all errors that dmlpipe raises on purpose.

    Parameters
    ----------
    message
        What failed, what was expected, what was got, where. One line.
    code
        The machine-readable kind; each class has a default.
    hint
        What to do next; printed under the message.
    """

    default_code: ErrorCode = ErrorCode.INVALID
    retryable: bool = False

    def __init__(self, message: str, *, code: ErrorCode | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments are lost by the default protocol, and errors cross process borders.
        return (_rebuild, (type(self), self.message, self.code, self.hint))


def _rebuild(kind: type[DmlpipeError], message: str, code: ErrorCode, hint: str | None) -> DmlpipeError:
    return kind(message, code=code, hint=hint)


class InvalidInputError(DmlpipeError, ValueError):
    """What was typed, written or declared is wrong."""


class NotFoundError(DmlpipeError, KeyError):
    """The thing named does not exist."""

    default_code = ErrorCode.NOT_FOUND


class ConflictError(DmlpipeError):
    """Somebody else changed the thing meanwhile; looking again may resolve it."""

    default_code = ErrorCode.CONFLICT
    retryable = True


class HeldError(DmlpipeError):
    """Somebody else holds the thing exclusively."""

    default_code = ErrorCode.HELD
    retryable = True


class ReadOnlyError(DmlpipeError, PermissionError):
    """The store or ref takes no writes."""

    default_code = ErrorCode.READ_ONLY


class FormatError(DmlpipeError):
    """There is no store at that place, or one of another format version."""

    default_code = ErrorCode.FORMAT


class CorruptError(DmlpipeError):
    """Stored bytes are not what their name says."""

    default_code = ErrorCode.CORRUPT


class BackendError(DmlpipeError, OSError):
    """The medium failed."""

    default_code = ErrorCode.BACKEND

    def __init__(
        self, message: str, *, code: ErrorCode | None = None, hint: str | None = None, retryable: bool = False
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.retryable = retryable

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild_backend, (self.message, self.code, self.hint, self.retryable))


def _rebuild_backend(message: str, code: ErrorCode, hint: str | None, retryable: bool) -> BackendError:
    return BackendError(message, code=code, hint=hint, retryable=retryable)


class UserCodeError(DmlpipeError):
    """Code of a pipeline failed."""

    default_code = ErrorCode.USER_CODE
