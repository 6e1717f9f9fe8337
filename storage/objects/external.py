"""Content that stays where it is (`put --link`): read through fsspec, refused if it changed since.

A link records a URL with its size and what identifies the version that was there: the server's etag, else the time of
the last change. Both are compared before and after each read, so that no reader is given other bytes than were put.
What identifies no version cannot be linked. URLs hold no credentials: those come from fsspec's own configuration.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from ..errors import BackendError, ConflictError, ErrorCode, InvalidInputError, NotFoundError
from .value import External

_COPY_BYTES = 1 << 20
_BUFFER_BYTES = 1 << 16
_VERSION_NAMES = ("ETag", "etag", "md5Hash", "content_md5", "Content-MD5")
_TIME_NAMES = ("mtime", "LastModified", "last_modified", "updated", "created")


def describe_external(url: str) -> External:
    """Return the value that refers to the file at `url` as it is now. One request.

    Raises
    ------
    NotFoundError
        There is no such file.
    InvalidInputError
        It is no file, the URL holds a password, or nothing tells one version of it from another.
    BackendError
        It cannot be looked at.
    """
    if "@" in urlsplit(url).netloc:
        raise InvalidInputError(
            f"the link {_without_login(url)} holds a login, which the store would keep for ever",
            hint="give credentials in the environment, as fsspec takes them",
        )
    fs, path = _filesystem(url)
    try:
        info = fs.info(path)
    except FileNotFoundError as error:
        raise NotFoundError(f"no file at {url}", code=ErrorCode.NO_FILE) from error
    except OSError as error:
        raise _unreadable(url, error) from error
    if info.get("type", "file") != "file":
        raise InvalidInputError(f"{url} is a {info['type']}, not a file", code=ErrorCode.BAD_PATH)
    version = _version(info)
    if version is None or info.get("size") is None:
        raise InvalidInputError(
            f"{url} tells neither its size nor a version: a change could not be noticed", hint="put a copy of it"
        )
    return External(url, int(info["size"]), version)


def read_external(value: External, start: int | None = None, end: int | None = None) -> bytes:
    """Return the content, or its bytes [start, end), of a file that was put by reference.

    Raises
    ------
    ConflictError
        The file is not the one that was put: its size or etag differ.
    NotFoundError
        It is gone.
    BackendError
        It cannot be read.
    """
    low, high, _ = slice(start, end).indices(value.size)
    check_external(value)
    with _open(value) as file:
        file.seek(low)
        data = file.read(max(0, high - low))
    check_external(value)
    if len(data) != max(0, high - low):
        raise _changed(value, f"its bytes {low} to {high} are {len(data)} bytes")
    return data


def open_external(value: External) -> BinaryIO:
    """Return a file that was put by reference as a seekable binary file; checked when opened and at its end."""
    check_external(value)
    return io.BufferedReader(_LinkedFile(value), _BUFFER_BYTES)


def copy_external(value: External, dest: BinaryIO) -> None:
    """Write the content of a file that was put by reference to `dest`; one MiB is in memory."""
    with open_external(value) as source:
        while part := source.read(_COPY_BYTES):
            dest.write(part)


def check_external(value: External) -> None:
    """Refuse a file that is not the one that was put. One request.

    Raises
    ------
    ConflictError
        Its size or etag differ.
    NotFoundError
        It is gone.
    """
    try:
        now = describe_external(value.url)
    except NotFoundError as error:
        raise NotFoundError(
            f"{value.url}, which was put as a link, is gone",
            code=ErrorCode.NO_FILE,
            hint="a link needs its source: bring it back, or put it anew from elsewhere",
        ) from error
    if (now.size, now.etag) != (value.size, value.etag):
        raise _changed(value, f"{now.size} bytes, {now.etag}")


def local_link(file: str | Path) -> str:
    """Return the URL that links to a local file."""
    return f"file://{Path(file).absolute()}"


class _LinkedFile(io.RawIOBase):
    """A linked file; the check at its end tells who read all of it that it did not change meanwhile."""

    def __init__(self, value: External) -> None:
        self._value = value
        self._file = _open(value)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # RawIOBase promises a writable buffer
        try:
            data = self._file.read(len(view))
        except FileNotFoundError as error:
            raise _changed(self._value, "nothing") from error
        except OSError as error:
            raise _unreadable(self._value.url, error) from error
        if not data and len(view):
            check_external(self._value)
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _open(value: External) -> BinaryIO:
    fs, path = _filesystem(value.url)
    try:
        file: BinaryIO = fs.open(path, "rb")
    except OSError as error:
        raise _unreadable(value.url, error) from error
    return file


def _changed(value: External, found: str) -> ConflictError:
    return ConflictError(
        f"{value.url} changed since it was put: expected {value.size} bytes, {value.etag}; found {found}",
        hint="put it again, or put a copy instead of a link",
    )


def _version(info: dict[str, Any]) -> str | None:
    """Return what identifies this version of a file: the server's etag, else its time."""
    for name in _VERSION_NAMES:
        if info.get(name):
            return f"etag {str(info[name]).strip(chr(34))}"
    for name in _TIME_NAMES:
        if info.get(name):
            return f"time {info[name]}"
    return None


def _unreadable(url: str, error: OSError) -> BackendError:
    denied = isinstance(error, PermissionError)
    code = ErrorCode.PERMISSION if denied else ErrorCode.BACKEND
    return BackendError(f"cannot read {url}: {error.strerror or error}", code=code)


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _filesystem(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        fs, path = url_to_fs(url, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise InvalidInputError(f"cannot read {url}: {error}") from error
    return fs, path
