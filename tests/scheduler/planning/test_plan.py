from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.scheduler.inputs.combine import cross
from dmlpipe.scheduler.inputs.expression import Files, Input
from dmlpipe.scheduler.inputs.leaf import array, files, values
from dmlpipe.scheduler.inputs.walk import is_constant, leaves
from dmlpipe.scheduler.pipelines.spec import PipelineSpec
from dmlpipe.scheduler.planning.fingerprint import context_key
from dmlpipe.scheduler.planning.plan import JobPlan, job_context, plan_job
from dmlpipe.scheduler.planning.plan_items import Drop, Hit, PlanItem, Run
from dmlpipe.scheduler.planning.reasons import Reason, Why
from dmlpipe.storage.errors import InvalidInputError
from dmlpipe.storage.records import Context, InputBinding
from dmlpipe.storage.trees.prolly import Tree
from tests.scheduler.shelf import Listing, Shelf, binding, edited, expressions, full_listing, listings, pipeline

ORIGIN = b"origin00"


def bindings_of(shelf: Shelf, sides: Mapping[str, Listing | None]) -> dict[str, InputBinding]:
    return {name: binding(name, None if listing is None else shelf.tree(listing)) for name, listing in sides.items()}


def success(key: bytes) -> bytes:
    return msgspec.msgpack.encode([ORIGIN, [[key.hex(), b"v"]]])


@dataclasses.dataclass
class Memory:
    """A context as a controller keeps it, in dicts: the model that plans are checked against."""

    shelf: Shelf
    context: Context | None = None
    t: dict[bytes, bytes] = dataclasses.field(default_factory=dict)
    """Datum key to fingerprint."""
    s: set[tuple[bytes, bytes]] = dataclasses.field(default_factory=set)
    f: dict[bytes, bytes] = dataclasses.field(default_factory=dict)
    ever: set[tuple[bytes, bytes]] = dataclasses.field(default_factory=set)
    """All that ever succeeded."""

    def end(self, plan: JobPlan, items: list[PlanItem], failing: set[bytes], *, publish: bool) -> None:
        runs = {item.key: item.datum.fingerprint for item in items if isinstance(item, Run)}
        hits = {item.key: item.fingerprint for item in items if isinstance(item, Hit)}
        good = {key: fingerprint for key, fingerprint in runs.items() if key not in failing}
        failed = {key: b"it failed" for key in runs if key in failing}
        self.ever |= set(good.items())
        inputs = self.context.inputs if self.context else {}
        if publish:
            for item in items:
                if isinstance(item, Drop) and item.key in self.t:
                    assert self.t.pop(item.key) == item.old_fingerprint
                    self.s.add((item.key, item.old_fingerprint))
            self.s -= set(hits.items())
            self.t |= hits | good
            self.f = failed
            inputs = dict(plan.inputs)
        else:
            self.s |= set(good.items())
            self.f |= failed
        raw = self.shelf.raw
        self.context = Context(
            inputs=inputs,
            order=plan.order,
            t=raw(dict.fromkeys(self.t, b"t")),
            s=raw({key + fingerprint: success(key) for key, fingerprint in self.s}),
            f=raw(self.f),
        )


def check_shape(plan: JobPlan, items: list[PlanItem]) -> None:
    """Sorted by key; per key a drop, then a run or hit, each at most once; the same when read again."""
    order = [(item.key, 0 if isinstance(item, Drop) else 1) for item in items]
    assert order == sorted(set(order))
    assert list(plan.items()) == items
    following: list[PlanItem | None] = [*items[1:], None]
    for item, after in zip(items, following, strict=False):
        if isinstance(item, Drop):
            assert item.gone == (after is None or after.key != item.key)


@st.composite
def histories(draw: st.DrawFn) -> tuple[Input, list[dict[str, Listing | None]]]:
    """An expression and the states that its repos go through; states come back."""
    node = draw(expressions())
    state: dict[str, Listing | None] = {leaf.name: draw(listings()) for leaf in leaves(node) if isinstance(leaf, Files)}
    states = [state]
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.integers(0, 3)) == 0:
            states.append(draw(st.sampled_from(states)))
            continue
        state = dict(states[-1])
        for leaf in leaves(node):
            before = state.get(leaf.name)
            if isinstance(leaf, Files) and before is not None and not is_constant(leaf):
                state[leaf.name] = draw(edited(dict(before)))
        states.append(state)
    return node, states


