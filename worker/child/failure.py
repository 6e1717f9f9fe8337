"""From an exception of user code to a `Failure`: the user's own frames, nothing of ours or of libraries."""

from __future__ import annotations

import functools
import linecache
import os
import re
import signal
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...storage.errors import UserCodeError
from ...storage.objects.segment import Failure

MESSAGE_MAX_CHARS = 4000
_LAST_WORDS_BYTES = 4096
_LAST_WORDS_CHARS = 300
TRACEBACK_MAX_FRAMES = 40
_PACKAGE = str(Path(__file__).parent.parent)
_FAULT_LINE = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<name>.+)$', re.MULTILINE)


@functools.cache
def _installed_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    found = {os.path.realpath(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple(found | {os.path.dirname(os.path.realpath(os.__file__))})


class UserFrames:
    """Says which files are the user's own.

    Parameters
    ----------
    roots
        Folders of the user's code. Empty: every file that is neither installed, nor of the standard library, nor
        dmlpipe's own (for code that runs where it was written).
    """

    def __init__(self, roots: Sequence[str] = ()) -> None:
        self._roots = tuple(dict.fromkeys(p for root in roots for p in (root, os.path.realpath(root))))
        self._foreign = _installed_folders()

    def label(self, file: str) -> str | None:
        """Name of the file as its author knows it, or None if it is not the user's."""
        for root in self._roots:
            if file.startswith(root + os.sep):
                return os.path.relpath(file, root)
        if self._roots:
            # A notebook cell or a pickled function has no file below the bundle.
            return file if file.startswith("<ipython") else None
        if file.startswith("<") and not file.startswith("<ipython"):
            return None
        real = os.path.realpath(file)
        inside = (_PACKAGE, *self._foreign)
        # src/dmlpipe/worker is a link: the real path of our own files lies outside src/dmlpipe.
        if any(real.startswith(p + os.sep) or file.startswith(p + os.sep) for p in inside) or _is_own(real):
            return None
        return os.path.basename(file)

    def frames(self, error: BaseException) -> list[traceback.FrameSummary]:
        """The user's frames of a traceback, outermost first."""
        if error.__traceback__ is None:
            return []
        summary = traceback.extract_tb(error.__traceback__)
        kept = []
        for frame in summary:
            name = self.label(frame.filename)
            if name is not None:
                line = linecache.getline(frame.filename, frame.lineno or 0).strip() or frame.line
                kept.append(traceback.FrameSummary(name, frame.lineno, frame.name, line=line, lookup_line=False))
        return kept


_OWN_FOLDERS = tuple(
    os.path.join(os.path.realpath(os.path.join(_PACKAGE, layer)), "")
    for layer in ("storage", "worker", "scheduler", "cli")
)


def _is_own(real: str) -> bool:
    return real.startswith(_OWN_FOLDERS)


def kind_of(error: BaseException) -> str:
    """Exception type with its module, builtins bare."""
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as err:  # noqa: BLE001 - the user's __str__ may do anything
        text = f"<its __str__ raised {type(err).__name__}>"
    return text if len(text) <= MESSAGE_MAX_CHARS else f"{text[:MESSAGE_MAX_CHARS]} … ({len(text):,} characters)"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, innermost last."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def failure_of(error: BaseException, frames: UserFrames) -> Failure:
    """Describe an exception that user code raised.

    Parameters
    ----------
    error
        With its traceback.
    frames
        Which files are the user's.
    """
    where = line = ""
    own = frames.frames(error)
    if isinstance(error, SyntaxError) and error.filename and (name := frames.label(error.filename)):
        where, line = f"{name}:{error.lineno}", (error.text or "").strip()
    elif own:
        last = own[-1]
        where, line = f"{last.filename}:{last.lineno} in {last.name}", last.line or ""
    blocks = []
    for index, link in enumerate(_chain(error)):
        kept = own if index == 0 else frames.frames(link)
        if index and not kept:
            continue
        lines = ["Traceback (most recent call last):\n"] if kept else []
        lines += traceback.format_list(kept[-TRACEBACK_MAX_FRAMES:])
        lines.append(f"{kind_of(link)}: {_text(link)}\n")
        blocks.append("".join(lines))
    text = "\nwhich led to:\n\n".join(reversed(blocks))
    # Our own complaints about user code (a result of the wrong type) are shown by their text alone.
    kind = "dmlpipe" if isinstance(error, UserCodeError) and not own else kind_of(error)
    return Failure(kind=kind, message=_text(error), where=where, line=line, traceback=text)


def exit_failure(status: int, *, what: str = "the process") -> Failure:
    """Describe a process that ended by itself: `status` as `os.waitstatus_to_exitcode` gives it."""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return Failure(kind="signal", message=f"{what} was ended by {name}{hint}")
    return Failure(kind="exit", message=f"{what} ended with exit code {status}")


def timeout_failure(limit_s: float) -> Failure:
    """Describe a datum that was ended because it took too long."""
    return Failure(kind="timeout", message=f"no result after {limit_s:g} s (timeout)")


def said(failure: Failure, log: bytes) -> Failure:
    """Add the last line that a process printed, where nothing else tells why it ended as it did."""
    if failure.line or failure.where or failure.kind not in ("exit", "signal"):
        return failure
    lines = log[-_LAST_WORDS_BYTES:].decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return Failure(failure.kind, failure.message, "", last[:_LAST_WORDS_CHARS], failure.traceback)


def located(failure: Failure, log: bytes, frames: UserFrames) -> Failure:
    """Add where the user's code was, from what `faulthandler` printed when the process died."""
    text = log[-65536:].decode(errors="replace")
    start = max(text.rfind("Fatal Python error"), text.rfind("Current thread"), text.rfind("Thread 0x"))
    if start < 0 or failure.where:
        return failure
    found = []
    for match in _FAULT_LINE.finditer(text, start):
        name = frames.label(match["file"])
        if name is not None:
            found.append((name, int(match["line"]), match["name"].strip(), match["file"]))
    if not found:
        return failure
    name, number, function, file = found[0]
    line = linecache.getline(file, number).strip()
    listed = [
        traceback.FrameSummary(n, i, f, line=linecache.getline(p, i).strip(), lookup_line=False)
        for n, i, f, p in reversed(found)
    ]
    text = "".join(["Traceback (most recent call last):\n", *traceback.format_list(listed)])
    return Failure(failure.kind, failure.message, f"{name}:{number} in {function}", line, text + failure.message + "\n")
