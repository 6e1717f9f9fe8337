"""Local folders on their way into a session, and what is remembered of them once it is published."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from ..digest import Digest
from ..local.intake import Intake
from ..local.memory import Held, StatCache
from ..local.recall import FolderRecall
from ..local.taken import Taken
from ..objects.writer import ObjectWriter
from ..sources import SourcePlan
from ..trees.edits import Edits
from ..trees.operations import PutMany


class _Put(msgspec.Struct, frozen=True):
    recall: FolderRecall
    target: bytes
    """The folder of the commit."""
    taken: Taken


class FolderSources:
    """Takes local folders in.

    Parameters
    ----------
    stats
        What is remembered of folders; None: nothing.
    writer
        Takes their content.
    beat
        Called now and then while it takes long.
    """

    def __init__(self, stats: StatCache | None, writer: ObjectWriter, beat: Callable[[], None]) -> None:
        self._stats = stats
        self._writer = writer
        self._beat = beat
        self._puts: list[_Put] = []

    def __bool__(self) -> bool:
        return bool(self._puts)

    @property
    def size(self) -> int:
        """Bytes of content of all files that were taken."""
        return sum(put.taken.size for put in self._puts)

    def recall(self, *, trust: bool) -> FolderRecall:
        """Return what is remembered, to be asked while folders are listed."""
        return FolderRecall(self._stats, trust=trust)

    def mark(self, planned: SourcePlan, recall: FolderRecall, edits: Edits, target: bytes) -> Digest | None:
        """Mark the folders that the head has below `target` as they are remembered; return its tree if there are any.

        What a head has was checked when it was put, and is there: a collector keeps what a head refers to. So of these
        files nothing need be asked or stored.
        """
        base = edits.base.root
        return base if edits.is_at(base) and recall.mark(planned.folders, Held(base, target)) else None

    def take(
        self, planned: SourcePlan, recall: FolderRecall, edits: Edits, target: bytes, foresee: Callable[[int], None]
    ) -> Taken:
        """Store what the folders hold that are to stand below `target`, unless the head has it as it is remembered."""

        def lacking(paths: Sequence[bytes], values: Sequence[bytes]) -> list[bytes]:
            """Return the paths that have other values in the head that the edits began from."""
            if list(paths) != sorted(paths):
                return list(paths)
            return [path for path, _ in edits.base.differing(paths, values)]

        intake = Intake(recall, self._writer, held=lacking, beat=self._beat, foresee=foresee)
        taken = intake.take(planned.folders)
        self._puts.append(_Put(recall, target, taken))
        return taken

    def remember(self, edits: Edits, tree: Digest) -> None:
        """Keep the stats of the files that were taken: now a head has the edits, as this tree."""
        last = edits.log[-1] if edits.log else None
        for put in self._puts:
            # What was edited after a put may have taken some of it away.
            is_last = isinstance(last, PutMany) and last.files is put.taken
            put.recall.save(Held(tree, put.target) if is_last else None)
