"""Where what a pipeline publishes is sent, as a Python DAG says it."""

from __future__ import annotations

from collections.abc import Sequence

from ...storage.errors import ErrorCode, InvalidInputError
from .spec import Egress

__all__ = ["as_egress", "egress"]


def egress(url: str, *, rows: str = "", columns: Sequence[str] = (), secret: str = "") -> Egress:
    """Say where what a pipeline publishes is sent.

    Parameters
    ----------
    url
        A folder or bucket (any fsspec URL), which new and changed files are sent to; with `rows`, a database (any
        SQLAlchemy URL).
    rows
        `"csv"` or `"json"`: the rows of the files in each top-level folder replace, in one transaction, those of the
        table of that name.
    columns
        Of the rows, in order; of CSV, a first line that names them is a header. Not given: all.
    secret
        `"name/key"`: the database's password, read where the controller runs. Not given: the URL has it, or there is
        none.

    Raises
    ------
    InvalidInputError
        `BAD_SPEC`: something is missing, or what belongs to rows is said of files.

    Examples
    --------
    >>> egress("sqlite:///results.db", rows="csv").rows
    'csv'
    """
    if not isinstance(url, str) or not url:
        raise InvalidInputError(f"egress: expected a URL, got {url!r}", code=ErrorCode.BAD_SPEC)
    if rows not in ("", "csv", "json"):
        raise InvalidInputError(f'egress: rows: expected "csv" or "json", got {rows!r}', code=ErrorCode.BAD_SPEC)
    if isinstance(columns, str) or not all(isinstance(column, str) for column in columns):
        raise InvalidInputError(f"egress: columns: expected a list of names, got {columns!r}", code=ErrorCode.BAD_SPEC)
    if secret and not all(secret.partition("/")):
        raise InvalidInputError(f'egress: secret: expected "name/key", got {secret!r}', code=ErrorCode.BAD_SPEC)
    if not rows and (columns or secret):
        raise InvalidInputError(
            "egress: columns and secret are those of a database",
            code=ErrorCode.BAD_SPEC,
            hint='say rows="csv" or rows="json"',
        )
    return Egress(url=url, rows=rows, columns=tuple(columns), secret=secret)


def as_egress(given: str | Egress | None) -> Egress | None:
    """Return what `egress=` of a pipeline says; a text is a folder or bucket."""
    if given is None or isinstance(given, Egress):
        return given
    return egress(given)