@given(histories(), st.data())
def test_plans_run_exactly_what_never_succeeded(
    history: tuple[Input, list[dict[str, Listing | None]]], data: st.DataObject
) -> None:
    node, states = history
    shelf = Shelf()
    memory = Memory(shelf)
    for sides in states:
        plan = plan_job(pipeline(node), bindings_of(shelf, sides), memory.context, shelf.open)
        items = list(plan.items())
        check_shape(plan, items)
        everything = full_listing(node, sides, plan.order)
        datums = {datum.key: datum for datum in plan.datums()}
        assert datums.keys() == everything.keys()
        assert plan.total == len(everything)

        runs = {item.key: item for item in items if isinstance(item, Run)}
        hits = {item.key: item for item in items if isinstance(item, Hit)}
        drops = {item.key: item for item in items if isinstance(item, Drop)}
        for key, datum in datums.items():
            known = (key, datum.fingerprint) in memory.ever
            assert (key in runs) == (not known)
            if key in runs:
                assert runs[key].datum == datum
            else:
                carried = memory.t.get(key) == datum.fingerprint and key not in drops
                assert carried != (key in hits)
        assert (runs.keys() | hits.keys()) <= datums.keys()
        assert {k: d.old_fingerprint for k, d in drops.items()} == {
            key: fingerprint
            for key, fingerprint in memory.t.items()
            if key not in datums or datums[key].fingerprint != fingerprint
        }
        for hit in hits.values():
            assert (hit.origin, hit.outputs) == (ORIGIN, ((hit.key.hex(), b"v"),))

        failing = set(data.draw(st.lists(st.sampled_from(sorted(datums)), max_size=2))) if datums else set()
        memory.end(plan, items, failing, publish=data.draw(st.booleans()))


@given(histories(), st.data())
def test_a_resumed_job_runs_the_rest(
    history: tuple[Input, list[dict[str, Listing | None]]], data: st.DataObject
) -> None:
    node, states = history
    shelf = Shelf()
    memory = Memory(shelf)
    first = plan_job(pipeline(node), bindings_of(shelf, states[0]), None, shelf.open)
    memory.end(first, list(first.items()), set(), publish=True)
    bound = bindings_of(shelf, states[-1])
    items = list(plan_job(pipeline(node), bound, memory.context, shelf.open).items())
    runs = [item.key for item in items if isinstance(item, Run)]
    done = set(data.draw(st.lists(st.sampled_from(runs)))) if runs else set()
    finished = shelf.open(shelf.raw(dict.fromkeys(done, b"row")))
    rest = list(plan_job(pipeline(node), bound, memory.context, shelf.open, finished=finished).items())
    assert rest == [item for item in items if not (isinstance(item, Run) and item.key in done)]


def after_success(
    shelf: Shelf, node: Input, sides: Mapping[str, Listing | None], *, failing: Collection[bytes] = ()
) -> Memory:
    memory = Memory(shelf)
    plan = plan_job(pipeline(node), bindings_of(shelf, sides), None, shelf.open)
    memory.end(plan, list(plan.items()), set(failing), publish=True)
    return memory


def plan_of(shelf: Shelf, node: Input, sides: Mapping[str, Listing | None], memory: Memory) -> JobPlan:
    return plan_job(pipeline(node), bindings_of(shelf, sides), memory.context, shelf.open)


def told(plan: JobPlan) -> list[tuple[str, bytes, str, str]]:
    found = []
    for item in plan.items():
        reason, detail = (item.reason.value, item.detail) if isinstance(item, Run) else ("", "")
        found.append((type(item).__name__, item.key, reason, detail))
    return found


