"""Names, trees and files that somebody made to do harm, or that are merely odd: refused, or exact."""

from __future__ import annotations

import os
import socket
import unicodedata
from pathlib import Path

import pytest

from dmlpipe.storage.backend import open_backend
from dmlpipe.storage.errors import CorruptError, DmlpipeError, InvalidInputError
from dmlpipe.storage.objects.bodies import encode_body
from dmlpipe.storage.objects.value import Inline, encode_value
from dmlpipe.storage.records import Commit, CommitMade, RefSet, RepoCreate
from dmlpipe.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")


def objects(store: Store) -> list[str]:
    return [key for key, _ in store.backend.list() if not key.startswith("dmlpipe.json")]


@pytest.mark.parametrize(
    "name",
    [
        "../up",
        "a/../../up",
        "..",
        ".",
        "",
        "a//b",
        "a/./b",
        "a\0b",
        "x" * 4097,
        "é" * 2049,
        "/".join(["deep"] * 900),
        "\udcff",
    ],
)
def test_a_name_that_cannot_be_is_refused_by_every_way_in(store: Store, name: str, tmp_path: Path) -> None:
    before = objects(store)
    with pytest.raises(InvalidInputError) as caught:
        store.put("r", (name, b"1"))
    assert caught.value.code == "bad-path"
    with pytest.raises(InvalidInputError):
        with store.commit("r") as session:
            session.write(name, b"1")
    with pytest.raises(InvalidInputError):
        store.put("r", ("ok", b"1"), dest=name or "..")
    assert objects(store) == before
    store.put("r", ("ok", b"1"))
    with pytest.raises(DmlpipeError):
        store["r"].read_bytes(name)


@pytest.mark.parametrize("name", ["x" * 4096, "é" * 2048, "/".join(["a" * 255] * 16), "/".join(["d"] * 2048)])
def test_a_name_of_4_kib_is_a_name(store: Store, name: str) -> None:
    store.put("r", ("first", b"1"), (name, b"2"))
    store.put("r", ("last", b"3"))
    commit = Store.open(store.url, cache_dir=store.cache_dir)["r"]
    assert commit.read_bytes(name) == b"2"
    assert [info.path for info in commit.ls(recursive=True)] == sorted(["/first", "/last", f"/{name}"])
    with store.commit("r") as session:
        session.delete(name)
    assert [change.path for change in commit.diff(store["r"])] == [f"/{name}"]
    assert store.fsck().ok


def long_file(folder: Path, size: int) -> str:
    """Make a file whose path below `folder` has `size` bytes: longer than one call to the system may name."""
    path = ""
    at = os.open(folder, os.O_RDONLY)
    while size - len(path) > 255:
        os.mkdir("d" * 200, dir_fd=at)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at, path = below, f"{path}{'d' * 200}/"
    name = "f" * (size - len(path))
    fd = os.open(name, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=at)
    os.write(fd, b"far down")
    os.close(fd)
    os.close(at)
    return path + name


