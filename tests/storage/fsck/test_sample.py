from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.fsck.sample import CheckedLog, choose_sample
from dmlpipe.storage.store import Store
from dmlpipe.storage.testing import CountingBackend

sizes = st.dictionaries(st.text("abc/", min_size=1, max_size=4), st.integers(0, 50), min_size=1, max_size=30)


@given(sizes, st.floats(0.01, 1.0))
def test_enough_samples_read_everything_and_none_reads_much_more_than_asked(
    listed: dict[str, int], fraction: float
) -> None:
    checked: dict[str, float] = {}
    total, largest = sum(listed.values()), max(listed.values())
    for turn in range(1, len(listed) + 2):
        chosen = choose_sample({"objects": listed}, checked, fraction)
        assert chosen
        assert sum(listed[key] for key in chosen) <= fraction * total + largest
        assert all(key not in checked for key in chosen) or checked.keys() | chosen == listed.keys()
        checked |= dict.fromkeys(chosen, float(turn))
        if checked.keys() == listed.keys():
            assert turn <= 1 / fraction + 1 or total == 0
            return
    pytest.fail("the samples never covered everything")


def test_what_was_checked_longest_ago_comes_first_once_all_was() -> None:
    listed = {"nodes": dict.fromkeys("abcd", 10)}
    assert choose_sample(listed, {"a": 3.0, "b": 1.0, "c": 2.0, "d": 4.0}, 0.5) == {"b", "c"}


def test_the_log_forgets_what_is_gone_and_survives_damage(tmp_path: Path) -> None:
    now = iter([1.0, 2.0, 3.0])
    log = CheckedLog(tmp_path / "cache" / "checked.sqlite", clock=lambda: next(now))
    assert log.note({"a", "b"}, {"a", "b", "c"}) == 1
    assert log.note({"c"}, {"b", "c"}) == 0
    assert log.times() == {"b": 1.0, "c": 2.0}
    log.file.write_bytes(b"no database at all, whatever it was" * 100)
    assert log.times() == {}
    assert log.note({"b"}, {"b", "c"}) == 1


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    for number in range(10):
        store.put("r", (f"n/{number}", os.urandom(2 << 20)), (f"s/{number}", os.urandom(3000)))
    return store


def test_samples_find_damage_anywhere_within_as_many_as_it_takes(store: Store) -> None:
    for prefix in ("nodes/", "objects/", "packs/", "index/"):
        key = sorted(key for key, _ in store.backend.list(prefix))[-1]
        body = store.backend.get(key)
        store.backend.put(key, body[:-1] + bytes([body[-1] ^ 1]))
        found = []
        for _ in range(11):
            report = store.fsck(sample=0.1)
            assert report.size_bytes <= 0.1 * 21e6 + (2 << 20) + 100_000
            found += [problem.object for problem in report.problems]
        assert key in found, prefix
        store.backend.put(key, body)


def test_a_sample_says_how_much_was_never_checked(store: Store) -> None:
    first = store.fsck(sample=0.5)
    assert first.ok
    assert 0 < first.never < first.stored
    assert 0 < first.objects < first.stored
    second = store.fsck(sample=0.6)
    assert second.never == 0
    assert store.fsck().never == 0


def test_what_a_sample_finds_is_named_with_what_it_touches(store: Store) -> None:
    key = next(key for key, _ in store.backend.list("objects/"))
    store.backend.put(key, b"x" * (2 << 20))
    problems = [problem for _ in range(11) for problem in store.fsck(sample=0.1).problems]
    assert {(problem.kind, problem.object) for problem in problems} == {("damaged", key)}
    (touch,) = problems[0].touches
    assert touch.what == "file"
    assert touch.name.startswith("r@master:/n/")


def test_a_sample_reads_no_more_than_it_says(store: Store) -> None:
    counting = CountingBackend(store.backend)
    reader = Store(counting, store.info, cache_dir=store.cache_dir)
    reader.fsck(sample=0.1)
    few = counting.counts["get"]
    counting.counts.clear()
    reader.fsck()
    assert few - 10 < (counting.counts["get"] - 10) / 3  # each reads the ten entries of the ledger
