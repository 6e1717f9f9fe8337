from __future__ import annotations

import fnmatch
import re
import subprocess

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.errors import ErrorCode, InvalidInputError
from dmlpipe.storage.glob import compile_glob, count_matches, glob_tree
from dmlpipe.storage.objects.node import NodeStore
from dmlpipe.storage.trees.prolly import Tree, build
from tests.storage.glob_oracle import LETTERS, Node, kinds, matches, part, paths, patterns, render, trees

YES = [
    ("/*", "a", {}),
    ("*", "a", {}),
    ("/a/", "a", {}),
    ("/*.png", ".png", {}),
    ("/*/*", "a/b", {}),
    ("/**", "a/b/c", {}),
    ("/**/*.png", "x.png", {}),
    ("/**/*.png", "a/b/x.png", {}),
    ("/a/**", "a/b/c", {}),
    ("/a/**/z", "a/z", {}),
    ("**.2", "x/y.2", {}),
    ("/foo-?", "foo-1", {}),
    ("/[a-c][!a-c]", "bd", {}),
    ("/[^x]", "y", {}),
    ("/[]]", "]", {}),
    ("/[[:digit:][:upper:]]*", "Q", {}),
    ("/{train,test}/*", "test/1", {}),
    ("/{,un}labelled", "labelled", {}),
    ("/{a*,b{c,d}}", "bd", {}),
    ("/{stem}.png", "x.y.png", {"stem": "x.y"}),
    ("/{x}/{x}.txt", "1/1.txt", {"x": "1"}),
    ("/(*)/(*).txt", "q/w.txt", {"1": "q", "2": "w"}),
    ("/((a|b)c)", "bc", {"1": "bc", "2": "b"}),
    ("/{n}-(*)", "u-v", {"n": "u", "1": "v"}),
    ("/@(a|b)", "a", {"1": "a"}),
    ("/+(ab)", "abab", {"1": "abab"}),
    ("/*(ab)c", "c", {"1": ""}),
    ("/?(x)y", "y", {"1": ""}),
    ("/!(a).txt", "ab.txt", {"1": "ab"}),
    ("/!(a|b)", "c", {"1": "c"}),
    (r"/\*", "*", {}),
    (r"/\{a\}", "{a}", {}),
    ("/é", "é", {}),
    ("/e\u0301", "é", {}),
    ("/a b.c+(d)", "a b.cd", {"1": "d"}),
    ("/[[:^alpha:]]", "1", {}),
    ("/[[:graph:]][[:blank:]][[:word:]]", "! _", {}),
    ("/{a/x,b}", "a/x", {}),
    ("/a?(/b)", "a", {"1": ""}),
    ("/a?(/b)", "a/b", {"1": "/b"}),
    ("/*(+(a|b)/(*).go)", "ab/x.go", {"1": "ab/x.go", "2": "ab", "3": "x"}),
]
NO = [
    ("/*", "a/b"),
    ("/*/*", "a"),
    ("/a?c", "a/c"),
    ("/[!a]", "/"),
    ("/a[+-9]b", "a/b"),
    ("/**/*.png", "a/x.jpg"),
    ("/{x}/{x}.txt", "1/2.txt"),
    ("/!(a).txt", "a.txt"),
    ("/!(**)", "a"),
    ("/!(a)/**", "a/x"),
    ("/.x", "ax"),
    ("/a", "A"),
    ("/[![:^alpha:]]", "1"),
    ("/[![:^alpha:]x]", "x"),
    ("/[[:^digit:]]", "/"),
]


@pytest.mark.parametrize(("pattern", "path", "captures"), YES)
def test_matches_with_captures(pattern: str, path: str, captures: dict[str, str]) -> None:
    assert compile_glob(pattern).match(path) == captures


