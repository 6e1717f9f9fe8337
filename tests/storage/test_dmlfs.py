"""``dml://`` through fsspec: its own abstract suite, and what is particular to commits and sessions."""

from __future__ import annotations

import errno
import gzip
import json
import os
import pickle
import posixpath
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import fsspec.tests.abstract as abstract
import pytest
from fsspec import AbstractFileSystem
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.storage.backend import open_backend
from dmlpipe.storage.dmlfs import DmlFileSystem
from dmlpipe.storage.errors import CorruptError, FormatError, InvalidInputError
from dmlpipe.storage.filesystem.filesystem import CommitFileSystem, SessionFileSystem
from dmlpipe.storage.info import read_info
from dmlpipe.storage.objects.value import WHOLE_MAX_BYTES
from dmlpipe.storage.sessions.session import Session
from dmlpipe.storage.store import Store
from dmlpipe.storage.testing import CountingBackend

opened: Any = fsspec.open  # its declared type is the one of `open_files`, too

TREE = {
    "a.txt": b"alpha",
    "b/1.txt": b"one",
    "b/2.txt": b"two" * 100,
    "b/c/3.txt": b"three",
    "b.txt": b"beside the folder",
    "d/e/f/4.bin": bytes(range(256)) * 20,
    "é/ü.txt": b"accents",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")


@pytest.fixture
def fs(store: Store) -> DmlFileSystem:
    store.put("r", *TREE.items())
    return DmlFileSystem(store)


@pytest.fixture
def session(store: Store) -> Iterator[Session]:
    store.put("r", *TREE.items())
    session = store.commit("r", message="edits")
    yield session
    session.abort()


# --- fsspec's own suite ---


class OnSession(abstract.AbstractFixtures):  # type: ignore[misc]  # fsspec has no types
    """A session on a branch, which takes writes."""

    @pytest.fixture
    def fs(self, store: Store) -> Iterator[CommitFileSystem]:
        with store.commit("w", create=True) as session:
            yield session.fs

    @pytest.fixture
    def fs_join(self) -> Any:
        return posixpath.join

    @pytest.fixture(params=["w@master", "/top", "w/top"])
    def fs_path(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class TestSessionCopy(abstract.AbstractCopyTests, OnSession):  # type: ignore[misc]  # fsspec has no types
    pass


class TestSessionGet(abstract.AbstractGetTests, OnSession):  # type: ignore[misc]  # fsspec has no types
    pass


class TestSessionPut(abstract.AbstractPutTests, OnSession):  # type: ignore[misc]  # fsspec has no types
    pass


class TestSessionPipe(abstract.AbstractPipeTests, OnSession):  # type: ignore[misc]  # fsspec has no types
    pass


class TestSessionOpen(abstract.AbstractOpenTests, OnSession):  # type: ignore[misc]  # fsspec has no types
    pass


class OnCommit(abstract.AbstractFixtures):  # type: ignore[misc]  # fsspec has no types
    """A commit; the scenarios are written by a session that is committed before the test begins."""

    @pytest.fixture
    def fs(self, store: Store) -> DmlFileSystem:
        store.create_repo("w")
        return DmlFileSystem(store)

    @pytest.fixture
    def fs_join(self) -> Any:
        return posixpath.join

    @pytest.fixture
    def fs_path(self) -> str:
        return "w@master"

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False

    def _made(self, fs: DmlFileSystem, build: Any) -> str:
        with fs.store.commit("w") as session:
            source = build(session.fs, posixpath.join, "w@master")
        fs.invalidate_cache()
        return str(source)

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self, fs: DmlFileSystem) -> str:
        return self._made(fs, self._bulk_operations_scenario_0)

    @pytest.fixture
    def fs_glob_edge_cases_files(self, fs: DmlFileSystem) -> str:
        return self._made(fs, self._glob_edge_cases_files)

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self, fs: DmlFileSystem) -> str:
        return self._made(fs, self._dir_and_file_with_same_name_prefix)

    @pytest.fixture
    def fs_10_files_with_hashed_names(self, fs: DmlFileSystem) -> str:
        return self._made(fs, self._10_files_with_hashed_names)


