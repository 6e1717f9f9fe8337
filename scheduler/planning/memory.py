"""What a context remembers of datums, and what a resumed job has finished. `plan` has the rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import msgspec

from ...storage.records import Context
from ...storage.trees.prolly import Tree
from .datums import Bound
from .plan_items import Hit
from .reasons import Why, why_again

__all__ = [
    "Memory",
    "memo_key",
]


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """The trees of a context, and what a resumed job has finished."""

    t: Tree
    s: Tree
    f: Tree
    finished: Tree | None
    by_content: bool = False
    """Whether S has the fingerprint alone as its key, and holds what is in T, too."""

    @classmethod
    def open(
        cls, context: Context | None, finished: Tree | None, open_tree: Callable[[str], Tree], *, by_content: bool
    ) -> Memory:
        """Open the trees of a context; None: one that remembers nothing."""
        roots = (context.t, context.s, context.f) if context is not None else ("", "", "")
        t, s, f = (open_tree(root) for root in roots)
        return cls(t, s, f, finished, by_content)

    def known(self, old: Bound) -> int:
        """Number of datums of the context's inputs."""
        total = len(self.t)
        failed = [key for key, _ in self.f.scan()]
        in_t = self.in_t(failed)
        return total + sum(1 for key in failed if key not in in_t and old.get(key) is not None)

    def in_t(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of the sorted `keys` whose results are in the output."""
        return _present(self.t, keys)

    def is_finished(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of the sorted `keys` that a resumed job has finished."""
        return _present(self.finished, keys)

    def failed_before(self, keys: Sequence[bytes]) -> dict[bytes, Why]:
        """Why those of the sorted `keys` that F holds are to be tried again."""
        if self.f.is_empty():
            return {}
        found = zip(keys, self.f.get_many(keys), strict=True)
        return {key: why_again(reason) for key, reason in found if reason is not None}

    def successes(self, wanted: Sequence[tuple[bytes, bytes]]) -> dict[bytes, Hit]:
        """Results that S holds of (key, fingerprint), by key."""
        if self.s.is_empty() or not wanted:
            return {}
        # Sorting again: one key may be the beginning of another, and fingerprints follow them.
        ordered = sorted((memo_key(key, fingerprint, self.by_content), key, fingerprint) for key, fingerprint in wanted)
        places = sorted({entry[0] for entry in ordered})
        found = dict(zip(places, self.s.get_many(places), strict=True))
        hits: dict[bytes, Hit] = {}
        for place, key, fingerprint in ordered:
            value = found[place]
            if value is not None:
                origin, outputs = _success.decode(value)
                hits[key] = Hit(key, fingerprint, origin, outputs)
        return hits


def memo_key(key: bytes, fingerprint: bytes, by_content: bool) -> bytes:
    """Key of a success in S.

    Parameters
    ----------
    key
        Of the datum.
    by_content
        Of the pipeline: then equal content is found whatever datum it belongs to.
    """
    return fingerprint if by_content else key + fingerprint


_success: msgspec.msgpack.Decoder[tuple[bytes, tuple[tuple[str, bytes], ...]]] = msgspec.msgpack.Decoder(
    tuple[bytes, tuple[tuple[str, bytes], ...]]
)


def _present(tree: Tree | None, keys: Sequence[bytes]) -> set[bytes]:
    if tree is None or tree.is_empty() or not keys:
        return set()
    return {key for key, value in zip(keys, tree.get_many(keys), strict=True) if value is not None}
