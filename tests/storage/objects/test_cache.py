from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dmlpipe.storage.errors import NotFoundError
from dmlpipe.storage.objects.cache import FileCache, content_name
from dmlpipe.storage.objects.local_value import value_of_file
from dmlpipe.storage.objects.value import Inline, Pieces, Value, Whole
from dmlpipe.storage.store import Store

SIZES = [0, 1, 128, 129, 5000, 1 << 20, (1 << 20) + 1, (16 << 20) + 3]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")


def put(store: Store, data: bytes, name: str = "f") -> Value:
    return store.put("r", (name, data), create=True).value(name)


@pytest.mark.parametrize("size", SIZES)
def test_an_entry_is_the_whole_read_only_content(store: Store, size: int) -> None:
    data = os.urandom(size)
    value = put(store, data)
    path = store.cache.get(value, store.objects)
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o777 == 0o444
    assert path.name == content_name(value).hex()[2:]
    assert store.cache.get(value, store.objects) == path
    assert store.cache.is_unchanged(value)
    assert value_of_file(path) == value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_the_value_of_a_file_is_what_storing_it_gives(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)
    store = Store.init(f"memory://cache-{data.hex()[:40]}-{len(data)}-{os.urandom(8).hex()}")
    assert value_of_file(file) == put(store, data)


def test_kinds_of_values_have_names() -> None:
    assert len({content_name(value) for value in (Inline(b"a"), Whole(1, b"1" * 32), Pieces(1, b"2" * 32))}) == 3


def test_an_entry_that_somebody_wrote_to_is_fetched_anew(store: Store, tmp_path: Path) -> None:
    data = os.urandom(500)
    value = put(store, data)
    path = store.cache.get(value, store.objects)
    link = tmp_path / "link"
    os.link(path, link)
    os.chmod(link, 0o644)
    link.write_bytes(b"x" * 500)
    assert not store.cache.is_unchanged(value)
    assert store.cache.get(value, store.objects).read_bytes() == data
    assert link.read_bytes() == b"x" * 500


def test_an_entry_that_was_only_touched_is_verified_and_kept(store: Store) -> None:
    value = put(store, os.urandom(500))
    path = store.cache.get(value, store.objects)
    inode = path.stat().st_ino
    os.utime(path)
    assert not store.cache.is_unchanged(value)
    assert store.cache.get(value, store.objects).stat().st_ino == inode
    assert store.cache.is_unchanged(value)


def test_drop_and_missing_content(store: Store) -> None:
    value = put(store, os.urandom(500))
    path = store.cache.get(value, store.objects)
    store.cache.drop(value)
    store.cache.drop(value)
    assert not path.exists()
    with pytest.raises(NotFoundError):
        store.cache.get(Whole(500, b"0" * 32), store.objects)
    assert not list(store.cache.folder.glob("??/.*"))


def test_trim_removes_what_was_used_longest_ago(store: Store) -> None:
    values = [put(store, os.urandom(1000), str(index)) for index in range(4)]
    for age, value in enumerate(values):
        path = store.cache.get(value, store.objects)
        os.utime(path, ns=(10**18 + age * 10**9, path.stat().st_mtime_ns))
    assert store.cache.trim(2000) == 2000
    assert [store.cache.path_of(value).exists() for value in values] == [False, False, True, True]
    store.cache.get(values[3], store.objects)
    assert store.cache.trim(0) == 1000
    assert store.cache.path_of(values[3]).exists()


def test_threads_that_want_the_same_file_get_the_same_file(store: Store, tmp_path: Path) -> None:
    data = os.urandom(200_000)
    value = put(store, data)
    cache = FileCache(tmp_path / "shared")
    gate = threading.Barrier(6)
    got: list[bytes] = []

    def fetch() -> None:
        gate.wait(timeout=10)
        got.append(cache.get(value, store.objects).read_bytes())

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert got == [data] * 6
    assert len(list((tmp_path / "shared").glob("??/*"))) == 1
