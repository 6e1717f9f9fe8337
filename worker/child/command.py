"""One program: its words, variables, standard input, user; what its exit code means."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.objects.segment import Failure
from ..job import CommandTransform
from .failure import exit_failure

_VARIABLE = re.compile(r"^\$(?:(?P<bare>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*)\})(?P<rest>/.*)?$", re.DOTALL)
_MESSAGE_MAX_CHARS = 300
_RESTORED = [signal.SIGPIPE, signal.SIGXFSZ]
"""What Python ignores and no program that it starts should."""


class Places:
    """Where `/pfs` and `/code` really are, for commands that run without a namespace.

    Parameters
    ----------
    folders
        Path as the command writes it (`/pfs/out`, `/pfs`, `/code`) to the real folder. Empty: nothing is rewritten.

    Examples
    --------
    >>> Places({"/pfs": "/tmp/d1/pfs"}).rewrite("cat /pfs/in/a >x; ls /pfsx")
    'cat /tmp/d1/pfs/in/a >x; ls /pfsx'
    """

    def __init__(self, folders: Mapping[str, str]) -> None:
        self._folders = dict(folders)
        longest_first = sorted(folders, key=len, reverse=True)
        names = "|".join(re.escape(name) for name in longest_first)
        self._pattern = re.compile(rf"(?<![\w./-])({names})(?![\w.-])") if names else None

    def rewrite(self, text: str) -> str:
        """Put the real folders in."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: self._folders[match[1]], text)


def expand_words(argv: Sequence[str], variables: Mapping[str, str], *, shell: bool) -> list[str]:
    """Put variables into words of a command that no shell will read.

    Only a whole word `$name`, `${name}` or `$name/rest` with a known name is one: `awk`'s `$1` and what stands behind
    a shell's `-c` stay as they are.

    Examples
    --------
    >>> expand_words(["cp", "$a/x", "$out"], {"a": "/pfs/a", "out": "/pfs/out"}, shell=False)
    ['cp', '/pfs/a/x', '/pfs/out']
    """
    if shell:
        return list(argv)
    words = []
    for index, word in enumerate(argv):
        match = _VARIABLE.match(word)
        name = (match["bare"] or match["braced"]) if match else ""
        if match and index and argv[index - 1] != "-c" and name in variables:
            words.append(variables[name] + (match["rest"] or ""))
        else:
            words.append(word)
    return words


@dataclass(frozen=True, slots=True)
class Program:
    """A program to be started."""

    argv: Sequence[str]
    stdin: Sequence[str]
    """Lines."""
    env: Mapping[str, str]
    """The whole environment; its variables may stand in words of the command."""
    cwd: str
    places: Places
    shell: bool
    """Words stay as they are: a shell reads them."""
    user: tuple[str | int, str | int | None] | None = None
    """User and group; None: as this process."""
    prefix: tuple[str, ...] = ()
    """Words before its own."""
    here: bool = False
    """`cwd` is this process's own working directory."""

    def start(self, *, leads: bool = False) -> subprocess.Popen[bytes]:
        """Start it; output and error are this process's.

        Parameters
        ----------
        leads
            A process group of its own.

        Raises
        ------
        InvalidInputError
            It cannot be started (code ``bad-spec``).
        """
        words = self._words()
        with self._input() as stdin:
            try:
                return subprocess.Popen(
                    words,
                    env=dict(self.env),
                    cwd=self.cwd,
                    stdin=stdin,
                    user=self.user[0] if self.user else None,
                    group=self.user[1] if self.user else None,
                    extra_groups=[] if self.user else None,
                    process_group=0 if leads else None,
                    # Signals that Python ignores must not be ignored in what it starts: `yes | head` would never end.
                    restore_signals=True,
                )
            except OSError as err:
                raise InvalidInputError(_cannot_start(err, words[0], self.cwd), code=ErrorCode.BAD_SPEC) from err

    def _input(self) -> IO[bytes]:
        """A file, not a pipe: nobody has to read it, and nobody has to write it meanwhile."""
        if not self.stdin:
            return open(os.devnull, "rb")
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        file.write("".join(self.places.rewrite(line) + "\n" for line in self.stdin).encode())
        file.seek(0)
        return file

    def _words(self) -> list[str]:
        own = [self.places.rewrite(word) for word in expand_words(self.argv, self.env, shell=self.shell)]
        return [*self.prefix, *own]

    def run(self) -> int:
        """Start it, wait for its end, and return its exit code, or minus the signal's number.

        Who ends a command that hangs ends this process and its group.
        """
        if self.here and self.user is None:
            words = self._words()
            program = _find(words[0], self.env.get("PATH"))
            if program is not None:
                return self._spawn(program, words)
        return self.start().wait()

    def _spawn(self, program: str, words: list[str]) -> int:
        """Run it without the half of `subprocess` that is not needed here, which costs as much as a small program."""
        with contextlib.ExitStack() as stack:
            actions: list[tuple[int, ...] | tuple[int, int, str, int, int]]
            if self.stdin:
                actions = [(os.POSIX_SPAWN_DUP2, stack.enter_context(self._input()).fileno(), 0)]
            else:
                actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
            try:
                # Every descriptor of this process is closed by exec, but for output and error.
                pid = os.posix_spawn(program, words, self.env, file_actions=actions, setsigdef=_RESTORED)
            except OSError:
                # It went away meanwhile, or is none: that is told there.
                return self.start().wait()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _find(program: str, path: str | None) -> str | None:
    """Where a program is that its caller names by a word; None: nowhere, or where only `exec` can tell."""
    if "/" in program:
        return program
    for folder in (path or "").split(os.pathsep):
        found = f"{folder}/{program}"
        if folder and os.access(found, os.X_OK) and not os.path.isdir(found):
            return found
    return None


def _cannot_start(err: OSError, program: str, cwd: str) -> str:
    if not os.path.isdir(cwd):
        return f"cannot run {program!r}: there is no working directory {cwd!r}"
    if err.filename is not None and isinstance(err, FileNotFoundError):
        return f"cannot run {program!r}: there is no such program where the worker runs"
    return f"cannot run {program!r}: {err.strerror}"


def command_failure(transform: CommandTransform, status: int) -> Failure:
    """Describe the end of a command that is no success."""
    shown = transform.argv[-1] if transform.shell else " ".join(transform.argv)
    shown = " ".join(shown.split())
    if len(shown) > _MESSAGE_MAX_CHARS:
        shown = shown[:_MESSAGE_MAX_CHARS] + " …"
    # Bash says 128 + n of a child that signal n ended.
    if status > 128 and transform.shell and status - 128 in {s.value for s in signal.Signals}:
        status = 128 - status
    return exit_failure(status, what=f"the command `{shown}`")