class TestCommitGet(abstract.AbstractGetTests, OnCommit):  # type: ignore[misc]  # fsspec has no types
    test_get_directory_recursive: Any = None  # makes folders in the commit


class TestCommitOpen(OnCommit):
    def test_open_exclusive(self, fs: DmlFileSystem, fs_bulk_operations_scenario_0: str) -> None:
        with pytest.raises(OSError) as caught:
            fs.open(f"{fs_bulk_operations_scenario_0}/new", "xb")
        assert caught.value.errno == errno.EROFS


# --- looking ---


def test_what_stands_in_a_commit(store: Store, fs: DmlFileSystem) -> None:
    assert sorted(fs.ls("r@master", False)) == [f"r@master/{name}" for name in ("a.txt", "b", "b.txt", "d", "é")]
    assert fs.find("r") == sorted(f"r/{name}" for name in TREE)
    assert fs.info("dml://r@master/b") == {"name": "r@master/b", "size": 0, "type": "directory"}
    info = fs.info("r@master/b/2.txt")
    commit = store["r"]
    assert (info["size"], info["type"]) == (300, "file")
    assert info["mtime"] == fs.modified("r@master/b/2.txt").timestamp() == fs.created("r/b/2.txt").timestamp()
    assert fs.ls("r@master/b/2.txt") == [info] == [fs.info(f"r@{commit.id[:8]}//b/2.txt") | {"name": info["name"]}]
    assert fs.du("r") == sum(map(len, TREE.values()))
    assert fs.du("r/b", total=False) == {
        f"r/b/{name}": len(TREE[f"b/{name}"]) for name in ("1.txt", "2.txt", "c/3.txt")
    }
    assert fs.unstrip_protocol("r/b") == "dml://r/b"
    assert fs._parent("dml://r/b") == "r"
    assert fs._parent("r") == ""


def test_the_root_lists_branches(store: Store, fs: DmlFileSystem) -> None:
    store.create_branch("r", "dev")
    store.create_repo("empty")
    assert fs.ls("dml://", detail=False) == ["r@master"]
    fs.invalidate_cache()
    assert fs.ls("", detail=False) == ["r@dev", "r@master"]
    assert fs.glob("r@*/b/1.*") == ["r@dev/b/1.txt", "r@master/b/1.txt"]
    assert fs.find("", maxdepth=1, withdirs=True) == ["r@dev", "r@master"]
    assert len(fs.find("")) == 2 * len(TREE)
    assert fs.info("")["type"] == "directory"
    assert fs.isdir("empty@master") is False
    before = fs.ukey("")
    store.create_branch("r", "new")
    fs.invalidate_cache()
    assert fs.ukey("") != before


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("r@master/no", "no file /no in r@"),
        ("r@no/a.txt", "no branch 'no' in repo 'r'"),
        ("rr@master/a.txt", "list: dmlpipe repo list"),
        ("r@master/../a.txt", "the part '..'"),
        ("no repo/a.txt", "cannot be the name of a repo"),
        ("/a.txt", "one of a session"),
        ("r@master^/a.txt", "no parent"),
    ],
)
def test_what_is_not_there_is_a_missing_file(fs: DmlFileSystem, path: str, said: str) -> None:
    for call in (fs.info, fs.cat_file, fs.ls, fs.ukey, fs.open):
        with pytest.raises(FileNotFoundError) as caught:
            call(path)
        assert said in str(caught.value)
    for ask in (fs.exists, fs.isfile, fs.isdir, fs.find, fs.glob):
        assert not ask(path)


def test_folders_are_not_files(fs: DmlFileSystem) -> None:
    for path in ("r@master", "r@master/b", ""):
        with pytest.raises(IsADirectoryError):
            fs.cat_file(path)


PATTERNS = st.lists(
    st.sampled_from(["a.txt", "b", "*", "?", "*.txt", "[ab]*", "[!b]", "**", "c", "d", "e", "b*", "1.txt", "é"]),
    min_size=1,
    max_size=4,
)