def test_nothing_changed_reads_no_node() -> None:
    shelf = Shelf()
    node = cross(files("r", "/*"), files("m"))
    sides = {"r": {"a": "1", "b": "2"}, "m": {"model": "3"}}
    memory = after_success(shelf, node, sides)
    bound = bindings_of(shelf, sides)
    cold = shelf.cold()
    plan = plan_job(pipeline(node), bound, memory.context, cold.open)
    assert plan.mode == "reuse"
    assert list(plan.items()) == []
    assert cold.nodes.reads == 0
    assert plan.total == 2


def test_reasons_name_the_input_that_changed() -> None:
    shelf = Shelf()
    node = cross(files("r", "/*"), files("s", "/*"))
    memory = after_success(shelf, node, {"r": {"a": "1", "b": "1"}, "s": {"x": "1"}})
    plan = plan_of(shelf, node, {"r": {"a": "2", "c": "1"}, "s": {"x": "1"}}, memory)
    assert plan.mode == "delta"
    assert told(plan) == [
        ("Drop", b"a\0x", "", ""),
        ("Run", b"a\0x", "input-changed", "r"),
        ("Drop", b"b\0x", "", ""),
        ("Run", b"c\0x", "new", ""),
    ]
    both = plan_of(shelf, node, {"r": {"a": "2"}, "s": {"x": "2"}}, memory)
    assert ("Run", b"a\0x", "input-changed", "r, s") in told(both)


def test_what_failed_before_runs_again_and_nothing_else() -> None:
    shelf = Shelf()
    node = files("r", "/*")
    sides = {"r": {"a": "1", "b": "1"}}
    memory = after_success(shelf, node, sides, failing={b"b"})
    plan = plan_of(shelf, node, sides, memory)
    assert told(plan) == [("Run", b"b", "failed-before", "it failed")]
    assert plan.total == 2


def test_a_failure_on_other_inputs_is_not_tried_when_they_are_taken_back() -> None:
    shelf = Shelf()
    node = files("r", "/*")
    good, bad = {"r": {"a": "1"}}, {"r": {"a": "bad", "b": "bad"}}
    memory = after_success(shelf, node, good)
    failed = plan_of(shelf, node, bad, memory)
    memory.end(failed, list(failed.items()), {b"a", b"b"}, publish=False)
    assert told(plan_of(shelf, node, good, memory)) == []
    fixed = plan_of(shelf, node, {"r": {"a": "bad", "b": "good"}}, memory)
    assert told(fixed) == [
        ("Drop", b"a", "", ""),
        ("Run", b"a", "input-changed", "r"),
        ("Run", b"b", "failed-before", "it failed"),
    ]
    assert fixed.total == 2


def test_after_a_first_job_that_failed_only_the_failures_and_the_rest_run() -> None:
    shelf = Shelf()
    node = files("r", "/*")
    memory = Memory(shelf)
    sides = {"r": {"a": "1", "b": "1", "c": "1"}}
    first = plan_of(shelf, node, sides, memory)
    memory.end(first, list(first.items()), {b"b"}, publish=False)
    again = plan_of(shelf, node, {"r": {**sides["r"], "d": "1"}}, memory)
    assert again.mode == "all"
    assert told(again) == [
        ("Hit", b"a", "", ""),
        ("Run", b"b", "failed-before", "it failed"),
        ("Hit", b"c", "", ""),
        ("Run", b"d", "first-run", ""),
    ]


def test_results_are_found_where_one_key_begins_another() -> None:
    # Key and fingerprint together sort otherwise than keys alone.
    shelf = Shelf()
    node = files("r", "/*")
    before = {name: "1" for at in range(40) for name in (f"k{at:02}", f"k{at:02}.x", f"k{at:02}.x.y")}
    memory = after_success(shelf, node, {"r": before})
    moved = plan_of(shelf, node, {"r": dict.fromkeys(before, "2")}, memory)
    memory.end(moved, list(moved.items()), set(), publish=True)
    back = plan_of(shelf, node, {"r": before}, memory)
    assert [kind for kind, *_ in told(back)] == ["Drop", "Hit"] * len(before)


