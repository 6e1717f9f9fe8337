"""How large a host's file cache may grow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ErrorCode, InvalidInputError
from ..sizes import parse_size_bytes

if TYPE_CHECKING:
    import shutil

CACHE_SIZE_VARIABLE = "DMLPIPE_CACHE_SIZE"
_SHARE_OF_FREE = 0.5


def cache_limit_bytes(folder: Path, used_bytes: int, environ: Mapping[str, str] = os.environ) -> int:
    """Return how many bytes the cache in `folder` may hold.

    ``$DMLPIPE_CACHE_SIZE``: a size (`20GiB`) or a share of the disk (`30%`); without it half of what would be free
    on the disk if there were no cache.

    Parameters
    ----------
    folder
        The cache's; need not exist.
    used_bytes
        What it holds now.

    Raises
    ------
    InvalidInputError
        The variable is neither a size nor a share.
    """
    text = environ.get(CACHE_SIZE_VARIABLE, "").strip()
    if not text:
        return int(_SHARE_OF_FREE * (_disk(folder).free + used_bytes))
    if not text.endswith("%"):
        return parse_size_bytes(text, what=f"${CACHE_SIZE_VARIABLE}")
    return int(_disk(folder).total * parse_share(text))


def parse_share(text: str) -> float:
    """Return 0.3 for `30%`."""
    try:
        share = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InvalidInputError(
            f"cache size: expected a size such as 20GiB or a share of the disk such as 30%, got {text!r}",
            code=ErrorCode.BAD_SPEC,
        )
    return share


def check_cache_size(text: str) -> str:
    """Return `text` if it is a size or a share; raise `InvalidInputError` if not."""
    if text.strip().endswith("%"):
        parse_share(text)
    else:
        parse_size_bytes(text, what="cache size")
    return text.strip()


def _disk(folder: Path) -> shutil._ntuple_diskusage:
    import shutil

    at = folder.absolute()
    while not at.exists() and at != at.parent:
        at = at.parent
    return shutil.disk_usage(at)
