"""Pipelines that know datums by content: names do not count, and equal datums share what they write."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlpipe.scheduler.inputs.combine import cross
from dmlpipe.scheduler.inputs.leaf import files
from dmlpipe.scheduler.pipelines.spec import PipelineSpec
from dmlpipe.scheduler.store import Store
from dmlpipe.storage.objects.value import decode_value
from dmlpipe.worker.job import CommandTransform, Datum, JobSpec
from tests.scheduler.fake_executor import FakeExecutor

_names = itertools.count()


def by_content(store: Store) -> FakeExecutor:
    """Each datum writes two files named by its content, one of them in a folder."""

    def compute(spec: JobSpec, datum: Datum) -> dict[str, bytes]:
        content = b"-".join(store.objects.read(decode_value(item.value)) for item in datum.items)
        return {f"{content.decode()}.out": content, f"more/{content.decode()}": b"more"}

    return FakeExecutor(store, compute)


def spec(name: str = "digests", **changes: object) -> PipelineSpec:
    given = {"input": files("images", "/*"), "by_content": True} | changes
    return PipelineSpec(name=name, transform=CommandTransform(argv=("true",)), code_id="1", **given)  # type: ignore[arg-type]


def replace(store: Store, repo: str, contents: dict[str, str]) -> None:
    with store.commit(repo) as session:
        for path in [path.decode() for path, _ in store[repo].tree.scan()] if store.refresh().head(repo) else []:
            session.delete(path)
        for path, text in contents.items():
            session.write(path, text)


Step = dict[str, str]
steps = st.lists(
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["1", "2", "3"]), max_size=4), min_size=1, max_size=5
)


@settings(max_examples=25)
@given(steps)
def test_every_content_is_computed_in_one_job_only_and_stands_while_one_file_has_it(history: list[Step]) -> None:
    store = Store.init(f"memory://by-content-{next(_names)}")
    store.create_repo("images")
    store.submit([spec()])
    known: set[str] = set()
    for contents in history:
        replace(store, "images", contents)
        executor = by_content(store)
        summary = store.run(executor=executor)
        new = set(contents.values()) - known
        assert {contents[key.decode()] for _, key in executor.calls} == new
        known |= new
        expected = {path: 0 for text in contents.values() for path in (f"{text}.out", f"more/{text}")}
        found = [path.decode() for path, _ in store["digests"].tree.scan()]
        assert sorted(found) == sorted(expected)
        assert store["digests"].size == sum(1 + 4 for _ in set(contents.values()))
        for text in set(contents.values()):
            made = store.why(f"digests:/{text}.out")
            assert made.datum is not None
            assert contents[made.datum.key[0]] == text, "it leads to a file that is there"
        assert summary.ok


def test_a_new_name_for_what_was_removed_before_is_found(store: Store) -> None:
    for contents in ({"a": "1"}, {}, {"b/c": "1"}):
        replace(store, "images", contents)
        executor = by_content(store)
        store.submit([spec(input=files("images", "/**"))])
        store.run(executor=executor)
    assert executor.calls == []
    assert store["digests"].read_bytes("/1.out") == b"1"


def test_only_names_are_dropped_not_which_input_a_content_came_by(store: Store) -> None:
    replace(store, "images", {"a": "1", "b": "2"})
    replace(store, "masks", {"x": "2"})
    source = cross(files("images", "/*"), files("masks", "/*"))
    store.submit([spec(input=source)])
    store.run(executor=by_content(store))
    replace(store, "images", {"z": "1"})
    executor = by_content(store)
    store.run(executor=executor)
    assert executor.calls == []
    replace(store, "images", {"z": "2"})
    replace(store, "masks", {"x": "1"})
    executor = by_content(store)
    store.run(executor=executor)
    assert len(executor.calls) == 1


def test_names_count_again_once_it_is_taken_back(store: Store) -> None:
    replace(store, "images", {"a": "1"})
    store.submit([spec()])
    store.run(executor=by_content(store))
    store.submit([spec(by_content=False)])
    executor = by_content(store)
    store.run(executor=executor)
    assert len(executor.calls) == 1


def test_two_datums_of_unequal_content_still_clash(store: Store) -> None:
    replace(store, "images", {"a": "1", "b": "2"})
    store.submit([spec()])
    executor = FakeExecutor(store, lambda _spec, datum: {"all": datum.items[0].value})
    job = store.run(executor=executor, check=False).jobs[0]
    assert job.state == "failed"
    assert "images:/a and images:/b" in job.reason or "images:/b and images:/a" in job.reason


@pytest.fixture
def store() -> Store:
    return Store.init(f"memory://by-content-{next(_names)}")
