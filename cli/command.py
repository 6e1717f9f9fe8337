"""Command classes: global options anywhere on the line, and a hint where a name is nearly right."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click

from .app import App

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def near(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant."""
    import difflib

    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def _keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        app = context.find_object(App)
        if app is None or value in (None, False, 0):
            return
        if name == "quiet":
            app.verbosity = -1
        elif name == "log_format":
            import os

            from ..storage.logs import FORMAT_VARIABLE

            # The processes of a cluster that is started now inherit it.
            os.environ[FORMAT_VARIABLE] = value
        elif name == "verbosity":
            app.verbosity = max(app.verbosity, value)
            _log(app.verbosity)
        else:
            setattr(app, name, value)

    return callback


def _log(verbosity: int) -> None:
    import logging

    from ..storage.logs import log_to_stderr

    log_to_stderr("dmlpipe")
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("dmlpipe").setLevel(logging.DEBUG if verbosity > 1 else logging.INFO)


def global_options(*, hidden: bool) -> list[click.Option]:
    """Options of the root, which every verb takes as well."""

    def option(*names: str, to: str, text: str, **settings: Any) -> click.Option:
        # Named apart from what a verb may declare, since nothing of it is passed on.
        return click.Option(
            [f"global_{to}", *names], expose_value=False, hidden=hidden, callback=_keep(to), help=text, **settings
        )

    return [
        option("--store", to="url", metavar="URL", text="Folder or bucket. Default: $DMLPIPE_STORE, else ./.dmlpipe."),
        option("--json", to="json", is_flag=True, text="JSON Lines on stdout."),
        option("-v", "--verbose", to="verbosity", count=True, text="More detail, and tracebacks; twice: debug."),
        option(
            "--log-format",
            to="log_format",
            type=click.Choice(["text", "json"]),
            text="How processes log, see logs. Default: $DMLPIPE_LOG_FORMAT, else text.",
        ),
        option("-q", "--quiet", to="quiet", is_flag=True, text="No notices and no progress."),
    ]


class Verb(click.Command):
    """A command that takes the global options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["context_settings"] = {**SETTINGS, **kwargs.get("context_settings", {})}
        super().__init__(*args, **kwargs)
        self.params.extend(global_options(hidden=True))


class Noun(click.Group):
    """A group of verbs on one kind of thing: `repo list`, `repo create`."""

    command_class = Verb

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["context_settings"] = {**SETTINGS, **kwargs.get("context_settings", {})}
        kwargs.setdefault("no_args_is_help", False)
        kwargs.setdefault("invoke_without_command", True)
        kwargs.setdefault("callback", _show_help)
        super().__init__(*args, **kwargs)
        self.params.extend(global_options(hidden=True))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; a wrong one is answered with the nearest."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise click.UsageError(_unknown(f"{ctx.info_name} has no verb {args[0]!r}", args[0], self.commands), ctx)
        return super().resolve_command(ctx, args)


def _unknown(message: str, name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    meant = near(name, names)
    return f"{message}\ndid you mean {meant}?" if meant else f"{message}\nthere are: {', '.join(names)}"


@click.pass_context
def _show_help(context: click.Context) -> None:
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
