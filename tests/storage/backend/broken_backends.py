"""Backends that each break one rule of the contract: the suite must notice every one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dmlpipe.storage.backend import Draft, Request
from dmlpipe.storage.backend.local import LocalBackend
from dmlpipe.storage.digest import Data
from dmlpipe.storage.errors import NotFoundError

_SLOW_S = 0.05
"""How long the medium takes, so that what can go wrong does."""


class ChecksThenWrites(LocalBackend):
    """What fsspec's inherited `pipe_file(mode="create")` does."""

    def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
        path = self.path_of(key)
        if path.exists():
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        time.sleep(_SLOW_S)
        path.write_bytes(data)
        return True


class WritesInPlace(LocalBackend):
    """`open("xb")`: exclusive, but the content comes bit by bit."""

    def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
        path = self.path_of(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(path, "xb", buffering=0) as file:
                file.write(data[: len(data) // 2])
                time.sleep(_SLOW_S)
                file.write(data[len(data) // 2 :])
        except FileExistsError:
            return False
        return True


class AlwaysWins(LocalBackend):
    """A server that ignores If-None-Match."""

    def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
        self.put(key, data)
        return True


class LosesQuietly(LocalBackend):
    """Says that it made what was there."""

    def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
        super().put_if_absent(key, data)
        return True


class CachesListings(LocalBackend):
    """fsspec's default for remote file systems."""

    def __init__(self, root: Path | str, *, fsync: str | None = None) -> None:
        super().__init__(root, fsync=fsync)
        self._listed: dict[str, list[tuple[str, int]]] = {}

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        if prefix not in self._listed:
            self._listed[prefix] = list(super().list(prefix))
        yield from self._listed[prefix]


class RemembersAbsence(LocalBackend):
    """A negative cache."""

    def __init__(self, root: Path | str, *, fsync: str | None = None) -> None:
        super().__init__(root, fsync=fsync)
        self._absent: set[str] = set()

    def size(self, key: str) -> int | None:
        found = None if key in self._absent else super().size(key)
        if found is None:
            self._absent.add(key)
        return found


class ListsUnsorted(LocalBackend):
    """In the order of the medium."""

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        yield from sorted(super().list(prefix), key=lambda item: item[0][::-1])


class ListsByFolder(LocalBackend):
    """Takes a prefix for a folder."""

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        yield from super().list(prefix.rstrip("/") + "/" if prefix else "")


class ListsTemporaries(LocalBackend):
    """Shows what a folder holds besides objects."""

    def list_folders(self, prefix: str = "") -> Sequence[str]:
        folder = f"{self.properties.path}/{prefix}"
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


class ReadsInclusive(LocalBackend):
    """Takes a range as HTTP does."""

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        return super().get(key, start, None if end is None else end + 1)


class ReadsFromTheStart(LocalBackend):
    """Does not know suffixes."""

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        return super().get(key, max(0, start or 0), end)


class MissingIsEmpty(LocalBackend):
    """Does not tell nothing from no object."""

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        try:
            return super().get(key, start, end)
        except NotFoundError:
            return b""


class ShufflesBatches(LocalBackend):
    """Returns what came first first."""

    def get_many(self, requests: Sequence[Request]) -> Sequence[bytes]:
        return list(reversed(super().get_many(requests)))


class DeletesNothingMissing(LocalBackend):
    """Fails on a key that is gone already."""

    def delete_many(self, keys: Iterable[str]) -> None:
        for key in keys:
            os.unlink(self.path_of(key))


class FollowsAnyKey(LocalBackend):
    """Does not look at keys."""

    def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
        return super().put_if_absent(key.replace("..", "up").strip("/.") or "root", data)


class KeepsOldBytes(LocalBackend):
    """Serves ranges from what it read first."""

    def __init__(self, root: Path | str, *, fsync: str | None = None) -> None:
        super().__init__(root, fsync=fsync)
        self._first: dict[str, bytes] = {}

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        if start is None and end is None:
            return super().get(key)
        return self._first.setdefault(key, super().get(key))[start:end]


class DiesInChildren(LocalBackend):
    """Belongs to the process that made it."""

    def __init__(self, root: Path | str, *, fsync: str | None = None) -> None:
        super().__init__(root, fsync=fsync)
        self._pid = os.getpid()

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        if os.getpid() != self._pid:
            raise RuntimeError("not fork-safe")
        return super().get(key, start, end)


class ShowsDrafts(LocalBackend):
    """Makes drafts where objects are looked for."""

    def draft(self) -> Draft:
        draft = super().draft()
        self.put("draft", b"begun")
        return draft


BROKEN: Sequence[tuple[type[LocalBackend], str]] = [
    (ChecksThenWrites, "test_one_of_racing_processes_wins"),
    (WritesInPlace, "test_a_killed_writer_leaves_whole_objects_only"),
    (AlwaysWins, "test_an_existing_object_is_not_replaced_by_create"),
    (AlwaysWins, "test_the_probe_accepts_it"),
    (AlwaysWins, "test_one_of_racing_threads_wins"),
    (LosesQuietly, "test_empty_objects_are_objects"),
    (LosesQuietly, "test_the_probe_accepts_it"),
    (LosesQuietly, "test_many_are_created_together"),
    (CachesListings, "test_what_another_client_writes_is_seen_at_once"),
    (RemembersAbsence, "test_what_another_client_writes_is_seen_at_once"),
    (ListsUnsorted, "test_lists_are_sorted_by_key_with_sizes"),
    (ListsByFolder, "test_a_prefix_is_a_string"),
    (ListsTemporaries, "test_folders_are_listed_by_name_without_objects"),
    (ReadsInclusive, "test_ranges_are_slices"),
    (ReadsFromTheStart, "test_ranges_are_slices"),
    (MissingIsEmpty, "test_what_is_not_there_is_not_found"),
    (ShufflesBatches, "test_many_are_created_together"),
    (DeletesNothingMissing, "test_deleted_objects_are_gone_and_may_be_made_again"),
    (FollowsAnyKey, "test_a_key_cannot_leave_the_root"),
    (KeepsOldBytes, "test_put_replaces"),
    (ShowsDrafts, "test_a_draft_becomes_an_object_unless_there_is_one"),
    (DiesInChildren, "test_a_forked_child_can_use_it"),
]
"""(what is broken, a test that notices)."""
