"""From a URL to a backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError
from .base import Backend
from .local import FSYNC_MODES, LocalBackend
from .memory import MemoryBackend


def open_backend(url: str, storage_options: Mapping[str, Any] | None = None) -> Backend:
    """Return the backend for `url`. Makes no request and writes nothing.

    Parameters
    ----------
    url
        A path (``./x``, ``/x``), ``file://``, ``memory://name``, or any URL that fsspec knows (``s3://bucket/prefix``).
    storage_options
        Passed to fsspec for remote URLs; a local folder takes ``fsync`` (``"commit"``, ``"always"``, ``"never"``).

    Raises
    ------
    InvalidInputError
        The URL has no path, its protocol is unknown, or an option does not fit.
    """
    options = dict(storage_options or {})
    protocol, found, rest = url.partition("://")
    if not found:
        protocol, rest = "file", url
    match protocol:
        case "file" | "local":
            if not rest:
                raise InvalidInputError(f"store URL {url!r} has no path")
            fsync = options.pop("fsync", None)
            if fsync is not None and fsync not in FSYNC_MODES:
                raise InvalidInputError(f"fsync must be one of {', '.join(FSYNC_MODES)}, got {fsync!r}")
            _refuse(options, url)
            return LocalBackend(Path(rest), fsync=fsync)
        case "memory":
            name = rest.strip("/")
            if not name:
                raise InvalidInputError(f"store URL {url!r} has no name: expected memory://NAME")
            _refuse(options, url)
            return MemoryBackend(name)
        case _:
            # fsspec and what it loads for a protocol are slow to import: only those who use them pay.
            from .remote import RemoteBackend

            return RemoteBackend(url, options)


def _refuse(options: Mapping[str, Any], url: str) -> None:
    if options:
        raise InvalidInputError(f"{url} takes no storage option {', '.join(sorted(options))}")
