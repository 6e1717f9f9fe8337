"""Importing a user's modules anew, past Python's caches.

`sys.modules` remembers modules and a `.pyc` is trusted for a whole second; here an edit is seen at once. While a
`FreshModules` is active, its project's modules are its own and its folder stands first on `sys.path`; afterwards the
process's own modules are back. What does not get in their way stays importable until the next one is active, since
functions import when they are called.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..identity.source import Project

_lock = threading.RLock()
_left: dict[str, types.ModuleType] = {}
"""Modules that the last one active left in `sys.modules`."""
_left_folders: list[str] = []
"""Folders that it left on `sys.path`."""


class FreshModules:
    """The modules of one project, as imported by one load of a file.

    Parameters
    ----------
    root
        Project root: modules under it are imported anew.
    folder
        Where the file stands; first on `sys.path`.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        self.texts: dict[Path, bytes] = {}
        """Files as they were when they were imported."""
        self._project = Project(root, (folder,))
        self._modules: dict[str, types.ModuleType] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let imports mean this project's modules. One at a time in a process; not to be nested."""
        with _lock:
            _drop_left()
            # Of a copy: asking a lazy module for its file may import others.
            own = {name: module for name, module in list(sys.modules.items()) if self._takes_over(name, module)}
            for name in own:
                del sys.modules[name]
            sys.modules.update(self._modules)
            path = list(sys.path)
            sys.path[:] = [str(self.folder), *(entry for entry in path if entry != str(self.folder))]
            finder = _FreshFinder(self._project, self.texts)
            sys.meta_path.insert(0, finder)
            importlib.invalidate_caches()
            try:
                yield
            finally:
                sys.meta_path.remove(finder)
                self._modules = {name: item for name, item in list(sys.modules.items()) if self._owns(name, item)}
                for name in self._modules:
                    if name in own:
                        del sys.modules[name]
                    else:
                        _left[name] = self._modules[name]
                sys.modules.update(own)
                if str(self.folder) not in path:
                    _left_folders.append(str(self.folder))

    def _owns(self, name: str, module: object) -> bool:
        return name != "__main__" and isinstance(module, types.ModuleType) and self._project.owns_module(module)

    def _takes_over(self, name: str, module: object) -> bool:
        """Whether a loaded module is this project's, or stands where one of its files would."""
        if self._owns(name, module):
            return True
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top == __name__.partition(".")[0]:
            return False
        return (self.folder / f"{top}.py").is_file() or (self.folder / top / "__init__.py").is_file()


def _drop_left() -> None:
    for name, module in _left.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
    for folder in _left_folders:
        if folder in sys.path:
            sys.path.remove(folder)
    _left.clear()
    _left_folders.clear()


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
