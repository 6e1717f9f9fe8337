"""Importing a user's DAG file.

Each load is fresh: the file and every module of the project that it imports are read and run again, past Python's
caches (a `.pyc` is trusted for a whole second), so that edits are seen. The file's folder stands on `sys.path`, as
when Python runs it. Other modules of the process are as before afterwards.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
import traceback
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..storage.errors import ErrorCode, InvalidInputError, NotFoundError, UserCodeError
from .dag import DAG
from .identity.source import Project, find_root

_lock = threading.RLock()
_left: dict[str, types.ModuleType] = {}
"""Modules that the last load left in `sys.modules`."""
_left_folders: list[str] = []


def load_dags(path: Path) -> list[DAG]:
    """Import a Python file and return its top-level DAGs, in order.

    Raises
    ------
    NotFoundError
        There is no such file.
    InvalidInputError
        `BAD_SPEC`: it is no Python file, or defines no DAG. An error that the file itself raises on purpose
        (a wrong signature, say) keeps its code and gets the place.
    UserCodeError
        It does not run; the message says where, the hint shows the user's frames.
    """
    path = path.resolve()
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file", code=ErrorCode.NO_FILE)
    if path.suffix != ".py":
        raise InvalidInputError(f"{path.name} is no Python file", code=ErrorCode.BAD_SPEC)
    if "." in path.stem:
        raise InvalidInputError(
            f"{path.name}: a module's name has no dot", code=ErrorCode.BAD_SPEC, hint="rename the file"
        )
    root = find_root(path.parent)
    project = Project(root, (path.parent,))
    with _lock, _fresh(project) as texts:
        module = _run(path, project)
        loaded = {name: item for name, item in sys.modules.items() if project.owns_module(item)}
    found: list[DAG] = []
    for value in vars(module).values():
        if isinstance(value, DAG) and value not in found:
            value.modules = loaded
            value.texts = texts
            found.append(value)
    if not found:
        raise InvalidInputError(
            f"{path.name} defines no DAG", code=ErrorCode.BAD_SPEC, hint='dag = dmlpipe.DAG("name") at its top level'
        )
    return found


def user_frames(error: BaseException, project: Project) -> list[traceback.FrameSummary]:
    """The frames of a traceback that are the user's, outermost first."""
    return [frame for frame in traceback.extract_tb(error.__traceback__) if project.owns(frame.filename)]


def _run(path: Path, project: Project) -> types.ModuleType:
    try:
        return importlib.import_module(path.stem)
    except InvalidInputError as err:
        frames = user_frames(err, project)
        place = f"{project.relative(frames[-1].filename)}:{frames[-1].lineno}: " if frames else ""
        raise InvalidInputError(f"{place}{err.message}", code=err.code, hint=err.hint) from err
    except SyntaxError as err:
        where = f"{project.relative(err.filename or str(path))}:{err.lineno}"
        shown = (err.text or "").strip()
        raise UserCodeError(f"{where}: SyntaxError: {err.msg}", code=ErrorCode.BAD_CODE, hint=shown or None) from err
    except (Exception, SystemExit) as err:
        raise _failed(path, err, project) from err


def _failed(path: Path, err: BaseException, project: Project) -> UserCodeError:
    frames = user_frames(err, project)
    text = traceback.format_exception_only(err)[-1].strip()
    if not frames:
        return UserCodeError(f"{path.name}: {text}", code=ErrorCode.BAD_CODE)
    place = f"{project.relative(frames[-1].filename)}:{frames[-1].lineno}"
    lines = [f"{project.relative(item.filename)}:{item.lineno} in {item.name}    {item.line}" for item in frames]
    return UserCodeError(f"{place}: {text}", code=ErrorCode.BAD_CODE, hint="\n".join(lines))


@contextmanager
def _fresh(project: Project) -> Iterator[dict[Path, bytes]]:
    """Let imports of the project's modules read and run them anew; yield the texts that were read."""
    texts: dict[Path, bytes] = {}
    for name, module in _left.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
    for folder in _left_folders:
        if folder in sys.path:
            sys.path.remove(folder)
    _left.clear()
    _left_folders.clear()
    folder = str(project.folders[0])
    if folder in sys.path:
        sys.path.remove(folder)  # in front, as when Python runs the file, and back in its place afterwards
    else:
        _left_folders.append(folder)
    sys.path.insert(0, folder)
    before = {name: item for name, item in sys.modules.items() if name != "__main__" and _owned(item, project)}
    for name in before:
        del sys.modules[name]
    finder = _FreshFinder(project, texts)
    sys.meta_path.insert(0, finder)
    importlib.invalidate_caches()
    try:
        yield texts
    finally:
        sys.meta_path.remove(finder)
        for name, item in list(sys.modules.items()):
            if name not in before and name != "__main__" and _owned(item, project):
                _left[name] = item
        sys.modules.update(before)


def _owned(module: object, project: Project) -> bool:
    return isinstance(module, types.ModuleType) and project.owns_module(module)


class _FreshFinder(importlib.abc.MetaPathFinder):
    """Finds what Python finds, and reads the project's own files past the caches."""

    def __init__(self, project: Project, texts: dict[Path, bytes]) -> None:
        self._project = project
        self._texts = texts

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            return None
        if not self._project.owns(spec.origin):
            return None
        spec.loader = _FreshLoader(fullname, spec.loader.path, self._texts)
        spec.cached = None
        return spec


class _FreshLoader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, texts: dict[Path, bytes]) -> None:
        super().__init__(fullname, path)
        self._texts = texts

    def get_code(self, fullname: str) -> types.CodeType | None:
        data = self.get_data(self.path)
        self._texts[Path(self.path).resolve()] = data
        return self.source_to_code(data, self.path)