@given(root=st.sampled_from(["r@master", "r@*", "*"]), parts=PATTERNS, slash=st.booleans(), deep=st.integers(0, 2))
def test_globs_and_finds_are_those_of_fsspec(root: str, parts: list[str], slash: bool, deep: int) -> None:
    fs = _shared_fs()
    pattern = "/".join([root, *parts]) + "/" * slash
    limit = {"maxdepth": deep} if deep else {}
    for options in ({}, {"withdirs": False}, {"detail": True}):
        assert fs.glob(pattern, **limit, **options) == AbstractFileSystem.glob(fs, pattern, **limit, **options)


@given(
    path=st.sampled_from(["r", "r@master/b", "r@master/a.txt", "r/no", "r/d/e"]),
    deep=st.integers(0, 3),
    dirs=st.booleans(),
)
def test_finds_are_those_of_fsspec(path: str, deep: int, dirs: bool) -> None:
    fs = _shared_fs()
    assert fs.find(path, maxdepth=deep or None, withdirs=dirs) == AbstractFileSystem.find(
        fs, path, maxdepth=deep or None, withdirs=dirs
    )


def _shared_fs() -> DmlFileSystem:
    try:
        return DmlFileSystem("memory://dmlfs-globs")
    except FormatError:
        Store.init("memory://dmlfs-globs").put("r", *TREE.items())
        return DmlFileSystem("memory://dmlfs-globs")


def test_ukeys_are_those_of_the_content(store: Store, fs: DmlFileSystem) -> None:
    first = {path: fs.ukey(f"r/{path}") for path in [*TREE, "b", ""]}
    store.put("r", ("a.txt", "changed"), ("copy", TREE["b/2.txt"]))
    fs.invalidate_cache()
    second = {path: fs.ukey(f"r/{path}") for path in [*TREE, "b", ""]}
    assert {path for path in first if first[path] != second[path]} >= {"a.txt", ""}
    assert all(first[path] == second[path] for path in TREE if path != "a.txt")
    assert fs.ukey("r/copy") == fs.ukey("r/b/2.txt")
    assert fs.checksum("r/copy") == int(fs.ukey("r/copy"), 16)
    assert fs.info("r/copy")["checksum"] == fs.ukey("r/copy")


# --- reading ---


def test_content_ranges_and_files(fs: DmlFileSystem) -> None:
    for path, body in TREE.items():
        assert fs.cat_file(f"r/{path}") == body
        assert fs.cat_file(f"r/{path}", 1, -1) == body[1:-1]
        assert fs.cat_file(f"r/{path}", -3) == body[-3:]
        with fs.open(f"r/{path}") as file:
            assert (file.seek(2), file.read()) == (2, body[2:])
    assert fs.read_text("r/é/ü.txt") == "accents"
    assert fs.head("r/a.txt", 2) == b"al"
    assert fs.tail("r/a.txt", 2) == b"ha"
    assert fs.cat("r/b", recursive=True) == {f"r/{path}": body for path, body in TREE.items() if path[:2] == "b/"}
    assert fs.cat("r/b/?.txt") == {f"r/b/{n}.txt": TREE[f"b/{n}.txt"] for n in "12"}
    with pytest.raises(ValueError, match="anew"):
        fs.open("r/a.txt", "r+b")


def test_what_is_missing_among_many(fs: DmlFileSystem) -> None:
    paths = ["r/a.txt", "r/no", "r/b/1.txt"]
    with pytest.raises(FileNotFoundError):
        fs.cat(paths)
    assert fs.cat(paths, on_error="omit") == {"r/a.txt": b"alpha", "r/b/1.txt": b"one"}
    assert isinstance(fs.cat(paths, on_error="return")["r/no"], FileNotFoundError)
    out = fs.cat_ranges(paths, 1, [3, 3, -1])
    assert (out[0], type(out[1]), out[2]) == (b"lp", FileNotFoundError, b"n")
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(paths, 0, 1, on_error="raise")
    with pytest.raises(ValueError, match="their number differs"):
        fs.cat_ranges(paths, [0], 1)


def test_what_is_damaged_among_many_is_told_of_that_one(store: Store) -> None:
    big = os.urandom(2 << 20)
    commit = store.put("r", ("bad", big), ("good", big[::-1]))
    (name,) = [key for key, _ in store.backend.list("objects/") if key.endswith(commit.value("bad").hash.hex()[2:])]  # type: ignore[union-attr]
    store.backend.put(name, big[:-1] + b"x")
    out = DmlFileSystem(store).cat_ranges(["r/bad", "r/good"], 0, 5)
    assert isinstance(out[0], CorruptError)
    assert out[1] == big[::-1][:5]


