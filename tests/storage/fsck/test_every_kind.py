"""A byte flipped, an end cut off, an object gone, in each kind of object that a store holds: noticed, never served."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.errors import DmlpipeError
from dmlpipe.storage.fsck.contents import check_object
from dmlpipe.storage.fsck.history import read_history
from dmlpipe.storage.fsck.report import Findings
from dmlpipe.storage.info import read_info
from dmlpipe.storage.layout import Kind, kind_of
from dmlpipe.storage.ledger.heads import RememberedHead
from dmlpipe.storage.objects.compression import decompress
from dmlpipe.storage.objects.fold import FoldObject, decode_fold, fold_key
from dmlpipe.storage.objects.node import NodeStore
from dmlpipe.storage.objects.segment import segment_key
from dmlpipe.storage.sealed import encode_json, encode_msgpack
from dmlpipe.storage.sessions.parts import OpenInfo, read_open
from dmlpipe.storage.store import Store
from tests.storage.fsck.everything import RUNNING, bytes_of, fill, small_objects

_numbers = itertools.count()

UNCHECKED = {
    Kind.CLOSED: "that it is there is all that it says",
    Kind.HEARTBEAT: "overwritten all the time; a wrong one delays a collection, or a take-over",
    Kind.MARKS: "for people; what `gc --sweep` takes is judged anew",
    Kind.QUARANTINE: "for people; it is damaged already",
}
"""Kinds of which nothing is served, and why nobody compares their bytes."""

MAY_GO = {
    Kind.CHECKPOINT: "derived, and readers do without",
    Kind.FOLD: "derived: the job's segments are read instead",
    Kind.PART: "nothing refers to it before its commit is made: as if its writer had died before",
    **UNCHECKED,
}
"""Kinds whose loss is no damage, and why."""

FRAMED = {Kind.NODE, Kind.PART, Kind.CHECKPOINT}
"""zstd has several frames for one content: what is served is what was put, and that alone is named."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch:
        small_objects(patch)
        store = Store.init(f"memory://every-kind-{next(_numbers)}", cache_dir=tmp_path_factory.mktemp("every"))
        fill(store)
        yield store


@pytest.fixture
def store(made: Store, tmp_path: Path) -> Store:
    copy = MemoryBackend(f"every-kind-{next(_numbers)}")
    for key, body in bytes_of(made.backend).items():
        copy.put(key, body)
    return Store.open(copy.url, cache_dir=tmp_path / "cache")


def example_of(store: Store) -> dict[Kind, str]:
    """The smallest object of each kind that something refers to."""
    found: dict[Kind, str] = {}
    for key, _ in sorted(store.backend.list(), key=lambda item: item[1]):
        kind = kind_of(key)
        if kind is not None:
            found.setdefault(kind, key)
    published = sorted(store.refresh().packs(), key=lambda key: store.backend.size(key) or 0)
    commit = store["r"].id
    (part,) = (key for key, _ in store.backend.list("sessions/") if key.endswith(".mp"))
    return found | {
        Kind.ENTRY: "ledger/000000000/000000000020.json",
        Kind.NODE: f"nodes/{commit[:2]}/{commit[2:]}",
        Kind.PACK: next(key for key in published if key.startswith("packs/")),
        Kind.SEGMENT: next(key for key in published if key.startswith("results/")),
        Kind.OPEN_COMMIT: part.rpartition("/")[0] + "/open.json",
    }


def is_noticed(store: Store, key: str, kind: Kind) -> bool:
    """Whether whoever reads the object alone finds that it is damaged: as `fsck` does, byte by byte."""
    if kind in (Kind.ENTRY, Kind.CHECKPOINT):
        findings = Findings()
        read_history(store.backend, NodeStore(store.backend), findings, None)
        return bool(findings.found)
    try:
        if kind is Kind.INFO:
            read_info(store.backend)
        else:
            check_object(store.backend, key)
    except DmlpipeError:
        return True
    return False


def everything_read(store: Store, place: Path) -> dict[str, bytes | None]:
    """All that a reader can have; None for what is refused."""
    found: dict[str, bytes | None] = {}
    try:
        fresh = Store.open(store.url, cache_dir=place, read_only=True)
        refs = [f"{repo}@{head.commit}" for repo, _ in fresh.refresh().repos() for head in fresh.state.history(repo)]
    except DmlpipeError:
        return {}
    for ref in refs:
        try:
            for info in fresh[ref].ls(recursive=True):
                name = f"{ref}:{info.path}"
                found[name] = None
                found[name] = fresh[ref].read_bytes(info.path)
        except DmlpipeError:
            continue
    return found


