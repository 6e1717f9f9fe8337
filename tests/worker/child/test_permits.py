"""A unit is begun by the child or taken back by its slot, never both, never neither."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.worker.child.permits import PermitPipe, Permits


@given(st.lists(st.sampled_from(["send", "begin", "withdraw"]), max_size=60))
def test_each_unit_goes_to_exactly_one_side(steps: list[str]) -> None:
    pipe = PermitPipe()
    child = Permits(os.dup(pipe.child_end))
    queue: list[int] = []
    begun: list[int] = []
    back: list[int] = []
    number = 0
    try:
        for step in steps:
            if step == "send":
                sent = list(range(number, number + 3))
                number += 3
                pipe.give(sent)
                queue += sent
            elif step == "begin" and queue:
                unit = queue.pop(0)
                if child.take(unit):
                    begun.append(unit)
            elif step == "withdraw":
                back += pipe.withdraw()
        for unit in queue:
            if child.take(unit):
                begun.append(unit)
    finally:
        os.close(child._fd)
        pipe.close()
    assert sorted(begun + back) == list(range(number))
    assert begun == sorted(begun)