@pytest.mark.parametrize("size", [1025, 4096])
def test_a_file_with_a_path_of_4_kib_goes_in_and_comes_out(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    (tmp_path / "folder").mkdir()
    path = long_file(tmp_path / "folder", size)
    # From above the path would be longer than the system takes.
    monkeypatch.chdir(tmp_path / "folder")
    assert store.put("r", ".").read_bytes(path) == b"far down"
    assert store.put("r", ".", mirror=True).id == store["r"].id
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    store["r"].get("/", Path())
    assert store.put("again", ".", create=True).tree == store["r"].tree


def test_a_file_with_a_longer_path_is_refused_before_anything_is_written(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Below a folder of a long name: wherever tests write, the whole path is longer than the system takes.
    folder = tmp_path / ("f" * 200)
    folder.mkdir()
    (folder / "fine").write_bytes(b"1")
    long_file(folder, 4097)
    before = objects(store)
    with pytest.raises(InvalidInputError, match="File name too long") as caught:
        store.put("r", folder)
    assert caught.value.hint == "go into the folder, and put `.`"
    monkeypatch.chdir(folder)
    with pytest.raises(InvalidInputError, match="has 4097 bytes; at most 4096 can be stored"):
        store.put("r", ".")
    assert objects(store) == before


def test_a_name_that_no_file_can_have_is_not_got_and_says_so(store: Store, tmp_path: Path) -> None:
    store.put("r", ("x" * 256, b"1"), ("fine", b"2"))
    with pytest.raises(DmlpipeError, match="File name too long"):
        store["r"].get("/", tmp_path / "out")
    assert store["r"].read_bytes("x" * 256) == b"1"


def test_thousands_of_names_of_4_kib(tmp_path: Path) -> None:
    store = Store.init("memory://long-names", cache_dir=tmp_path)
    store.put("r", *((f"{number:06}" + "x" * 4090, b"%d" % number) for number in range(6_000)))
    assert store["r"].read_bytes("003000" + "x" * 4090) == b"3000"
    store.put("r", ("003000" + "x" * 4090, b"new"))
    assert store.fsck().ok


def test_names_are_composed_and_twins_are_refused(store: Store, tmp_path: Path) -> None:
    composed, apart = "é", unicodedata.normalize("NFD", "é")
    assert composed != apart
    assert [info.path for info in store.put("r", (apart, b"1")).ls()] == ["/" + composed]
    assert store["r"].read_bytes(apart) == b"1"
    folder = tmp_path / "twins"
    folder.mkdir()
    (folder / composed).write_bytes(b"1")
    (folder / apart).write_bytes(b"2")
    with pytest.raises(InvalidInputError, match="would both be"):
        store.put("r", folder)


@pytest.mark.parametrize(
    "kind", ["fifo", "socket", "device", "link-to-device", "link-to-fifo", "link-up", "link-to-self"]
)
def test_what_is_no_file_is_refused_and_never_opened(
    store: Store, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "good").write_bytes(b"1")
    odd = folder / "odd"
    match kind:
        case "fifo":
            os.mkfifo(odd)  # opening it would wait for ever
        case "socket":
            with socket.socket(socket.AF_UNIX) as made:
                monkeypatch.chdir(folder)  # a socket's name is short
                made.bind("odd")
        case "device":
            odd = Path("/dev/zero")  # reading it would never end
        case "link-to-device":
            odd.symlink_to("/dev/zero")
        case "link-to-fifo":
            os.mkfifo(tmp_path / "pipe")
            odd.symlink_to(tmp_path / "pipe")
        case "link-up":
            odd.symlink_to(folder)
        case _:
            odd.symlink_to(odd)
    before = objects(store)
    for source in [odd] if kind in ("device", "link-up") else [odd, folder]:
        with pytest.raises(DmlpipeError):
            store.put("r", folder if kind == "link-up" else source)
        with pytest.raises(DmlpipeError):
            store.put("r", folder if kind == "link-up" else source, link=True)
    assert objects(store) == before


@pytest.mark.parametrize("name", [b"../escaped", b"a/../../escaped", b"/escaped", b"a\0b", b"", b"\xff\xfe"])
def test_a_forged_tree_writes_nowhere_else(store: Store, tmp_path: Path, name: bytes) -> None:
    tree = store.tree().update([(name, encode_value(Inline(b"evil")))])
    body = Commit(tree=tree.root.hex(), parents=(), message="", author="", time="", files=1, size=4)
    commit = store.nodes.put(encode_body(body)).hex()
    store.publish(
        [
            RepoCreate(repo="r"),
            CommitMade(repo="r", id=commit, tree=body.tree, files=1, size=4),
            RefSet(repo="r", branch="master", old="", new=commit),
        ]
    )
    (tmp_path / "out" / "deep").mkdir(parents=True)
    inside = tmp_path / "out" / "deep"
    try:
        store["r"].get("/", inside)
    except CorruptError:
        assert not list(inside.iterdir())
    else:
        assert name == b"/escaped"  # from the target on
        assert [path.name for path in inside.iterdir()] == ["escaped"]
    assert {path.parent for path in tmp_path.rglob("escaped")} <= {inside}


def test_a_file_replaces_a_link_and_is_not_written_through_it(store: Store, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path / "precious")
    store.put("r", ("a", b"new"))
    store["r"].get("/", tmp_path / "out")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert (tmp_path / "out" / "a").read_bytes() == b"new"
    assert not (tmp_path / "out" / "a").is_symlink()


def test_a_hundred_thousand_files_in_one_folder(tmp_path: Path) -> None:
    store = Store.init("memory://flat", cache_dir=tmp_path)
    store.put("r", *((f"f/{number:06}", b"%d" % number) for number in range(100_000)))
    commit = store["r"]
    assert commit.files == 100_000
    assert sum(1 for _ in commit.ls("/f")) == 100_000
    assert commit.read_bytes("f/099999") == b"99999"
    assert len(list(commit.glob("/f/0999*"))) == 100
    store.put("r", ("f/050000", b"new"))
    assert [change.path for change in commit.diff(store["r"])] == ["/f/050000"]
    assert max(size for _, size in store.backend.list("nodes/")) < 256 << 10
    assert store.fsck().ok


def test_an_empty_file_is_a_file(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    commit = store.put("r", tmp_path / "empty")
    assert (commit.read_bytes("empty"), commit.info("empty").size) == (b"", 0)
    commit.get("/empty", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b""


@pytest.mark.parametrize("key", ["../x", "objects/../../x", "/etc/passwd", "objects//x", "a\0b"])
def test_no_key_leaves_the_store(tmp_path: Path, key: str) -> None:
    backend = open_backend(str(tmp_path / "place"))
    for call in (backend.get, backend.size, lambda key: backend.put(key, b""), lambda key: backend.delete_many([key])):
        with pytest.raises(InvalidInputError):
            call(key)
