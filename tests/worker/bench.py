"""A worker's surroundings for tests: a store, a job in it, a scheduler that hands out leases from a list."""

from __future__ import annotations

import asyncio
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from dmlpipe.storage.digest import digest, from_hex
from dmlpipe.storage.objects.pack import read_footer
from dmlpipe.storage.objects.segment import Row, SegmentMeta, decode_rows
from dmlpipe.storage.objects.value import decode_value
from dmlpipe.storage.records import PipelineSet, RepoCreate
from dmlpipe.storage.store import Store
from dmlpipe.storage.trees.codetree import write_code
from dmlpipe.storage.trees.prolly import Tree
from dmlpipe.worker.child.environment import clean_environment
from dmlpipe.worker.child.zygote import Zygote
from dmlpipe.worker.job import (
    CommandTransform,
    Datum,
    Item,
    JobInput,
    JobSpec,
    Lease,
    Parameter,
    PythonTransform,
    encode_block,
    encode_spec,
)
from dmlpipe.worker.messages import LeaseReply, LeaseRequest
from dmlpipe.worker.pull import PullLoop, PullSettings
from dmlpipe.worker.segments import FlushLimits
from dmlpipe.worker.slots.devices import Devices

WAIT_S = 60.0


def put(store: Store, repo: str, files: Mapping[str, bytes]) -> Tree:
    """Commit files to a repo and return the commit's tree."""
    with store.commit(repo) as commit:
        for path, data in files.items():
            commit.write(path, data)
    return store[repo].tree


def parameter(name: str, form: str = "path", **options: Any) -> Parameter:
    """A parameter that is an input of the same name, unless told otherwise."""
    return Parameter(name=name, source=options.pop("source", "input"), form=form, **options)


def python(
    store: Store,
    source: str,
    qualname: str,
    *signature: Parameter,
    kind: str = "function",
    result: str = "files",
    others: Mapping[str, str] | None = None,
) -> PythonTransform:
    """A transform whose module is `dag.py` with this source."""
    files = {"dag.py": source, **(others or {})}
    encoded = {path: (textwrap.dedent(text).encode(), 0o644) for path, text in files.items()}
    return PythonTransform(
        module="dag",
        qualname=qualname,
        kind=kind,
        result=result,
        signature=signature,
        bundle=code_tree(store, encoded),
    )


def code_tree(store: Store, files: Mapping[str, tuple[bytes, int]]) -> str:
    """Store code, publish where it is as `submit` does, and return its tree."""
    writer = store.objects.writer()
    tree = write_code(writer, store.tree(""), files).hex()
    written = writer.flush()
    if written.index:
        name = f"p{os.urandom(4).hex()}"
        store.publish(
            [
                RepoCreate(repo=name, pipeline=name),
                PipelineSet(
                    name=name,
                    version=1,
                    spec=tree,
                    identity=tree,
                    inputs=(),
                    packs=written.packs,
                    index=written.index,
                ),
            ]
        )
    return tree


def command(*argv: str, **options: Any) -> CommandTransform:
    """A command; one word with spaces is a shell line."""
    if len(argv) == 1 and " " in argv[0]:
        return CommandTransform(argv=("bash", "-euo", "pipefail", "-c", argv[0]), shell=True, **options)
    return CommandTransform(argv=argv, **options)


def varying(name: str, tree: Tree, repo: str = "") -> JobInput:
    """An input that yields many datums."""
    return JobInput(name=name, kind="files", constant=False, repo=repo or name, commit="c" * 64, tree=tree.root.hex())


def constant(name: str, tree: Tree, path: str = "") -> JobInput:
    """An input that is the same for all datums."""
    return JobInput(name=name, kind="files", constant=True, repo=name, commit="d" * 64, tree=tree.root.hex(), path=path)


def spec(transform: PythonTransform | CommandTransform, *inputs: JobInput, **options: Any) -> JobSpec:
    """A job of a pipeline `p`."""
    job = options.pop("job", os.urandom(8).hex())
    return JobSpec(
        job=job, run="run0", pipeline="p", version=3, context="k", transform=transform, inputs=inputs, **options
    )


def file_item(tree: Tree, path: str, **captures: str) -> Item:
    """One file of a commit."""
    value = tree.get(path.encode())
    assert value is not None
    return Item(path, "f", value, captures)


def datum(*items: Item) -> Datum:
    """A datum of items, with a fingerprint of its own."""
    key = b"\0".join(item.path.encode() for item in items)
    return Datum(key, digest(b"fp" + key), items)


def file_datums(tree: Tree) -> list[Datum]:
    """One datum per file of a commit."""
    return [datum(Item(path.decode(), "f", value)) for path, value in tree.scan()]