def test_large_files_are_read_in_pieces(store: Store, tmp_path: Path) -> None:
    body = os.urandom(1 << 20) * 17 + b"end"
    assert len(body) > WHOLE_MAX_BYTES
    store.put("r", ("big", body), ("small", b"s" * 500))
    backend = CountingBackend(store.backend)
    fs = DmlFileSystem(Store(backend, store.info, cache_dir=store.cache_dir))
    fs.ls("r")
    backend.counts.clear()
    with fs.open("r/big") as file:
        file.seek(-3, os.SEEK_END)
        assert file.read() == b"end"
    assert fs.cat_ranges(["r/big", "r/small"], [-5, 0], [None, 2]) == [body[-5:], b"ss"]
    assert fs.ukey("r/big") != fs.ukey("r/small")
    fs.get("r", str(tmp_path / "out"), recursive=True)
    assert (tmp_path / "out" / "big").read_bytes() == body
    fs.get_file("r/big", str(tmp_path / "again"))
    assert (tmp_path / "again").stat().st_size == len(body)
    for get in (fs.get_file, lambda path, file: fs.get([path], [file])):
        with open(tmp_path / "third", "wb") as file:
            get("r/small", file)
        assert (tmp_path / "third").read_bytes() == b"s" * 500


# --- requests ---


@pytest.fixture
def thousand(tmp_path: Path) -> Store:
    """A folder of 1,000 small files among 20 of them."""
    store = Store.init(tmp_path / "many", cache_dir=tmp_path / "cache")
    store.put("r", *((f"f{n % 20:02}/{n // 20:04}.bin", b"%07d" % n * 200) for n in range(20_000)))
    return store


class FarBackend(CountingBackend):
    """Says that it is remote, as S3 is."""

    @property
    def properties(self) -> Any:
        import dataclasses

        return dataclasses.replace(self.inner.properties, remote=True, path=None)


@pytest.mark.parametrize("kind", [CountingBackend, FarBackend])
def test_a_folder_of_a_thousand_files_costs_few_requests(thousand: Store, tmp_path: Path, kind: Any) -> None:
    backend = kind(thousand.backend)
    cold = Store(backend, read_info(backend), cache_dir=tmp_path / "cold")
    fs = DmlFileSystem(cold)
    assert fs.exists("r")
    opening = sum(backend.counts.values())
    assert opening <= 14
    names = fs.glob("r@master/f07/*.bin")
    assert len(names) == 1000
    content = fs.cat(names)
    assert content["r@master/f07/0003.bin"] == b"%07d" % 67 * 200
    # Nodes of the tree, the index, and the ranges of packs, which the files of one folder share.
    assert sum(backend.counts.values()) - opening <= 20
    fs.get("r/f07", str(tmp_path / "out"), recursive=True)
    assert len(os.listdir(tmp_path / "out")) == 1000
    assert sum(backend.counts.values()) - opening <= (20 if kind is FarBackend else 40)


def test_listing_reads_the_nodes_of_that_folder(thousand: Store, tmp_path: Path) -> None:
    backend = CountingBackend(thousand.backend)
    cold = Store(backend, read_info(backend), cache_dir=tmp_path / "cold")
    fs = DmlFileSystem(cold)
    assert fs.exists("r@master/f00/0000.bin")
    for call in (
        lambda: fs.ls("r/f11"),
        lambda: fs.find("r/f05"),
        lambda: fs.isdir("r/f08"),
        lambda: next(fs.walk("r/f16")),
    ):
        before = cold.nodes.reads
        call()
        assert cold.nodes.reads - before <= 5
    before = cold.nodes.reads
    assert len(fs.glob("r/f1[12]/000[0-3].bin")) == 8
    assert cold.nodes.reads - before <= 10  # one for each folder whose name begins with f1
    with thousand.commit("r") as session:
        reads = thousand.nodes.reads
        session.fs.mv("/f11", "/moved", recursive=True)
        assert len(session.fs.ls("/moved")) == 1000
        assert not session.fs.exists("/f11")
        assert thousand.nodes.reads - reads <= 12


