from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.errors import (
    ConflictError,
    DmlpipeError,
    ErrorCode,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
)
from dmlpipe.storage.records import PipelineSet, RepoCreate
from dmlpipe.storage.store import Store

_count = iter(range(1_000_000))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "src"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "a.txt").write_text("a")
    (root / "sub" / "b.bin").write_bytes(os.urandom(5000))
    (root / "sub" / "deep" / "c.tmp").write_text("c")
    return root


def names(store: Store, ref: str = "r") -> list[str]:
    return [info.path for info in store[ref].ls(recursive=True)]


def test_a_folders_contents_land_at_the_target(store: Store, folder: Path) -> None:
    commit = store.put("r", folder, dest="/in/here", message="week 34")
    assert names(store) == ["/in/here/a.txt", "/in/here/sub/b.bin", "/in/here/sub/deep/c.tmp"]
    assert (commit.message, commit.files, commit.size, commit.parents) == ("week 34", 3, 5002, ())
    assert commit.read_bytes("/in/here/sub/b.bin") == (folder / "sub" / "b.bin").read_bytes()


def test_files_bytes_and_streams(store: Store, folder: Path) -> None:
    big = os.urandom(3 << 20)
    store.put("r", folder / "a.txt", ("n/x", b"bytes"), ("t", "text"), ("s", io.BytesIO(big)))
    assert names(store) == ["/a.txt", "/n/x", "/s", "/t"]
    assert store["r"].read_bytes("s") == big
    assert store["r"].read_text("/t") == "text"


def test_a_put_that_changes_nothing_makes_no_commit(store: Store, folder: Path) -> None:
    first = store.put("r", folder)
    entries = store.refresh().n
    assert store.put("r", folder) == first
    assert store.refresh().n == entries


def test_an_empty_put_makes_the_first_commit(store: Store, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    assert store.put("r", tmp_path / "nothing").files == 0
    assert names(store) == []


def test_exclude_leaves_out_names_and_paths(store: Store, folder: Path) -> None:
    store.put("r", folder, exclude=["*.tmp", "/sub/b.*"])
    assert names(store) == ["/a.txt"]
    store.put("q", folder, exclude=["sub"], create=True)
    assert names(store, "q") == ["/a.txt"]


def test_mirror_deletes_what_the_source_lost_below_the_target_only(store: Store, folder: Path) -> None:
    store.put("r", ("keep", b"k"), (("d/old"), b"o"))
    store.put("r", folder, dest="d", mirror=True)
    assert names(store) == ["/d/a.txt", "/d/sub/b.bin", "/d/sub/deep/c.tmp", "/keep"]
    (folder / "a.txt").unlink()
    commit = store.put("r", folder, dest="d", mirror=True)
    assert commit.files == 3
    assert not commit.exists("/d/a.txt")


def test_append_adds_to_the_end(store: Store) -> None:
    store.put("r", ("log", b"one\n"))
    store.put("r", ("log", b"two\n"), append=True)
    store.put("r", ("log", io.BytesIO(b"x" * 300)), append=True)
    assert store["r"].read_bytes("log") == b"one\ntwo\n" + b"x" * 300
    assert store["r"].size == 308


def test_the_store_itself_is_not_put(tmp_path: Path) -> None:
    store = Store.init(tmp_path / ".dmlpipe", cache_dir=tmp_path.parent / "cache")
    (tmp_path / "a").write_text("a")
    store.put("r", tmp_path)
    assert names(store) == ["/a"]


@pytest.mark.parametrize("name", ["", "/", "a/../b", "a/./b", "a//b", "a\0b", "..", "x" * 4097, "bad\udcff"])
def test_a_name_that_cannot_be_is_refused_before_anything_is_written(store: Store, name: str) -> None:
    before = sorted(store.backend.list())
    with pytest.raises(InvalidInputError) as caught:
        store.put("r", ("good", os.urandom(500)), (name, b""))
    assert caught.value.code == ErrorCode.BAD_PATH
    assert sorted(store.backend.list()) == before


def test_a_file_name_that_is_not_utf8_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / os.fsdecode(b"caf\xe9")).write_text("")
    with pytest.raises(InvalidInputError, match="is not UTF-8"):
        store.put("r", tmp_path / "src")


