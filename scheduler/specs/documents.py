"""Files to objects: JSON, YAML or Jsonnet, several specifications in a file, each with the line it begins on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...storage.errors import ErrorCode, InvalidInputError, NotFoundError

_SEPARATOR = re.compile(r",|^(---|\.\.\.)(?=\s|$)", re.MULTILINE)
"""Between two objects: a comma, or a line of YAML's, of which JSON is a part."""

_UNBOUND = re.compile(r"function parameter (\w+) not bound in call")
"""What Jsonnet says of an argument that was not given."""


def read_text(path: Path, arguments: Mapping[str, str]) -> str:
    """Read a file of specifications; a Jsonnet template is evaluated, with its function's arguments.

    Raises
    ------
    NotFoundError
        There is no such file.
    InvalidInputError
        The template is wrong, or takes other arguments (code ``bad-spec``); the extra `jsonnet` is not installed
        (``unsupported``); arguments for a file that is no template.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file", code=ErrorCode.NO_FILE)
    if path.suffix != ".jsonnet":
        if arguments:
            raise InvalidInputError(f"--arg belongs to *.jsonnet; {path.name} takes none", code=ErrorCode.BAD_SPEC)
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as err:
            raise InvalidInputError(f"{path.name}: not UTF-8: {err.reason}", code=ErrorCode.BAD_SPEC) from err
    try:
        import _jsonnet
    except ImportError as err:
        raise InvalidInputError(
            f"{path.name} is a Jsonnet template, and the package jsonnet is not installed",
            code=ErrorCode.UNSUPPORTED,
            hint="pip install 'dmlpipe[jsonnet]'",
        ) from err
    try:
        text: str = _jsonnet.evaluate_file(str(path), tla_vars=dict(arguments))
    except RuntimeError as err:
        first, *rest = str(err).strip().splitlines()
        unbound = _UNBOUND.search(first)
        hint = f"give it: --arg {unbound[1]}=VALUE" if unbound else rest[0].strip() if rest else None
        raise InvalidInputError(f"{path.name}: {first}", code=ErrorCode.BAD_SPEC, hint=hint) from err
    return text


def documents(text: str, filename: str) -> Iterator[tuple[object, int]]:
    """Yield each specification and the line it begins on."""
    text = text.removeprefix("\ufeff")
    if text.lstrip()[:1] in ("{", "[") and not filename.endswith((".yaml", ".yml")):
        documents = _json_documents(text, filename)
    else:
        documents = _yaml_documents(text, filename)
    for data, line in documents:
        if isinstance(data, list):
            yield from ((item, line) for item in data)
        elif data is not None:
            yield data, line


def _json_documents(text: str, filename: str) -> Iterator[tuple[object, int]]:
    decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: _without_twins(pairs, filename))
    position = 0
    while (found := re.compile(r"\S").search(text, position)) is not None:
        start = found.start()
        separator = _SEPARATOR.match(text, start)
        if separator is not None:
            position = separator.end()
            continue
        try:
            data, position = decoder.raw_decode(text, start)
        except json.JSONDecodeError as err:
            raise InvalidInputError(
                f"{filename}:{err.lineno}:{err.colno}: not JSON: {err.msg}", code=ErrorCode.BAD_SPEC
            ) from err
        yield data, text.count("\n", 0, start) + 1


def _without_twins(pairs: list[tuple[str, Any]], filename: str) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise InvalidInputError(f"{filename}: field {twin!r} is given twice in one object", code=ErrorCode.BAD_SPEC)
    return out


def _yaml_documents(text: str, filename: str) -> Iterator[tuple[object, int]]:
    import yaml

    loader = yaml.SafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            line = node.start_mark.line + 1 if node is not None else 1
            yield loader.construct_document(node), line
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        place = f"{filename}:{mark.line + 1}:{mark.column + 1}" if mark is not None else filename
        problem = getattr(err, "problem", None) or str(err)
        raise InvalidInputError(f"{place}: not YAML: {problem}", code=ErrorCode.BAD_SPEC) from err
    finally:
        loader.dispose()
