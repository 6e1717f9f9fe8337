from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.digest import Digest, digest
from dmlpipe.storage.errors import CorruptError, FormatError
from dmlpipe.storage.objects.index import MAGIC, BlobIndex, index_key
from dmlpipe.storage.objects.pack import Location
from dmlpipe.storage.store import Store

names = st.binary(min_size=32, max_size=32).map(Digest)
locations = st.builds(
    Location,
    st.sampled_from(["packs/aa/1.pack", "packs/bb/2.pack", "results/j/000000/w-00000001.seg"]),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 255),
)


@given(st.dictionaries(names, locations, max_size=60), names)
def test_every_hash_is_found_and_no_other(entries: dict[Digest, Location], other: Digest) -> None:
    index = BlobIndex(BlobIndex.build(entries.items()))
    assert {name: index.find(name) for name in entries} == entries
    assert index.find(other) == entries.get(other)
    assert list(index) == sorted(entries.items())
    assert len(index) == len(entries)
    assert set(index.containers) == {at.key for at in entries.values()}


@given(st.dictionaries(names, locations, max_size=10), st.randoms(use_true_random=False))
def test_the_order_of_entries_does_not_matter(entries: dict[Digest, Location], rng: object) -> None:
    items = list(entries.items())
    rng.shuffle(items)  # type: ignore[attr-defined]  # hypothesis' Random
    assert BlobIndex.build(items) == BlobIndex.build(entries.items())


def test_of_two_places_of_one_blob_the_first_counts() -> None:
    one, two = Location("a", 1, 1, 1, 0), Location("b", 2, 2, 2, 0)
    name = digest(b"x")
    assert BlobIndex(BlobIndex.build([(name, one), (name, two)])).find(name) == one


def test_a_key_is_the_hash_of_the_bytes() -> None:
    data = BlobIndex.build([])
    assert index_key(data) == f"index/{digest(data).hex()}.idx"


def damaged(**change: bytes) -> bytes:
    head = change.get("head", msgspec.msgpack.encode([1, ["a"]]))
    return change.get("magic", MAGIC) + len(head).to_bytes(4, "little") + head + change.get("records", b"")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", CorruptError),
        (MAGIC, CorruptError),
        (damaged(magic=b"notindex"), CorruptError),
        (damaged(head=b"\xc1"), CorruptError),
        (damaged(records=b"1" * 52), CorruptError),
        (damaged(head=msgspec.msgpack.encode([2, []])), FormatError),
    ],
)
def test_what_is_no_index_is_refused(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        BlobIndex(data)


def test_a_record_that_names_no_container_is_noticed() -> None:
    index = BlobIndex(damaged(records=b"\x07" * 53))
    with pytest.raises(CorruptError, match="container"):
        index.find(Digest(b"\x07" * 32))


def test_blobs_are_found_one_by_one_however_often_and_whatever_comes_later(tmp_path: Path) -> None:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    contents: dict[str, bytes] = {}
    for number in range(6):
        new = {f"{number}-{letter}": f"{number} {letter} ".encode() * 100 for letter in "abcdefgh"}
        store.put("r", *new.items())
        contents |= new
        other = Store.open(store.url, cache_dir=tmp_path / "other")
        for reader in (store, other):
            for _ in range(3):
                assert {name: reader["r"].read_bytes(name) for name in contents} == contents
        assert store.objects.known(Digest(bytes(32))) is None
