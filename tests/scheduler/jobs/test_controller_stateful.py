"""Random histories of a store with pipelines: outputs always equal a computation from nothing, none is done twice."""

from __future__ import annotations

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dmlpipe.scheduler.inputs.combine import cross
from dmlpipe.scheduler.inputs.leaf import files
from dmlpipe.scheduler.jobs.controller import Controller
from dmlpipe.scheduler.store import Store
from dmlpipe.worker.job import Datum, JobSpec
from tests.scheduler.fake_executor import Compute, FakeExecutor, KilledError
from tests.scheduler.jobs.test_controller import copy_inputs, make_spec

_names = itertools.count()

NAMES = st.sampled_from(["a", "b", "c", "d/x", "d/y"])
TEXTS = st.sampled_from(["1", "2", "3", "bad"])


def copy_named(store: Store) -> Compute:
    """As `copy_inputs`, with all outputs at the top."""
    copy = copy_inputs(store)
    return lambda spec, datum: {name.replace("/", "_"): data for name, data in copy(spec, datum).items()}


class History(RuleBasedStateMachine):
    """`model` reads training, `copy` crosses images and the model, `last` copies what `copy` made."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store.init(f"memory://history-{next(_names)}")
        self.code = {"model": "1", "copy": "1", "last": "1"}
        self.done: set[bytes] = set()
        self.twice: list[bytes] = []
        self.settled = False
        for repo in ("training", "images"):
            with self.store.commit(repo) as session:
                session.write("a", "1")
        self._submit()

    def _submit(self) -> None:
        self.store.submit(
            [
                make_spec("model", files("training"), code=self.code["model"]),
                make_spec(
                    "copy",
                    cross(image=files("images", "/**"), model=files("model")),
                    code=self.code["copy"],
                    max_failures="100%",
                ),
                make_spec("last", files("copy", "/*"), code=self.code["last"]),
            ]
        )

    def _compute(self, spec: JobSpec, datum: Datum) -> dict[str, bytes]:
        if datum.fingerprint in self.done:
            self.twice.append(datum.key)
        made = copy_named(self.store)(spec, datum)
        self.done.add(datum.fingerprint)
        return made

    @rule(repo=st.sampled_from(["images", "training"]), name=NAMES, text=TEXTS)
    def write(self, repo: str, name: str, text: str) -> None:
        with self.store.commit(repo) as session:
            session.write(name, text if repo == "images" else text.replace("bad", "4"))
        self.settled = False

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        if self.store["images"].exists(name):
            with self.store.commit("images") as session:
                session.delete(name)
            self.settled = False

    @rule(name=st.sampled_from(["model", "copy", "last"]), code=st.sampled_from(["1", "2"]))
    def edit(self, name: str, code: str) -> None:
        self.code[name] = code
        self._submit()
        self.settled = False

    @rule(per_segment=st.integers(1, 3))
    def run(self, per_segment: int) -> None:
        executor = FakeExecutor(self.store, self._compute, per_segment=per_segment)
        summary = self.store.run(executor=executor, check=False)
        assert summary.ok
        self.settled = True

    @rule(after=st.integers(1, 4))
    def run_and_die(self, after: int) -> None:
        """Rows of stored segments survive; what was computed and not stored may be computed again."""
        dying = FakeExecutor(self.store, self._compute, per_segment=1, die_after=after)
        controller = Controller(self.store, lambda: dying)
        controller._close = controller._epoch.let_go  # type: ignore[method-assign]  # as after kill -9: nothing is said
        try:
            controller.run()
        except KilledError:
            self.settled = False
        else:
            self.settled = True

    @precondition(lambda self: self.settled)
    @rule(name=NAMES)
    def order_one_anew(self, name: str) -> None:
        """One datum on request, with those that are tried again anyway, and nothing below: its output is the same."""
        if not self.store["images"].exists(name):
            return
        assert self.store.reprocess("copy", [f"images:/{name}"]) == 1
        bad = {info.path.strip("/") for info in self.store["images"].ls("/", recursive=True) if self._is_bad(info.path)}
        executor = FakeExecutor(self.store, copy_named(self.store))
        assert self.store.run(executor=executor, check=False).ok
        computed = {key.decode() for pipeline, key in executor.calls if pipeline == "copy"}
        assert name in computed
        assert computed <= {name, *bad}
        assert {pipeline for pipeline, _ in executor.calls} == {"copy"}

    def _is_bad(self, path: str) -> bool:
        return self.store["images"].read_bytes(path) == b"bad"

    @precondition(lambda self: self.settled)
    @rule()
    def revert_the_model(self) -> None:
        history = list(self.store.state.history("model"))
        if len(history) > 1 and self.store.state.pipeline("model").hold is None:  # type: ignore[union-attr]
            self.store.revert("model", f"model@{history[1].commit}")
            executor = FakeExecutor(self.store, self._compute)
            assert self.store.run(executor=executor, check=False).ok
            assert self.store.state.head("model") == history[1].commit
            self.store.release("model")
            assert self.store.run(executor=FakeExecutor(self.store, self._compute), check=False).jobs == ()
            self._touch_training()

    def _touch_training(self) -> None:
        """After a release the model stays as reverted until its input changes: change it, so that all is due again."""
        with self.store.commit("training") as session:
            session.write("touched", str(self.store.state.n))
        assert self.store.run(executor=FakeExecutor(self.store, self._compute), check=False).ok

    @invariant()
    def nothing_is_computed_twice(self) -> None:
        assert self.twice == []

    @invariant()
    def outputs_are_those_of_a_computation_from_nothing(self) -> None:
        if not self.settled:
            return
        fresh = Store.init(f"memory://fresh-{next(_names)}")
        for repo in ("training", "images"):
            with fresh.commit(repo) as session:
                for info in self.store[repo].ls("/", recursive=True):
                    session.write(info.path, self.store[repo].read_bytes(info.path))
        other = History.__new__(History)
        other.store, other.code, other.done, other.twice = fresh, self.code, set(), []
        other._submit()
        fresh.run(executor=FakeExecutor(fresh, other._compute), check=False)
        for repo in ("model", "copy", "last"):
            assert self.store[repo].tree.root == fresh[repo].tree.root, repo


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
