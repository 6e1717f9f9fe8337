"""Inputs: what they yield, what comes in under which name, what counts of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dmlpipe.storage.errors import ErrorCode, InvalidInputError
from tests.conformance.lab import Lab, Spec, cross, group, join, pfs, union

SHOW = (
    'find -L /pfs -type f -not -path "/pfs/out/*" -not -name .env | sed "s|.*/pfs/||" | sort > "/pfs/out/$(date +%s%N)"'
)
"""A file that lists what the datum sees."""


def seen(lab: Lab, input: Spec, **fields: Any) -> list[str]:
    """What each datum sees: its files' paths below /pfs, joined by spaces."""
    lab.submit(lab.spec("p", input, SHOW, **fields))
    ran = lab.run()
    assert ran.states == {"p": "done"}, ran.summary.jobs
    return sorted(" ".join(text.split()) for text in lab.files("p").values())


# --- cross, union, names ----------------------------------------------------------------------------------------------


def test_a_cross_is_every_combination(lab: Lab) -> None:
    lab.put("r", {"a": "", "b": ""})
    lab.put("s", {"1": "", "2": ""})
    assert seen(lab, cross(pfs("r"), pfs("s"))) == ["r/a s/1", "r/a s/2", "r/b s/1", "r/b s/2"]


def test_a_cross_with_an_empty_side_is_empty(lab: Lab) -> None:
    lab.put("r", {"a": ""})
    lab.put("s", {"x.csv": ""})
    assert seen(lab, cross(pfs("r"), pfs("s", "/*.png"))) == []


def test_a_union_is_one_after_the_other(lab: Lab) -> None:
    lab.put("r", {"a": "", "b": ""})
    lab.put("s", {"1": ""})
    assert seen(lab, union(pfs("r"), pfs("s"))) == ["r/a", "r/b", "s/1"]


def test_members_of_a_union_may_share_a_name(lab: Lab) -> None:
    lab.put("r", {"a": ""})
    lab.put("s", {"1": ""})
    assert seen(lab, union(pfs("r", name="in"), pfs("s", name="in"))) == ["in/1", "in/a"]


def test_sides_of_a_cross_may_not(lab: Lab) -> None:
    lab.put("r", {"a": ""})
    with pytest.raises(InvalidInputError, match="two inputs are named 'r'") as caught:
        seen(lab, cross(pfs("r"), pfs("r")))
    assert caught.value.code is ErrorCode.BAD_INPUT


def test_one_repo_twice_needs_two_names(lab: Lab) -> None:
    lab.put("r", {"a": "", "b": ""})
    found = seen(lab, cross(pfs("r", name="x"), pfs("r", name="y")))
    assert found == ["x/a y/a", "x/a y/b", "x/b y/a", "x/b y/b"]


@pytest.mark.parametrize("name", ["out", ".env"])
def test_reserved_names_are_refused(lab: Lab, name: str) -> None:
    lab.put("r", {"a": ""})
    with pytest.raises(InvalidInputError, match="cannot be named"):
        seen(lab, pfs("r", name=name))


def test_combinations_nest(lab: Lab) -> None:
    for repo in ("a", "b", "c"):
        lab.put(repo, {"1": "", "2": ""})
    assert len(seen(lab, cross(union(pfs("a"), pfs("b")), pfs("c")))) == 8


# --- join, group ------------------------------------------------------------------------------------------------------


def shops(lab: Lab) -> None:
    lab.put("sales", {"basel-1": "", "basel-2": "", "zug-1": ""})
    lab.put("places", {"basel": "", "bern": ""})


def sales(**fields: Any) -> Spec:
    return pfs("sales", "/(*)-(*)", joinOn="$1", groupBy="$1", **fields)


def places(**fields: Any) -> Spec:
    return pfs("places", "/(*)", joinOn="$1", groupBy="$1", **fields)


def test_a_join_pairs_what_has_one_key(lab: Lab) -> None:
    shops(lab)
    assert seen(lab, join(sales(), places())) == ["places/basel sales/basel-1", "places/basel sales/basel-2"]


def test_an_outer_input_stays_without_a_partner(lab: Lab) -> None:
    shops(lab)
    found = seen(lab, join(sales(), places(outerJoin=True)))
    assert found == ["places/basel sales/basel-1", "places/basel sales/basel-2", "places/bern"]


def test_an_outer_join_of_both_keeps_both(lab: Lab) -> None:
    shops(lab)
    found = seen(lab, join(sales(outerJoin=True), places(outerJoin=True)))
    assert found == ["places/basel sales/basel-1", "places/basel sales/basel-2", "places/bern", "sales/zug-1"]


def test_a_partner_that_comes_takes_the_outer_datum_away(lab: Lab) -> None:
    shops(lab)
    seen(lab, join(sales(), places(outerJoin=True)))
    lab.put("sales", {"bern-1": ""})
    assert lab.run().counts == {"p": (1, 2)}
    assert "places/bern\n" not in lab.files("p").values()


