"""Names of files inside a commit: the rules, checked before anything is written.

A path in a tree is UTF-8 (NFC) without a leading slash: ``a/b.png``. It has 1 to 4,096 bytes and no part that is
empty, ``.`` or ``..``; NUL stands nowhere. People write and read it with a leading slash.
"""

from __future__ import annotations

import unicodedata

from .errors import ErrorCode, InvalidInputError

PATH_MAX_BYTES = 4096


def normalize_path(text: str | bytes) -> bytes:
    """Return the tree path that `text` means.

    Leading and trailing slashes are dropped, the rest is normalised to NFC.

    Raises
    ------
    InvalidInputError
        The name breaks a rule (code ``bad-path``); the message says which.

    Examples
    --------
    >>> normalize_path("/a/b.png")
    b'a/b.png'
    """
    path = normalize_folder(text)
    if not path:
        raise InvalidInputError(f"{_show(text)} names no file: the path is empty", code=ErrorCode.BAD_PATH)
    return path


def normalize_folder(text: str | bytes) -> bytes:
    """Return the tree path of a folder: like `normalize_path`, but the root (``/`` or nothing) is ``b""``."""
    if isinstance(text, bytes):
        try:
            name = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"{_show(text)} is not UTF-8", code=ErrorCode.BAD_PATH) from error
    else:
        name = text
    name = name.strip("/")
    if not name:
        return b""
    if not name.isascii():
        name = unicodedata.normalize("NFC", name)
    if "\0" in name:
        raise InvalidInputError(f"{_show(text)} has a NUL in it", code=ErrorCode.BAD_PATH)
    for part in name.split("/"):
        if part in ("", ".", ".."):
            what = f"the part {part!r}" if part else "an empty part"
            raise InvalidInputError(f"{_show(text)} has {what}", code=ErrorCode.BAD_PATH)
    try:
        path = name.encode("utf-8")
    except UnicodeEncodeError as error:  # surrogates: a file name that was not UTF-8
        raise InvalidInputError(f"{_show(text)} is not UTF-8", code=ErrorCode.BAD_PATH) from error
    if len(path) > PATH_MAX_BYTES:
        raise InvalidInputError(
            f"{_show(text[:60])}... has {len(path)} bytes; at most {PATH_MAX_BYTES} can be stored",
            code=ErrorCode.BAD_PATH,
        )
    return path


def join_path(folder: bytes, name: bytes) -> bytes:
    """Return `name` below `folder` (``b""`` is the root)."""
    return folder + b"/" + name if folder else name


def folders_of(path: bytes) -> list[bytes]:
    """Folders that `path` implies, outermost first.

    Examples
    --------
    >>> folders_of(b"a/b/c.png")
    [b'a', b'a/b']
    """
    found = []
    at = path.find(b"/")
    while at != -1:
        found.append(path[:at])
        at = path.find(b"/", at + 1)
    return found


def show_path(path: bytes) -> str:
    """Return a tree path as people write it: ``/a/b.png``."""
    return "/" + path.decode("utf-8", "backslashreplace")


def _show(text: str | bytes) -> str:
    shown = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
    return "file name " + repr(shown)
