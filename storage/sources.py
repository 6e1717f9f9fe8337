"""What `put` is given: files, folders, bytes, streams, URLs. Listed and checked whole before anything is written.

A folder's contents land at the target; a file lands there under its own name. Links are followed. A file that is no
plain file (a FIFO, a device, a socket), a name that breaks the rules of `paths.py`, and two sources for one name are
refused. Empty folders leave no trace.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from .errors import ErrorCode, InvalidInputError, NotFoundError
from .listing import Exclude, Walk, check_plain, look, raise_unreadable
from .paths import join_path, normalize_path
from .source_files import Recall, SourceFile, SourceFolder, refuse_doubles

Content = bytes | str | BinaryIO
Source = str | os.PathLike[str] | tuple[str, Content]
"""A path, an fsspec URL, or (name, content)."""


@dataclass(frozen=True)
class SourcePlan:
    """Files to be put. Iterating yields each by itself."""

    singles: list[SourceFile]
    folders: list[SourceFolder]

    @cached_property
    def paths(self) -> list[bytes]:
        """Where the files go in the commit, sorted."""
        return sorted(chain((item.path for item in self.singles), *(folder.keys for folder in self.folders)))

    @property
    def other_paths(self) -> list[bytes]:
        """Where those files go of which it is not known that they stand there as they are, sorted."""
        if not any(folder.held for folder in self.folders):
            return self.paths
        return sorted(chain((item.path for item in self.singles), *(folder.other_keys for folder in self.folders)))

    @property
    def other_targets(self) -> frozenset[bytes]:
        """The folders of the commit that these stand right in."""
        return frozenset(
            chain(
                (item.path.rpartition(b"/")[0] for item in self.singles),
                (folder.below for folder in self.folders if folder.stale or folder.stale is None or not folder.held),
            )
        )

    def _targets(self) -> Iterator[bytes]:
        for item in self.singles:
            yield item.path.rpartition(b"/")[0]
        for folder in self.folders:
            yield folder.below

    def __iter__(self) -> Iterator[SourceFile]:
        yield from self.singles
        for folder in self.folders:
            yield from folder.files()

    def __len__(self) -> int:
        return len(self.singles) + sum(folder.count for folder in self.folders)

    def check(self) -> None:
        """Raise `InvalidInputError` if two files would be one in the commit."""
        # Those right in one local folder were compared when it was listed; others meet only right in one folder of the
        # commit.
        shared = {target for target, times in Counter(self._targets()).items() if times > 1}
        if not shared:
            return
        singles = (item for item in self.singles if item.path.rpartition(b"/")[0] in shared)
        refuse_doubles(chain(singles, *(folder.files() for folder in self.folders if folder.below in shared)))


def plan_sources(
    sources: Sequence[Source],
    folder: bytes,
    *,
    exclude: Sequence[str] = (),
    skip: Path | None = None,
    recall: Recall | None = None,
) -> SourcePlan:
    """List the files of `sources`, as they will stand below `folder`.

    Parameters
    ----------
    sources
        See `Source`.
    folder
        Tree path of the target folder, ``b""`` for the root.
    exclude
        Globs; one without a slash is matched against each name, one with a slash against the path below the source.
        What a folder's name matches is left out with all it holds.
    skip
        A folder that is passed over: the store itself.
    recall
        What is remembered of local folders: they are compared with it while they are listed.

    Raises
    ------
    InvalidInputError
        A name or a kind of file that cannot be stored, two sources for one name, a file that cannot be read.
    NotFoundError
        A source does not exist.
    """
    excluded = Exclude(exclude)
    plan = SourcePlan([], [])
    walk = Walk(folder, excluded, skip, plan.folders, recall)
    for source in sources:
        _plan_source(source, folder, walk, excluded, plan)
    plan.check()
    return plan


def _plan_source(source: Source, folder: bytes, walk: Walk, excluded: Exclude, plan: SourcePlan) -> None:
    if isinstance(source, tuple):
        plan.singles.append(_plan_content(source[0], source[1], folder))
        return
    text = os.fspath(source)
    if text.startswith("file://"):
        text = text[len("file://") :]
    if "://" in text:
        plan.singles.extend(_plan_url(text, folder, excluded))
        return
    mode = look(text).st_mode
    if stat.S_ISDIR(mode):
        walk.walk(text)
    else:
        check_plain(text, mode)
        name = os.path.basename(os.path.abspath(text))
        plan.singles.append(SourceFile(join_path(folder, normalize_path(os.fsencode(name))), text, file=text))


def _plan_content(name: str, content: Content, folder: bytes) -> SourceFile:
    path = join_path(folder, normalize_path(name))
    if isinstance(content, str):
        return SourceFile(path, name, data=content.encode())
    if isinstance(content, bytes):
        return SourceFile(path, name, data=content)
    return SourceFile(path, name, stream=lambda: content)


def _plan_url(url: str, folder: bytes, excluded: Exclude) -> Iterator[SourceFile]:
    import fsspec

    try:
        fs, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise InvalidInputError(f"cannot read {url}: {error}") from error
    try:
        if fs.isfile(root):
            yield _remote_file(fs, root, join_path(folder, normalize_path(root.rpartition("/")[2])))
            return
        names = sorted(fs.find(root))
    except OSError as error:
        raise_unreadable(url, error)
    if not names:
        raise NotFoundError(f"no such file or folder: {url}", code=ErrorCode.NO_FILE)
    for name in names:
        relative = name[len(root) :].strip("/")
        if not excluded(relative):
            yield _remote_file(fs, name, join_path(folder, normalize_path(relative)))


def _remote_file(fs: Any, name: str, path: bytes) -> SourceFile:
    return SourceFile(path, name, stream=lambda: fs.open(name, "rb"), url=fs.unstrip_protocol(name))
