"""What is in the child's hands: the units that it was sent and has not ended, in order, and the frames they came in."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ...storage.objects.segment import Failure
from ..child.wire import Unit
from .attempts import Attempts, Call
from .prepared import Prepared


@dataclass(slots=True)
class Sent:
    """A unit in the child's hands."""

    unit: Unit
    call: Call
    prepared: list[Prepared]
    frame: int = 0
    last_in_frame: bool = False
    outputs: dict[int, list[tuple[str, bytes]]] = field(default_factory=dict)
    """What was stored of each datum, by its place in the unit."""
    broken: dict[int, Failure] = field(default_factory=dict)
    """Datums whose outputs could not be stored."""

    def remove(self, *, reuse: bool = False) -> None:
        """Delete what was laid out for it."""
        for prepared in self.prepared:
            prepared.remove(reuse=reuse)


class Hands:
    """The units that a child was sent.

    Parameters
    ----------
    attempts
        Takes back the calls of those that it did not begin.
    """

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts
        self._sent: deque[Sent] = deque()
        self._frames_sent = 0
        self.frames = 0
        """Frames of which a unit is left."""

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def first(self) -> Sent:
        """The unit that runs."""
        return self._sent[0]

    def give(self, frame: Sequence[Sent]) -> None:
        """Add the units of one frame."""
        self._frames_sent += 1
        for sent in frame:
            sent.frame = self._frames_sent
        frame[-1].last_in_frame = True
        self.frames += 1
        self._sent.extend(frame)

    def take_first(self) -> Sent:
        """Take out the unit that ran; its caller removes it."""
        sent = self._sent.popleft()
        self.frames -= sent.last_in_frame
        return sent

    def take_back(self, numbers: Collection[int] | None = None) -> None:
        """Take out units that were not begun; their calls wait again, what was laid out for them is removed.

        Parameters
        ----------
        numbers
            Of the units; None: all of them.
        """
        kept: deque[Sent] = deque()
        for sent in reversed(self._sent):
            if numbers is None or sent.unit.number in numbers:
                self._attempts.put_back(sent.call)
                sent.remove()
            else:
                sent.last_in_frame = not kept or kept[0].frame != sent.frame
                kept.appendleft(sent)
        self._sent = kept
        self.frames = sum(sent.last_in_frame for sent in kept)

    def drop(self) -> None:
        """Remove all that was laid out; nothing is made again."""
        for sent in self._sent:
            sent.remove()
        self._sent.clear()
        self.frames = 0