def test_the_store_holds_every_kind_of_object_and_nothing_else(made: Store) -> None:
    keys = {key: kind_of(key) for key, _ in made.backend.list() if key != ".gitignore"}
    assert [key for key, kind in keys.items() if kind is None] == []
    assert set(keys.values()) == set(Kind), "put one of each kind into everything.py"
    assert made.fsck().ok


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in UNCHECKED], ids=lambda kind: kind.name)
@pytest.mark.parametrize("how", ["flipped", "cut"])
def test_every_damaged_byte_is_noticed(store: Store, kind: Kind, how: str) -> None:
    key = example_of(store)[kind]
    body = store.backend.get(key)
    assert len(body) <= 4500, f"{kind.name}: make it smaller, or the test is slow"
    # Folding the ledger for each byte takes long: every seventh one of what it alone can judge.
    step = 7 if kind in (Kind.ENTRY, Kind.CHECKPOINT) else 1
    for position in range(0, len(body), step):
        flipped = bytes([body[position] ^ 1 << position % 8])
        changed = body[:position] + (b"" if how == "cut" else flipped + body[position + 1 :])
        store.backend.put(key, changed)
        if not is_noticed(store, key, kind):
            assert kind in FRAMED, (key, position)
            assert decompress(changed, key) == decompress(body, key)
    store.backend.put(key, body)
    assert not is_noticed(store, key, kind)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in UNCHECKED], ids=lambda kind: kind.name)
def test_what_is_damaged_is_named_and_never_served(store: Store, tmp_path: Path, kind: Kind) -> None:
    key = example_of(store)[kind]
    body = store.backend.get(key)
    sound = everything_read(store, tmp_path / "sound")
    assert len(sound) > 30
    assert None not in sound.values()
    middle = bytearray(body)
    middle[len(body) // 2] ^= 0x10
    for number, changed in enumerate((bytes(middle), body[: len(body) // 2], b"", body + b"x", None)):
        if changed is None:
            store.backend.delete_many([key])
        else:
            store.backend.put(key, changed)
        read = everything_read(store, tmp_path / f"cache-{number}")
        assert {name: data for name, data in read.items() if data not in (None, sound.get(name))} == {}
        if changed is None and kind in MAY_GO:
            assert read == sound
            assert store.fsck().ok
        elif kind is Kind.INFO:
            with pytest.raises(DmlpipeError):
                Store.open(store.url, cache_dir=tmp_path / "again")
        elif not (kind in FRAMED and changed == bytes(middle) and not is_noticed(store, key, kind)):
            assert key in [problem.object for problem in store.fsck().problems], (key, number)
    store.backend.put(key, body)
    assert store.fsck().ok


# --- what this machine remembers ---


def test_a_damaged_memory_of_the_head_is_forgotten_and_never_believed(tmp_path: Path) -> None:
    head = RememberedHead(tmp_path / "head.json")
    head.write(12, "ab" * 32)
    body = head.file.read_bytes()
    assert (head.read().n, head.read().hash) == (12, "ab" * 32)  # type: ignore[union-attr]
    for position in range(len(body)):
        for changed in (body[:position], body[:position] + bytes([body[position] ^ 4]) + body[position + 1 :]):
            head.file.write_bytes(changed)
            assert head.read() is None, changed
    head.file.write_bytes(b'{"n":7,"hash":"cd"}')
    assert (head.read().n, head.read().hash) == (7, "cd"), "as earlier versions wrote it"  # type: ignore[union-attr]


# --- the two descriptions that had no check at first ---


def test_what_earlier_versions_wrote_without_a_check_is_read(store: Store) -> None:
    """They are what those versions wrote: no field is called otherwise, none is missing."""
    key = fold_key(RUNNING, 0)
    fold = decode_fold(store.backend.get(key), key)
    assert fold.segments == (segment_key(RUNNING, 0, "w", 0),)
    (session,) = [s for s in store.backend.list_folders("sessions/") if list(store.backend.list(f"sessions/{s}/w"))]
    info = read_open(store.backend, session)
    assert info is not None
    for encode, made, cut in ((encode_msgpack, fold, b"\xa5check"), (encode_json, info, b',"check":')):
        raw = encode(made)
        body = raw[: raw.index(cut)]
        old = bytes([body[0] - 1]) + body[1:] if cut[0] == 0xA5 else body + b"}"
        place = key if isinstance(made, FoldObject) else f"sessions/{session}/open.json"
        store.backend.put(place, old)
    assert decode_fold(store.backend.get(key), key) == fold
    assert read_open(store.backend, session) == info
    assert store.fsck().ok


def test_a_field_that_a_later_version_adds_is_ignored_where_there_is_a_check(store: Store) -> None:
    class Later(OpenInfo, frozen=True, kw_only=True):
        more: str = "something"

    (info, *_) = [i for s in store.backend.list_folders("sessions/") if (i := read_open(store.backend, s)) is not None]
    raw = encode_json(Later(**{name: getattr(info, name) for name in OpenInfo.__struct_fields__}))
    assert json.loads(raw)["more"] == "something"
    (session, *_) = store.backend.list_folders("sessions/")
    store.backend.put(f"sessions/{session}/open.json", raw)
    assert read_open(store.backend, session) == info


def test_no_two_kinds_share_a_key() -> None:
    patterns: list[Callable[[str], bool]] = [lambda key, kind=kind: kind_of(key) is kind for kind in Kind]  # type: ignore[misc]
    for key in ("dmlpipe.json", "ledger/ckpt/000000000031.mpz", f"nodes/ab/{'c' * 62}", f"results/j/fold-{1:06d}"):
        assert sum(matches(key) for matches in patterns) == 1
    assert kind_of("notes.txt") is None
    assert list(itertools.chain(UNCHECKED, MAY_GO))
