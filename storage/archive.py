"""A store's immutable side: trees, commit bodies, file content. No names, no history."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from .backend import Backend
from .digest import Digest, from_hex
from .local.memory import StatCache
from .objects.bodies import read_commit
from .objects.cache import FileCache
from .objects.node import NodeStore
from .objects.object_store import Objects
from .records import Commit
from .trees.prolly import Tree
from .trees.tree_node import EMPTY

_BODIES_KEPT = 1024


@dataclass(frozen=True, slots=True)
class Archive:
    """Everything that is named by its hash."""

    backend: Backend
    nodes: NodeStore
    objects: Objects
    cache: FileCache
    stats: StatCache | None = None
    """What local files held when they were last read; None remembers nothing."""
    _bodies: dict[str, Commit] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def tree(self, root: str | bytes = "") -> Tree:
        """Return the tree with this root: hex, digest, or empty for the empty tree."""
        if not root:
            return Tree(self.nodes, EMPTY)
        return Tree(self.nodes, from_hex(root) if isinstance(root, str) else Digest(root))

    def body(self, commit: str) -> Commit:
        """Return a commit's body (hex id)."""
        with self._lock:
            found = self._bodies.get(commit)
        if found is None:
            found = read_commit(self.nodes, commit)
            with self._lock:
                if len(self._bodies) >= _BODIES_KEPT:
                    self._bodies.clear()
                self._bodies[commit] = found
        return found
