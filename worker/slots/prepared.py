"""One datum laid out for one try: what its child is told, and what is looked at and removed when it has ended."""

from __future__ import annotations

import os
from collections.abc import Callable

from ...storage.errors import DmlpipeError, ErrorCode, InvalidInputError
from ...storage.objects.value import Value
from ..child.wire import Payload
from .files import Files
from .standins import StandIns


class Prepared:
    """One datum laid out for one try.

    Parameters
    ----------
    files
        None: no file was laid out.
    done
        Takes its folder back; True: nobody is left who may use it.
    """

    __slots__ = ("_base", "_done", "_files", "_standins", "payload")

    def __init__(
        self,
        payload: Payload,
        files: Files | None,
        base: str,
        done: Callable[[bool], None] | None,
        standins: StandIns | None = None,
    ) -> None:
        self.payload = payload
        self._files = files
        self._base = base
        self._done = done
        self._standins = standins

    def changed(self) -> str | None:
        """Return the path in its input of a file that user code wrote to; None if there is none."""
        if self._files is None:
            return None
        path = self._files.changed()
        return None if path is None else os.path.relpath(path, self._base).removeprefix("pfs/")

    def problem(self) -> DmlpipeError | None:
        """Return why content could not be fetched while user code read it; None: it could, or nobody did."""
        return self._standins.problem if self._standins is not None else None

    def stood_for(self, source: str) -> Value:
        """Return what the stand-in `input/path` stands for.

        Raises
        ------
        InvalidInputError
            There is none.
        """
        name, _, path = source.partition("/")
        folder = self.payload.stands.get(name)
        value = self._standins.value(f"{folder}/{path}") if self._standins is not None and folder else None
        if value is None:
            raise InvalidInputError(f"there is no file {path!r} in input {name!r}", code=ErrorCode.NO_FILE)
        return value

    def remove(self, *, reuse: bool = False) -> None:
        """Delete everything that was laid out or put out. Idempotent.

        Parameters
        ----------
        reuse
            Nothing that the datum started is left: its folders may serve another.
        """
        if self._standins is not None:
            self._standins.close()
        done, self._done = self._done, None
        if done is not None:
            done(reuse)
