"""Parameters as they are typed: `--set model.C=0.5` and `--params FILE`."""

from __future__ import annotations

import json
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
