"""Running commands: variables, standard input, exit codes, the error command; nothing of theirs survives a datum."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

from ...storage.errors import ErrorCode, InvalidInputError
from ...storage.objects.segment import Failure, Outcome
from ..job import CommandTransform
from .failure import exit_failure

_VARIABLE = re.compile(r"^\$(?:(?P<bare>[A-Za-z_]\w*)|\{(?P<braced>[A-Za-z_]\w*)\})(?P<rest>/.*)?$", re.DOTALL)
_MESSAGE_MAX_CHARS = 300


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


def run_command(
    transform: CommandTransform,
    env: Mapping[str, str],
    *,
    cwd: str,
    places: Places,
    tidy: Callable[[], object],
) -> tuple[Outcome, Failure | None]:
    """Run the command for one datum, and the error command if it fails.

    Parameters
    ----------
    env
        The whole environment; its variables may stand in words of the command.
    cwd
        Where it runs, unless the transform says.
    tidy
        Ends what the command left running.

    Returns
    -------
    tuple[Outcome, Failure | None]
        `OK`, `RECOVERED` (the error command ended well: no output counts) or `FAILED`, with why.

    Notes
    -----
    Standard output and error are this process's. Who ends a command that hangs ends this process and its group.
    """
    folder = places.rewrite(transform.working_dir) if transform.working_dir else cwd
    try:
        status = _execute(transform.argv, transform.stdin, env, folder, places, transform.shell)
    finally:
        tidy()
    accepted = status == 0 or status in transform.accept_return_code
    if accepted:
        return Outcome.OK, None
    failure = _command_failure(transform, status)
    if transform.err_argv:
        try:
            recovered = _execute(transform.err_argv, transform.err_stdin, env, folder, places, False) == 0
        finally:
            tidy()
        if recovered:
            return Outcome.RECOVERED, failure
    return Outcome.FAILED, failure


def _execute(
    argv: Sequence[str], stdin: Sequence[str], env: Mapping[str, str], cwd: str, places: Places, shell: bool
) -> int:
    words = [places.rewrite(word) for word in expand_words(argv, env, shell=shell)]
    try:
        process = subprocess.Popen(
            words,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            # Signals that Python ignores must not be ignored in what it starts: `yes | head` would never end.
            restore_signals=True,
        )
    except OSError as err:
        raise InvalidInputError(_cannot_start(err, words[0], cwd), code=ErrorCode.BAD_SPEC) from err
    if stdin:
        assert process.stdin is not None
        text = "".join(places.rewrite(line) + "\n" for line in stdin)
        try:
            process.stdin.write(text.encode())
            process.stdin.close()
        except BrokenPipeError:
            pass  # a command need not read all of it
    return process.wait()


def _cannot_start(err: OSError, program: str, cwd: str) -> str:
    if not os.path.isdir(cwd):
        return f"cannot run {program!r}: there is no working directory {cwd!r}"
    if err.filename is not None and isinstance(err, FileNotFoundError):
        return f"cannot run {program!r}: there is no such program where the worker runs"
    return f"cannot run {program!r}: {err.strerror}"


def _command_failure(transform: CommandTransform, status: int) -> Failure:
    shown = transform.argv[-1] if transform.shell else " ".join(transform.argv)
    shown = " ".join(shown.split())
    if len(shown) > _MESSAGE_MAX_CHARS:
        shown = shown[:_MESSAGE_MAX_CHARS] + " …"
    # Bash says 128 + n of a child that signal n ended.
    if status > 128 and transform.shell and status - 128 in {s.value for s in signal.Signals}:
        status = 128 - status
    return exit_failure(status, what=f"the command `{shown}`")
