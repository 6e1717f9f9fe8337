from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.worker.messages import (
    LeaseReply,
    LeaseRequest,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)


@pytest.fixture(autouse=True, scope="module")
def numbers_that_msgpack_holds() -> Iterator[None]:
    st.register_type_strategy(int, st.integers(-(2**63), 2**63 - 1))
    yield
    st.register_type_strategy(int, st.integers())


@given(st.data())
def test_messages_round_trip(data: st.DataObject) -> None:
    request = data.draw(st.builds(LeaseRequest, wait_s=st.floats(0, 10), returned=st.just(())))
    assert decode_request(encode_request(request)) == request
    reply = data.draw(st.from_type(LeaseReply))
    assert decode_reply(encode_reply(reply)) == reply
