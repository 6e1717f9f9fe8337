from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.errors import ErrorCode, InvalidInputError, NotFoundError
from dmlpipe.storage.records import CommitMade, Entry, Record, RefSet, RepoCreate, TagSet
from dmlpipe.storage.refs import Ref, check_name, parse_ref, resolve, show_commit
from dmlpipe.storage.state import State

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
PARTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda part: part not in (".", "..")
)
COMMITS = {name: (f"{index:02d}" + name) * 12 for index, name in enumerate(["abcdef", "fedcba", "012345"])}
COMMITS = {name: (text * 2)[:64] for name, text in COMMITS.items()}
FIRST, SECOND, THIRD = (COMMITS[name] for name in ("abcdef", "fedcba", "012345"))
PARENTS = {FIRST: (), SECOND: (FIRST,), THIRD: (SECOND,)}


def state_of(*recs: Record) -> State:
    state = State()
    entry = Entry(v=1, n=0, prev="0" * 64, ts="", nonce="", actor="", recs=recs)
    assert state.apply(entry, "1" * 64) == []
    return state


@pytest.fixture
def state() -> State:
    made = [CommitMade(repo="images", id=commit, tree="", files=0, size=0) for commit in (FIRST, SECOND, THIRD)]
    return state_of(
        RepoCreate(repo="images"),
        RepoCreate(repo="empty"),
        *made,
        RefSet(repo="images", branch="master", old="", new=THIRD),
        RefSet(repo="images", branch="dev", old="", new=FIRST),
        TagSet(repo="images", tag="v1", commit=SECOND),
    )


def find(text: str, state: State) -> str:
    return resolve(parse_ref(text), state, lambda commit: PARENTS[commit])


@given(NAMES, NAMES, st.integers(0, 9), st.none() | st.lists(PARTS, max_size=3).map("/".join))
def test_what_is_shown_parses_to_the_same(repo: str, ref: str, up: int, path: str | None) -> None:
    shown = str(Ref(repo, ref, up, path))
    again = parse_ref(shown)
    assert str(parse_ref(str(again))) == str(again)
    assert (again.repo, again.ref, again.up) == (repo, ref, up)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("images", Ref("images")),
        ("images:/", Ref("images", path="")),
        ("images:a/b", Ref("images", path="a/b")),
        ("images@dev^:/a", Ref("images", "dev", 1, "a")),
        ("images@dev^^~3", Ref("images", "dev", 5)),
        ("images^2", Ref("images", up=2)),
        ("dml://images@dev/a/b.png", Ref("images", "dev", 0, "a/b.png")),
        ("dml://images", Ref("images")),
        ("images:/e\u0301", Ref("images", path="\u00e9")),
        ("images:/a:b@c^", Ref("images", path="a:b@c^")),
    ],
)
def test_forms_of_a_name(text: str, expected: Ref) -> None:
    assert parse_ref(text) == expected


@pytest.mark.parametrize(
    "text", ["", "@master", "images@", ":/a", "a@b@c", "im ages", "-x", "images@^", "a@b^x", "dml://"]
)
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_ref(text)
    assert caught.value.code in (ErrorCode.BAD_REF, ErrorCode.BAD_NAME)


@pytest.mark.parametrize("text", ["images:/a/../b", "images:/./a", "images:/a\0b"])
def test_a_path_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_ref(text)
    assert caught.value.code == ErrorCode.BAD_PATH


def test_names_have_a_length_limit() -> None:
    with pytest.raises(InvalidInputError, match="cannot be the name of a repo"):
        check_name("a" * 129)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("images", THIRD),
        ("images^", SECOND),
        ("images@master^2", FIRST),
        ("images@dev", FIRST),
        ("images@v1", SECOND),
        (f"images@{SECOND[:6]}", SECOND),
        (f"images@{SECOND}", SECOND),
        (f"images@{SECOND[:8]}^", FIRST),
    ],
)
def test_refs_resolve(text: str, expected: str, state: State) -> None:
    assert find(text, state) == expected


@pytest.mark.parametrize(
    ("text", "code", "message", "hint"),
    [
        ("images@mastr", "no-branch", "no branch 'mastr' in repo 'images'", "did you mean images@master?"),
        ("imagse", "no-repo", "no repo 'imagse'", "did you mean images?"),
        ("empty", "no-commit", "no commit yet", "dmlpipe put empty"),
        ("images@beef", "no-commit", "no branch, tag or commit 'beef'", "dmlpipe log images"),
        ("images@master^9", "no-commit", "only 2 ancestors", "dmlpipe log images@master"),
        ("images@dev^", "no-commit", "no parent", "dmlpipe log"),
    ],
)
def test_what_is_not_found_says_what_to_try(text: str, code: str, message: str, hint: str, state: State) -> None:
    with pytest.raises(NotFoundError) as caught:
        find(text, state)
    assert caught.value.code == code
    assert message in str(caught.value)
    assert hint in (caught.value.hint or "")


def test_an_ambiguous_commit_id_lists_the_commits() -> None:
    one, two = "abcd" + "0" * 60, "abcd" + "1" * 60
    state = state_of(
        RepoCreate(repo="r"),
        *[CommitMade(repo="r", id=commit, tree="", files=0, size=0) for commit in (one, two)],
    )
    with pytest.raises(InvalidInputError, match="2 commits begin with 'abcd': abcd0000, abcd1111"):
        find("r@abcd", state)


def test_commits_are_shown_by_six_digits() -> None:
    assert show_commit("images", "7d02b1ff", "a.png") == "images@7d02b1:/a.png"
