"""The ``dmlpipe`` command.

The table of verbs stands here with one line of help each, so that listing them imports none of them. Every verb is a
module of this package that defines ``command``.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Mapping, Sequence

import click

from ..storage.version import __version__
from .app import App
from .command import SETTINGS, global_options, near
from .failure import FAILED, tell

VERBS: Mapping[str, Mapping[str, str]] = {
    "data": {
        "put": "Commit files to a repo.",
        "get": "Copy files out of a commit.",
        "cat": "Print files of a commit.",
        "ls": "List repos, or files of a commit.",
        "rm": "Delete files from a branch.",
        "diff": "Compare two commits, or a commit and a folder.",
        "log": "Show the history of a branch or a path.",
        "merge": "Merge a branch into another.",
        "mount": "Look at a commit as a folder.",
    },
    "work": {
        "run": "Bring branches up to date, and show how.",
        "submit": "Record pipelines of a DAG or spec file.",
        "plan": "Say what would run, and why.",
        "try": "Run new code on real inputs; commit nothing.",
        "status": "Show where every pipeline stands.",
        "wait": "Wait until a branch, a run or all is up to date.",
    },
    "explain": {
        "why": "Say what made a result.",
        "prove": "Write a proof that a commit holds a file.",
        "verify": "Check a proof that a commit holds a file.",
    },
    "models": {
        "revert": "Go back to an earlier output, and hold it.",
        "release": "End a hold.",
    },
    "cluster": {
        "up": "Keep pipelines up to date in the background.",
        "down": "End what up started.",
        "logs": "Show what the processes of a cluster logged.",
        "bench": "inference, overhead, broadcast, storage, compare.",
        "demo": "See all of it on handwritten digits.",
    },
    "nouns": {
        "repo": "list, inspect, create, delete.",
        "branch": "list, create, set, delete.",
        "tag": "list, create, delete.",
        "commit": "list, inspect, squash, delete, keep.",
        "pipeline": "list, inspect, versions, diff, stop, start, tick, reprocess, delete.",
        "job": "list, inspect, logs, report, wait, stop.",
        "datum": "list, inspect, logs, restart, next.",
    },
    "store": {
        "init": "Make a store here, and a first DAG with --dag.",
        "fsck": "Check everything that a store holds.",
        "gc": "Give back the space of what nothing refers to.",
        "du": "Say what holds a store's bytes.",
        "store": "info, clone, push, pull, archive, index, init, fsck.",
    },
}

_OBJECTS_BETWEEN_COLLECTIONS = 100_000

_MODULES = {"try": "verbs.try_", "demo": "demo"}

# pachctl's order of words, for hands that are used to it.
_NOUN_SECOND = ("list", "inspect", "create", "delete", "start", "stop", "wait")
_WHOLE = {
    ("list", "file"): ("ls",),
    ("glob", "file"): ("ls",),
    ("get", "file"): ("get",),
    ("put", "file"): ("put",),
    ("delete", "file"): ("rm",),
    ("diff", "file"): ("diff",),
    ("list", "commit"): ("log",),
    ("create", "pipeline"): ("submit",),
    ("update", "pipeline"): ("submit",),
    ("list", "datums"): ("datum", "list"),
    ("squash", "commit"): ("commit", "squash"),
    ("inspect", "file"): ("ls",),
    ("validate", "pipeline"): ("submit", "--check"),
    ("rerun", "pipeline"): ("pipeline", "reprocess"),
    ("run", "cron"): ("pipeline", "tick"),
    ("restart", "datum"): ("datum", "restart"),
    ("next", "datum"): ("datum", "next"),
    ("store", "gc"): ("gc",),
    ("store", "du"): ("du",),
}


_OTHERS_WORDS = {
    "add": "put",
    "upload": "put",
    "import": "put",
    "checkout": "get",
    "download": "get",
    "export": "get",
    "delete": "rm",
    "remove": "rm",
    "show": "cat",
    "history": "log",
    "blame": "why",
    "lineage": "why",
    "explain": "why",
    "repro": "run",
    "exec": "run",
    "make": "run",
    "rollback": "revert",
    "reset": "revert",
    "start": "up",
    "stop": "down",
    "clone": "store clone",
    "push": "store push",
    "pull": "store pull",
    "archive": "store archive",
    "squash": "commit squash",
    "tags": "tag list",
    "branches": "branch list",
    "jobs": "job list",
    "pipelines": "pipeline list",
    "repos": "repo list",
}
"""What git, DVC, Snakemake and habit call it, and its verb here: a hint, not another name."""


class Root(click.Group):
    """All verbs by name, imported when used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of help."""
        return [name for group in VERBS.values() for name in group]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb."""
        if not any(cmd_name in group for group in VERBS.values()):
            return None
        module = importlib.import_module(f"dmlpipe.cli.{_MODULES.get(cmd_name, f'verbs.{cmd_name}')}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; pachctl's order is turned round, a wrong name is answered with the nearest."""
        args = _turned(args)
        name = args[0]
        if name not in self.list_commands(ctx):
            meant = _OTHERS_WORDS.get(name) or near(name, self.list_commands(ctx))
            hint = f"\ndid you mean {meant}?" if meant else ""
            raise click.UsageError(f"no verb {name!r}{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the groups."""
        for group, verbs in VERBS.items():
            with formatter.section(group):
                formatter.write_dl(list(verbs.items()), col_max=12, col_spacing=2)


def _turned(args: list[str]) -> list[str]:
    if len(args) >= 2:
        whole = _WHOLE.get((args[0], args[1]))
        if whole is not None:
            return [*whole, *args[2:]]
        if args[0] in _NOUN_SECOND and args[1] in VERBS["nouns"]:
            return [args[1], args[0], *args[2:]]
    return args


@click.command(
    cls=Root,
    context_settings=SETTINGS,
    params=global_options(hidden=False),
    no_args_is_help=False,
    invoke_without_command=True,
    subcommand_metavar="VERB ...",
    epilog="REPO@REF:/path names a file; @master may be left out. Exit codes: 0 done, 1 failed, 2 wrong usage, "
    "3 differs or would run (--exit-code), 4 somebody else holds it, 130 interrupted. "
    "Environment: DMLPIPE_STORE, NO_COLOR, CI.",
)
@click.version_option(__version__, "--version", message="dmlpipe %(version)s")
@click.pass_context
def root(context: click.Context) -> None:
    """Data-versioned machine-learning pipelines: only what changed is recomputed, every output is explained."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Parameters
    ----------
    arguments
        Words after ``dmlpipe``; None: those of this process.
    """
    # A command makes many objects, in no cycles, and ends soon: looking for cycles at each 700 costs a twentieth.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 50, 100)
    app = App()
    try:
        code = root.main(
            list(sys.argv[1:] if arguments is None else arguments),
            prog_name="dmlpipe",
            standalone_mode=False,
            obj=app,
            color=None if app.colour else False,
        )
        sys.stdout.flush()
        if arguments is None:
            # The interpreter looks for cycles once more before it ends: there is no need to.
            gc.freeze()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        # The reader of our output left (`dmlpipe ls | head`): nothing is wrong, and the flush at exit must not say so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt as error:
        return tell(error, app)
    except Exception as error:  # noqa: BLE001  (the border of the process: whatever it is, it is told as an error)
        return tell(error, app)