def test_names_are_normalised_and_two_that_become_one_are_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "e\u0301").write_text("1")
    store.put("r", tmp_path / "src")
    assert names(store) == ["/\u00e9"]
    (tmp_path / "src" / "\u00e9").write_text("2")
    with pytest.raises(InvalidInputError, match="would both be"):
        store.put("r", tmp_path / "src")


def test_what_is_no_plain_file_is_refused(store: Store, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(InvalidInputError, match="is a FIFO: only plain files"):
        store.put("r", folder)
    (folder / "pipe").unlink()
    (folder / "dangling").symlink_to("nowhere")
    with pytest.raises(InvalidInputError, match="is a link to nothing"):
        store.put("r", folder)
    (folder / "dangling").unlink()
    (folder / "sub" / "loop").symlink_to(folder)
    with pytest.raises(InvalidInputError, match="links to a folder above itself"):
        store.put("r", folder)


def test_links_are_followed(store: Store, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "o").write_text("o")
    (folder / "link").symlink_to(tmp_path / "other")
    (folder / "file").symlink_to(folder / "a.txt")
    store.put("r", folder)
    assert store["r"].read_bytes("/link/o") == b"o"
    assert store["r"].read_bytes("/file") == b"a"


def test_a_missing_source_is_not_found(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file or folder"):
        store.put("r", tmp_path / "nope")
    assert list(store.refresh().repos()) == []


@pytest.mark.parametrize(
    ("first", "second"), [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a/b"), ("a", "a/b/c"), ("x/a-b", "x/a-b/c")]
)
def test_a_name_is_a_file_or_a_folder(store: Store, first: str, second: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot be both a file and a folder"):
        store.put("one", (first, b"1"), (second, b"2"))
    store.put("two", (first, b"1"), create=True)
    with pytest.raises(InvalidInputError, match="cannot be both a file and a folder"):
        store.put("two", (second, b"2"))
    with store.commit("two") as session:
        session.delete(first)
        session.write(second, b"2")
    assert names(store, "two") == ["/" + second]


def test_a_session_sees_its_own_edits_and_others_do_not(store: Store) -> None:
    store.put("r", ("a", b"1"), ("d/x", b"2"))
    with store.commit("r") as session:
        session.write("/b", "text")
        session.delete("/d")
        assert session.read_bytes("b") == b"text"
        assert not session.exists("d/x")
        assert [path for path, _ in session.entries()] == [b"a", b"b"]
        assert names(store) == ["/a", "/d/x"]
    assert names(store) == ["/a", "/b"]
    assert session.made


def test_an_exception_aborts(store: Store) -> None:
    with pytest.raises(RuntimeError), store.commit("r") as session:
        session.write("a", b"1")
        raise RuntimeError
    assert session.result is None
    assert list(store.refresh().repos()) == []
    with pytest.raises(InvalidInputError, match="has ended"):
        session.write("b", b"")


def test_copy_takes_no_bytes(store: Store) -> None:
    store.put("src", ("m/a", os.urandom(2000)), ("m/b", b"b"))
    with store.commit("r", create=True) as session:
        assert session.copy("src:/m", "/new") == 2
        assert session.copy("/new/a", "/other") == 1
        with pytest.raises(NotFoundError):
            session.copy("src:/nope", "/x")
    assert names(store) == ["/new/a", "/new/b", "/other"]
    assert store["r"].value("/other") == store["src"].value("m/a")


def test_deleting_what_is_not_there_says_so(store: Store) -> None:
    store.put("r", ("a", b""))
    with store.commit("r") as session:
        with pytest.raises(NotFoundError, match="no file /b in r@master"):
            session.delete("/b")
        session.delete("/b", missing_ok=True)


def test_the_loser_of_a_race_replays_its_edits(store: Store, tmp_path: Path) -> None:
    store.put("r", ("a", b"1"), ("d/x", b"x"))
    other = Store.open(tmp_path / "store", cache_dir=tmp_path / "cache2")
    session = store.commit("r")
    session.write("mine", b"m")
    session.delete("d")
    theirs = other.put("r", ("theirs", b"t"), ("d/y", b"y"), ("a", b"2"))
    commit = session.commit()
    assert names(store) == ["/a", "/mine", "/theirs"]
    assert commit.read_bytes("a") == b"2"
    assert commit.parents == (theirs.id,)
    assert (commit.files, commit.size) == (3, 3)


def test_if_head_refuses_a_branch_that_moved(store: Store) -> None:
    head = store.put("r", ("a", b"1"))
    store.put("r", ("b", b"1"))
    with pytest.raises(ConflictError, match="expected"):
        store.put("r", ("c", b"1"), if_head=head.id)
    with pytest.raises(ConflictError):
        store.put("r", ("c", b"1"), if_head="")


def test_an_append_to_a_file_that_changed_meanwhile_fails(store: Store, tmp_path: Path) -> None:
    store.put("r", ("log", b"1"))
    session = store.commit("r")
    session.write("log", b"2", append=True)
    Store.open(tmp_path / "store", cache_dir=tmp_path / "c2").put("r", ("log", b"9"))
    with pytest.raises(ConflictError, match="/log was changed"):
        session.commit()
    assert store["r"].read_bytes("log") == b"9"


def test_a_collision_on_the_new_head_fails(store: Store, tmp_path: Path) -> None:
    store.put("r", ("x", b"1"))
    session = store.commit("r")
    session.write("a/b", b"2")
    Store.open(tmp_path / "store", cache_dir=tmp_path / "c2").put("r", ("a", b"9"))
    with pytest.raises(InvalidInputError, match="cannot be both"):
        session.commit()


def test_a_near_name_is_not_made_silently(store: Store) -> None:
    store.put("images", ("a", b""))
    with pytest.raises(NotFoundError) as caught:
        store.put("imagse", ("a", b""))
    assert caught.value.hint == "did you mean images? else make it: --create"
    store.put("images2", ("a", b""))
    store.put("imagse", ("a", b""), create=True)
    with pytest.raises(NotFoundError, match="no repo 'other'"):
        store.put("other", ("a", b""), create=False)


def test_the_output_of_a_pipeline_takes_no_put(store: Store) -> None:
    spec = PipelineSet(name="model", version=1, spec="", identity="", inputs=())
    store.publish([RepoCreate(repo="model", pipeline="model"), spec])
    with pytest.raises(ReadOnlyError, match="output of pipeline 'model'"):
        store.put("model", ("a", b""))


def test_threads_put_into_one_session(store: Store) -> None:
    with store.commit("r") as session:

        def write(worker: int) -> None:
            for index in range(20):
                session.write(f"{worker}/{index}", os.urandom(300))

        threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
    assert store["r"].files == 80


PATHS = st.sampled_from(["a", "b", "a/x", "a/y", "b/z", "c"])
OPS = st.lists(
    st.lists(
        st.tuples(st.just("write"), PATHS, st.binary(max_size=200))
        | st.tuples(st.just("delete"), PATHS, st.just(b""))
        | st.tuples(st.just("append"), PATHS, st.binary(max_size=5)),
        max_size=4,
    ),
    max_size=5,
)


@given(OPS)
def test_commits_match_a_dictionary(commits: list[list[tuple[str, str, bytes]]]) -> None:
    name = f"memory://session-{next(_count)}"
    store = Store.init(name)
    model: dict[str, bytes] = {}
    for ops in commits:
        draft = dict(model)
        refused = None
        try:
            with store.commit("r") as session:
                for kind, path, data in ops:
                    if kind == "write":
                        session.write(path, data)
                        draft[path] = data
                    elif kind == "append":
                        session.write(path, data, append=True)
                        draft[path] = draft.get(path, b"") + data
                    else:
                        session.delete(path, missing_ok=True)
                        draft = {
                            key: old for key, old in draft.items() if key != path and not key.startswith(path + "/")
                        }
        except DmlpipeError as error:
            refused = error.code
        assert refused in (None, ErrorCode.BAD_PATH)
        if refused:
            continue
        assert not any(one.startswith(two + "/") for one in draft for two in draft)
        model = draft
        view = store["r"]
        assert {info.path[1:]: view.read_bytes(info.path) for info in view.ls(recursive=True)} == model
        assert (view.files, view.size) == (len(model), sum(map(len, model.values())))
    assert store.fsck().ok
    assert isinstance(store.backend, MemoryBackend)
