from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.commits import FileInfo
from dmlpipe.storage.digest import Data
from dmlpipe.storage.errors import (
    ConflictError,
    CorruptError,
    ErrorCode,
    FormatError,
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
)
from dmlpipe.storage.info import default_cache_dir, find_store
from dmlpipe.storage.ledger.ledger import entry_key
from dmlpipe.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")


@pytest.fixture
def images(store: Store) -> Store:
    store.put("images", ("a.png", b"a"), ("cam/1.png", b"1"), ("cam/2.png", os.urandom(3000)), message="first")
    store.put("images", ("cam/1.png", b"11"), ("b.txt", b"b"), message="second")
    return store


def test_what_was_put_is_there_after_opening_again(images: Store, tmp_path: Path) -> None:
    again = Store.open(tmp_path / "store", cache_dir=tmp_path / "other")
    assert again["images"] == images["images"]
    assert again.repo_id == images.repo_id
    assert again["images^"].read_bytes("cam/1.png") == b"1"


def test_init_refuses_a_place_that_is_taken(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is a store") as caught:
        Store.init(tmp_path / "store")
    assert caught.value.code == ErrorCode.EXISTS
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(InvalidInputError, match="is not empty and no store"):
        Store.init(tmp_path / "full")


def test_a_local_store_hides_from_git(store: Store, tmp_path: Path) -> None:
    assert (tmp_path / "store" / ".gitignore").read_text() == "*\n"


def test_open_finds_the_store_upwards_and_by_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLPIPE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("DMLPIPE_STORE", raising=False)
    below = tmp_path / "project" / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    with pytest.raises(FormatError) as caught:
        Store.open()
    assert caught.value.code == ErrorCode.NO_STORE
    made = Store.init(tmp_path / "project" / ".dmlpipe")
    assert find_store(below) == tmp_path / "project" / ".dmlpipe"
    assert Store.open().repo_id == made.repo_id
    other = Store.init(tmp_path / "other")
    monkeypatch.setenv("DMLPIPE_STORE", str(tmp_path / "other"))
    assert Store.open().repo_id == other.repo_id
    assert default_cache_dir() == tmp_path / "cache"


def test_a_place_without_a_store(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no store at") as caught:
        Store.open(tmp_path / "nothing")
    assert caught.value.code == ErrorCode.NO_STORE
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"version": 2}, FormatError, "has format 2; this dmlpipe reads format 1"),
        ({"format": "zip"}, FormatError, "holds 'zip', not a dmlpipe store"),
        ({"read_features": ["holograms"]}, FormatError, "needs holograms"),
        ({"hash": "sha256"}, FormatError, "hash sha256"),
        ({"repo_id": 7}, CorruptError, "is damaged"),
    ],
)
def test_another_format_is_refused(
    store: Store, tmp_path: Path, change: dict[str, object], error: type[Exception], message: str
) -> None:
    file = tmp_path / "store" / "dmlpipe.json"
    info = json.loads(file.read_text()) | {"check": ""} | change
    file.write_text(json.dumps(info))
    with pytest.raises(error, match=message):
        Store.open(tmp_path / "store")


def test_a_feature_that_only_writers_must_know_makes_a_store_read_only(images: Store, tmp_path: Path) -> None:
    file = tmp_path / "store" / "dmlpipe.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"check": ""} | {"write_features": ["seals"]}))
    again = Store.open(tmp_path / "store", cache_dir=tmp_path / "cache")
    assert again["images"].files == 4
    with pytest.raises(ReadOnlyError):
        again.put("images", ("x", b""))


def test_read_only_refuses_every_write(images: Store, tmp_path: Path) -> None:
    again = Store.open(tmp_path / "store", cache_dir=tmp_path / "cache", read_only=True)
    assert again["images"].exists("a.png")
    with pytest.raises(ReadOnlyError):
        again.put("images", ("x", b""))
    with pytest.raises(ReadOnlyError):
        again.create_repo("r")