def test_what_came_over_a_network_is_kept(store: Store, tmp_path: Path) -> None:
    store.put("r", ("a", b"a" * 1000), ("b", os.urandom(2 << 20)))
    backend = FarBackend(store.backend)
    fs = DmlFileSystem(Store(backend, store.info, cache_dir=tmp_path / "far"))
    first = fs.cat(["r/a", "r/b"])
    backend.counts.clear()
    assert fs.cat(["r/a", "r/b"]) == first
    assert fs.cat_file("r/b", 5, 9) == first["r/b"][5:9]
    with fs.open("r/a") as file:
        assert file.read() == first["r/a"]
    assert not backend.counts
    entry = fs.store.cache.path_of(store["r"].value("a"))
    os.chmod(entry, 0o644)
    entry.write_bytes(b"x" * 1000)
    assert fs.cat_file("r/a") == first["r/a"]
    without = DmlFileSystem(Store(backend, store.info, cache_dir=tmp_path / "none"), cache=False)
    assert without.cat(["r/a", "r/b"]) == first
    assert not (tmp_path / "none" / "files").exists()


@pytest.mark.s3
def test_a_thousand_files_through_a_real_server(s3_url: str, tmp_path: Path) -> None:
    made = Store.init(s3_url, cache_dir=tmp_path / "maker")
    made.put("r", *((f"f{n % 2}/{n:04}.bin", b"%07d" % n * 200) for n in range(2000)))
    with opened("dml://r@master/f1/0001.bin", store=s3_url, cache_dir=str(tmp_path / "reader")) as file:
        assert file.read() == b"0000001" * 200
    fs = fsspec.filesystem("dml", store=s3_url, cache_dir=str(tmp_path / "reader"))
    calls: list[str] = []
    s3 = fs.store.backend._connect()
    real = s3._call_s3

    async def call_s3(method: str, *args: Any, **kwargs: Any) -> Any:
        calls.append(method)
        return await real(method, *args, **kwargs)

    s3._call_s3 = call_s3
    try:
        assert len(fs.cat("r@master/f1/*")) == 1000
    finally:
        s3._call_s3 = real
    assert len(calls) <= 20
    copy = pickle.loads(pickle.dumps(fs))
    assert copy.store is not fs.store
    assert copy.cat_file("r@master/f0/0002.bin") == b"0000002" * 200


# --- refs, snapshots, processes ---


def test_a_file_system_is_a_snapshot_and_a_new_one_is_of_now(store: Store) -> None:
    store.put("r", ("a", "1"))
    url = store.url
    held = fsspec.filesystem("dml", store=url)
    assert held.cat("r/a") == b"1"
    store.put("r", ("a", "2"), ("b", "new"))
    store.put("other", ("x", "1"))
    assert held.cat("r/a") == b"1"
    assert not held.exists("r/b")
    assert not held.exists("other/x")
    with opened("dml://r/a", store=url) as file:
        assert file.read() == b"2"
    assert fsspec.filesystem("dml", store=url).cat("r@master^/a") == b"1"
    copy = pickle.loads(pickle.dumps(held))
    assert copy.cat("r/a") == b"1"
    assert copy == held
    assert hash(copy) == hash(held)
    assert held != fsspec.filesystem("dml", store=url)
    held.invalidate_cache()
    assert held.cat("r/a") == b"2"
    assert held.cat("other/x") == b"1"


def test_stores_are_shared_within_a_process_but_not_with_one_that_was_there_before(tmp_path: Path) -> None:
    import shutil

    place = tmp_path / "store"
    Store.init(place, cache_dir=tmp_path / "c").put("r", ("a", "old"))
    one, two = (fsspec.filesystem("dml", store=str(place), cache_dir=str(tmp_path / "c")) for _ in range(2))
    assert one.store is two.store
    assert one.cat("r/a") == b"old"
    shutil.rmtree(place)
    Store.init(place, cache_dir=tmp_path / "c").put("r", ("a", "new"))
    assert fsspec.filesystem("dml", store=str(place), cache_dir=str(tmp_path / "c")).cat("r/a") == b"new"