def test_a_join_of_three_needs_all_three(lab: Lab) -> None:
    shops(lab)
    lab.put("taxes", {"basel": "", "zug": ""})
    found = seen(lab, join(sales(), places(), pfs("taxes", "/(*)", joinOn="$1")))
    assert found == [f"places/basel sales/basel-{at} taxes/basel" for at in (1, 2)]


def test_a_group_is_one_datum_for_each_key(lab: Lab) -> None:
    shops(lab)
    assert seen(lab, group(sales(), places())) == [
        "places/basel sales/basel-1 sales/basel-2",
        "places/bern",
        "sales/zug-1",
    ]


def test_a_group_by_what_is_no_capture_is_one_datum(lab: Lab) -> None:
    shops(lab)
    assert seen(lab, group(pfs("sales", "/*", groupBy="$1"))) == ["sales/basel-1 sales/basel-2 sales/zug-1"]


def test_a_group_by_nothing_is_one_datum(lab: Lab) -> None:
    shops(lab)
    assert seen(lab, group(pfs("sales", "/(*)-(*)"))) == ["sales/basel-1 sales/basel-2 sales/zug-1"]


def test_a_join_on_what_is_no_capture_is_a_cross(lab: Lab) -> None:
    shops(lab)
    found = seen(lab, join(pfs("sales", "/*", joinOn="$1"), pfs("places", "/*", joinOn="$1")))
    assert len(found) == 6


def test_a_group_of_a_join_groups_the_joined_files(lab: Lab) -> None:
    shops(lab)
    assert seen(lab, group(join(sales(), places()))) == ["places/basel sales/basel-1 sales/basel-2"]


def test_a_new_file_of_a_group_reruns_its_group_only(lab: Lab) -> None:
    shops(lab)
    seen(lab, group(sales(), places()))
    lab.put("sales", {"zug-2": ""})
    assert lab.run().counts == {"p": (1, 2)}


# --- empty_files ------------------------------------------------------------------------------------------------------


def test_empty_files_hold_nothing(lab: Lab) -> None:
    lab.put("r", {"a": "content", "d/b": "more"})
    lab.submit(
        lab.spec(
            "p", pfs("r", "/", emptyFiles=True), "find $r -type f -size +0 > /pfs/out/full; ls $r > /pfs/out/names"
        )
    )
    lab.run()
    assert lab.files("p") == {"/full": "", "/names": "a\nd\n"}


