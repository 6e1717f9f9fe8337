"""Parameters as they are typed (`--set model.C=0.5`, `--params FILE`), and what belongs to specifications."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from ..storage.errors import ErrorCode, InvalidInputError

Parameters = Mapping[str, Mapping[str, Any]]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_WORDS: Mapping[str, Any] = {"True": True, "False": False, "None": None}


def parameter_options(function: _Command) -> _Command:
    """Add `--set` and `--params` to a verb."""
    for option in (
        click.option(
            "--params",
            "params_file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Parameters as JSON or YAML: {PIPELINE: {NAME: VALUE}}.",
        ),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="PIPELINE.NAME=VALUE",
            help="Set a parameter; comes after --params. Repeatable.",
        ),
    ):
        function = option(function)
    return function


def cache_option(function: _Command) -> _Command:
    """Add `--cache-size` to a verb that starts workers: it is theirs by `$DMLPIPE_CACHE_SIZE`."""
    return click.option(
        "--cache-size",
        metavar="SIZE",
        expose_value=False,
        callback=_set_cache_size,
        help="What this machine's file cache may hold: 20GiB, or 30% of the disk. Default: half of what is free.",
    )(function)


def _set_cache_size(context: click.Context, option: click.Parameter, value: str | None) -> None:
    del context, option
    if value is None:
        return
    from ..storage.objects.cache_size import CACHE_SIZE_VARIABLE, check_cache_size

    try:
        os.environ[CACHE_SIZE_VARIABLE] = check_cache_size(value)
    except InvalidInputError as err:
        raise click.BadParameter(str(err)) from err


def spec_options(function: _Command) -> _Command:
    """Add what belongs to specifications: `--code`, `--container`, `--arg`; the verb takes `**given`."""
    for option in (
        click.option(
            "--arg",
            "arguments",
            multiple=True,
            metavar="NAME=TEXT",
            help="Argument of a *.jsonnet FILE. Repeatable.",
        ),
        click.option(
            "--container",
            type=click.Choice(["docker", "podman", "apptainer", "auto"]),
            default=None,
            help="Run a spec's image with this program; without it, commands run as they are.",
        ),
        click.option(
            "--code",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            metavar="DIR",
            help="Scripts of a spec FILE: recorded in the version, mounted at /code.",
        ),
    ):
        function = option(function)
    return function


def spec_settings(code: Path | None, container: str | None, arguments: Sequence[str]) -> dict[str, Any]:
    """What `Store.submit`, `Store.plan` and `Trial` take, from what `spec_options` gave.

    Raises
    ------
    InvalidInputError
        An argument is not `NAME=TEXT`.
    """
    named: dict[str, str] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or not name:
            raise InvalidInputError(f"--arg {argument}: expected NAME=TEXT", code=ErrorCode.INVALID)
        named[name] = text
    return {"code": code, "container": container or "", "arguments": named}


def parse_parameters(settings: Sequence[str], file: Path | None) -> dict[str, dict[str, Any]]:
    """Merge a file and settings, the latter last.

    Raises
    ------
    InvalidInputError
        A setting is not `PIPELINE.NAME=VALUE`, or the file is not a mapping of mappings.
    """
    merged = {} if file is None else _read(file)
    for setting in settings:
        where, equals, text = setting.partition("=")
        pipeline, dot, name = where.partition(".")
        if not (equals and dot and pipeline and name):
            raise InvalidInputError(
                f"--set {setting}: expected PIPELINE.NAME=VALUE",
                code=ErrorCode.INVALID,
                hint="for example: --set model.C=0.5",
            )
        merged.setdefault(pipeline, {})[name] = parse_value(text)
    return merged


def parse_value(text: str) -> Any:
    """Read a value: JSON where it is, Python's words for true, false and nothing, else a string.

    >>> parse_value("0.5"), parse_value("[1, 2]"), parse_value("True"), parse_value("rbf")
    (0.5, [1, 2], True, 'rbf')
    """
    if text in _WORDS:
        return _WORDS[text]
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read(file: Path) -> dict[str, dict[str, Any]]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InvalidInputError(f"--params {file}: neither JSON nor YAML: {reason}", code=ErrorCode.INVALID) from error
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise InvalidInputError(
            f"--params {file}: expected {{PIPELINE: {{NAME: VALUE}}}}",
            code=ErrorCode.INVALID,
            hint='for example: {"model": {"C": 0.5}}',
        )
    return {str(name): {str(key): value for key, value in values.items()} for name, values in content.items()}
