"""Single files, bytes and streams on their way into a session: stored, added to what is there, or linked."""

from __future__ import annotations

import os
from typing import BinaryIO

from ..errors import ErrorCode, InvalidInputError
from ..objects.external import describe_external, local_link
from ..objects.value import PACK_BELOW_BYTES, Value
from ..objects.writer import ObjectWriter
from ..source_files import SourceFile

_COPY_BYTES = 1 << 20


def is_large(item: SourceFile) -> bool:
    """Whether this is a local file that is read in pieces."""
    try:
        return item.file is not None and os.stat(item.file).st_size >= PACK_BELOW_BYTES
    except OSError:
        return False  # whoever opens it says why


def store_source(writer: ObjectWriter, item: SourceFile) -> Value:
    """Store what is given, and return its value.

    Raises
    ------
    InvalidInputError
        It cannot be read.
    """
    if item.data is not None:
        return writer.put(item.data)
    if item.file is not None:
        try:
            return writer.put_file(item.file)
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise _unreadable(item.file, error) from error
    assert item.stream is not None
    with item.stream() as stream:
        return writer.put_file(stream)


def store_behind(writer: ObjectWriter, before: BinaryIO | None, item: SourceFile) -> Value:
    """Store what `before` holds, followed by what is given, and return the value.

    Raises
    ------
    InvalidInputError
        It cannot be read.
    """
    from tempfile import TemporaryFile

    with TemporaryFile() as joined:
        if before is not None:
            _copy(before, joined)
        if item.data is not None:
            joined.write(item.data)
        else:
            with _open(item) as stream:
                _copy(stream, joined)
        joined.seek(0)
        return writer.put_file(joined)


def link_source(item: SourceFile) -> Value:
    """Return a value that says where a file is.

    Raises
    ------
    InvalidInputError
        It is in no file.
    """
    url = local_link(item.file) if item.file is not None else item.url
    if not url:
        raise InvalidInputError(f"{item.origin} is given as content: only files and URLs can be linked")
    return describe_external(url)


def _open(item: SourceFile) -> BinaryIO:
    if item.stream is not None:
        return item.stream()
    assert item.file is not None
    try:
        return open(item.file, "rb")
    except OSError as error:
        raise _unreadable(item.file, error) from error


def _unreadable(file: str, error: OSError) -> InvalidInputError:
    return InvalidInputError(f"cannot read {file}: {error.strerror}", code=ErrorCode.NO_FILE)


def _copy(source: BinaryIO, dest: BinaryIO) -> None:
    while part := source.read(_COPY_BYTES):
        dest.write(part)