@dataclass
class ListSource:
    """A scheduler that hands out what is in a list, then asks to flush, then stops.

    The worker's promises are checked as the scheduler would rely on them.
    """

    leases: list[Lease]
    requests: list[LeaseRequest] = field(default_factory=list)
    cancelled: tuple[str, ...] = ()
    stop_when_stored: bool = True
    open: dict[int, set[int]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    recall: Callable[[int], None] = lambda lease: None

    def on_recall(self, recall: Callable[[int], None]) -> None:
        self.recall = recall

    async def lease(self, request: LeaseRequest) -> LeaseReply:
        self.requests.append(request)
        for stored in request.stored:
            for part in stored.leases:
                assert set(part.indexes) <= self.open[part.lease], "stored twice, or never given"
                self.open[part.lease] -= set(part.indexes)
        for given in request.giving_back:
            self.open[given.lease] -= set(range(given.start, given.stop))
        self.changed.set()
        self.changed = asyncio.Event()
        if request.want and self.leases:
            lease = self.leases.pop(0)
            self.open[lease.id] = set(range(lease.start, lease.stop))
            return LeaseReply(lease=lease, cancelled=self.cancelled)
        if self.stop_when_stored and not self.leases and not any(self.open.values()):
            return LeaseReply(stop=True)
        await asyncio.sleep(0.005)
        return LeaseReply(flush=bool(request.want), cancelled=self.cancelled)

    def failures(self) -> dict[bytes, str]:
        return {f.key: f.failure.message for request in self.requests for f in request.failures}


@dataclass
class Bench:
    """A store and the means to run jobs on it."""

    store: Store
    zygote: Zygote
    folder: Path
    environ: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    count: int = 0

    def leases(self, job: JobSpec, datums: Sequence[Datum], size: int = 0, fold: int = 0) -> list[Lease]:
        name = self.store.nodes.put(encode_spec(job)).hex()
        block = self.store.nodes.put(encode_block(list(datums))).hex()
        step = size or max(1, len(datums))
        found = []
        for start in range(0, len(datums), step):
            self.count += 1
            stop = min(start + step, len(datums))
            found.append(Lease(id=self.count, job=job.job, spec=name, block=block, start=start, stop=stop, fold=fold))
        return found

    def loop(self, source: ListSource, slots: int = 1, **settings: Any) -> PullLoop:
        self.count += 1
        limits = settings.pop("limits", FlushLimits(0.05))
        devices = settings.pop("devices", None)
        return PullLoop(
            self.store,
            source,
            self.zygote,
            worker=f"w{self.count}",
            slots=slots,
            folder=self.folder / f"w{self.count}",
            environ=self.environ,
            devices=devices,
            settings=PullSettings(limits=limits, pulse_s=0.02, silent_s=0.05, wait_s=0.05, **settings),
        )

    def run(
        self, job: JobSpec, datums: Sequence[Datum], *, slots: int = 1, size: int = 0, devices: Devices | None = None
    ) -> dict[str, Row]:
        """Run a job to its end and return its rows by datum key."""
        source = ListSource(self.leases(job, datums, size))
        error = asyncio.run(self._bounded(self.loop(source, slots, devices=devices)))
        assert error == ""
        rows = self.rows(job.job)
        assert sorted(row.key for row in rows) == sorted(d.key for d in datums), "a datum is missing, or there twice"
        return {row.key.decode(): row for row in rows}

    @staticmethod
    async def _bounded(loop: PullLoop) -> str:
        async with asyncio.timeout(WAIT_S):
            return await loop.run()

    def rows(self, job: str) -> list[Row]:
        found: list[Row] = []
        for key, _ in self.store.backend.list(f"results/{job}/"):
            found += decode_rows(read_footer(self.store.backend, key).rows)
        return found

    def metas(self, job: str) -> list[SegmentMeta]:
        return [
            msgspec.convert(read_footer(self.store.backend, key).meta, SegmentMeta)
            for key, _ in self.store.backend.list(f"results/{job}/")
        ]

    def content(self, job: str) -> dict[str, bytes]:
        """Every output of a job by path, read from its segments."""
        blobs = self.blobs(job)
        found = {}
        for row in self.rows(job):
            for path, raw in row.outputs:
                value = decode_value(raw)
                name = getattr(value, "hash", None)
                found[path] = blobs[name] if name in blobs else self.store.objects.read(value)
        return found

    def log(self, row: Row, job: str) -> str:
        return self.blobs(job)[row.log].decode() if row.log else ""

    def blobs(self, job: str) -> dict[bytes, bytes]:
        """Blobs in the segments of a job."""
        found: dict[bytes, bytes] = {}
        for key, _ in self.store.backend.list(f"results/{job}/"):
            body = self.store.backend.get(key)
            for blob in read_footer(self.store.backend, key).blobs:
                stored = body[blob.offset : blob.offset + blob.stored]
                if blob.codec:
                    import zstandard

                    stored = zstandard.decompress(stored)
                assert digest(stored) == blob.hash
                found[blob.hash] = stored
        return found


def tree_of(store: Store, text: str) -> Tree:
    return store.tree(from_hex(text))


def start_zygote() -> Zygote:
    return Zygote(clean_environment(os.environ))
