"""Content that stays where it is (`put --link`): read through fsspec, refused if it changed since."""

from __future__ import annotations

from typing import Any

from .errors import BackendError, ConflictError, NotFoundError
from .value import External


def describe_external(url: str) -> External:
    """Return the value that refers to the file at `url` as it is now.

    Raises
    ------
    NotFoundError
        There is no such file.
    """
    fs, path = _filesystem(url)
    try:
        info = fs.info(path)
    except FileNotFoundError as err:
        raise NotFoundError(f"no file at {url}") from err
    except OSError as err:
        raise BackendError(f"cannot look at {url}: {err}") from err
    return External(url, int(info["size"]), _etag(info))


def read_external(value: External, start: int | None = None, end: int | None = None) -> bytes:
    """Return the content, or its bytes [start, end), of a file that was put by reference.

    Raises
    ------
    ConflictError
        The file is not the one that was put: its size or etag differ.
    NotFoundError
        It is gone.
    """
    now = describe_external(value.url)
    if (now.size, now.etag) != (value.size, value.etag):
        raise ConflictError(
            f"{value.url} changed since it was put: expected {value.size} bytes, etag {value.etag}; "
            f"found {now.size} bytes, etag {now.etag}",
            hint="put it again, or put a copy instead of a link",
        )
    low, high, _ = slice(start, end).indices(value.size)
    fs, path = _filesystem(value.url)
    try:
        with fs.open(path, "rb") as file:
            file.seek(low)
            data: bytes = file.read(max(0, high - low))
    except OSError as err:
        raise BackendError(f"cannot read {value.url}: {err}") from err
    return data


def _etag(info: dict[str, Any]) -> str:
    """What identifies this version of a file: the server's etag, else its time."""
    for name in ("ETag", "etag", "md5Hash"):
        if info.get(name):
            return str(info[name]).strip('"')
    return f"mtime:{info.get('mtime', info.get('created', ''))}"


def _filesystem(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    fs, path = url_to_fs(url, use_listings_cache=False)
    return fs, path
