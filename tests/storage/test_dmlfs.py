"""``dml://`` through fsspec: its own abstract suite, and what is particular to commits and sessions."""

from __future__ import annotations

import errno
import gzip
import json
import os
import pickle
import posixpath
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import fsspec.tests.abstract as abstract
import pytest
from fsspec import AbstractFileSystem
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.backend import open_backend
from dmlpipe.storage.dmlfs import DmlFileSystem
from dmlpipe.storage.errors import CorruptError, FormatError, InvalidInputError
from dmlpipe.storage.filesystem import CommitFileSystem, SessionFileSystem
from dmlpipe.storage.session import Session
from dmlpipe.storage.store import Store, read_info
from dmlpipe.storage.testing import CountingBackend
from dmlpipe.storage.value import WHOLE_MAX_BYTES

TREE = {
    "a.txt": b"alpha",
    "b/1.txt": b"one",
    "b/2.txt": b"two" * 100,
    "b/c/3.txt": b"three",
    "b.txt": b"beside the folder",
    "d/e/f/4.bin": bytes(range(256)) * 20,
    "é/ü.txt": b"accents",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")


@pytest.fixture
def fs(store: Store) -> DmlFileSystem:
    store.put("r", *TREE.items())
    return DmlFileSystem(store)


@pytest.fixture
def session(store: Store) -> Iterator[Session]:
    store.put("r", *TREE.items())
    session = store.commit("r", message="edits")
    yield session
    session.abort()


# --- fsspec's own suite ---


class OnSession(abstract.AbstractFixtures):
    """A session on a branch, which takes writes."""

    @pytest.fixture
    def fs(self, store: Store) -> Iterator[CommitFileSystem]:
        with store.commit("w", create=True) as session:
            yield session.fs

    @pytest.fixture
    def fs_join(self) -> Any:
        return posixpath.join

    @pytest.fixture(params=["w@master", "/top", "w/top"])
    def fs_path(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class TestSessionCopy(abstract.AbstractCopyTests, OnSession):
    pass


class TestSessionGet(abstract.AbstractGetTests, OnSession):
    pass


class TestSessionPut(abstract.AbstractPutTests, OnSession):
    pass


class TestSessionPipe(abstract.AbstractPipeTests, OnSession):
    pass


class TestSessionOpen(abstract.AbstractOpenTests, OnSession):
    pass


class OnCommit(abstract.AbstractFixtures):
    """A commit; the scenarios are written by a session that is committed before the test begins."""

    @pytest.fixture
    def fs(self, store: Store) -> DmlFileSystem:
        store.create_repo("w")
        return DmlFileSystem(store)

    @pytest.fixture
    def fs_join(self) -> Any:
        return posixpath.join

    @pytest.fixture
    def fs_path(self) -> str:
        return "w@master"

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False

    def _made(self, fs: DmlFileSystem, build: Any) -> str:
        with fs.store.commit("w") as session:
            source = build(session.fs, posixpath.join, "w@master")
        fs.invalidate_cache()
        return str(source)

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self, fs: DmlFileSystem) -> str:
        return self._made(fs, self._bulk_operations_scenario_0)

    @pytest.fixture
    def fs_glob_edge_cases_files(self, fs: DmlFileSystem) -> str:
        return self._made(fs, self._glob_edge_cases_files)

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self, fs: DmlFileSystem) -> str:
        return self._made(fs, self._dir_and_file_with_same_name_prefix)

    @pytest.fixture
    def fs_10_files_with_hashed_names(self, fs: DmlFileSystem) -> str:
        return self._made(fs, self._10_files_with_hashed_names)


class TestCommitGet(abstract.AbstractGetTests, OnCommit):
    test_get_directory_recursive = None  # makes folders in the commit


class TestCommitOpen(OnCommit):
    def test_open_exclusive(self, fs: DmlFileSystem, fs_bulk_operations_scenario_0: str) -> None:
        with pytest.raises(OSError) as caught:
            fs.open(f"{fs_bulk_operations_scenario_0}/new", "xb")
        assert caught.value.errno == errno.EROFS
