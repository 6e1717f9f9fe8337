"""Outputs that a child sent, on their way to the store."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...storage.errors import DmlpipeError
from ...storage.objects.value import encode_value
from ..child.failure import UserFrames, failure_of
from ..child.wire import OutFile, Produced
from ..segments import SegmentWriter
from .hands import Sent


class Outputs:
    """Stores the outputs of the units in a child's hands.

    Parameters
    ----------
    results
        Takes their content.
    frames
        Tells user code from other code.
    """

    def __init__(self, results: SegmentWriter, frames: UserFrames) -> None:
        self._results = results
        self._frames = frames

    def produced(self, sent: Sent, produced: Produced, fds: Sequence[int]) -> None:
        """Take what came in a message of its own; the descriptors are closed."""
        try:
            self.take(sent, produced.index, produced.files, fds)
        finally:
            for fd in fds:
                os.close(fd)

    def take(self, sent: Sent, index: int, files: Sequence[OutFile], fds: Sequence[int] = ()) -> None:
        """Take files of the datum at `index` in its unit."""
        outputs = sent.outputs.setdefault(index, [])
        try:
            for file in files:
                if file.source:
                    outputs.append((file.path, encode_value(sent.prepared[index].stood_for(file.source))))
                else:
                    outputs.append((file.path, self._put(file, fds)))
        except (DmlpipeError, OSError) as err:
            # Not the user's fault, but theirs to know: a full disk fails the datum with its reason.
            sent.broken[index] = failure_of(err, self._frames)

    def _put(self, file: OutFile, fds: Sequence[int]) -> bytes:
        results = self._results
        return encode_value(results.put(file.data) if file.fd < 0 else results.put_file(fds[file.fd]))
