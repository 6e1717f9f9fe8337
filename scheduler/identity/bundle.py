"""The exact files that run: the user's modules that a transform's module imports, and what `include=` names."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...storage.errors import ErrorCode, InvalidInputError
from .scope import imported_names
from .source import Project, Source

BundleFile = tuple[bytes, int]
"""Content and mode (0o644 or 0o755)."""

PICKLES = ".dmlpipe"
"""Folder of a bundle that holds pickles of code that has no file, each named by its hash."""


@dataclass(frozen=True, slots=True)
class ModuleFiles:
    """The user's modules that are sent along."""

    files: dict[str, BundleFile]
    """By path below the project root."""
    folders: tuple[str, ...]
    """Folders inside the bundle that go on `sys.path`, in order; the first is that of the start."""


def module_files(project: Project, start: Path, name: str) -> ModuleFiles:
    """Collect the user's modules that `start` imports, directly or not, wherever in them the import stands.

    Nothing is imported: modules are looked up among the loaded ones and in the project's folders. The
    `__init__.py` of every package on the way comes along.

    Parameters
    ----------
    name
        The module name of `start`.
    """
    found: dict[Path, bytes] = {}
    folders: dict[Path, None] = {}
    pending = [(start.resolve(), name)]
    while pending:
        path, module = pending.pop()
        if path in found:
            continue
        found[path] = project.read(path)
        folders.setdefault(_import_folder(path, module))
        names = [package for package in _prefixes(module) if package != module]
        names += _imported(path, found[path], module)
        for other in names:
            file = project.find_file(other)
            if file is not None and file not in found:
                pending.append((file, other))
    files = {path.relative_to(project.root).as_posix(): (data, _mode(path)) for path, data in sorted(found.items())}
    relative = [folder.relative_to(project.root).as_posix() for folder in folders]
    return ModuleFiles(files, tuple("" if item == "." else item for item in relative))


def included_files(patterns: Sequence[str], *, base: Path, root: Path) -> dict[str, BundleFile]:
    """Read the files that `include=` names, keyed by their path below `root`.

    Parameters
    ----------
    patterns
        Paths or globs relative to `base`; a folder stands for every file below it.
    root
        Files outside of it are refused.

    Raises
    ------
    InvalidInputError
        `BAD_SPEC`: a pattern matches nothing, or something outside `root`.
    """
    found: dict[str, BundleFile] = {}
    for pattern in patterns:
        target = base / pattern
        matched = [target] if target.exists() else sorted(base.glob(pattern)) if not Path(pattern).is_absolute() else []
        if not matched:
            raise InvalidInputError(f"include={pattern!r} matches nothing below {base}", code=ErrorCode.BAD_SPEC)
        for path in matched:
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if not file.is_file() or "__pycache__" in file.parts or ".git" in file.parts:
                    continue
                resolved = file.resolve()
                if not resolved.is_relative_to(root):
                    raise InvalidInputError(
                        f"include={pattern!r}: {resolved} is outside {root}", code=ErrorCode.BAD_SPEC
                    )
                found[resolved.relative_to(root).as_posix()] = (resolved.read_bytes(), _mode(resolved))
    return found


def git_state(folder: Path) -> str:
    """Commit and cleanliness of the working tree around `folder`, as `8f3c21 (clean)`; empty outside git."""
    head = _git(folder, "rev-parse", "--short=6", "HEAD")
    if not head:
        return ""
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return head if changed is None else f"{head} ({'changed' if changed else 'clean'})"


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _import_folder(path: Path, module: str) -> Path:
    """The folder that must be on `sys.path` for `path` to be `module`."""
    depth = module.count(".") + (2 if path.name == "__init__.py" else 1)
    return path.parents[depth - 1]


def _prefixes(name: str) -> list[str]:
    """`a`, `a.b`, `a.b.c`: importing the last runs them all."""
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _imported(path: Path, text: bytes, module: str) -> list[str]:
    names: list[str] = []
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for item in imported_names(Source(str(path), text).tree):
        base = item.module
        if item.level:
            parts = package.split(".") if package else []
            kept = parts[: len(parts) - item.level + 1]
            base = ".".join([*kept, *([item.module] if item.module else [])])
        if base:
            names += _prefixes(base)
        if item.name is not None and item.name != "*":
            names.append(f"{base}.{item.name}" if base else item.name)
    return names


def _mode(path: Path) -> int:
    return 0o755 if path.stat().st_mode & 0o111 else 0o644
