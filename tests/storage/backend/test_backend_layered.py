from __future__ import annotations

import uuid

import pytest

from dmlpipe.storage.backend.base import Backend
from dmlpipe.storage.backend.layered import LayeredBackend
from dmlpipe.storage.backend.memory import MemoryBackend
from dmlpipe.storage.errors import ReadOnlyError
from dmlpipe.storage.testing import BackendTests


def below() -> MemoryBackend:
    return MemoryBackend(f"below-{uuid.uuid4().hex}")


class TestLayered(BackendTests):
    @pytest.fixture
    def backend(self) -> Backend:
        return LayeredBackend(below())


def test_nothing_reaches_what_is_below() -> None:
    under = below()
    under.put_if_absent("a", b"1")
    layer = LayeredBackend(under)
    assert not layer.put_if_absent("a", b"2")
    assert layer.put_if_absent("b", b"3")
    layer.put("a", b"4")
    assert list(under.list()) == [("a", 1)]
    assert under.get("a") == b"1"
    assert list(layer.list()) == [("a", 1), ("b", 1)]
    assert layer.get_many([("a", None, None), ("b", None, None), ("a", 0, 1)]) == [b"4", b"3", b"4"]
    with pytest.raises(ReadOnlyError):
        layer.delete_many(["a"])


def test_another_layer_sees_nothing_of_this_one() -> None:
    under = below()
    LayeredBackend(under).put("a", b"1")
    assert LayeredBackend(under).size("a") is None
