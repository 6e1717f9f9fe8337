"""A reader written from docs/format.md alone, without dmlpipe: what it finds in the golden store, and in new ones."""

from __future__ import annotations

import hashlib
import json
import random
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest
import zstandard
from blake3 import blake3

from dmlpipe.storage.store import Store

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "data" / "golden"
STORE = GOLDEN / "store"
RECORD = struct.Struct("<32sIQIIB")


def blake(data: bytes) -> bytes:
    return blake3(data).digest()


def unpack(data: bytes) -> Any:
    return msgspec.msgpack.decode(data)


def node(name: bytes | str) -> bytes:
    text = name if isinstance(name, str) else name.hex()
    raw = zstandard.ZstdDecompressor().decompress((STORE / "nodes" / text[:2] / text[2:]).read_bytes())
    assert blake(raw).hex() == text
    return raw


def walk(root: bytes | str) -> Iterator[tuple[bytes, bytes]]:
    version, level, keys, values = unpack(node(root))
    assert version == 1
    for key, value in zip(keys, values, strict=True):
        if level:
            yield from walk(value[0])
        else:
            yield key, value


def entries() -> list[dict[str, Any]]:
    found, prev = [], "0" * 64
    for n, file in enumerate(sorted((STORE / "ledger").glob("0*/*.json"))):
        assert file.parts[-2:] == (f"{n // 1000:09d}", f"{n:012d}.json")
        entry = json.loads(file.read_bytes())
        assert (entry["v"], entry["n"], entry["prev"]) == (1, n, prev)
        prev = blake(file.read_bytes()).hex()
        found.append(entry)
    return found


def records(kind: str) -> Iterator[dict[str, Any]]:
    for entry in entries():
        yield from (record for record in entry["recs"] if record["t"] == kind)


def index_of(key: str) -> dict[bytes, tuple[str, int, int, int, int]]:
    data = (STORE / key).read_bytes()
    assert key == f"index/{blake(data).hex()}.idx"
    assert data[:8] == b"dmlindx1"
    length = int.from_bytes(data[8:12], "little")
    version, packs = unpack(data[12 : 12 + length])
    assert version == 1
    found = {}
    for name, number, *rest in RECORD.iter_unpack(data[12 + length :]):
        found[name] = (packs[number], *rest)
    assert list(found) == sorted(found)
    return found


def blobs() -> dict[bytes, tuple[str, int, int, int, int]]:
    places = {}
    for record in records("commit"):
        if record.get("index"):
            places.update(index_of(record["index"]))
    for record in records("job.done"):
        if record["end"].get("index"):
            places.update(index_of(record["end"]["index"]))
    return places


def content(value: list[Any], places: dict[bytes, tuple[str, int, int, int, int]]) -> bytes:
    if value[0] == 2:
        return bytes(value[1])
    assert value[0] == 0
    _, size, name = value
    if name in places:
        key, offset, stored, _, codec = places[name]
        data = (STORE / key).read_bytes()[offset : offset + stored]
        data = zstandard.ZstdDecompressor().decompress(data) if codec else data
    else:
        data = (STORE / "objects" / name.hex()[:2] / name.hex()[2:]).read_bytes()
    assert (blake(data), len(data)) == (name, size)
    return data


