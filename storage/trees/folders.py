"""What stands right in a folder of a sorted map of paths, found by seeking over what is deeper."""

from __future__ import annotations

from collections.abc import Callable, Iterator

Scan = Callable[[bytes, bytes | None], Iterator[tuple[bytes, bytes]]]
"""Yields (path, value) for start <= path < stop, sorted; a stop of None means to the end."""

_AFTER_SLASH = b"0"
"""The byte after the slash: whatever is below ``a/`` sorts before ``a0``."""


def list_folder(scan: Scan, folder: bytes, starting: bytes = b"") -> Iterator[tuple[bytes, bytes | None]]:
    """Yield (name, value) of what is right in a folder; the value of a folder is None.

    Parameters
    ----------
    scan
        Looks through the map.
    folder
        Path without slash at its end; empty: the root.
    starting
        Only names that begin so.

    Notes
    -----
    One scan, and one more for each folder that is yielded: the inside of a folder is passed over.
    """
    below = folder + b"/" if folder else b""
    start: bytes | None = below + starting
    stop = after_prefix(below + starting)
    while start is not None:
        entries = scan(start, stop)
        start = None
        for path, value in entries:
            name, slash, _ = path[len(below) :].partition(b"/")
            if slash:
                yield name, None
                start = below + name + _AFTER_SLASH
                break
            yield name, value


def after_prefix(prefix: bytes) -> bytes | None:
    """Return the smallest path after all that begin with `prefix`; None if there is no end to them.

    Examples
    --------
    >>> after_prefix(b"a/")
    b'a0'
    """
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None
