"""The commands of one slot: where their folders appear, who runs them, and one datum after the other.

There are three ways to show a command its folders: a private mount namespace has them at `/pfs` and `/code`, and a
`/tmp` that is empty for each datum; a container gets them as mounts; and where neither can be had, `$DMLPIPE_PFS` names
them and words are rewritten.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ...storage.errors import InvalidInputError
from ...storage.objects.segment import Failure, Outcome
from ..job import CommandTransform
from .batching import NEXT, SCRIPTS, Batch
from .box import Box
from .collect import Output, collect_folder
from .command import Places, Program, command_failure
from .container import (
    Mount,
    client_environment,
    container_name,
    container_words,
    find_program,
    literal,
    passed,
    removal_words,
)
from .environment import datum_environment
from .namespace import CODE, PFS, NamespaceUnavailableError, bind, enter, place_folder, unbind
from .private_tmp import PrivateTmp
from .users import find_user
from .wire import Payload, Setup

_OWN = "/.dmlpipe"
_NEXT_INSIDE = "/run/dmlpipe"
"""Where a container finds the pipes of `next datum`."""
"""Folder of ours in a namespace."""


class Ran(NamedTuple):
    """How one datum ended; `outputs` are read once, before the next datum."""

    outcome: Outcome
    failure: Failure | None
    outputs: Iterator[Output]


class Commands:
    """Runs commands for the datums of one job after another.

    Parameters
    ----------
    root
        An empty folder that becomes the root of a namespace; empty: none is made.
    users
        As of `namespace.enter`.
    tidy
        Ends what a command left running, but for the processes it is given.
    """

    def __init__(self, root: str, *, users: bool = False, tidy: Callable[[frozenset[int]], object]) -> None:
        self.notice = ""
        self._tidy = tidy
        self._base = dict(os.environ)
        self._setup: Setup | None = None
        self._code_bound = False
        self._linked = ""
        self._placed: list[str] = []
        self._secrets = self._scratch = self._program = ""
        self._user: tuple[int, int] | None = None
        self._batch: Batch | None = None
        self._box: Box | None = None
        self._namespace = self._here = False
        self._tmp: PrivateTmp | None = None
        if root:
            try:
                enter(root, users=users, tmp=f"{root}.tmp")
                self._namespace = True
                self._tmp = PrivateTmp()
                self._tmp.show((root, sys.prefix, sys.base_prefix, os.path.abspath(__file__)))
            except NamespaceUnavailableError as err:
                self.notice = (
                    f"no private /pfs here ({err.strerror}): commands see their inputs below $DMLPIPE_PFS, "
                    "and /pfs and /code in their words are rewritten"
                )

    # --- a job ---

    def set_up(self, setup: Setup) -> None:
        """Get ready for the datums of a job.

        Raises
        ------
        InvalidInputError
            What it needs is not here: a container program, a user.
        """
        self._close_batch()
        self._setup = setup
        transform = self._transform
        self._program = find_program(transform.container, self._base.get("PATH")) if transform.container else ""
        if self._tmp is not None:
            self._tmp.empty()
            variables = ("PATH", "HOME", "VIRTUAL_ENV", "CONDA_PREFIX", *transform.env)
            words = (word for name in variables for word in setup.env.get(name, "").split(os.pathsep))
            self._tmp.show((setup.code, setup.scratch, transform.working_dir, *transform.argv, *words))
        self._link_code(setup)
        if self._namespace:
            self._bind_code(setup)
        self._place_secrets(setup)
        self._user = self._become(transform.user)
        self._scratch = setup.scratch
        with contextlib.suppress(OSError):
            self._here = os.path.samefile(setup.scratch, ".")
        if self._user is not None:
            self._hand_over(setup, *self._user)
        if transform.batching:
            folder = f"{_OWN}/next" if self._namespace else _beside(setup.scratch, "next")
            self._batch = Batch(folder, lambda: remove_container(transform, setup.scratch, self._base.get("PATH")))
            if self._program:
                names = [name for name, given in setup.constants.items() if given.root]
                self._box = Box(_beside(setup.scratch, "box"), names)

    @property
    def _transform(self) -> CommandTransform:
        assert self._setup is not None
        assert isinstance(self._setup.transform, CommandTransform)
        return self._setup.transform

    def _link_code(self, setup: Setup) -> None:
        """Let the scripts stand in the working directory too: links, since a command may write beside them."""
        with os.scandir(setup.scratch) as entries:
            for entry in entries:
                if entry.is_symlink() and os.readlink(entry.path).startswith((f"{CODE}/", *self._old_code())):
                    os.unlink(entry.path)
        self._linked = setup.code
        if setup.code:
            shown = CODE if self._namespace else setup.code
            for name in os.listdir(setup.code):
                with contextlib.suppress(FileExistsError):
                    os.symlink(f"{shown}/{name}", f"{setup.scratch}/{name}")

    def _old_code(self) -> tuple[str, ...]:
        return (f"{self._linked}/",) if self._linked else ()

    def _bind_code(self, setup: Setup) -> None:
        if self._code_bound:
            unbind(CODE)
            self._code_bound = False
        if setup.code:
            bind(setup.code, CODE, read_only=True)
            self._code_bound = True

    def _place_secrets(self, setup: Setup) -> None:
        for folder in reversed(self._placed):
            unbind(folder)
        self._placed = []
        self._secrets = _beside(setup.scratch, "secrets")
        shutil.rmtree(self._secrets, ignore_errors=True)
        for path, content in setup.secret_files.items():
            folder = os.path.dirname(path)
            if self._namespace:
                if folder not in self._placed:
                    place_folder(folder)
                    self._placed.append(folder)
                target = path
            else:
                target = self._secrets + path
                os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "w", encoding="utf-8") as file:
                file.write(content)

    def _become(self, user: str) -> tuple[int, int] | None:
        """User and group that commands run as; None: as we do."""
        found = find_user(user) if user and not self._program else None
        if found is not None and os.geteuid() != 0:
            self.notice = self.notice or f"the command runs as user {os.geteuid()}, not as {user!r}: no right to change"
            return None
        return found

    def _hand_over(self, setup: Setup, uid: int, gid: int) -> None:
        """Make the working directory and the secrets the user's."""
        for path in (
            setup.scratch,
            *_below(self._secrets),
            *self._placed,
            *(f for p in self._placed for f in _below(p)),
        ):
            os.chown(path, uid, gid, follow_symlinks=False)
        if self._namespace:
            # The way to it may lead through folders that are not theirs.
            self._scratch = f"{_OWN}/scratch"
            os.makedirs(self._scratch, exist_ok=True)
            bind(setup.scratch, self._scratch, read_only=False)

    # --- a datum ---

    def run(self, payload: Payload) -> Ran:
        """Run the command for one datum; the outputs are to be read before `finish`."""
        setup, transform = self._setup, self._transform
        assert setup is not None
        if self._namespace:
            places, env, out = Places({}), payload.env, f"{PFS}/out"
            self._bind_inputs(setup, payload)
        elif self._program:
            places, env, out = self._real_places(setup, payload), payload.env, payload.out
        else:
            (env, places), out = self._rewritten(setup, payload), payload.out
        if self._user is not None:
            os.chown(out, *self._user)
        if self._scratch != setup.scratch:
            env = env | {"TMPDIR": self._scratch}
        variables = setup.env | env | datum_environment(payload.id, payload.attempt)
        if self._box is not None:
            self._box.put_in(payload.root)
        try:
            outcome, failure = self._execute(setup, transform, payload, variables, places)
        finally:
            if self._box is not None:
                self._box.take_out(payload.root, payload.out)
            self._end_what_is_left()
        if outcome is not Outcome.OK:
            return Ran(outcome, failure, iter(()))
        stands = {name: f"{PFS}/{name}" if self._namespace else folder for name, folder in payload.stands.items()}
        return Ran(outcome, failure, collect_folder(out, places.rewrite if self._program else None, stands=stands))

    def finish(self) -> None:
        """Take the present datum's folders away."""
        if self._namespace:
            with contextlib.suppress(OSError):
                unbind(PFS)
        # A process that asks for the next datum may still have its own files there.
        if self._tmp is not None and self._batch is None:
            self._tmp.empty()

    def close(self) -> None:
        """End what still runs. Idempotent."""
        self._close_batch()

    def _close_batch(self) -> None:
        if self._batch is not None:
            self._batch.close()
            self._batch = self._box = None
            if self._tmp is not None:
                self._tmp.empty()

    def _execute(
        self,
        setup: Setup,
        transform: CommandTransform,
        payload: Payload,
        variables: dict[str, str],
        places: Places,
    ) -> tuple[Outcome, Failure | None]:
        folder = transform.working_dir or self._scratch

        def program(argv: Sequence[str], stdin: Sequence[str], shell: bool, more: dict[str, str]) -> Program:
            env = variables | more
            if self._program:
                return self._contained(setup, payload, argv, stdin, env)
            return Program(
                argv=argv,
                stdin=stdin,
                env=env,
                cwd=places.rewrite(folder),
                places=places,
                shell=shell,
                user=self._user,
                prefix=setup.prefix,
                here=self._here and folder == setup.scratch,
            )

        if self._batch is not None:
            path = variables.get("PATH", os.defpath)
            more = {NEXT: _NEXT_INSIDE} if self._program else self._batch.variables(path)
            main = program(transform.argv, transform.stdin, transform.shell, more)
            failure = self._batch.run(lambda: main.start(leads=True), at_most=transform.batch)
        else:
            status = program(transform.argv, transform.stdin, transform.shell, {}).run()
            accepted = status == 0 or status in transform.accept_return_code
            failure = None if accepted else command_failure(transform, status)
        if failure is None:
            return Outcome.OK, None
        self._end_what_is_left()
        if transform.err_argv and program(transform.err_argv, transform.err_stdin, False, {}).run() == 0:
            return Outcome.RECOVERED, failure
        return Outcome.FAILED, failure

    def _end_what_is_left(self) -> None:
        """End what a datum started and left, but the process that waits for the next one."""
        pids = self._batch.pids if self._batch is not None else frozenset()
        # A container has helpers that nobody's children are: they end with it.
        if not (pids and self._program):
            self._tidy(pids)

    # --- where folders are ---

    def _bind_inputs(self, setup: Setup, payload: Payload) -> None:
        bind(payload.root, PFS, read_only=True)
        for name, given in setup.constants.items():
            if given.root:
                bind(given.root, f"{PFS}/{name}", read_only=True)
        bind(payload.out, f"{PFS}/out", read_only=False)

    def _real_places(self, setup: Setup, payload: Payload) -> Places:
        folders = {PFS: payload.root}
        folders |= {f"{PFS}/{name}": given.root for name, given in setup.constants.items() if given.root}
        return Places(folders)

    def _rewritten(self, setup: Setup, payload: Payload) -> tuple[dict[str, str], Places]:
        """Variables and places of a datum where there is no `/pfs`."""
        root = payload.root
        if self._batch is not None:
            # A process that outlives its datum finds the next one at the same path.
            root = _beside(setup.scratch, "pfs")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(root)
            os.symlink(payload.root, root)
        folders = {PFS: root}
        for name, given in setup.constants.items():
            if given.root:
                folders[f"{PFS}/{name}"] = given.root
                link = os.path.join(payload.root, name)
                if not os.path.islink(link):
                    os.rmdir(link)
                    os.symlink(given.root, link)
        if setup.code:
            folders[CODE] = setup.code
        folders |= {os.path.dirname(path): self._secrets + os.path.dirname(path) for path in setup.secret_files}
        places = Places(folders)
        env = {name: places.rewrite(value) for name, value in payload.env.items()}
        with open(f"{payload.root}/.env", "w", encoding="utf-8") as file:
            listed = env | datum_environment(payload.id, payload.attempt)
            file.writelines(f"{name}={value}\n" for name, value in listed.items())
        return env | {"DMLPIPE_PFS": root}, places

    # --- containers ---

    def _contained(
        self, setup: Setup, payload: Payload, argv: Sequence[str], stdin: Sequence[str], env: Mapping[str, str]
    ) -> Program:
        transform = self._transform
        box, batch = self._box, self._batch
        root, out = (box.pfs, box.out) if box is not None else (payload.root, payload.out)
        mounts = [Mount(root, PFS), Mount(out, f"{PFS}/out", read_only=False)]
        if batch is not None:
            # On the image's own path, which is not known here.
            mounts.append(Mount(batch.folder, _NEXT_INSIDE, read_only=False))
            mounts += [Mount(f"{batch.folder}/bin/{name}", f"/usr/local/bin/{name}") for name in SCRIPTS]
        mounts += [Mount(given.root, f"{PFS}/{name}") for name, given in setup.constants.items() if given.root]
        if setup.code:
            mounts.append(Mount(setup.code, CODE))
        mounts += [
            Mount(self._secrets + folder, folder) for folder in sorted({*map(os.path.dirname, setup.secret_files)})
        ]
        variables = passed(self._base, env, transform.env)
        name = container_name(setup.scratch)
        words = container_words(
            self._program,
            transform.image,
            argv,
            name=name,
            mounts=mounts,
            variables=literal(variables),
            working_dir=transform.working_dir or (CODE if setup.code else ""),
            user=transform.user,
            uid=os.geteuid(),
            gid=os.getegid(),
            stdin=bool(stdin),
        )
        return Program(
            argv=words,
            stdin=stdin,
            env=client_environment(self._program, self._base, variables),
            cwd=setup.scratch,
            places=Places({}),
            shell=True,
        )


def remove_container(transform: CommandTransform, scratch: str, path: str | None = None) -> None:
    """End the container of a slot whose child was killed: its program may have left it running."""
    if not transform.container:
        return
    try:
        program = find_program(transform.container, path)
    except InvalidInputError:
        return
    words = removal_words(program, container_name(scratch))
    if words:
        subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )


def _beside(scratch: str, name: str) -> str:
    """A folder of the slot's own, beside its working directory."""
    return os.path.join(os.path.dirname(scratch), name)


def _below(folder: str) -> Iterator[str]:
    """Everything below a folder, which need not exist."""
    for base, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield os.path.join(base, name)
