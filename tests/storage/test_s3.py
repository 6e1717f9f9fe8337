"""The storage layer on a real S3 server (`weed`), and what only a remote medium does."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dmlpipe.storage.backend import Backend, open_backend, probe_exclusive_create
from dmlpipe.storage.backend.remote import RemoteBackend
from dmlpipe.storage.errors import BackendError, ErrorCode, NotFoundError
from dmlpipe.storage.objects.index import BlobIndex
from dmlpipe.storage.objects.node import NodeStore
from dmlpipe.storage.objects.object_store import Objects
from dmlpipe.storage.store import Store
from dmlpipe.storage.testing import BackendTests
from dmlpipe.storage.trees.prolly import Tree, build

pytestmark = pytest.mark.s3


class TestS3(BackendTests):
    @pytest.fixture
    def backend(self, s3_url: str) -> Backend:
        return open_backend(s3_url)


@pytest.fixture
def remote(s3_url: str) -> RemoteBackend:
    return RemoteBackend(s3_url)


Call = Callable[..., Any]


class Calls:
    """Stands between a backend and its file system: counts server requests, and changes answers."""

    def __init__(self, backend: RemoteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fs = backend._connect()
        self.made: list[str] = []
        self._patch = monkeypatch
        real = self.fs._call_s3

        async def call_s3(method: str, *args: Any, **kwargs: Any) -> Any:
            self.made.append(method)
            return await real(method, *args, **kwargs)

        monkeypatch.setattr(self.fs, "_call_s3", call_s3)

    def instead_of_put(self, put: Call) -> None:
        real = self.fs._pipe_file
        self._patch.setattr(self.fs, "_pipe_file", lambda *args, **kwargs: put(real, *args, **kwargs))


# --- requests ---


def test_each_operation_costs_one_request(remote: RemoteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(remote, monkeypatch)

    def cost(call: Callable[[], object]) -> list[str]:
        calls.made.clear()
        call()
        return calls.made

    assert cost(lambda: remote.put_if_absent("a/b", b"content")) == ["put_object"]
    assert cost(lambda: remote.get("a/b")) == ["get_object"]
    assert cost(lambda: remote.get("a/b", 1, 3)) == ["get_object"]
    assert cost(lambda: remote.get("a/b", -3)) == ["get_object"]
    assert cost(lambda: remote.size("a/b")) == ["head_object"]
    assert cost(lambda: remote.size("a/none")) == ["head_object"]
    assert cost(lambda: remote.delete_many(["a/b", "a/c"])) == ["delete_objects"]


def test_a_large_object_is_one_request_each_way(remote: RemoteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    body = bytes(range(256)) * (1 << 17)  # 32 MiB, as a pack
    calls = Calls(remote, monkeypatch)
    assert remote.put_if_absent("pack", body)
    assert remote.get("pack") == body
    assert calls.made == ["put_object", "get_object"]


# --- the lost race, and the lost answer ---


def test_a_create_whose_answer_was_lost_counts_as_made(remote: RemoteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    async def put_twice(real: Call, path: str, body: bytes, **kwargs: Any) -> None:
        await real(path, body, **kwargs)
        await real(path, body, **kwargs)  # the library asks again, and loses against itself

    Calls(remote, monkeypatch).instead_of_put(put_twice)
    assert remote.put_if_absent("entry", b"with a nonce") is True
    assert remote.get("entry") == b"with a nonce"


def test_a_conflict_under_way_is_asked_again(remote: RemoteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError
    from s3fs.errors import translate_boto_error

    conflict = {
        "Error": {"Code": "ConditionalRequestConflict", "Message": "try again"},
        "ResponseMetadata": {"HTTPStatusCode": 409},
    }
    asked: list[str] = []

    async def conflict_first(real: Call, path: str, body: bytes, **kwargs: Any) -> None:
        asked.append(path)
        if len(asked) < 3:
            raise translate_boto_error(ClientError(conflict, "PutObject"))
        await real(path, body, **kwargs)

    Calls(remote, monkeypatch).instead_of_put(conflict_first)
    assert remote.put_if_absent("entry", b"x") is True
    assert len(asked) == 3


@pytest.mark.parametrize("condition", [{}, {"Condition": "If-None-Match"}])
def test_the_lost_race_is_told_whatever_the_server_says(
    remote: RemoteBackend, monkeypatch: pytest.MonkeyPatch, condition: dict[str, str]
) -> None:
    from botocore.exceptions import ClientError
    from s3fs.errors import translate_boto_error

    failed = {
        "Error": {"Code": "PreconditionFailed", "Message": "exists", **condition},
        "ResponseMetadata": {"HTTPStatusCode": 412},
    }
    remote.put_if_absent("entry", b"winner")

    async def refuse(real: Call, path: str, body: bytes, **kwargs: Any) -> None:
        raise translate_boto_error(ClientError(failed, "PutObject"))

    Calls(remote, monkeypatch).instead_of_put(refuse)
    assert remote.put_if_absent("entry", b"loser!") is False


def test_a_server_that_ignores_the_condition_is_refused(remote: RemoteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    async def overwrite(real: Call, path: str, body: bytes, **kwargs: Any) -> None:
        await real(path, body)

    Calls(remote, monkeypatch).instead_of_put(overwrite)
    with pytest.raises(BackendError, match="does not create exclusively") as caught:
        probe_exclusive_create(remote)
    assert caught.value.code == ErrorCode.UNSAFE_BACKEND


# --- errors ---


def test_a_server_that_is_not_there_is_one_clear_error(s3_url: str) -> None:
    dead = RemoteBackend(s3_url, {"endpoint_url": "http://127.0.0.1:9", "key": "k", "secret": "s"})
    with pytest.raises(BackendError, match=r"cannot read object a in s3://.*127\.0\.0\.1:9") as caught:
        dead.get("a")
    assert caught.value.retryable
    with pytest.raises(BackendError):
        dead.put_if_absent("a", b"")


def test_wrong_credentials_are_one_clear_error(s3_url: str) -> None:
    wrong = RemoteBackend(s3_url, {"key": "testkey", "secret": "wrong"})
    for call in (lambda: wrong.get("a"), lambda: wrong.put_if_absent("a", b""), lambda: list(wrong.list())):
        with pytest.raises(BackendError) as caught:
            call()
        assert caught.value.code == ErrorCode.PERMISSION
        assert "AWS_ACCESS_KEY_ID" in (caught.value.hint or "")


def test_an_object_too_large_for_one_request_is_refused(remote: RemoteBackend) -> None:
    with pytest.raises(ValueError, match="too large"):
        remote.put_if_absent("a", bytes((64 << 20) + 1))


def test_one_missing_object_fails_a_batch_by_name(remote: RemoteBackend) -> None:
    remote.put_if_absent("a", b"1")
    with pytest.raises(NotFoundError, match="no object nodes/none"):
        remote.get_many([("a", None, None), ("nodes/none", None, None)])


def test_copies_carry_their_options(s3_url: str, weed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in weed.environment:
        monkeypatch.delenv(name, raising=False)
    backend = RemoteBackend(s3_url, weed.storage_options)
    backend.put_if_absent("a", b"1")
    assert pickle.loads(pickle.dumps(backend)).get("a") == b"1"


# --- the parts above, together ---


def test_trees_and_content_round_trip(remote: RemoteBackend) -> None:
    nodes = NodeStore(remote, tree_target=64)
    tree = build(nodes, ((b"%05d" % n, b"v%d" % n) for n in range(3000)))
    edited = tree.update([(b"00007", b"new"), (b"02000", None)])
    objects = Objects(remote, nodes)
    put = objects.writer()
    bodies = [bytes([n]) * size for n in range(3) for size in (10, 5000, 1 << 20)]
    values = [put.put(body) for body in bodies]
    written = put.flush()

    cold = NodeStore(RemoteBackend(remote.url), tree_target=64)
    assert list(Tree(cold, tree.root).diff(Tree(cold, edited.root))) == [
        (b"00007", b"v7", b"new"),
        (b"02000", b"v2000", None),
    ]
    index = BlobIndex(cold.backend.get(written.index))
    assert Objects(cold.backend, cold, locate=index.find).read_many(values) == bodies


def test_many_small_files_cost_few_requests(s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 files in 10 folders: put in at most 40 requests; one folder got by a client that knows nothing in 20."""
    rng = random.Random(4)
    for number in range(10_000):
        folder = tmp_path / f"src/f{number // 1000}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:05d}").write_bytes(rng.randbytes(rng.randint(1024, 4096)))
    store = Store.init(s3_url, cache_dir=tmp_path / "cache")
    assert isinstance(store.backend, RemoteBackend)
    calls = Calls(store.backend, monkeypatch)
    view = store.put("r", tmp_path / "src")
    assert view.files == 10_000
    assert len(calls.made) <= 40, calls.made
    opening = Store.open(s3_url, cache_dir=tmp_path / "cold")
    assert isinstance(opening.backend, RemoteBackend)
    calls = Calls(opening.backend, monkeypatch)
    cold = opening["r"]
    assert len(calls.made) <= 34
    opened = len(calls.made)
    assert cold.get("/f3", tmp_path / "out") == 1000
    assert len(calls.made) - opened <= 20
    assert all(
        (tmp_path / "out" / file.name).read_bytes() == file.read_bytes() for file in (tmp_path / "src/f3").iterdir()
    )