def test_a_forced_datum_runs_though_its_result_is_known() -> None:
    shelf = Shelf()
    node = files("r", "/*")
    sides = {"r": {"a": "1", "b": "1"}}
    memory = after_success(shelf, node, sides)
    assert memory.context is not None
    fingerprint = memory.t[b"a"]
    forced = msgspec.structs.replace(
        memory.context,
        f=shelf.raw({b"a": b"reprocess: by ada"}),
        s=shelf.raw({b"a" + fingerprint: success(b"a")}),
    )
    plan = plan_job(pipeline(node), bindings_of(shelf, sides), forced, shelf.open)
    assert told(plan) == [("Drop", b"a", "", ""), ("Run", b"a", "forced", "by ada")]


def test_one_datum_with_constant_inputs_alone() -> None:
    shelf = Shelf()
    node = files("training")
    memory = Memory(shelf)
    first = plan_of(shelf, node, {"training": {"a": "1"}}, memory)
    assert (first.total, first.order, first.inputs) == (1, (), {})
    assert told(first) == [("Run", b"", "first-run", "")]
    memory.end(first, list(first.items()), set(), publish=True)
    assert plan_of(shelf, node, {"training": {"a": "1"}}, memory).mode == "reuse"


def test_the_first_plan_gives_the_reason_it_was_told() -> None:
    shelf = Shelf()
    why = [Why(Reason.CODE_CHANGED, "model(), dag.py:14"), Why(Reason.FORCED)]
    plan = plan_job(pipeline(files("r", "/*")), bindings_of(shelf, {"r": {"a": "1"}}), None, shelf.open, why=why)
    assert told(plan) == [("Run", b"a", "code-changed", "model(), dag.py:14")]
    assert plan.runs_all


def test_a_longer_grid_runs_only_the_new_values() -> None:
    shelf = Shelf()
    sides = {"r": {"a": "1"}}
    short, longer = (cross(files("r", "/*"), values(C=grid)) for grid in ([1, 2], [2, 1, 3]))
    memory = after_success(shelf, short, sides)
    bound = bindings_of(shelf, sides)
    assert job_context(pipeline(short), bound) == job_context(pipeline(longer), bound)
    plan = plan_of(shelf, longer, sides, memory)
    assert [(kind, key) for kind, key, *_ in told(plan)] == [("Run", b"3\0a" if plan.order[0] == "C" else b"a\x003")]


def test_the_order_of_a_context_is_kept() -> None:
    shelf = Shelf()
    node = cross(files("r", "/*"), files("s", "/*"))
    memory = after_success(shelf, node, {"r": {"a": "1", "b": "1"}, "s": {"x": "1"}})
    plan = plan_of(shelf, node, {"r": {"a": "1"}, "s": {"x": "1", "y": "1", "z": "1"}}, memory)
    assert plan.order == ("r", "s")


def test_inputs_as_workers_see_them() -> None:
    shelf = Shelf()
    node = cross(files("m"), files("r", "/{n}.x"), values(C=[1]), q=files("r2", "/*"))
    bound = bindings_of(shelf, {"m": {}, "r": {"a.x": "1", "b.x": "2", "c.x": "3"}, "q": {"u": "1", "v": "2"}})
    given = plan_job(pipeline(node), bound, None, shelf.open).job_inputs()
    assert [(i.name, i.kind, i.constant, i.glob) for i in given] == [
        ("r", "files", False, "/{n}.x"),
        ("q", "files", False, "/*"),
        ("C", "values", False, "/"),
        ("m", "files", True, "/"),
    ]
    assert (given[0].tree, given[0].commit) == (bound["r"].tree, bound["r"].commit)


@pytest.mark.parametrize("node", [files("r", "/*"), cross(files("m"), files("r", "/*"))])
def test_an_input_without_a_binding_is_refused(node: Input) -> None:
    shelf = Shelf()
    with pytest.raises(InvalidInputError, match=r"no commit was given for input 'r'"):
        plan_job(pipeline(node), bindings_of(shelf, {"m": {}}), None, shelf.open)


