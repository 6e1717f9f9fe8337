"""What is remembered of the folders of one put, compared with them while they are listed."""

from __future__ import annotations

from collections.abc import Sequence

from ..source_files import Look, SourceFolder
from .memory import Held, Memory, StatCache
from .reading import look_at
from .stats import differing

_LOOK_UP_TO = 4000
"""Of a folder with more files, which one process lists, the files are looked at later, by several."""


class FolderRecall:
    """Knows what is remembered of local folders. See `Recall`.

    Parameters
    ----------
    stats
        Where that is kept; None: nothing is remembered.
    trust
        Whether an unchanged stat means an unchanged file.
    """

    def __init__(self, stats: StatCache | None, *, trust: bool = True) -> None:
        self._stats = stats
        self._trust = trust
        self._memories: dict[str, Memory] = {}

    def begin(self, root: str) -> None:
        """Read what is remembered of a source: before the listing is shared, so that all who share it have it."""
        if self._stats is not None and root not in self._memories:
            self._memories[root] = self._stats.load(root, trust=self._trust)

    def memory(self, root: str) -> Memory | None:
        """Return what is remembered of a source that was listed, and what is to be; None: nothing is."""
        return self._memories.get(root)

    def look(self, folder: SourceFolder) -> Look | None:
        """Compare a folder with what is remembered of it; None: nothing is, or it was left for later."""
        memory = self._memories.get(folder.root)
        before = memory.get(folder.inside) if memory is not None and folder.count <= _LOOK_UP_TO else None
        if before is None or before.device != folder.device:
            return None
        joined = folder.joined
        present = look_at(folder.local, folder.names)
        return Look(joined == before.names, differing(present, before.align(joined)))

    def names(self, folder: SourceFolder) -> bytes:
        """Return the remembered names of a folder, joined by NUL."""
        before = self._memories[folder.root].get(folder.inside)
        assert before is not None
        return before.names

    def mark(self, folders: Sequence[SourceFolder], held: Held) -> bool:
        """Mark the folders that stand in a tree as they are remembered; return whether there are any."""
        for folder in folders:
            memory = self._memories.get(folder.root)
            folder.held = memory is not None and memory.is_held(folder.inside, held)
        return any(folder.held for folder in folders)

    def save(self, held: Held | None, strays: Sequence[SourceFolder] = ()) -> None:
        """Keep what is to be remembered.

        Parameters
        ----------
        held
            A tree that has it; None: not known.
        strays
            Folders that it has otherwise.
        """
        for root, memory in self._memories.items():
            memory.save(held, {folder.inside for folder in strays if folder.root == root})