@pytest.mark.parametrize(("pattern", "path"), NO)
def test_does_not_match(pattern: str, path: str) -> None:
    assert compile_glob(pattern).match(path) is None


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "it is empty"),
        ("/{a", "'{' is not closed at character 2"),
        ("/[a", r"'\[' is not closed at character 2"),
        ("[", r"'\[' is not closed at character 1"),
        ("/x(a|b", r"'\(' is not closed at character 3"),
        ("/a)", r"'\)' closes nothing at character 3"),
        ("/{a b}", "{a b} is no capture"),
        ("/{}", "{} is no capture"),
        ("/{_1}", "reserved"),
        ("/a//b", "a part of a path cannot be ''"),
        ("/a/../b", r"cannot be '\.\.'"),
        ("/[z-a]", "the range z-a is empty"),
        ("/[[:no:]]", r"no class \[:no:\]"),
        ("/a\\", "needs a character"),
        ("/[a/]", "cannot stand in brackets"),
        ("/a\0", "NUL"),
    ],
)
def test_a_malformed_pattern_is_refused_with_its_place(pattern: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        compile_glob(pattern)
    assert caught.value.code is ErrorCode.BAD_GLOB


def test_what_a_pattern_says_of_itself() -> None:
    glob = compile_glob("train/img_{n}.png/")
    assert (glob.pattern, glob.prefix, glob.depth, glob.captures) == ("/train/img_{n}.png", b"train/img_", 2, ("n",))
    assert glob.folders
    assert not glob.is_root
    deep = compile_glob("/a/**")
    assert (deep.prefix, deep.depth, deep.folders) == (b"a/", None, False)
    root = compile_glob("/")
    assert (root.prefix, root.depth, root.is_root) == (b"", 0, True)
    assert compile_glob("/!(**)x").depth == 1
    assert (compile_glob("/a?(/b)").depth, compile_glob("/a?(/b)").folders) == (None, True)
    assert compile_glob("/**", folders=True).folders


@given(st.text(st.sampled_from("ab.*?[]!-{},()|/\\@+_1"), max_size=10))
def test_any_text_compiles_or_is_refused(text: str) -> None:
    try:
        glob = compile_glob(text)
    except InvalidInputError as error:
        refused = error
    else:
        glob.match("a/b")
        return
    assert refused.code is ErrorCode.BAD_GLOB
    assert repr(text) in str(refused)


@given(
    st.text(st.sampled_from("ab*?."), min_size=1, max_size=6), st.text(st.sampled_from("ab."), min_size=1, max_size=6)
)
def test_within_one_part_it_agrees_with_fnmatch(pattern: str, path: str) -> None:
    if "**" in pattern or pattern in (".", ".."):
        return
    assert (compile_glob(pattern).match(path) is not None) == fnmatch.fnmatchcase(path, pattern)


def _tree(*paths: str) -> tuple[Tree, NodeStore]:
    nodes = NodeStore(MemoryBackend(f"glob-{hash(paths)}"), tree_target=4)
    return build(nodes, sorted((path.encode(), path.encode()) for path in paths)), nodes


def test_folders_sort_as_if_they_ended_in_a_slash() -> None:
    tree, _ = _tree("a/1", "a/2", "a.txt", "a0", "b")
    assert [(found.path, found.folder) for found in glob_tree(tree, compile_glob("/*"))] == [
        ("a.txt", False),
        ("a", True),
        ("a0", False),
        ("b", False),
    ]


def test_the_whole_repo_is_one_match_even_if_it_is_empty() -> None:
    tree, _ = _tree()
    assert [tuple(found) for found in glob_tree(tree, compile_glob("/"))] == [("", True, None, {})]


def test_a_literal_pattern_finds_a_file_or_a_folder() -> None:
    tree, _ = _tree("a/b/c", "d")
    found = {p: [m.path for m in glob_tree(tree, compile_glob(p))] for p in ("/a/b", "/a/b/c", "/d", "/a/x", "/d/e")}
    assert found == {"/a/b": ["a/b"], "/a/b/c": ["a/b/c"], "/d": ["d"], "/a/x": [], "/d/e": []}


def test_listing_folders_does_not_read_what_is_in_them() -> None:
    paths = [f"{folder}/{at:04}" for folder in "abc" for at in range(2000)]
    tree, nodes = _tree(*paths)
    total = sum(1 for _ in tree.walk_nodes())
    cold = Tree(NodeStore(nodes.backend, tree_target=4), tree.root)
    assert [found.path for found in glob_tree(cold, compile_glob("/*"))] == ["a", "b", "c"]
    assert isinstance(cold.nodes, NodeStore)
    assert cold.nodes.reads < total / 10


@given(st.data())
def test_walking_a_tree_finds_what_matching_every_path_finds(data: st.DataObject) -> None:
    part = st.text(st.sampled_from("ab.-"), min_size=1, max_size=2).filter(lambda text: text not in (".", ".."))
    drawn = data.draw(st.sets(st.lists(part, min_size=1, max_size=3).map("/".join), max_size=12))
    paths = {path for path in drawn if not any(other.startswith(path + "/") for other in drawn)}
    pattern = data.draw(
        st.sampled_from(["/*", "/**", "/*/*", "/a/*", "/{n}/b", "/**/b", "/a*", "/{a,b}", "/a", "/*/a/*"])
    )
    tree, _ = _tree(*sorted(paths))
    glob = compile_glob(pattern)
    folders = {path[:at] for path in paths for at, char in enumerate(path) if char == "/"} if glob.folders else set()
    expected = {path for path in paths if glob.match(path) is not None}
    expected |= {folder + "/" for folder in folders if glob.match(folder) is not None}
    found = [match.path + "/" * match.folder for match in glob_tree(tree, glob)]
    assert count_matches(tree, glob) == len(found)
    assert found == sorted(expected, key=str.encode)


@given(st.data())
def test_known_captures_find_what_has_them(data: st.DataObject) -> None:
    part = st.text(st.sampled_from("ab.-"), min_size=1, max_size=3).filter(lambda text: text not in (".", ".."))
    drawn = data.draw(st.sets(st.lists(part, min_size=1, max_size=3).map("/".join), max_size=12))
    paths = {path for path in drawn if not any(other.startswith(path + "/") for other in drawn)}
    pattern = data.draw(
        st.sampled_from(
            [
                "/{n}",
                "/{n}.b",
                "/{n}-*",
                "/*{n}",
                "/{n}/{m}",
                "/*/{n}",
                "/**/{n}",
                "/(*)-(*)",
                "/(**)",
                "/@(a|ab)*",
                "/x{n}{n}",
            ]
        )
    )
    tree, _ = _tree(*sorted(paths))
    glob = compile_glob(pattern)
    matches = list(glob_tree(tree, glob))
    assert count_matches(tree, glob) == len(matches)
    texts = st.one_of(
        st.sampled_from([match.captures for match in matches] or [{}]), st.just(dict.fromkeys(glob.captures, ""))
    )
    known = {name: text for name, text in data.draw(texts).items() if data.draw(st.booleans())}
    found = [match for match in glob_tree(tree, glob.given(known)) if known.items() <= match.captures.items()]
    assert found == [match for match in matches if known.items() <= match.captures.items()]


def test_known_captures_say_where_to_look() -> None:
    paths = [f"s{at:04}_{month}.csv" for at in range(2000) for month in range(3)]
    tree, nodes = _tree(*paths)
    cold = Tree(NodeStore(nodes.backend, tree_target=4), tree.root)
    glob = compile_glob("/{shop}_{month}.csv").given({"shop": "s1234"})
    assert [found.path for found in glob_tree(cold, glob)] == [f"s1234_{month}.csv" for month in range(3)]
    assert isinstance(cold.nodes, NodeStore)
    assert cold.nodes.reads < 20


# --- against oracles --------------------------------------------------------------------------------------------------


@given(patterns(slashes=True) | patterns(), st.lists(paths(), min_size=1, max_size=8))
def test_a_pattern_matches_what_a_slow_matcher_finds(nodes: tuple[Node, ...], texts: list[str]) -> None:
    glob = compile_glob(render(nodes))
    assert {text: glob.match(text) is not None for text in texts} == {text: matches(nodes, text) for text in texts}


@given(patterns(slashes=True) | patterns(), trees(), st.booleans())
def test_counts_in_a_tree_are_those_of_a_slow_matcher(nodes: tuple[Node, ...], files: list[str], every: bool) -> None:
    tree, _ = _tree(*files)
    glob = compile_glob(render(nodes), folders=every)
    deep = any(node.kind == "**" for node in nodes)
    folders = {path[:at] for path in files for at, char in enumerate(path) if char == "/"}
    wanted = {path for path in files if matches(nodes, path)}
    if every or not deep:
        wanted |= {folder + "/" for folder in folders if matches(nodes, folder)}
    found = [match.path + "/" * match.folder for match in glob_tree(tree, glob)]
    assert count_matches(tree, glob) == len(found)
    assert found == sorted(wanted, key=str.encode)


@given(part(1), st.lists(st.text(st.sampled_from(LETTERS), min_size=1, max_size=4), min_size=1, max_size=20))
def test_within_one_part_it_agrees_with_bash(nodes: tuple[Node, ...], texts: list[str]) -> None:
    # A group without a sign before it, and braces, are not matched by `[[`.
    assume(not {"(", "braces"} & set(kinds(nodes)))
    lines = [f"t={text}; [[ $t == {render(nodes)} ]] && echo 1 || echo 0" for text in texts]
    said = subprocess.run(
        ["bash", "-O", "extglob"], input="\n".join(["LC_ALL=C", *lines]), capture_output=True, text=True, check=True
    )
    ours = ["01"[compile_glob(render(nodes)).match(text) is not None] for text in texts]
    assert list(zip(texts, ours, strict=True)) == list(zip(texts, said.stdout.split(), strict=True))


def test_a_capture_that_stands_twice_counts_where_both_hold_the_same() -> None:
    tree, _ = _tree("a/a.txt", "a/b.txt", "b/b.txt", "c")
    assert count_matches(tree, compile_glob("/{x}/{x}.txt")) == 2
    assert count_matches(tree, compile_glob("/{x}/{y}.txt")) == 3


def test_a_pattern_is_compiled_once_however_many_paths_it_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    compiling = re.compile

    def counted(pattern: str, flags: int = 0) -> re.Pattern[str]:
        compiled.append(pattern)
        return compiling(pattern, flags)

    monkeypatch.setattr(re, "compile", counted)
    # No other test has this pattern, so it is not known yet.
    pattern = "/once-{kind}/@(a|b)(*).txt"
    first = compile_glob(pattern)
    needed = len(compiled)
    assert needed > 0
    for number in range(1_000):
        assert compile_glob(pattern) is first
        assert first.match(f"once-x/a{number}.txt") == {"kind": "x", "1": "a", "2": str(number)}
    tree, _ = _tree(*(f"once-x/b{number:04}.txt" for number in range(1_000)))
    assert len(list(glob_tree(tree, compile_glob(pattern)))) == 1_000
    assert len(compiled) == needed