def test_an_array_without_a_reader_is_refused() -> None:
    shelf = Shelf()
    with pytest.raises(InvalidInputError, match="without a reader"):
        plan_job(pipeline(array("r", "/x")), bindings_of(shelf, {"r": {"x/zarr.json": "{}"}}), None, shelf.open)


# --- the context ------------------------------------------------------------------------------------------------


BASE: PipelineSpec = pipeline(cross(files("r", "/*"), m=files("model")))


@pytest.mark.parametrize(
    "change",
    [
        {"code_id": "other"},
        {"parameters": {"C": 1}},
        {"env": "e"},
        {"salt": "s"},
        {"input": cross(files("r", "/**"), m=files("model"))},
        {"input": cross(files("r", "/*"), n=files("model"))},
    ],
)
def test_the_context_changes_with(change: dict[str, object]) -> None:
    other = msgspec.structs.replace(BASE, **change)
    assert context_key(other, {"m": b"1"}) != context_key(BASE, {"m": b"1"})


@pytest.mark.parametrize(
    "change",
    [
        {"name": "renamed"},
        {"description": "d"},
        {"source": "dag.py:99"},
        {"input": cross(files("other", "/*", name="r", branch="dev"), m=files("elsewhere", branch="dev"))},
    ],
)
def test_the_context_does_not_change_with(change: dict[str, object]) -> None:
    other = msgspec.structs.replace(BASE, **change)
    assert context_key(other, {"m": b"1"}) == context_key(BASE, {"m": b"1"})


def test_the_context_changes_with_a_constant_input() -> None:
    assert context_key(BASE, {"m": b"1"}) != context_key(BASE, {"m": b"2"})
    shelf = Shelf()
    bound = bindings_of(shelf, {"r": {}, "m": {"a": "1"}})
    missing = {**bound, "m": binding("m", None)}
    empty = {**bound, "m": binding("m", shelf.tree({}))}
    keys = {job_context(BASE, side) for side in (bound, missing, empty)}
    assert len(keys) == 3


def test_equal_parameters_in_another_order_are_equal() -> None:
    one, two = (msgspec.structs.replace(BASE, parameters=p) for p in ({"a": 1, "b": 2}, {"b": 2, "a": 1}))
    assert context_key(one, {}) == context_key(two, {})


# --- cost -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def big() -> tuple[Shelf, Tree, Tree, Context]:
    """100,000 planned files, and the same with ten changes."""
    shelf = Shelf(tree_target=1024)
    old = shelf.tree({f"img_{at:06}.png": f"{at}" for at in range(100_000)})
    new = old.update([(f"img_{at:06}.png".encode(), b"new") for at in range(0, 100_000, 10_000)])
    t = shelf.raw({f"img_{at:06}.png".encode(): b"t" for at in range(100_000)})
    s = shelf.raw({f"img_{at:06}.png".encode() + bytes(32): success(b"") for at in range(100_000)})
    return shelf, old, new, Context(inputs={"r": old.root.hex()}, order=("r",), t=t, s=s)


def test_planning_ten_changes_among_100_000_reads_their_nodes(big: tuple[Shelf, Tree, Tree, Context]) -> None:
    shelf, _, new, context = big
    cold = shelf.cold()
    node = cross(files("r", "/{n}.png"), files("m"))
    bound = {"r": binding("r", new), "m": binding("m", shelf.tree({"model": "1"}))}
    plan = plan_job(pipeline(node), bound, context, cold.open)
    assert cold.nodes.reads == 0
    assert plan.total == 100_000
    assert len(list(plan.items())) == 20
    # Ten leaves and a root of each input tree; ten and one of S, where they are looked up; the root of T for the count.
    assert cold.nodes.reads <= 2 * 11 + 11 + 1


def test_a_first_plan_streams(big: tuple[Shelf, Tree, Tree, Context]) -> None:
    shelf, old, _, _ = big
    cold = shelf.cold()
    plan = plan_job(pipeline(files("r", "/**")), {"r": binding("r", old)}, None, cold.open)
    next(plan.items())
    assert cold.nodes.reads < 20
    assert plan.total == 100_000
    assert cold.nodes.reads < 20
