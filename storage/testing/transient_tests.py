"""What a backend over a network does about faults, as a test suite: subclass `TransientTests`, give it `connect`.

What passes is tried again and leaves the result that one try would have had; what does not pass is one clear error.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ..backend import Backend
from ..errors import BackendError, ErrorCode, NotFoundError
from .faulty_files import Fault, FaultyFiles

_PASSING = [Fault.NEVER_LANDS, Fault.LOST_ANSWER, Fault.TIMEOUT, Fault.BUSY, Fault.SLOW_DOWN, Fault.FAILS]
_MANY = 50

Connect = Callable[[FaultyFiles], Backend]


class TransientTests:
    """A backend that reaches objects over a network passes these."""

    @pytest.fixture
    def connect(self) -> Connect:
        """Return what makes a backend on a server."""
        raise NotImplementedError("a subclass gives this fixture")

    @pytest.mark.parametrize("fault", [*_PASSING, Fault.CONFLICT])
    def test_a_create_is_made_once_and_known_to_be_ours(self, connect: Connect, fault: Fault) -> None:
        """Whether or not the first request landed."""
        server = FaultyFiles([("create", fault)] * 2)
        assert connect(server).put_if_absent("a", b"mine") is True
        assert list(server.objects.values()) == [b"mine"]

    @pytest.mark.parametrize("fault", [*_PASSING, Fault.CONFLICT])
    def test_a_lost_race_is_a_lost_race_whatever_happens(self, connect: Connect, fault: Fault) -> None:
        """Somebody else's object stays, also if it is as long as ours."""
        server = FaultyFiles()
        assert connect(server).put_if_absent("a", b"them") is True
        server.faults = [("create", fault)]
        assert connect(server).put_if_absent("a", b"mine") is False
        assert list(server.objects.values()) == [b"them"]

    def test_a_race_that_is_lost_while_the_answer_was_is_told_by_reading_back(self, connect: Connect) -> None:
        """Also where reading back has to be tried again."""
        server = FaultyFiles()
        connect(server).put_if_absent("a", b"them")
        server.faults = [("create", Fault.LOST_ANSWER), ("head", Fault.BUSY), ("get", Fault.BREAKS_OFF)]
        assert connect(server).put_if_absent("a", b"mine") is False

    @pytest.mark.parametrize("fault", [*_PASSING, Fault.BREAKS_OFF])
    def test_what_breaks_off_is_read_again(self, connect: Connect, fault: Fault) -> None:
        """Nobody gets a part for the whole."""
        server = FaultyFiles()
        backend = connect(server)
        backend.put_if_absent("a", b"content")
        server.faults = [("get", fault)] * 2
        assert backend.get("a") == b"content"
        server.faults = [("get", fault)]
        assert backend.get("a", 2, 5) == b"nte"

    def test_a_range_of_which_less_comes_than_is_there_is_read_again(self, connect: Connect) -> None:
        """A server, or a proxy, that answers in part and says nothing of it. Objects that are short stay so."""
        server = FaultyFiles()
        backend = connect(server)
        backend.put_if_absent("a", b"content")
        server.faults = [("get", Fault.SHORT)] * 2
        assert backend.get("a", 2, 6) == b"nten"
        assert server.requests["get"] == 3
        server.faults = [("get", Fault.SHORT)]
        assert list(backend.get_many([("a", 0, 4), ("a", 3, 99)])) == [b"cont", b"tent"]
        assert not server.faults

    def test_what_trickles_in_is_waited_for_and_whole(self, connect: Connect) -> None:
        """Slow is no fault: nothing is asked for twice."""
        server = FaultyFiles()
        backend = connect(server)
        for number in range(8):
            backend.put_if_absent(f"{number}", bytes([number]) * 50)
        server.faults = [("get", Fault.TRICKLES)] * 8
        requests = [(f"{number}", None, None) for number in range(8)]
        assert list(backend.get_many(requests)) == [bytes([number]) * 50 for number in range(8)]
        assert server.requests["get"] == 8
        server.faults = [("get", Fault.TRICKLES)]
        assert backend.get("3", 10, 40) == b"\3" * 30

    @pytest.mark.parametrize("fault", _PASSING)
    def test_sizes_listings_overwrites_and_deletes_are_tried_again(self, connect: Connect, fault: Fault) -> None:
        """All requests may be sent twice."""
        server = FaultyFiles()
        backend = connect(server)
        server.faults = [("put", fault), ("head", fault), ("list", fault), ("delete", fault)]
        backend.put("a", b"1")
        assert backend.size("a") == 1
        assert list(backend.list()) == [("a", 1)]
        backend.delete_many(["a"])
        assert not server.faults
        assert server.objects == {}

    def test_absence_is_no_fault(self, connect: Connect) -> None:
        """It is asked for once."""
        server = FaultyFiles()
        with pytest.raises(NotFoundError):
            connect(server).get("none")
        assert connect(server).size("none") is None
        assert server.requests == {"get": 1, "head": 1}

    def test_what_is_forbidden_is_told_at_once(self, connect: Connect) -> None:
        """Asking again would change nothing."""
        server = FaultyFiles([("create", Fault.FORBIDDEN)] * _MANY)
        with pytest.raises(BackendError) as caught:
            connect(server).put_if_absent("a", b"1")
        assert (caught.value.code, caught.value.retryable) == (ErrorCode.PERMISSION, False)
        assert server.requests == {"create": 1}

    @pytest.mark.parametrize("kind", ["create", "get", "list"])
    def test_a_server_that_stays_busy_is_one_error_that_may_pass(self, connect: Connect, kind: str) -> None:
        """After a bounded number of tries."""
        server = FaultyFiles([(kind, Fault.BUSY)] * _MANY)
        backend = connect(server)
        calls: dict[str, Callable[[], object]] = {
            "create": lambda: backend.put_if_absent("a", b""),
            "get": lambda: backend.get("a"),
            "list": lambda: list(backend.list()),
        }
        with pytest.raises(BackendError) as caught:
            calls[kind]()
        assert caught.value.retryable
        assert 2 <= server.requests[kind] < _MANY / 2

    def test_one_of_many_that_fails_for_good_fails_all(self, connect: Connect) -> None:
        """And none of the others is lost or made twice."""
        server = FaultyFiles([("create", Fault.FORBIDDEN)])
        with pytest.raises(BackendError):
            connect(server).put_many_if_absent([(f"{number}", b"%d" % number) for number in range(9)])
        assert len(server.objects) == 8
        assert server.requests["create"] == 9
