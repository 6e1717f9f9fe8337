"""What a `REF:/path` on the command line picks: a file, a folder, or what a glob matches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..storage.errors import ErrorCode, NotFoundError

if TYPE_CHECKING:
    from ..storage.commits import CommitView, FileInfo

_MAGIC = frozenset("*?[{")


def is_glob(path: str) -> bool:
    """Whether a path has characters that a glob gives a meaning."""
    return not _MAGIC.isdisjoint(path)


def matches(view: CommitView, path: str) -> Iterator[FileInfo]:
    """Yield what stands under a path, or what a glob matches; a file that is named like a glob comes first.

    Raises
    ------
    NotFoundError
        There is nothing.
    """
    if not is_glob(path) or view.exists(path):
        yield view.info(path)
        return
    found = False
    for info in view.glob(f"/{path}"):
        found = True
        yield info
    if not found:
        raise NotFoundError(
            f"{view.repo}:/{path}: the glob matches no file",
            code=ErrorCode.NO_FILE,
            hint=f"list: dmlpipe ls -R {view.repo}",
        )
