"""Folding job after job into a context, against dictionaries: T, P, S, out, counters and clashes."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlpipe.scheduler.jobs import datum_edits, path_edits, sorting
from dmlpipe.scheduler.jobs.fold import Folded, fold_results
from dmlpipe.scheduler.jobs.results import Finished
from dmlpipe.scheduler.planning.plan_items import Drop, Hit
from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.digest import from_hex
from dmlpipe.storage.objects.node import NodeStore
from dmlpipe.storage.objects.segment import Outcome
from dmlpipe.storage.objects.value import Inline, encode_value
from dmlpipe.storage.records import Context
from dmlpipe.storage.trees.prolly import Tree

PATHS = ("a", "a/b", "a/c", "a-b", "b", "c/d", "c/d/e", "c/f")
decode = msgspec.msgpack.decode

Job = dict[int, tuple[str, frozenset[str]]]
"""Datum to its content and the paths that it writes; content "!" fails."""

jobs = st.dictionaries(
    st.integers(0, 5), st.tuples(st.sampled_from("xyz!"), st.frozensets(st.sampled_from(PATHS), max_size=2)), max_size=5
)


def value(text: str) -> bytes:
    return encode_value(Inline(text.encode()))


def key(number: int) -> bytes:
    return b"k%d" % number


class Model:
    """What a context should hold, as dictionaries, and the job that makes it so."""

    numbers = itertools.count()

    def __init__(self) -> None:
        self.nodes = NodeStore(MemoryBackend(f"fold-{next(self.numbers)}"), tree_target=4)
        self.context = Context(inputs={}, order=())
        self.live: Job = {}
        self.known: dict[tuple[int, str, frozenset[str]], bytes] = {}
        """Results that S has: datum, content, paths to the job that made it."""
        self.origin: dict[int, bytes] = {}
        self.count = 0

    def open(self, root: str) -> Tree:
        return Tree(self.nodes, from_hex(root)) if root else Tree(self.nodes)

    def fingerprint(self, number: int, text: str, paths: frozenset[str]) -> bytes:
        return f"{number}{text}{sorted(paths)}".encode().ljust(32)[:32]

    def run(self, wanted: Job) -> Folded:
        """Fold a job that computes what is not known."""
        self.count += 1
        job = self.count.to_bytes(8, "big")
        drops, hits, rows = [], [], []
        for number in sorted(self.live.keys() | wanted.keys()):
            old, new = self.live.get(number), wanted.get(number)
            if old == new:
                continue
            if old is not None:
                drops.append(Drop(key(number), self.fingerprint(number, *old), gone=new is None))
            if new is None:
                continue
            text, paths = new
            outputs = tuple((path, value(text)) for path in sorted(paths))
            print_ = self.fingerprint(number, text, paths)
            if text == "!":
                rows.append((key(number), Finished(print_, int(Outcome.FAILED), (), 0, 0), "s"))
            elif (number, text, paths) in self.known:
                hits.append(Hit(key(number), print_, self.known[number, text, paths], outputs))
            else:
                rows.append((key(number), Finished(print_, int(Outcome.OK), outputs, 0, 0), "s"))
        return fold_results(
            self.context,
            self.open,
            job=job.hex(),
            inputs={},
            order=(),
            total=len(wanted),
            changes=len(drops) + len(hits) + len(rows),
            drops=drops,
            hits=hits,
            rows=rows,
            lost={},
            publish=True,
            metadata={},
            describe=repr,
        )

    def clash(self, wanted: Job) -> bool:
        written = [path for text, paths in wanted.values() if text != "!" for path in paths]
        return len(set(written)) < len(written) or any(
            other.startswith(f"{path}/") for path in written for other in written
        )

    def take(self, wanted: Job, folded: Folded) -> None:
        """Go on from what was folded."""
        job = self.count.to_bytes(8, "big")
        for number, old in self.live.items():
            if wanted.get(number) != old:
                self.known[number, *old] = self.origin.pop(number)
        for number, (text, paths) in wanted.items():
            if text != "!" and number not in self.origin:
                self.origin[number] = self.known.pop((number, text, paths), job)
        self.live = {number: new for number, new in wanted.items() if new[0] != "!"}
        self.context = folded.context


@pytest.fixture(scope="module", autouse=True)
def _small() -> object:
    patch = pytest.MonkeyPatch()
    patch.setattr(datum_edits, "_TOGETHER", 2)
    patch.setattr(path_edits, "_TOGETHER", 2)
    patch.setattr(sorting, "MEMORY_BYTES", 600)
    yield None
    patch.undo()


@settings(max_examples=150)
@given(st.lists(jobs, min_size=1, max_size=5))
def test_jobs_fold_to_what_dictionaries_hold(runs: list[Job]) -> None:
    model = Model()
    for wanted in runs:
        folded = model.run(wanted)
        assert (folded.conflict is not None) == model.clash(wanted)
        if folded.conflict is not None:
            assert folded.context.t == model.context.t
            continue
        before = model.live
        model.take(wanted, folded)
        made = {path: value(text) for text, paths in model.live.values() for path in paths}
        owner = {path: key(number) for number, (_, paths) in model.live.items() for path in paths}
        read: Callable[[str], dict[bytes, bytes]] = lambda root: dict(model.open(root).scan())  # noqa: E731
        context = folded.context
        assert read(context.out) == {path.encode(): raw for path, raw in made.items()}
        assert {path.decode(): decode(raw)[0] for path, raw in read(context.p).items()} == owner
        assert {raw: decode(found) for raw, found in read(context.t).items()} == {
            key(number): [sorted(paths), model.origin[number]] for number, (_, paths) in model.live.items()
        }
        assert {raw: decode(found)[0] for raw, found in read(context.s).items()} == {
            key(number) + model.fingerprint(number, text, paths): origin
            for (number, text, paths), origin in model.known.items()
        }
        assert set(read(context.f)) == {key(number) for number, (text, _) in wanted.items() if text == "!"}
        assert context.size == sum(1 for _ in made)
        assert folded.counters.removed == len(before.keys() - wanted.keys())
        assert folded.counters.failed == sum(text == "!" for text, _ in wanted.values())
