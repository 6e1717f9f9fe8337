"""Globs: how many datums a pattern makes, and which."""

from __future__ import annotations

import pytest

from dmlpipe.storage.errors import InvalidInputError
from tests.conformance.lab import Lab, cross, join, pfs

TREE = ("a.csv", "b.csv", "c.txt", "1/x.csv", "1/y.csv", "1/deep/z.csv", "2/x.csv", "foo-1", "foo-22", "foobar")
"""Four folders: 1, 1/deep, 2, and the root."""


def datums(lab: Lab, glob: str, **fields: object) -> int:
    """Datums of a pipeline that reads the tree through one glob."""
    lab.put("r", dict.fromkeys(TREE, "x"))
    lab.submit(lab.spec("p", pfs("r", glob, **fields)))
    return lab.plan()["p"].total


def seen(lab: Lab, glob: str, **fields: object) -> set[str]:
    """What each datum of a pipeline finds at the path that it is told."""
    lab.put("r", dict.fromkeys(TREE, "x"))
    lab.submit(
        lab.spec(
            "p", pfs("r", glob, name="in", **fields), 'p=${in##*/pfs/in}; echo "$p" > "/pfs/out/$(echo "$p" | tr / _)"'
        )
    )
    lab.run()
    return {text.strip() for text in lab.files("p").values()}


def test_the_root_is_one_datum(lab: Lab) -> None:
    assert datums(lab, "/") == 1


def test_a_star_takes_files_and_folders_at_the_top(lab: Lab) -> None:
    assert datums(lab, "/*") == 8


def test_two_stars_with_a_slash_take_the_second_level_only(lab: Lab) -> None:
    assert datums(lab, "/*/*") == 4


def test_a_double_star_takes_each_file_once(lab: Lab) -> None:
    assert datums(lab, "/**") == 10


def test_a_double_star_with_glob_dirs_takes_folders_too(lab: Lab) -> None:
    assert datums(lab, "/**", globDirs=True) == 13


def test_folders_of_glob_dirs_hold_what_is_in_them(lab: Lab) -> None:
    assert seen(lab, "/1/**", globDirs=True) == {"/1/x.csv", "/1/y.csv", "/1/deep", "/1/deep/z.csv"}


def test_a_double_star_and_an_ending_match_at_any_depth(lab: Lab) -> None:
    assert datums(lab, "**.csv") == 6


def test_a_double_star_between_slashes_takes_at_least_one_folder(lab: Lab) -> None:
    assert datums(lab, "/**/*.csv") == 4


def test_a_slash_at_the_end_and_none_in_front_change_nothing(lab: Lab) -> None:
    assert datums(lab, "*/") == 8


def test_a_question_mark_is_one_character(lab: Lab) -> None:
    assert seen(lab, "/foo-?") == {"/foo-1"}


def test_a_literal_path_is_one_datum(lab: Lab) -> None:
    assert datums(lab, "/1/deep") == 1


def test_a_pattern_that_matches_nothing_makes_no_datum(lab: Lab) -> None:
    assert datums(lab, "/*.png") == 0


def test_a_class_takes_one_of_its_characters(lab: Lab) -> None:
    assert seen(lab, "/[ac].*") == {"/a.csv", "/c.txt"}


def test_a_negated_class_takes_one_of_the_others(lab: Lab) -> None:
    assert seen(lab, "/[!a].*") == {"/b.csv", "/c.txt"}


def test_posix_classes_and_their_negations(lab: Lab) -> None:
    assert seen(lab, "/foo[[:^alpha:]][[:digit:]]") == {"/foo-1"}


def test_braces_are_alternatives(lab: Lab) -> None:
    assert seen(lab, "/{a.csv,2/*}") == {"/a.csv", "/2/x.csv"}


def test_at_takes_one_of_its_alternatives(lab: Lab) -> None:
    assert seen(lab, "/@(a|b).csv") == {"/a.csv", "/b.csv"}


def test_plus_takes_its_alternatives_once_or_more(lab: Lab) -> None:
    assert seen(lab, "/foo-+(1|2)") == {"/foo-1", "/foo-22"}


def test_star_before_a_parenthesis_takes_them_any_number_of_times(lab: Lab) -> None:
    assert seen(lab, "/foo*(bar|-1)") == {"/foobar", "/foo-1"}


def test_question_mark_before_a_parenthesis_takes_them_at_most_once(lab: Lab) -> None:
    assert seen(lab, "/foo-2?(2)") == {"/foo-22"}


def test_an_exclamation_mark_takes_what_is_none_of_them(lab: Lab) -> None:
    assert seen(lab, "/!(foo*|*.csv)") == {"/c.txt", "/1", "/2"}


def test_nothing_is_not_everything(lab: Lab) -> None:
    assert datums(lab, "/!(**)") == 0


def test_a_group_may_reach_over_a_slash(lab: Lab) -> None:
    assert seen(lab, "/1?(/deep)") == {"/1", "/1/deep"}


def test_a_backslash_takes_the_meaning_away(lab: Lab) -> None:
    lab.put("r", {"*": "", "a": ""})
    lab.submit(lab.spec("p", pfs("r", "/\\*")))
    assert lab.plan()["p"].total == 1


def test_names_may_be_of_any_language(lab: Lab) -> None:
    lab.put("r", {"мир/1": "", "мир/2": "", "é": ""})
    lab.submit(lab.spec("p", cross(pfs("r", "/м*/?", name="a"), pfs("r", "/e\u0301", name="b"))))
    assert lab.plan()["p"].total == 2


def test_captures_are_numbered_by_their_opening_parentheses(lab: Lab) -> None:
    lab.put("left", {"ab-1": "", "ab-2": ""})
    lab.put("right", {"1_b": "", "3_b": ""})
    left = pfs("left", "/(a(?))-(*)", joinOn="$3$2")
    lab.submit(lab.spec("p", join(left, pfs("right", "/(*)_(*)", joinOn="$1$2"))))
    assert lab.plan()["p"].total == 1


def test_a_malformed_pattern_is_refused_at_submit(lab: Lab) -> None:
    with pytest.raises(InvalidInputError, match="'\\[' is not closed"):
        datums(lab, "/[a")
    assert [name for name, _ in lab.store.refresh().pipelines()] == []
