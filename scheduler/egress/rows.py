"""Egress of rows: the files of each top-level folder are the rows of the table of that name, in one transaction.

A reader of the database sees the rows of one commit or of the next, never a part. Values are converted to the types
that the table's columns have; an empty text in a column that is not text is NULL.
"""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import json
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...storage.commits import CommitView
from ...storage.errors import BackendError, ErrorCode, InvalidInputError
from ..pipelines.spec import Egress

if TYPE_CHECKING:
    from sqlalchemy import Table

_AT_ONCE = 1000


def send_rows(view: CommitView, egress: Egress, password: str, cancelled: threading.Event) -> int:
    """Replace the rows of each table; return how many were inserted.

    Raises
    ------
    InvalidInputError
        A table, a column or a value is not what the database expects (code ``bad-input``); the package is missing.
    BackendError
        The database cannot be reached, or refuses. Nothing was changed in it.
    """
    try:
        import sqlalchemy as sql
        from sqlalchemy import exc
    except ImportError as err:
        raise InvalidInputError(
            "egress to a database needs the package sqlalchemy",
            code=ErrorCode.UNSUPPORTED,
            hint="pip install 'dmlpipe[sql]'",
        ) from err
    try:
        url = sql.make_url(egress.url)
    except exc.ArgumentError as err:
        raise InvalidInputError(f"egress: {egress.url!r} is no URL of a database", code=ErrorCode.BAD_SPEC) from err
    shown = url.render_as_string(hide_password=True)
    try:
        engine = sql.create_engine(url.set(password=password) if password else url)
    except (ImportError, exc.ArgumentError) as err:
        raise InvalidInputError(f"egress to {shown}: no driver for it: {err}", code=ErrorCode.UNSUPPORTED) from err
    count = 0
    try:
        with engine.begin() as connection:
            for name, paths in _tables(view):
                try:
                    table = sql.Table(name, sql.MetaData(), autoload_with=connection)
                except exc.NoSuchTableError as err:
                    raise InvalidInputError(f"egress: {shown} has no table {name!r}", code=ErrorCode.BAD_INPUT) from err
                connection.execute(table.delete())
                batch: list[dict[str, Any]] = []
                for path in paths:
                    for row in _rows(view, path, egress, table):
                        batch.append(row)
                        count += 1
                        if len(batch) >= _AT_ONCE:
                            connection.execute(table.insert(), batch)
                            batch = []
                        if cancelled.is_set():
                            raise BackendError("egress was interrupted")
                if batch:
                    connection.execute(table.insert(), batch)
    except exc.SQLAlchemyError as err:
        text = str(err).splitlines()[0]
        raise BackendError(f"egress to {shown}: {text.replace(password, '***') if password else text}") from err
    finally:
        engine.dispose()
    return count


def _tables(view: CommitView) -> Iterator[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for raw, _ in view.tree.scan():
        path = raw.decode()
        name, slash, _ = path.partition("/")
        if not slash:
            raise InvalidInputError(
                f"egress: /{path} stands in no folder: the folder names the table of its rows", code=ErrorCode.BAD_INPUT
            )
        found.setdefault(name, []).append(path)
    yield from found.items()


def _rows(view: CommitView, path: str, egress: Egress, table: Table) -> Iterator[dict[str, Any]]:
    columns = {column.name: column for column in table.columns}
    for name in egress.columns:
        if name not in columns:
            raise InvalidInputError(f"egress: table {table.name!r} has no column {name!r}", code=ErrorCode.BAD_INPUT)
    read = _csv_rows if egress.rows == "csv" else _json_rows
    with view.open(f"/{path}") as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8", newline="")
        for number, row in enumerate(read(text, egress.columns or tuple(columns), bool(egress.columns)), 1):
            unknown = next((name for name in row if name not in columns), None)
            if unknown is not None:
                raise InvalidInputError(
                    f"egress: /{path}: row {number}: table {table.name!r} has no column {unknown!r}",
                    code=ErrorCode.BAD_INPUT,
                )
            try:
                yield {name: _converted(value, columns[name].type) for name, value in row.items()}
            except (ValueError, decimal.InvalidOperation) as err:
                raise InvalidInputError(f"egress: /{path}: row {number}: {err}", code=ErrorCode.BAD_INPUT) from err


def _csv_rows(text: io.TextIOWrapper, columns: Sequence[str], named: bool) -> Iterator[dict[str, Any]]:
    """Rows of CSV. With declared columns a first line that names them is a header, in the order it has."""
    for number, cells in enumerate(csv.reader(text)):
        if not cells:
            continue
        if number == 0 and named and sorted(cells) == sorted(columns):
            columns = cells
            continue
        if len(cells) != len(columns):
            raise InvalidInputError(
                f"egress: line {number + 1} has {len(cells)} values, expected {len(columns)}: {', '.join(columns)}",
                code=ErrorCode.BAD_INPUT,
            )
        yield dict(zip(columns, cells, strict=True))


def _json_rows(text: io.TextIOWrapper, columns: Sequence[str], named: bool) -> Iterator[dict[str, Any]]:
    """Objects, one after the other."""
    decoder = json.JSONDecoder()
    rest = text.read().lstrip()
    while rest:
        try:
            row, stop = decoder.raw_decode(rest)
        except json.JSONDecodeError as err:
            raise InvalidInputError(f"egress: not JSON: {err.msg}", code=ErrorCode.BAD_INPUT) from err
        if not isinstance(row, dict):
            raise InvalidInputError(f"egress: expected objects, got {row!r}", code=ErrorCode.BAD_INPUT)
        yield {name: row.get(name) for name in columns} if named else row
        rest = rest[stop:].lstrip()


def _converted(value: Any, kind: Any) -> Any:
    """A value as the column's type wants it."""
    try:
        wanted = kind.python_type
    except NotImplementedError:
        return value
    if value is None or isinstance(value, wanted) or not isinstance(value, str):
        return value
    if not value:
        return None
    if wanted is bool:
        return value.strip().lower() in ("1", "t", "true", "yes")
    if issubclass(wanted, datetime.datetime | datetime.date | datetime.time):
        return wanted.fromisoformat(value)
    if issubclass(wanted, int | float | decimal.Decimal):
        return wanted(value)
    return value.encode() if wanted is bytes else value
