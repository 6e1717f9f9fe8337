"""Contexts are tested with the plans that use them; here stands what must never change."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dmlpipe.scheduler.inputs.combine import cross
from dmlpipe.scheduler.inputs.leaf import files, like, values
from dmlpipe.scheduler.planning.fingerprint import context_key, datum_fingerprint
from tests.scheduler.shelf import pipeline

_inputs: st.SearchStrategy[Any] = st.lists(
    st.tuples(st.sampled_from("ab"), st.lists(st.tuples(st.binary(max_size=2), st.binary(max_size=2)), max_size=2)),
    max_size=3,
)


@given(_inputs, _inputs, st.binary(min_size=32, max_size=32))
def test_fingerprints_are_equal_only_for_equal_inputs(one: Any, two: Any, context: bytes) -> None:
    assert (datum_fingerprint(context, one) == datum_fingerprint(context, two)) == (one == two)


def test_stored_results_are_still_found() -> None:
    # Constants on purpose: whoever changes an encoding makes every stored result unknown.
    spec = pipeline(
        cross(files("images", "/{n}.png"), m=files("model"), C=values(C=[1, 2.5])),
        parameters={"seed": 0, "alpha": 0.5},
        env="e" * 64,
        writes=like("images", dtype="uint8"),
    )
    key = context_key(spec, {"m": bytes(32)})
    assert key.hex() == "5bb475e80dbb3e94a28d35649cdb522fff904efebd7b4e797f86e07a2873f545"
    fingerprint = datum_fingerprint(key, [("images", [(b"a.png", b"value")]), ("C", [(b"1", b"")])])
    assert fingerprint.hex() == "c89ffe3a82ea05ef71f0cd1cc6d083349f77f63f124832a7578df9f45b2d46e7"
