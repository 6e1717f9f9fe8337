"""Objects in the memory of this process: for tests and for trying things out.

All `MemoryBackend`s of one name share their objects, for as long as the process lives, or until they are freed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..digest import Data
from ..errors import NotFoundError
from .base import Backend, Properties, check_key, check_range


class _Space:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.objects: dict[str, bytes] = {}


_spaces: dict[str, _Space] = {}
_spaces_lock = threading.Lock()


def memory_names() -> frozenset[str]:
    """Names that were opened and not freed."""
    with _spaces_lock:
        return frozenset(_spaces)


def free_memory(name: str) -> None:
    """Forget what is under a name: who opens it from now on finds nothing. Who has it open keeps it."""
    with _spaces_lock:
        _spaces.pop(name, None)


class MemoryBackend(Backend):
    """Objects of this process under a name.

    Parameters
    ----------
    name
        The rest of the URL ``memory://name``.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        with _spaces_lock:
            self._space = _spaces.setdefault(name, _Space())

    @property
    def url(self) -> str:
        """``memory://name``."""
        return f"memory://{self._name}"

    @property
    def properties(self) -> Properties:
        """Not shared: another process sees nothing."""
        return Properties(remote=False, shared=False, hard_links=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return (MemoryBackend, (self._name,))

    def __repr__(self) -> str:
        return f"MemoryBackend({self._name!r})"

    def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
        """See `Backend.put_if_absent`."""
        check_key(key)
        body = bytes(data)
        with self._space.lock:
            if key in self._space.objects:
                return False
            self._space.objects[key] = body
            return True

    def put(self, key: str, data: Data) -> None:
        """See `Backend.put`."""
        check_key(key)
        body = bytes(data)
        with self._space.lock:
            self._space.objects[key] = body

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """See `Backend.get`."""
        check_key(key)
        check_range(key, start, end)
        body = self._space.objects.get(key)
        if body is None:
            raise NotFoundError(f"no object {key} in {self.url}")
        return body if start is None and end is None else body[start:end]

    def size(self, key: str) -> int | None:
        """See `Backend.size`."""
        check_key(key)
        body = self._space.objects.get(key)
        return None if body is None else len(body)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """See `Backend.list`."""
        with self._space.lock:
            found = sorted((key, len(body)) for key, body in self._space.objects.items() if key.startswith(prefix))
        yield from found

    def list_folders(self, prefix: str = "") -> Sequence[str]:
        """See `Backend.list_folders`."""
        folder = prefix.rstrip("/") + "/" if prefix else ""
        names = {key[len(folder) :].partition("/") for key, _ in self.list(folder)}
        return sorted({name for name, slash, _ in names if slash})

    def delete_many(self, keys: Iterable[str]) -> None:
        """See `Backend.delete_many`."""
        with self._space.lock:
            for key in keys:
                self._space.objects.pop(key, None)

    def sync(self, keys: Iterable[str]) -> None:
        """Check that the objects exist: memory survives nothing anyway."""
        for key in keys:
            if key not in self._space.objects:
                raise NotFoundError(f"no object {key} in {self.url}")