def test_the_store_is_found_as_everywhere(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("r", ("a", "by variable"))
    monkeypatch.setenv("DMLPIPE_STORE", store.url)
    with opened("dml://r/a", "rt") as file:
        assert file.read() == "by variable"
    monkeypatch.delenv("DMLPIPE_STORE")
    inside = tmp_path / "project" / "deep"
    inside.mkdir(parents=True)
    Store.init(tmp_path / "project" / ".dmlpipe", cache_dir=tmp_path / "c").put("r", ("a", "by folder"))
    monkeypatch.chdir(inside)
    assert fsspec.filesystem("dml").cat("r/a") == b"by folder"
    monkeypatch.chdir("/")
    with pytest.raises(FormatError, match="no store"):
        fsspec.filesystem("dml")
    with pytest.raises(FormatError, match="no store at"):
        fsspec.filesystem("dml", store=str(tmp_path / "nothing"))


def test_a_forked_child_reads_on(store: Store) -> None:
    store.put("r", ("a", b"x" * 500))
    fs = DmlFileSystem(store)
    fs.ls("r")
    with store.commit("r") as session:
        writable = session.fs
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                said = fs.cat("r/a")[:1] + (b"shared" if fs.store is store else b"own")
                try:
                    writable.pipe("/b", b"lost")
                except OSError as error:
                    said += b" %d" % (error.errno or 0)
                os.write(writing, said)
            finally:
                os._exit(0)
        os.close(writing)
        with open(reading, "rb") as answer:
            assert answer.read() == b"xown %d" % errno.EROFS
        os.waitpid(child, 0)


def test_other_processes_read_what_was_resolved_here(store: Store, tmp_path: Path) -> None:
    store.put("r", ("a", "then"))
    fs = DmlFileSystem(store)
    fs.ls("r@master")
    store.put("r", ("a", "now"))
    (tmp_path / "fs").write_bytes(pickle.dumps(fs))
    script = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).cat('r@master/a').decode())"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "fs")], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "then\n"


