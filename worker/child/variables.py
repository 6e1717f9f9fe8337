"""The variables that change with each datum, in the environment of the process that user code runs in."""

from __future__ import annotations

import ctypes
import os

from .environment import datum_environment

_IDS = (b"DMLPIPE_DATUM", b"PACH_DATUM_ID")
_TRY = b"DMLPIPE_TRY"
_HEX_DIGITS = 64


class DatumVariables:
    """Sets what `datum_environment` says, for Python and for all that the process starts or loads.

    Notes
    -----
    Setting a variable copies its text, and the C library keeps each copy for ever: 3 us and a hundred bytes a datum,
    as much as all the rest of a small one. So the text of the ids stands in memory of ours, which is part of the
    environment, and is overwritten. Where user code set or removed one of them, it is set as usual, and ours again.
    """

    def __init__(self) -> None:
        self._texts = [ctypes.create_string_buffer(name + b"=" + b"0" * _HEX_DIGITS) for name in _IDS]
        self._digits = [
            memoryview(text).cast("B")[len(name) + 1 : -1] for name, text in zip(_IDS, self._texts, strict=True)
        ]
        self._libc = ctypes.CDLL(None)
        self._copy: dict[bytes, bytes] | None = getattr(os.environ, "_data", None)
        """What `os.environ` keeps of the environment."""
        self._id = self._try = b""
        """What was set last, to see whether it still is."""

    def set(self, datum: str, attempt: int) -> None:
        """Set the variables of a datum."""
        copy = self._copy
        if copy is None or attempt != 1 or len(datum) != _HEX_DIGITS or not self._are_ours(copy):
            self._set_slowly(datum, attempt)
            return
        new = self._id = datum.encode()
        for name, digits in zip(_IDS, self._digits, strict=True):
            digits[:] = new
            copy[name] = new

    def _are_ours(self, copy: dict[bytes, bytes]) -> bool:
        ours = self._id
        return bool(ours) and all(copy.get(name) is ours for name in _IDS) and copy.get(_TRY) is self._try

    def _set_slowly(self, datum: str, attempt: int) -> None:
        os.environ.update(datum_environment(datum, attempt))
        self._id = b""
        copy = self._copy
        if copy is None or attempt != 1 or len(datum) != _HEX_DIGITS:
            return
        new = datum.encode()
        for name, text, digits in zip(_IDS, self._texts, self._digits, strict=True):
            digits[:] = new
            if self._libc.putenv(text):
                return
            copy[name] = new
        self._id, self._try = new, copy[_TRY]
