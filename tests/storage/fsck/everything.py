"""A store that holds every kind of object, each of them small."""

from __future__ import annotations

import random

import msgspec
import pytest

from dmlpipe.storage.backend import Backend
from dmlpipe.storage.gc.sweep import Collector
from dmlpipe.storage.objects import content, writer
from dmlpipe.storage.objects.fold import FoldObject, encode_fold, fold_key
from dmlpipe.storage.objects.pack import PackBuilder
from dmlpipe.storage.objects.segment import Outcome, Row, encode_rows, segment_key
from dmlpipe.storage.objects.value import encode_value
from dmlpipe.storage.records import JobStart, RunStart
from dmlpipe.storage.sessions.parts import closed_key
from dmlpipe.storage.store import Store
from tests.storage.engine import Engine

RUNNING = f"{9:016x}"
"""Id of a job that has results and has not ended."""


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def small_objects(patch: pytest.MonkeyPatch) -> None:
    """Let content of 600 bytes lie by itself: loose objects of a mebibyte have too many bytes to flip each."""
    for module in (writer, content):
        patch.setattr(module, "PACK_BELOW_BYTES", 600)


def fill(store: Store) -> None:
    """Put one of each kind into an empty store."""
    for number in range(33):
        store.put("r", ("n", str(number)))
    store.put("r", ("loose", noise(1, 700)), ("packed", noise(2, 300)), ("text", b"text" * 100))
    store.put("images", ("a.png", b"a"), ("b.png", b"b"))
    engine = Engine(store)
    engine.pipeline("out", [{"type": "files", "repo": "images", "glob": "/*"}], {})
    engine.job("out", 1, {"images": "data"}, ("images",), {"a.json": (b"a.png", b"A" * 300, 1)})
    running_job(store, engine)
    opened = store.open_commit("r", message="by many")
    with opened.writer("w") as part:
        part.write("c", b"c" * 200)
    store.backend.put_if_absent(closed_key(store.open_commit("r").id), b"12345678")
    Collector(store.backend, store.nodes, store.objects, store.ledger, grace_s=0).mark()
    store.backend.put("controller/heartbeat.json", msgspec.json.encode({"epoch": 1}))
    store.backend.put(f"quarantine/nodes/ab/{'c' * 62}.{'d' * 12}", b"what was there")
    beside = next(key for key, _ in store.backend.list("nodes/"))
    store.backend.put(f"{beside}.{'0' * 16}", store.backend.get(beside))


def running_job(store: Store, engine: Engine) -> None:
    """Leave what an interrupted controller leaves: a segment, and a fold that counts it."""
    store.publish([RunStart(run="f" * 16, epoch=1, first=1, last=1, view={}, versions={"out": 1})])
    bound = engine.bindings({"images": "data"})
    store.publish(
        [JobStart(job=RUNNING, run="f" * 16, pipeline="out", version=1, epoch=1, context="c" * 64, inputs=bound)]
    )
    builder = PackBuilder()
    objects = store.objects.writer(builder=builder)
    row = Row(b"b.png", bytes(32), Outcome.OK, [("b.json", encode_value(objects.put(noise(3, 200))))], 1, 0.1)
    segment = segment_key(RUNNING, 0, "w", 0)
    store.backend.put_if_absent(segment, builder.finish(rows=encode_rows([row]), meta={"job": RUNNING}))
    objects.close()
    done = store.tree().update([(b"b.png", msgspec.msgpack.encode((row.fingerprint, 0, row.outputs, 0, 0)))])
    store.backend.put_if_absent(
        fold_key(RUNNING, 0), encode_fold(FoldObject(segments=(segment,), done=done.root.hex(), open=0))
    )


def bytes_of(backend: Backend) -> dict[str, bytes]:
    return {key: backend.get(key) for key, _ in backend.list()}