def test_a_link_to_an_empty_file_is_a_copy_by_reference(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    big = "x" * 200_000
    lab.put("r", {"a": big, "d/b": "more", "d/c": ""})
    lab.submit(lab.spec("p", pfs("r", "/*", emptyFiles=True), 'ln -s "$r" "/pfs/out/moved-$(basename $r)"'))
    monkeypatch.setattr(type(lab.store.objects), "read_many", refuse)
    assert lab.run().states == {"p": "done"}
    monkeypatch.undo()
    assert lab.files("p") == {"/moved-a": big, "/moved-d/b": "more", "/moved-d/c": ""}


def refuse(_: object, values: Sequence[object]) -> list[bytes]:
    assert not values, "content is read"
    return []


def test_a_shuffle_moves_files_between_folders(lab: Lab) -> None:
    lab.put("r", {"2025/x": "1", "2025/y": "2", "2026/x": "3"})
    shuffle = 'mkdir -p "/pfs/out/$(basename $r)"; ln -s "$r" "/pfs/out/$(basename $r)/$(basename $(dirname $r))"'
    lab.submit(lab.spec("p", pfs("r", "/*/*", emptyFiles=True), shuffle))
    lab.run()
    assert lab.files("p") == {"/x/2025": "1", "/x/2026": "3", "/y/2025": "2"}


def test_empty_files_still_count_by_content(lab: Lab) -> None:
    lab.put("r", {"a": "1", "b": "1"})
    lab.submit(lab.spec("p", pfs("r", "/*", emptyFiles=True), 'ln -s "$r" /pfs/out/'))
    lab.run()
    lab.put("r", {"a": "2"})
    assert lab.run().counts == {"p": (1, 1)}
    assert lab.files("p") == {"/a": "2", "/b": "1"}


# --- lazy -------------------------------------------------------------------------------------------------------------


def test_lazy_files_are_pipes(lab: Lab) -> None:
    lab.put("r", {"a": "content", "d/b": "more", "empty": ""})
    lines = 'find "$r" -type p | wc -l > /pfs/out/pipes; cat "$r/a" "$r/empty" "$r/d/b" > /pfs/out/read'
    lab.submit(lab.spec("p", pfs("r", "/", lazy=True), lines))
    lab.run()
    assert {path: text.strip() for path, text in lab.files("p").items()} == {"/pipes": "3", "/read": "contentmore"}


def test_a_lazy_file_that_is_not_opened_is_not_read(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.put("r", {"a": "x" * 200_000, "b": "y" * 200_000})
    read: list[int] = []
    real = type(lab.store.objects).open

    def counted(self: Any, value: Any) -> Any:
        read.append(value.size)
        return real(self, value)

    monkeypatch.setattr(type(lab.store.objects), "open", counted)
    lab.submit(lab.spec("p", pfs("r", "/", lazy=True), 'cat "$r/a" | wc -c > /pfs/out/size'))
    lab.run()
    assert read == [200_000]
    assert lab.files("p")["/size"].strip() == "200000"


def test_a_lazy_file_need_not_be_read_to_its_end(lab: Lab) -> None:
    lab.put("r", {"a": "line\n" * 100_000})
    lab.submit(lab.spec("p", pfs("r", "/*", lazy=True), 'head -1 "$r" > /pfs/out/first'))
    assert lab.run().states == {"p": "done"}
    assert lab.files("p") == {"/first": "line\n"}


def test_a_link_to_a_lazy_file_is_a_copy_by_reference(lab: Lab) -> None:
    lab.put("r", {"a": "content"})
    lab.submit(lab.spec("p", pfs("r", "/*", lazy=True), 'ln -s "$r" /pfs/out/a'))
    lab.run()
    assert lab.files("p") == {"/a": "content"}


def test_an_input_is_lazy_or_empty(lab: Lab) -> None:
    lab.put("r", {"a": ""})
    with pytest.raises(InvalidInputError, match="lazy and empty"):
        lab.submit(lab.spec("p", pfs("r", lazy=True, emptyFiles=True)))


# --- reference --------------------------------------------------------------------------------------------------------


def marked(lab: Lab) -> Spec:
    input = cross(pfs("r"), pfs("model", "/", reference=True))
    return lab.spec("p", input, "cat $r /pfs/model/m > /pfs/out/$(basename $r)")


def test_a_change_of_a_reference_alone_computes_nothing(lab: Lab) -> None:
    lab.put("r", {"a": "1"})
    lab.put("model", {"m": "1"})
    lab.submit(
        lab.spec("p", cross(pfs("r"), pfs("model", "/", reference=True)), "cat /pfs/*/[am] > /pfs/out/$(basename $r)")
    )
    lab.run()
    lab.put("model", {"m": "2"})
    assert lab.run().computed == 0
    assert lab.files("p") == {"/a": "11"}


def test_a_datum_that_runs_sees_the_reference_as_it_is(lab: Lab) -> None:
    lab.put("r", {"a": "1"})
    lab.put("model", {"m": "1"})
    lab.submit(
        lab.spec(
            "p", cross(pfs("r"), pfs("model", "/", reference=True)), "cat $r /pfs/model/m > /pfs/out/$(basename $r)"
        )
    )
    lab.run()
    lab.put("model", {"m": "2"})
    lab.put("r", {"b": "1"})
    assert lab.run().counts == {"p": (1, 1)}
    assert lab.files("p") == {"/a": "11", "/b": "12"}


def test_a_new_file_of_a_varying_reference_is_a_datum(lab: Lab) -> None:
    lab.put("r", {"a": "1"})
    lab.submit(lab.spec("p", pfs("r", reference=True)))
    lab.run()
    lab.put("r", {"a": "2", "b": "1"})
    assert lab.run().counts == {"p": (1, 1)}


def test_to_become_a_reference_is_a_change(lab: Lab) -> None:
    lab.put("r", {"a": "1"})
    lab.submit(lab.spec("p", pfs("r")))
    lab.run()
    lab.submit(lab.spec("p", pfs("r", reference=True)))
    assert lab.run().counts == {"p": (1, 0)}


# --- repos and branches -----------------------------------------------------------------------------------------------


def test_an_input_follows_the_branch_it_names(lab: Lab) -> None:
    lab.put("r", {"a": ""})
    lab.put("r", {"b": ""}, branch="dev")
    assert seen(lab, pfs("r", branch="dev")) == ["r/b"]


def test_two_branches_of_one_repo(lab: Lab) -> None:
    lab.put("r", {"a": ""})
    lab.put("r", {"b": ""}, branch="dev")
    assert seen(lab, cross(pfs("r", name="old"), pfs("r", branch="dev", name="new"))) == ["new/b old/a"]


def test_an_input_follows_no_commit(lab: Lab) -> None:
    lab.put("r", {"a": ""})
    with pytest.raises(InvalidInputError, match="an input follows a branch"):
        lab.submit(lab.spec("p", pfs("r", commit="abcd")))


def test_an_empty_commit_is_one_datum_by_its_root(lab: Lab) -> None:
    lab.put("r", {"a": ""})
    lab.remove("r", "a")
    lab.submit(lab.spec("p", pfs("r", "/"), "ls $r > /pfs/out/names"))
    assert lab.run().counts == {"p": (1, 0)}
    assert lab.files("p") == {"/names": ""}
