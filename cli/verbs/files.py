"""Words that may be a FILE or something else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...storage.errors import ErrorCode, NotFoundError

SUFFIXES = (".py", ".json", ".yaml", ".yml", ".jsonnet")


def is_file(word: str) -> bool:
    """Whether a word is a DAG or spec file: by its ending alone, whatever lies in the folder."""
    return _split(word)[0].lower().endswith(SUFFIXES)


def split_words(words: Sequence[str]) -> tuple[list[tuple[Path, str | None]], list[str]]:
    """Split words into files (with the DAG that was named after a colon) and the rest.

    Raises
    ------
    NotFoundError
        A file that is named does not exist.
    """
    files: list[tuple[Path, str | None]] = []
    rest: list[str] = []
    for word in words:
        if not is_file(word):
            rest.append(word)
            continue
        name, dag = _split(word)
        files.append((need_file(Path(name)), dag))
    return files, rest


def need_file(path: Path) -> Path:
    """Return the path if a file is there."""
    if not path.is_file():
        raise NotFoundError(
            f"no file {path}",
            code=ErrorCode.NO_FILE,
            hint="*.py, *.json and *.yaml are files of DAGs and specs; dmlpipe init --dag writes a first one",
        )
    return path


def _split(word: str) -> tuple[str, str | None]:
    name, colon, dag = word.rpartition(":")
    return (name, dag) if colon and "/" not in dag and dag else (word, None)