def mix(key: bytes, level: int) -> int:
    mask = (1 << 64) - 1
    x = crc32(key) + (level + 1) * 2**32
    x = ((x ^ (x >> 33)) * 0xFF51AFD7ED558CCD) & mask
    x = ((x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53) & mask
    return x ^ (x >> 33)


def root_of(items: list[tuple[bytes, bytes]], t: int) -> bytes:
    level, sequence = 0, [(key, value, 1) for key, value in items]
    while True:
        nodes: list[list[Any]] = [[]]
        for item in sequence:
            nodes[-1].append(item)
            n, h = len(nodes[-1]), mix(item[0], level)
            bound = 2**64 // (4 * t) if n < t else 2**64 // max(1, t // 4)
            if n >= 4 * t or (n >= max(1, t // 4) and h < bound):
                nodes.append([])
        above: list[Any] = []
        for part in nodes:
            if part:
                body = [1, level, [key for key, _, _ in part], [value for _, value, _ in part]]
                count = sum(below for _, _, below in part)
                above.append((part[-1][0], [blake(msgspec.msgpack.encode(body)), count], count))
        if len(above) == 1:
            return bytes(above[0][1][0])
        level, sequence = level + 1, above


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_text())
    return found


def test_the_chain_holds(expected: dict[str, Any]) -> None:
    last = entries()[-1]
    file = STORE / "ledger" / f"{last['n'] // 1000:09d}" / f"{last['n']:012d}.json"
    assert (last["n"], blake(file.read_bytes()).hex()) == (expected["n"], expected["chain"])


def test_every_file_of_every_head_is_found(expected: dict[str, Any]) -> None:
    heads = {f"{record['repo']}@{record['branch']}": record["new"] for record in records("ref.set")}
    places = blobs()
    for ref, described in expected["refs"].items():
        if "^" in ref or ref.endswith("@v1"):
            continue
        commit = heads[ref if "@" in ref else f"{ref}@master"]
        assert commit == described["commit"]
        body = unpack(node(commit))
        assert body["tree"] == described["tree"]
        found = {
            "/" + path.decode(): hashlib.sha256(content(unpack(value), places)).hexdigest()
            for path, value in walk(body["tree"])
        }
        assert found == described["files"]


def test_trees_are_cut_as_the_page_says(expected: dict[str, Any]) -> None:
    info = json.loads((STORE / "dmlpipe.json").read_text())
    assert info["tree"]["split"] == "crc32-fmix64-v1"
    for ref in ("wide", "images"):
        tree = expected["refs"][ref]["tree"]
        assert root_of(list(walk(tree)), info["tree"]["target"]).hex() == tree
    assert unpack(node(expected["refs"]["wide"]["tree"]))[1] == 1


def test_packs_and_segments_are_laid_out_as_the_page_says() -> None:
    files = [*(STORE / "packs").rglob("*.pack"), *(STORE / "results").rglob("*.seg")]
    assert len(files) > 4
    for file in files:
        data = file.read_bytes()
        assert data[-8:] == b"dmlpack1"
        length = int.from_bytes(data[-12:-8], "little")
        frame = data[-12 - length : -12]
        footer = unpack(zstandard.ZstdDecompressor().decompress(frame))
        assert footer["v"] == 1
        assert len(footer["nonce"]) == 16
        if file.suffix == ".pack":
            assert blake(frame).hex() == file.parent.name + file.stem
        else:
            assert all(len(row) >= 6 and row[2] == 0 for row in footer["rows"])
        for name, offset, stored, size, codec in footer["blobs"]:
            body = data[offset : offset + stored]
            body = zstandard.ZstdDecompressor().decompress(body) if codec else body
            assert (blake(body), len(body)) == (name, size)


def test_provenance_leads_from_a_path_to_a_row(expected: dict[str, Any]) -> None:
    head = expected["refs"]["predictions"]["commit"]
    done = next(record for record in records("job.done") if record["commit"] == head)
    key, origin = unpack(dict(walk(done["context"]["p"]))[b"2.json"])
    assert (key, origin.hex()) == (b"cam/2.png", done["job"])
    segment, number = unpack(dict(walk(done["end"]["rows"]))[key])
    data = (STORE / segment).read_bytes()
    length = int.from_bytes(data[-12:-8], "little")
    rows = unpack(zstandard.ZstdDecompressor().decompress(data[-12 - length : -12]))["rows"]
    assert rows[number][0] == key


def test_the_checkpoint_names_its_entry_and_a_tree_of_state() -> None:
    (file,) = (STORE / "ledger" / "ckpt").iterdir()
    found = unpack(zstandard.ZstdDecompressor().decompress(file.read_bytes()))
    assert (found["v"], found["n"], file.name) == (1, 31, "000000000031.mpz")
    assert entries()[32]["prev"] == found["chain"]
    assert b"repo/images" in dict(walk(found["state"]))


def test_the_page_names_every_record_type() -> None:
    page = (ROOT / "docs" / "format.md").read_text()
    source = (ROOT / "storage" / "records.py").read_text()
    tags = re.findall(r'class \w+\(_Record, frozen=True, tag="([a-z.]+)"\)', source)
    assert len(tags) > 20
    assert [tag for tag in tags if f"`{tag}`" not in page] == []


def test_the_description_of_a_store_hashes_to_its_check(tmp_path: Path) -> None:
    Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    body = (tmp_path / "store" / "dmlpipe.json").read_bytes()
    check = json.loads(body)["check"]
    assert blake(body.replace(check.encode(), b"0" * 64)).hex() == check
    assert "check" not in json.loads((STORE / "dmlpipe.json").read_bytes())  # older than the field


def test_a_repaired_store_is_read_as_the_page_says(tmp_path: Path) -> None:
    """Damage in every folder, mended with nothing to mend from: what is left is found by the page's own rules."""
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    files = {f"{number}": random.Random(number).randbytes(500) for number in range(5)}
    store.put("r", *files.items())
    (pack,) = (tmp_path / "store" / "packs").rglob("*.pack")
    body = bytearray(pack.read_bytes())
    body[700] ^= 1
    pack.write_bytes(body)
    assert [touch.name for problem in store.repair().lost for touch in problem.touches] == ["r@master:/1"]
    root = tmp_path / "store"
    recs = [r for file in sorted((root / "ledger").glob("0*/*")) for r in json.loads(file.read_bytes())["recs"]]
    (sweep,) = [rec for rec in recs if rec["t"] == "gc.sweep"]
    assert {rec["t"] for rec in recs} >= {"damage", "gc.done"}
    text = sweep["list"]
    raw = zstandard.ZstdDecompressor().decompress((root / "nodes" / text[:2] / text[2:]).read_bytes())
    listed = unpack(raw)
    assert [blake(files["1"])] == listed["blobs"]
    assert f"packs/{pack.parent.name}/{pack.name}" in listed["keys"]
    (new,) = sweep["packs"]
    frame = (root / new).read_bytes()
    length = int.from_bytes(frame[-12:-8], "little")
    footer = unpack(zstandard.ZstdDecompressor().decompress(frame[-12 - length : -12]))
    found = {bytes(name): frame[offset : offset + size] for name, offset, size, _, _ in footer["blobs"]}
    assert found == {blake(data): data for name, data in files.items() if name != "1"}
    (kept,) = (file for file in (root / "quarantine").rglob("*") if file.is_file())
    assert kept.name == f"{pack.name}.{blake(bytes(body)).hex()[:12]}"