def test_it_is_imported_when_it_is_used(tmp_path: Path) -> None:
    script = (
        "import sys, dmlpipe, dmlpipe.storage.store\n"
        "assert 'fsspec' not in sys.modules and 'dmlpipe.storage.dmlfs' not in sys.modules\n"
        "import fsspec\n"
        "assert 'dmlpipe.storage.dmlfs' not in sys.modules\n"
        "assert fsspec.get_filesystem_class('dml').__module__ == 'dmlpipe.storage.dmlfs'\n"
        "assert not {'zarr', 'numpy', 'dask', 's3fs'} & set(sys.modules), set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], timeout=60, check=True)


def test_threads_may_share_it(fs: DmlFileSystem) -> None:
    wrong: list[object] = []

    def read(path: str, body: bytes) -> None:
        for _ in range(20):
            fs.invalidate_cache()
            if fs.cat_file(f"r/{path}") != body:
                wrong.append(path)

    threads = [threading.Thread(target=read, args=item) for item in TREE.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong


# --- writing ---


def test_commits_take_no_writes(fs: DmlFileSystem, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    for call in (
        lambda: fs.open("r/new", "wb"),
        lambda: fs.pipe("r/new", b""),
        lambda: fs.put(str(tmp_path / "f"), "r/new"),
        lambda: fs.cp("r/a.txt", "r/new"),
        lambda: fs.mv("r/a.txt", "r/new"),
        lambda: fs.rm("r/a.txt"),
        lambda: fs.rm("r", recursive=True),
        lambda: fs.touch("r/new"),
        lambda: fs.makedirs("r/new"),
        lambda: fs.rmdir("r/b"),
    ):
        with pytest.raises(OSError, match="in a session") as caught:
            call()
        assert caught.value.errno == errno.EROFS
    fs.makedirs("r/b", exist_ok=True)


def test_a_session_takes_writes_to_its_branch_alone(store: Store, session: Session) -> None:
    store.put("other", ("x", b"from another repo" * 50))
    fs: Any = fsspec.filesystem("dml", session=session)
    assert isinstance(fs, SessionFileSystem)
    with fs.open("/new/w.txt", "w") as file:
        file.write("text")
    with opened("dml://r@master/new/x.gz", "wb", session=session, compression="gzip") as file:
        file.write(b"packed")
    fs.pipe({"r/p": b"1", "/q": b"2" * 200})
    fs.cp("other@master/x", "/copied")
    fs.cp("r@master/b", "/b2", recursive=True)
    fs.mv("/a.txt", "/moved")
    fs.rm(["/b.txt", "/d"], recursive=True)
    fs.touch("/empty")
    fs.touch("/p", truncate=False)
    with fs.open("/moved", "a") as text:
        text.write(" beta")
    assert fs.ls("/", detail=False) == [
        f"/{name}" for name in ("b", "b2", "copied", "empty", "moved", "new", "p", "q", "é")
    ]
    assert fs.find("r@master") == [f"r@master{path}" for path in fs.find("/")]
    assert fs.ls("", detail=False) == ["r@master"]
    for path in ("other@master/y", "r@dev/y", "r@master^/y", ""):
        with pytest.raises(OSError, match="r@master alone") as caught:
            fs.pipe(path, b"")
        assert caught.value.errno == errno.EROFS
    commit = session.commit()
    assert commit.read_text("/new/w.txt") == "text"
    assert gzip.decompress(commit.read_bytes("/new/x.gz")) == b"packed"
    assert commit.value("/copied") == store["other"].value("/x")
    assert commit.read_text("moved") == "alpha beta"
    assert commit.read_bytes("b2/c/3.txt") == b"three"
    assert commit.read_bytes("p") == b"1"
    assert not commit.exists("a.txt")
    with pytest.raises(InvalidInputError, match="ended"):
        fs.pipe("/late", b"")


def test_copies_and_moves_touch_no_bytes(thousand: Store, tmp_path: Path) -> None:
    backend = CountingBackend(thousand.backend)
    store = Store(backend, read_info(backend), cache_dir=tmp_path / "cold")
    with store.commit("r") as session:
        fs: Any = session.fs
        fs.ls("/")
        packs = [key for key, _ in backend.list("packs/")]
        backend.counts.clear()
        fs.cp("/f03", "/copy", recursive=True)
        fs.mv("/f04", "/moved", recursive=True)
        assert (backend.counts["put_if_absent"], backend.counts["put"]) == (0, 0)
        assert sum(backend.counts.values()) <= 12  # nodes
    assert [key for key, _ in backend.list("packs/")] == packs
    assert store["r"].files == 21_000
    assert store["r"].read_bytes("/moved/0002.bin") == b"%07d" % 44 * 200


def test_wrong_writes_are_refused(session: Session) -> None:
    fs: Any = session.fs
    with pytest.raises(FileExistsError):
        fs.open("/a.txt", "xb")
    with fs.open("/x", "xb") as file:
        fs.pipe("/x", b"somebody was faster")
        file.write(b"late")
        with pytest.raises(FileExistsError):
            file.close()
    with pytest.raises(InvalidInputError, match="both a file and a folder"):
        fs.pipe("/b", b"")
    with pytest.raises(IsADirectoryError):
        fs.pipe("/", b"")
    with pytest.raises(IsADirectoryError):
        fs.rm("/b")
    with pytest.raises(FileNotFoundError):
        fs.rm("/no")
    with pytest.raises(FileNotFoundError):
        fs.rm("/no", recursive=True)
    with pytest.raises(FileNotFoundError):
        fs.cp("/no", "/yes")
    with pytest.raises(FileExistsError):
        fs.makedirs("/a.txt", exist_ok=True)
    with pytest.raises(FileExistsError):
        fs.makedirs("/b")
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir("/b")
    with pytest.raises(NotImplementedError):
        fs.modified("/a.txt")
    fs.rm("/", recursive=True)
    assert fs.find("/") == []
    assert fs.isdir("/")


def test_files_are_written_as_a_whole(session: Session) -> None:
    fs: Any = session.fs
    with fs.open("/zip", "wb") as file:
        file.write(b"12345")
        assert (file.tell(), file.seek(1), file.write(memoryview(b"xy")), file.truncate(4)) == (5, 1, 2, 4)
        assert not fs.exists("/zip")
    assert fs.cat("/zip") == b"1xy4"
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.write(b"")
    with fs.open("/zip", "ab") as file, pytest.raises(OSError, match="sought"):
        file.seek(0)
    with fs.transaction:
        with fs.open("/t", "wb") as file:
            file.write(b"in a transaction")
        assert not fs.exists("/t")
    assert fs.cat("/t") == b"in a transaction"
    with pytest.raises(ZeroDivisionError), fs.transaction:
        with fs.open("/u", "wb") as file:
            file.write(b"")
        raise ZeroDivisionError
    assert not fs.exists("/u")


def test_a_sessions_file_system_stays_in_its_process(session: Session, tmp_path: Path) -> None:
    fs: Any = session.fs
    fs.pipe("/new", b"1")
    copy = pickle.loads(pickle.dumps(fs))
    assert copy == fs == session.fs
    assert copy.cat("/new") == b"1"
    assert copy.ukey("/") == fs.ukey("/")
    before = fs.ukey("/")
    copy.pipe("/new", b"2")
    assert fs.ukey("/") != before
    (tmp_path / "fs").write_bytes(pickle.dumps(fs))
    script = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "fs")], capture_output=True, text=True, timeout=60, check=False
    )
    assert "part of a session in another process" in done.stderr


