"""The contract of `Backend` as a test suite: subclass `BackendTests` and give it a fixture `backend`.

Each rule has a test; `tests/storage/backend/broken_backends.py` has, for each rule, a backend that breaks it and
nothing else.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import cloudpickle  # type: ignore[import-untyped]  # none are published
import pytest

from ..backend import Backend, probe_exclusive_create
from ..errors import InvalidInputError, NotFoundError

RACERS = 8
_ROUNDS = 12
_BODY_BYTES = 128 << 10
_TIMEOUT_S = 60.0

# One process of a race: told a round, it tries to create that round's key, and says whether it won.
_RACER = """
import base64, json, pickle, sys
backend = pickle.loads(base64.b64decode(sys.argv[1]))
me, size = int(sys.argv[2]), int(sys.argv[3])
backend.size("warm-up")
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    print(json.dumps(backend.put_if_absent(line.strip(), bytes([me]) * size)), flush=True)
"""

# A process that is killed in the middle of its work.
_WRITER = """
import base64, pickle, sys
backend = pickle.loads(base64.b64decode(sys.argv[1]))
body = bytes(range(256)) * (int(sys.argv[2]) // 256)
for number in range(1000):
    print(number, flush=True)
    backend.put_if_absent(f"torn/{number:04}", body)
"""

_RANGES: Sequence[tuple[int | None, int | None]] = [
    (None, None),
    (0, None),
    (None, 4),
    (0, 0),
    (2, 5),
    (4, 4),
    (5, 3),
    (9, 10),
    (3, 99),
    (10, None),
    (10, 12),
    (50, 60),
    (-1, None),
    (-4, None),
    (-10, None),
    (-99, None),
]


class BackendTests:
    """Every backend passes these. Give the class a fixture `backend`: an empty one."""

    @pytest.fixture
    def backend(self) -> Backend:
        """Return an empty backend."""
        raise NotImplementedError("a subclass gives this fixture")

    # --- create ---

    def test_a_created_object_reads_back(self, backend: Backend) -> None:
        """Create, then get."""
        assert backend.put_if_absent("a/b/c", b"content") is True
        assert backend.get("a/b/c") == b"content"
        assert backend.size("a/b/c") == 7

    @pytest.mark.parametrize("other", [b"second", b"longer than the first"])
    def test_an_existing_object_is_not_replaced_by_create(self, backend: Backend, other: bytes) -> None:
        """The second create changes nothing and says so."""
        assert backend.put_if_absent("key", b"first!") is True
        assert backend.put_if_absent("key", other) is False
        assert backend.get("key") == b"first!"

    def test_empty_objects_are_objects(self, backend: Backend) -> None:
        """No bytes are not no object."""
        assert backend.put_if_absent("empty", b"") is True
        assert backend.size("empty") == 0
        assert backend.get("empty") == b""
        assert backend.get("empty", -5) == b""
        assert backend.put_if_absent("empty", b"x") is False

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_bodies_may_be_any_buffer(self, backend: Backend, kind: Callable[[bytes], bytes]) -> None:
        """Bytes, bytearray, memoryview."""
        assert backend.put_if_absent("a", kind(b"abc")) is True
        backend.put("b", kind(b"abc"))
        assert backend.get("a") == backend.get("b") == b"abc"

    def test_many_are_created_together(self, backend: Backend) -> None:
        """Results stand in the order of the items."""
        backend.put_if_absent("many/2", b"old")
        items = [(f"many/{number}", b"%d" % number) for number in range(5)]
        assert list(backend.put_many_if_absent(items)) == [True, True, False, True, True]
        requests = [(key, None, None) for key, _ in items]
        assert list(backend.get_many(requests)) == [b"0", b"1", b"old", b"3", b"4"]

    def test_a_draft_becomes_an_object_unless_there_is_one(self, backend: Backend) -> None:
        """Nobody sees a draft; one that is given up leaves nothing."""
        for number, expected in enumerate([True, False, None]):
            draft = backend.draft()
            draft.write(b"%d, " % number)
            draft.write(memoryview(b"then more"))
            assert (len(draft), draft.read()) == (12, b"%d, then more" % number)
            assert [key for key, _ in backend.list()] == (["a/draft"] if number else [])
            if expected is not None:
                assert draft.put_if_absent("a/draft") is expected
            draft.drop()
        assert list(backend.list()) == [("a/draft", 12)]
        assert backend.get("a/draft") == b"0, then more"

    def test_a_durable_create_is_a_create(self, backend: Backend) -> None:
        """The flag changes when it returns, not what it does."""
        assert backend.put_if_absent("ledger/1", b"a", durable=True) is True
        assert backend.put_if_absent("ledger/1", b"b", durable=True) is False
        backend.sync(["ledger/1"])
        assert backend.get("ledger/1") == b"a"

    # --- read ---

    @pytest.mark.parametrize(("start", "end"), _RANGES)
    def test_ranges_are_slices(self, backend: Backend, start: int | None, end: int | None) -> None:
        """As Python slices bytes."""
        body = b"0123456789"
        backend.put_if_absent("ranges", body)
        assert backend.get("ranges", start, end) == body[start:end]
        assert list(backend.get_many([("ranges", start, end)])) == [body[start:end]]

    @pytest.mark.parametrize("end", [None, 0, 5])
    def test_what_is_not_there_is_not_found(self, backend: Backend, end: int | None) -> None:
        """Not found is told from empty, whatever the range."""
        backend.put_if_absent("folder/object", b"x")
        for key in ("none", "folder", "folder/none", "folder/object/none"):
            assert backend.size(key) is None
            with pytest.raises(NotFoundError):
                backend.get(key, None, end)
        with pytest.raises(NotFoundError):
            backend.get_many([("folder/object", None, None), ("none", None, None)])

    @pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../b", "./a", "a\0b"])
    def test_a_key_cannot_leave_the_root(self, backend: Backend, key: str) -> None:
        """Keys are checked by every method that takes one."""
        with pytest.raises(InvalidInputError):
            backend.put_if_absent(key, b"x")
        with pytest.raises(InvalidInputError):
            backend.get(key)

    # --- overwrite, delete ---

    def test_put_replaces(self, backend: Backend) -> None:
        """The new bytes are seen at once, whole and in ranges."""
        backend.put("beat", b"first version")
        assert backend.get("beat", 0, 5) == b"first"
        backend.put("beat", b"second")
        assert backend.get("beat") == b"second"
        assert backend.get("beat", 0, 3) == b"sec"
        assert backend.size("beat") == 6

    def test_deleted_objects_are_gone_and_may_be_made_again(self, backend: Backend) -> None:
        """Deleting what is not there is no error."""
        backend.put_if_absent("a/1", b"x")
        backend.put_if_absent("a/2", b"y")
        assert backend.get("a/1", 0, 1) == b"x"
        backend.delete_many(["a/1", "never/was"])
        assert backend.size("a/1") is None
        with pytest.raises(NotFoundError):
            backend.get("a/1", 0, 1)
        assert [key for key, _ in backend.list("a/")] == ["a/2"]
        assert backend.put_if_absent("a/1", b"new") is True
        assert backend.get("a/1", 0, 3) == b"new"

    # --- list ---

    def test_lists_are_sorted_by_key_with_sizes(self, backend: Backend) -> None:
        """By the key's bytes: ``a-b`` before ``a/b`` before ``a0``."""
        keys = ["a/b", "a-b", "a0", "a/b-c/d", "a/c", "b"]
        for number, key in enumerate(keys):
            backend.put_if_absent(f"l/{key}", b"x" * number)
        expected = sorted((f"l/{key}", number) for number, key in enumerate(keys))
        assert list(backend.list("l/")) == expected
        assert list(backend.list()) == expected

    @pytest.mark.parametrize("prefix", ["", "p", "p/", "p/a", "p/a/", "p/a/1", "p/a/12", "p/ab", "q", "p/none/"])
    def test_a_prefix_is_a_string(self, backend: Backend, prefix: str) -> None:
        """Also where it ends inside a name."""
        keys = ["p/a/1", "p/a/12", "p/ab/1", "p/abc", "pq"]
        for key in keys:
            backend.put_if_absent(key, b"")
        assert [key for key, _ in backend.list(prefix)] == sorted(key for key in keys if key.startswith(prefix))

    def test_folders_are_listed_by_name_without_objects(self, backend: Backend) -> None:
        """What is right below, sorted."""
        for key in ("f/b/1", "f/a/1", "f/a/x/2", "f/object", "g/1"):
            backend.put_if_absent(key, b"")
        assert list(backend.list_folders("f")) == ["a", "b"]
        assert list(backend.list_folders("f/")) == ["a", "b"]
        assert list(backend.list_folders()) == ["f", "g"]
        assert list(backend.list_folders("none")) == []

    # --- others ---

    def test_what_another_client_writes_is_seen_at_once(self, backend: Backend) -> None:
        """No cache hides it, though the folder was listed and the key asked for before."""
        other: Backend = pickle.loads(pickle.dumps(backend))
        backend.put_if_absent("shared/1", b"1")
        assert [key for key, _ in other.list("shared/")] == ["shared/1"]
        assert other.size("shared/2") is None
        with pytest.raises(NotFoundError):
            other.get("shared/2")
        backend.put_if_absent("shared/2", b"2")
        assert other.size("shared/2") == 1
        assert other.get("shared/2") == b"2"
        assert [key for key, _ in other.list("shared/")] == ["shared/1", "shared/2"]
        assert other.put_if_absent("shared/2", b"3") is False

    def test_the_probe_accepts_it(self, backend: Backend) -> None:
        """`init` would take it; nothing is left behind."""
        probe_exclusive_create(backend)
        assert list(backend.list()) == []

    def test_one_of_racing_threads_wins(self, backend: Backend) -> None:
        """Each key is created once, and holds the winner's bytes."""
        gate = threading.Barrier(RACERS)
        bodies = [bytes([me]) * 4096 for me in range(RACERS)]

        def race(key: str, me: int) -> bool:
            gate.wait(timeout=_TIMEOUT_S)
            return backend.put_if_absent(key, bodies[me])

        interval = sys.getswitchinterval()
        if not backend.properties.remote:  # there the requests race, and the event loop would starve
            sys.setswitchinterval(1e-6)
        try:
            with ThreadPoolExecutor(RACERS) as pool:
                for number in range(_rounds(backend)):
                    key = f"race/{number}"
                    won = list(pool.map(race, [key] * RACERS, range(RACERS)))
                    assert won.count(True) == 1
                    assert backend.get(key) == bodies[won.index(True)]
        finally:
            sys.setswitchinterval(interval)

    def test_one_of_racing_processes_wins(self, backend: Backend) -> None:
        """The same between processes, with bodies that take a while to write."""
        _need_shared(backend)
        with ExitStack() as ends:
            racers = [_start(ends, backend, _RACER, str(me), str(_BODY_BYTES)) for me in range(RACERS)]
            assert [_answer(racer) for racer in racers] == ["ready"] * RACERS
            for number in range(_rounds(backend)):
                key = f"race/{number}"
                for racer in racers:
                    _tell(racer, key)
                won = [_answer(racer) for racer in racers]
                assert won.count(True) == 1, f"{won.count(True)} of {RACERS} racers won round {number}"
                assert backend.get(key) == bytes([won.index(True)]) * _BODY_BYTES

    def test_a_killed_writer_leaves_whole_objects_only(self, backend: Backend) -> None:
        """Kill -9 in the middle of a create: the object is all there or not at all."""
        _need_shared(backend)
        body = bytes(range(256)) * (16 << 10)
        for number in range(3):
            with ExitStack() as ends:
                writer = _start(ends, backend, _WRITER, str(len(body)))
                for _ in range(number + 1):
                    _answer(writer)
                deadline = time.monotonic() + _TIMEOUT_S
                while not list(backend.list("torn/")) and time.monotonic() < deadline:
                    pass
                os.kill(writer.pid, signal.SIGKILL)
                writer.wait(timeout=_TIMEOUT_S)
            found = list(backend.list("torn/"))
            assert {size for _, size in found} <= {len(body)}
            assert all(backend.get(key) == body for key, _ in found)

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_forked_child_can_use_it(self, backend: Backend) -> None:
        """Connections, threads and locks of the parent are not relied on."""
        _need_shared(backend)
        backend.put_if_absent("before", b"parent")
        child = os.fork()
        if child == 0:
            signal.alarm(int(_TIMEOUT_S))  # by default that ends the process
            code = 1
            try:
                right = backend.get("before") == b"parent" and backend.get("before", 1, 3) == b"ar"
                code = 0 if right and backend.put_if_absent("after", b"child") else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert backend.get("after") == b"child"


def _rounds(backend: Backend) -> int:
    # Servers make losers wait for seconds; one round tells as much there as many on a disk.
    return 2 if backend.properties.remote else _ROUNDS


def _need_shared(backend: Backend) -> None:
    if not backend.properties.shared:
        pytest.skip("no other process sees this backend")


def _start(ends: ExitStack, backend: Backend, script: str, *arguments: str) -> subprocess.Popen[bytes]:
    module = sys.modules[type(backend).__module__]
    if not module.__name__.startswith("dmlpipe."):
        cloudpickle.register_pickle_by_value(module)  # a test's own class, which the child could not import
    pickled = base64.b64encode(cloudpickle.dumps(backend)).decode()
    command = [sys.executable, "-c", script, pickled, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    ends.enter_context(process)
    ends.callback(process.kill)
    return process


def _tell(process: subprocess.Popen[bytes], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line.encode() + b"\n")
    process.stdin.flush()


def _answer(process: subprocess.Popen[bytes]) -> object:
    assert process.stdout is not None
    timer = threading.Timer(_TIMEOUT_S, process.kill)  # bounds the wait: a dead process ends its output
    timer.start()
    try:
        line = process.stdout.readline()
    finally:
        timer.cancel()
    assert line, f"a process of the test ended with exit code {process.poll()}"
    return json.loads(line)
