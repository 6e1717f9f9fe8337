"""How far a peer is trusted to serve: a small state machine, as a table.

`docs/protocol.md` shows the table; a test compares the two.
"""

from __future__ import annotations

import enum

from ...worker.peers.messages import Reason

REST_S = 1.0
"""A rest after a first stall, or of a peer that is busy."""
DOUBT_S = 10.0
"""First time that a peer is doubted; each one after it without a part in between is twice as long."""
DOUBT_MAX_S = 300.0


class Standing(enum.Enum):
    """What the tracker thinks of a peer."""

    ASKED = "asked"
    """Named to others."""
    RESTING = "resting"
    """Not named for a moment; what it holds still counts as held."""
    DOUBTED = "doubted"
    """Not named for a while; what only it holds counts as held by nobody, and comes from the store again."""
    BANNED = "banned"
    """Never named again."""


TRANSITIONS: dict[tuple[Standing, Reason], Standing] = {
    (Standing.ASKED, Reason.GARBAGE): Standing.BANNED,
    (Standing.ASKED, Reason.STALLED): Standing.RESTING,
    (Standing.ASKED, Reason.BUSY): Standing.RESTING,
    (Standing.ASKED, Reason.GONE): Standing.DOUBTED,
    (Standing.RESTING, Reason.GARBAGE): Standing.BANNED,
    (Standing.RESTING, Reason.GONE): Standing.DOUBTED,
    (Standing.DOUBTED, Reason.GARBAGE): Standing.BANNED,
}
"""What a report makes of a peer; what is not here changes nothing. A second stall, or time it was busy, with no part in
between counts as `GONE`. Rest and doubt end by themselves, or when a part comes from the peer; a ban does not."""


class Trust:
    """The standing of one peer."""

    def __init__(self) -> None:
        self._standing = Standing.ASKED
        self._until = 0.0
        self._stalled = False
        """Since a part last came from it."""
        self._doubts = 0

    def at(self, now: float) -> Standing:
        """Return the standing as of `now`, in monotonic seconds."""
        if self._standing in (Standing.RESTING, Standing.DOUBTED) and now >= self._until:
            self._standing = Standing.ASKED
        return self._standing

    def report(self, reason: Reason, now: float) -> Standing:
        """Take in that a part did not come, and why."""
        before = self.at(now)
        if reason in (Reason.STALLED, Reason.BUSY) and before is Standing.ASKED:
            # Several reports of one stall count once: they come while it rests.
            if self._stalled:
                reason = Reason.GONE
            self._stalled = True
        after = self._standing = TRANSITIONS.get((before, reason), before)
        if after is not before and after is Standing.RESTING:
            self._until = now + REST_S
        elif after is not before and after is Standing.DOUBTED:
            self._until = now + min(DOUBT_MAX_S, DOUBT_S * 2**self._doubts)
            self._doubts += 1
        return after

    def served(self) -> None:
        """A part came from it, whole."""
        self._stalled = False
        self._doubts = 0
        if self._standing in (Standing.RESTING, Standing.DOUBTED):
            self._standing = Standing.ASKED