def test_listing(images: Store) -> None:
    commit = images["images"]
    assert [(info.path, info.is_folder, info.size) for info in commit.ls()] == [
        ("/a.png", False, 1),
        ("/b.txt", False, 1),
        ("/cam", True, None),
    ]
    assert [info.path for info in commit.ls("/cam/")] == ["/cam/1.png", "/cam/2.png"]
    assert [info.name for info in commit.ls("a.png")] == ["a.png"]
    assert [info.path for info in commit.glob("/**/*.png")] == ["/a.png", "/cam/1.png", "/cam/2.png"]
    assert commit.info("/cam") == FileInfo("/cam", None)
    assert commit.exists("/")
    assert not commit.exists("/ca")
    assert commit.info("a.png").to_dict() == {"path": "/a.png", "type": "file", "size": 1}


def test_a_missing_file_says_what_is_near(images: Store) -> None:
    commit = images["images"]
    with pytest.raises(NotFoundError) as caught:
        commit.read_bytes("/cam/1.pgn")
    assert caught.value.code == ErrorCode.NO_FILE
    assert "did you mean /cam/1.png?" in (caught.value.hint or "")
    with pytest.raises(InvalidInputError, match="is a folder"):
        commit.open("/cam")
    with pytest.raises(NotFoundError):
        commit.ls("/nothing")