# --- libraries that read and write through it ---


def test_dask_reads_bytes(store: Store) -> None:
    from dask.bytes.core import read_bytes

    store.put("r", *((f"part/{n}.csv", f"a,b\n{n},{n}\n") for n in range(5)))
    read: Any = read_bytes
    blocks = read("dml://r@master/part/*.csv", store=store.url)[1]
    assert [block[0].compute(scheduler="sync") for block in blocks] == [f"a,b\n{n},{n}\n".encode() for n in range(5)]
    again = read("dml://r@master/part/*.csv", store=store.url)[1]
    assert [block[0].key for block in again] == [block[0].key for block in blocks]
    files = fsspec.open_files("dml://r@master/part/*.csv", "rt", store=store.url)
    assert [json.loads(pickle.loads(pickle.dumps(file)).open().read()[4]) for file in files] == list(range(5))


def test_zarr_reads_and_writes(store: Store) -> None:
    import numpy as np
    import zarr.storage
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    values = np.arange(100.0).reshape(10, 10)
    with store.commit("arrays") as session:
        place = zarr.storage.FsspecStore(AsyncFileSystemWrapper(session.fs, asynchronous=True), path="/x")
        array = zarr.create_array(place, shape=values.shape, chunks=(4, 4), dtype=values.dtype)
        array[:] = values
    found: Any = zarr.open_array("dml://arrays@master/x", mode="r", storage_options={"store": store.url})
    assert np.array_equal(np.asarray(found[:]), values)
    assert np.array_equal(np.asarray(store["arrays"].array("/x")[2:5]), values[2:5])


def test_caches_of_fsspec_see_new_content(store: Store, tmp_path: Path) -> None:
    store.put("r", ("a", b"1" * 500))
    options = {"dml": {"store": store.url}, "filecache": {"cache_storage": str(tmp_path / "fc"), "check_files": True}}
    with opened("filecache::dml://r/a", **options) as file:
        assert file.read() == b"1" * 500
    store.put("r", ("a", b"2" * 500))
    # The cache holds the file system that it was made with, and fsspec holds the cache.
    fsspec.get_filesystem_class("filecache").clear_instance_cache()
    with opened("filecache::dml://r/a", **options) as file:
        assert file.read() == b"2" * 500


def test_a_put_reads_from_another_store(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("r", *TREE.items())
    monkeypatch.setenv("DMLPIPE_STORE", store.url)
    other = Store.init(tmp_path / "other", cache_dir=tmp_path / "cache")
    other.put("copy", "dml://r@master/b")
    assert other["copy"].tree.root == store["r"].tree.subtree(b"b").root


def test_options_reach_the_medium(store: Store) -> None:
    with pytest.raises(InvalidInputError):
        DmlFileSystem(store.url, store_options={"wrong": 1})
    assert DmlFileSystem(f"file://{open_backend(store.url).properties.path}").ls("") == []
