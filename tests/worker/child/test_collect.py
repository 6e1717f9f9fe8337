from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.errors import UserCodeError
from dmlpipe.worker.child.collect import Names, collect_files, collect_folder


def contents(outputs: object) -> dict[str, bytes]:
    found = {}
    for path, data, fd, _ in outputs:  # type: ignore[attr-defined]
        found[path] = data
        if fd >= 0:
            with open(fd, "rb") as file:
                found[path] = file.read()
    return found


def test_files_may_be_bytes_text_and_paths(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"from disk")
    result = {"/b/x": b"1", "a": "ü", "c": tmp_path / "f", "d": bytearray(b"2")}
    assert contents(collect_files(result)) == {"a": "ü".encode(), "b/x": b"1", "c": b"from disk", "d": b"2"}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "it returned None; expected files"),
        ([1], "it returned a list; expected files"),
        ({"a": 3}, "file 'a' is a int; expected bytes, str or Path"),
        ({"../a": b""}, "'../a' has the part '..'"),
        ({"": b""}, "empty"),
        ({3: b""}, "output names must be text, got 3"),
        ({"a\0": b""}, "NUL"),
        ({"\ud800": b""}, "not UTF-8"),
        ({"a": b"", "/a": b""}, "two outputs have the name 'a'"),
        ({"a": b"", "a/b": b""}, "'a' is a file, but 'a/b' needs a folder there"),
        ({"a/b": b"", "a": b""}, "'a' is a file, but 'a/b' needs a folder there"),
        ({"e\u0301": b"", "\u00e9": b""}, "two outputs have the name"),
        ({"a": Path("/no/such/file")}, "there is no file '/no/such/file'"),
    ],
)
def test_wrong_results_are_refused_by_name(result: object, message: str) -> None:
    with pytest.raises(UserCodeError, match=message.replace("(", r"\(")):
        list(collect_files(result))


def test_a_folder_is_collected_with_links_followed_and_empty_folders_lost(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    (out / "a" / "empty").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "deep").write_bytes(b"deep")
    (out / "a" / "x").write_bytes(b"x")
    (out / "link").symlink_to(elsewhere / "deep")
    (out / "folder").symlink_to(elsewhere)
    assert contents(collect_folder(str(out))) == {"a/x": b"x", "folder/deep": b"deep", "link": b"deep"}


def test_large_files_come_as_descriptors(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(1 << 20))
    (output,) = collect_folder(str(tmp_path))
    assert output.fd >= 0
    assert os.fstat(output.fd).st_size == 1 << 20
    os.close(output.fd)


def make_dangling(out: Path) -> None:
    (out / "x").symlink_to("/no/such/file")


def make_circle(out: Path) -> None:
    (out / "a").mkdir()
    (out / "a" / "up").symlink_to(out)


def make_pipe(out: Path) -> None:
    os.mkfifo(out / "p")


def make_odd_name(out: Path) -> None:
    with open(os.fsencode(out) + b"/\xff", "wb"):
        pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_dangling, "'x' is a link to '/no/such/file', which does not exist"),
        (make_circle, "'a/up' is a link to a folder above it"),
        (make_pipe, "'p' is a pipe"),
        (make_odd_name, "not UTF-8"),
    ],
)
def test_what_is_no_file_is_refused(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path)  # type: ignore[operator]
    with pytest.raises(UserCodeError, match=message):
        list(collect_folder(str(tmp_path)))


names = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map("/".join)


@given(st.lists(names, max_size=8))
def test_names_accept_exactly_what_a_file_tree_can_hold(paths: list[str]) -> None:
    checked, taken = Names(), list[str]()
    for path in paths:
        clash = any(path == t or t.startswith(path + "/") or path.startswith(t + "/") for t in taken)
        if clash:
            with pytest.raises(UserCodeError):
                checked.add(path)
        else:
            assert checked.add(path) == path
            taken.append(path)
