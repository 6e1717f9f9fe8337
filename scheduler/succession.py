"""What a pipeline's next version takes over from those before it: a forced salt, and claims that code is equal.

A claim says that changed code makes what the code before it made. The version then keeps the code id (and declared
environment) of the code that it equals, so that its results stand; the claim names what really runs. Whoever submits
that code again later need not claim it again.

Nothing here writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from ..storage.digest import from_hex
from ..storage.errors import ErrorCode, InvalidInputError
from ..storage.state import State
from ..storage.store import Store
from .pipelines.spec import Claim, PipelineSpec, decode_pipeline, identity
from .planning.reasons import Reason, explain

__all__ = ["equal_but_for_code", "next_salt", "recorded", "succeed"]

_FORCED = re.compile(r"~([0-9a-f]{16})$")
_BARE = re.compile(r"[0-9a-f]{16}")


def succeed(
    store: Store, state: State, given: PipelineSpec, *, salt: str = "", claims: Mapping[str, Claim] | None = None
) -> PipelineSpec:
    """Return a spec as the next version of its pipeline.

    Parameters
    ----------
    given
        As its file has it.
    salt
        As `forced` of `next_salt`.
    claims
        Pipeline to what is claimed of its new code; `code_id` and `env` are filled in here.

    Raises
    ------
    InvalidInputError
        A claim for a pipeline that is new, or of which more than code has changed.
    """
    old = recorded(store, state, given.name)
    spec = msgspec.structs.replace(given, salt=next_salt(given.salt, old.salt if old else "", forced=salt))
    claim = (claims or {}).get(given.name)
    if old is None:
        if claim is not None:
            raise InvalidInputError(f"pipeline {given.name!r} is new: there is nothing that it could equal")
        return spec
    if (given.code_id, given.env) == (old.code_id, old.env):
        return spec
    known = _claimed_before(store, state, given)
    if known is not None:
        return _stand_in(spec, known.code_id, known.env, known.claim)
    if claim is None or salt:
        return spec
    if not equal_but_for_code(spec, old):
        changed = [why for why in explain(spec, {}, (old, ())) if why.reason not in _CODE]
        raise InvalidInputError(
            f"pipeline {given.name!r} cannot be the same as before: {'; '.join(map(str, changed))}",
            code=ErrorCode.BAD_SPEC,
            hint="only of code and its declared environment can that be said",
        )
    claim = msgspec.structs.replace(claim, code_id=given.code_id, env=given.env)
    return _stand_in(spec, old.code_id, old.env, claim)


_CODE = (Reason.CODE_CHANGED, Reason.ENV_CHANGED)


def equal_but_for_code(spec: PipelineSpec, old: PipelineSpec) -> bool:
    """Whether two versions differ in nothing that counts but code and declared environment."""
    return identity(_stand_in(spec, old.code_id, old.env, None)) == identity(old)


def recorded(store: Store, state: State, name: str) -> PipelineSpec | None:
    """Return the present version of a pipeline; None: there is none."""
    pipeline = state.pipeline(name)
    return None if pipeline is None else decode_pipeline(store.nodes.get(from_hex(pipeline.spec)))


def next_salt(declared: str, recorded: str, *, forced: str = "") -> str:
    """Salt of the next version: what its spec declares, and what the last `reprocess` added.

    Parameters
    ----------
    declared
        As the spec has it (of a spec read back from the store: as recorded).
    recorded
        Of the version before; empty: none.
    forced
        16 hex digits that make everything be computed anew; empty: what was forced before stays.

    Examples
    --------
    >>> first = next_salt("mine", "", forced="0123456789abcdef")
    >>> first, next_salt("mine", first), next_salt("other", first), next_salt(first, first)
    ('mine~0123456789abcdef', 'mine~0123456789abcdef', 'other~0123456789abcdef', 'mine~0123456789abcdef')
    """
    declared = _FORCED.sub("", declared)
    found = _FORCED.search(recorded)
    kept = forced or (found[1] if found else "")
    if kept:
        return f"{declared}~{kept}"
    # Before salts had two parts, what was forced stood alone.
    return declared or (recorded if _BARE.fullmatch(recorded) else "")


def _claimed_before(store: Store, state: State, given: PipelineSpec) -> PipelineSpec | None:
    """The newest version that was claimed for just this code."""
    for _, version in state.versions(given.name):
        spec = decode_pipeline(store.nodes.get(from_hex(version.spec)))
        if spec.claim is not None and (spec.claim.code_id, spec.claim.env) == (given.code_id, given.env):
            return spec
    return None


def _stand_in(spec: PipelineSpec, code_id: str, env: str, claim: Claim | None) -> PipelineSpec:
    return msgspec.structs.replace(spec, code_id=code_id, env=env, claim=claim)