def test_get_writes_files_and_folders(images: Store, tmp_path: Path) -> None:
    commit = images["images"]
    assert commit.get("/", tmp_path / "out") == 4
    assert (tmp_path / "out" / "cam" / "2.png").read_bytes() == commit.read_bytes("cam/2.png")
    assert commit.get("/cam", tmp_path / "cam") == 2
    assert sorted(path.name for path in (tmp_path / "cam").iterdir()) == ["1.png", "2.png"]
    commit.get("a.png", tmp_path / "cam")
    assert (tmp_path / "cam" / "a.png").read_bytes() == b"a"
    commit.get("a.png", tmp_path / "new" / "name.png")
    assert (tmp_path / "new" / "name.png").read_bytes() == b"a"
    commit.get("b.txt", tmp_path / "new" / "name.png")
    assert (tmp_path / "new" / "name.png").read_bytes() == b"b"
    with pytest.raises(InvalidInputError, match="is a file, and"):
        commit.get("/cam", tmp_path / "new" / "name.png")
    with pytest.raises(NotFoundError):
        commit.get("/nope", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_diff_between_commits_and_with_a_folder(images: Store, tmp_path: Path) -> None:
    new, old = images["images"], images["images^"]
    assert [(change.path, change.kind, change.size_change) for change in old.diff(new)] == [
        ("/b.txt", "added", 1),
        ("/cam/1.png", "changed", 1),
    ]
    assert [change.path for change in old.diff(new, "/cam")] == ["/cam/1.png"]
    assert list(new.diff(new)) == []
    new.get("/", tmp_path / "out")
    assert list(new.diff(tmp_path / "out")) == []
    (tmp_path / "out" / "cam" / "2.png").unlink()
    (tmp_path / "out" / "a.png").write_bytes(os.urandom(200))
    (tmp_path / "out" / "z").write_text("z")
    assert [(change.path, change.kind) for change in new.diff(tmp_path / "out")] == [
        ("/a.png", "changed"),
        ("/cam/2.png", "removed"),
        ("/z", "added"),
    ]
    assert [change.path for change in new.diff(tmp_path / "out" / "cam", "/cam")] == ["/cam/2.png"]


def test_branches(images: Store) -> None:
    old = images["images^"].id
    images.create_branch("images", "dev", "images^")
    assert images["images@dev"].id == old
    with pytest.raises(ConflictError):
        images.create_branch("images", "dev")
    images.put("images", ("x", b"x"), branch="dev")
    assert images["images@dev^"].id == old
    assert not images["images"].exists("x")
    images.set_branch("images", "dev", "master")
    assert images["images@dev"] == images["images"]
    images.delete_branch("images", "dev")
    with pytest.raises(NotFoundError):
        images.resolve("images@dev")
    with pytest.raises(NotFoundError, match="no branch"):
        images.delete_branch("images", "dev")
    assert [head.commit for head in images.state.history("images")] == [images["images"].id, old]


def test_a_branch_points_into_its_own_repo(images: Store) -> None:
    images.put("other", ("a", b""))
    with pytest.raises(InvalidInputError, match="is no commit of repo 'images'"):
        images.set_branch("images", "dev", "other@master")


def test_tags(images: Store) -> None:
    images.create_tag("images", "v1", "images^")
    assert images["images@v1"] == images["images^"]
    images.delete_tag("images", "v1")
    with pytest.raises(NotFoundError):
        images.resolve("images@v1")


def test_repos(store: Store) -> None:
    store.create_repo("r", "what it is")
    found = store.state.repo("r")
    assert found is not None
    assert found.description == "what it is"
    with pytest.raises(ConflictError) as caught:
        store.create_repo("r")
    assert caught.value.code == ErrorCode.EXISTS
    store.delete_repo("r")
    assert store.state.repo("r") is None
    with pytest.raises(NotFoundError):
        store.delete_repo("r")
    with pytest.raises(InvalidInputError) as bad:
        store.create_repo("no/slash")
    assert bad.value.code == ErrorCode.BAD_NAME


def test_a_reader_finds_what_another_process_packed(images: Store, tmp_path: Path) -> None:
    reader = Store.open(tmp_path / "store", cache_dir=tmp_path / "c2")
    reader.refresh()
    data = os.urandom(4000)
    commit = images.put("images", ("new", data))
    # As a worker that was handed a value of a commit its own state does not know yet.
    assert reader.objects.read(commit.value("new")) == data


def test_content_is_stored_once(images: Store) -> None:
    data = os.urandom(50_000)
    images.put("images", ("one", data))
    before = sum(size for key, size in images.backend.list("packs/"))
    images.put("elsewhere", ("two", data))
    images.put("images", ("three", data))
    assert sum(size for key, size in images.backend.list("packs/")) == before


def test_lookups_stay_quick_after_many_commits(store: Store, tmp_path: Path) -> None:
    data = [os.urandom(200) for _ in range(60)]
    for index, body in enumerate(data):
        store.put("r", (str(index), body))
    again = Store.open(tmp_path / "store", cache_dir=tmp_path / "c2")
    for index, body in enumerate(data):
        assert again["r"].read_bytes(str(index)) == body
    assert len(again._locator._indexes) <= 16


def test_opening_and_reading_loads_nothing_heavy(images: Store, tmp_path: Path) -> None:
    code = (
        "import sys; from dmlpipe.storage.store import Store; "
        f"s = Store.open({str(tmp_path / 'store')!r}); c = s['images']; "
        "print(c.read_bytes('a.png'), list(c.ls())[0].path); "
        "bad = {'numpy', 'zarr', 'dask', 'distributed', 'fsspec', 's3fs', 'click', 'asyncio'} & set(sys.modules); "
        "sys.exit(f'loaded {bad}' if bad else 0)"
    )
    env = {**os.environ, "DMLPIPE_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "b'a' /a.png\n"


def test_a_store_that_was_cut_is_refused_by_who_saw_more(images: Store, tmp_path: Path) -> None:
    n = images.refresh().n
    images.backend.delete_many([entry_key(n)])
    with pytest.raises(FormatError) as caught:
        Store.open(tmp_path / "store", cache_dir=tmp_path / "cache").refresh()
    assert caught.value.code == ErrorCode.HISTORY_REWRITTEN
    assert Store.open(tmp_path / "store", cache_dir=tmp_path / "fresh").refresh().n == n - 1


def test_a_crash_before_the_entry_shows_nothing(images: Store, tmp_path: Path) -> None:
    session = images.commit("images")
    session.write("lost", os.urandom(2000))
    session.writer.flush()
    again = Store.open(tmp_path / "store", cache_dir=tmp_path / "c2")
    assert again["images"] == images["images"]
    assert again.fsck().ok
    assert again.fsck().orphans > 0


class Dying(MemoryBackend):
    """Dies at the n-th write: before it, or after it was done."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.left = -1
        self.after = False

    def put_if_absent(self, key: str, data: Data, *, durable: bool = False) -> bool:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise KeyboardInterrupt
        made = super().put_if_absent(key, data, durable=durable)
        if self.left == 0:
            raise KeyboardInterrupt
        return made


@pytest.mark.parametrize("after", [False, True])
def test_a_put_that_dies_at_any_write_is_all_or_nothing(after: bool) -> None:
    name = f"dying-{after}"
    old = Store.init(f"memory://{name}")
    for index in range(30):  # so that a checkpoint is among the writes
        old.put("r", (f"old/{index}", os.urandom(200)))
    head = old["r"].id
    writes = 0
    for writes in range(1, 100):
        data = [os.urandom(300), os.urandom(1 << 20)]
        backend = Dying(name)
        store = Store(backend, old.info)
        store.refresh()
        backend.left, backend.after = writes, after
        try:
            store.put("r", ("new/small", data[0]), ("new/big", data[1]))
        except KeyboardInterrupt:
            now = Store.open(f"memory://{name}")
            assert now.fsck().problems == ()
            if now["r"].id != head:
                assert now["r"].read_bytes("new/big") == data[1]
                assert now["r"].read_bytes("new/small") == data[0]
                with now.commit("r") as session:
                    session.delete("new")
                head = now["r"].id
        else:
            break
    assert writes > 6
    final = Store.open(f"memory://{name}")
    assert final["r"].files == 32
    assert final.fsck().ok


_RACER = """
import sys
from dmlpipe.storage.store import Store
store = Store.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for index in range(15):
    store.put("r", (f"{sys.argv[2]}/{index}", sys.argv[2] * 100), create=True)
"""


def race(url: str, env: dict[str, str], count: int = 4) -> None:
    args = [sys.executable, "-c", _RACER, url]
    racers = [
        subprocess.Popen(
            [*args, str(number)],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        said = [racer.communicate(timeout=100)[1] for racer in racers]
        assert [racer.returncode for racer in racers] == [0] * count, "".join(said)
    finally:
        for racer in racers:
            racer.kill()
            racer.wait(timeout=10)
            for pipe in (racer.stdin, racer.stdout, racer.stderr):
                if pipe is not None:
                    pipe.close()


def test_processes_that_put_at_once_lose_nothing(store: Store, tmp_path: Path) -> None:
    race(str(tmp_path / "store"), {**os.environ, "DMLPIPE_CACHE_DIR": str(tmp_path / "cache")})
    assert store["r"].files == 60
    assert store.fsck().ok
    commits = [store["r"]]
    while commits[-1].parents:
        commits.append(store[f"r@{commits[-1].parents[0]}"])
    assert [commit.files for commit in commits] == list(range(60, 0, -1))


@pytest.mark.s3
def test_a_store_on_s3(s3_url: str, tmp_path: Path) -> None:
    store = Store.init(s3_url, cache_dir=tmp_path / "cache")
    data = os.urandom(2 << 20)
    store.put("images", *[(f"{index}.png", os.urandom(500)) for index in range(50)], ("big", data))
    again = Store.open(s3_url, cache_dir=tmp_path / "c2")
    assert again["images"].read_bytes("big") == data
    assert again["images"].get("/", tmp_path / "out") == 51
    race(s3_url, {**os.environ, "DMLPIPE_CACHE_DIR": str(tmp_path / "c3")}, count=2)
    assert store["r"].files == 30
    assert store.fsck().ok
    with pytest.raises(InvalidInputError, match="there is a store"):
        Store.init(s3_url)
    assert list((tmp_path / "c2").rglob("*.idx"))


def test_a_probe_that_was_interrupted_leaves_the_place_vacant(tmp_path: Path) -> None:
    (tmp_path / "place" / "probe").mkdir(parents=True)
    (tmp_path / "place" / "probe" / "abc").write_bytes(b"x")
    Store.init(tmp_path / "place", cache_dir=tmp_path / "cache")
