"""Declared environments: what third-party code a pipeline runs with, and what of that counts."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from ...storage.digest import digest
from ...storage.errors import ErrorCode, InvalidInputError


def declared_env(env: str, folders: Sequence[Path]) -> str:
    """Identity of a declared environment: the hash of a file, or the digest of an image.

    Parameters
    ----------
    folders
        Where the file may be, in order.

    Raises
    ------
    InvalidInputError
        `BAD_SPEC`: neither a file nor an image with a digest.
    """
    _, marker, image_digest = env.partition("sha256:")
    if marker:
        if len(image_digest) == 64 and all(letter in "0123456789abcdef" for letter in image_digest):
            return f"sha256:{image_digest}"
        raise InvalidInputError(f"env={env!r}: sha256: is followed by 64 hex digits", code=ErrorCode.BAD_SPEC)
    for folder in folders:
        if (folder / env).is_file():
            return digest((folder / env).read_bytes()).hex()
    here = folders[0] if folders else Path()
    near = difflib.get_close_matches(env, [item.name for item in here.iterdir() if item.is_file()], 1)
    raise InvalidInputError(
        f"env={env!r}: no such file in {here}, and no image with its digest (name@sha256:...)",
        code=ErrorCode.BAD_SPEC,
        hint=f"did you mean {near[0]!r}?" if near else None,
    )
