"""Source files and the definitions in them."""

from __future__ import annotations

import ast
import functools
import linecache
import re
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .scope import ImportedName, imported_names

Definable = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
_OWN_PACKAGE = __name__.partition(".")[0]
_LAYERS = ("storage", "worker", "scheduler", "cli")
_MARKS = ("pyproject.toml", ".git")


def find_root(folder: Path) -> Path:
    """The nearest folder from `folder` upwards that holds a `pyproject.toml` or `.git`; else `folder` itself."""
    folder = folder.resolve()
    for candidate in (folder, *folder.parents):
        if any((candidate / mark).exists() for mark in _MARKS):
            return candidate
    return folder


@dataclass(frozen=True)
class Project:
    """Whose code counts: the user's own modules, those under the project root."""

    root: Path
    folders: tuple[Path, ...]
    """Folders that modules are imported from, in order; all under the root."""
    texts: Mapping[Path, bytes] = field(default_factory=dict)
    """Files as they were when they were imported."""

    def owns(self, filename: str | None) -> bool:
        """Whether a file is the user's: under the root, not installed, not dmlpipe."""
        if not filename:
            return False
        path = _resolved(filename)
        if not path.is_relative_to(self.root) or "site-packages" in path.parts or "dist-packages" in path.parts:
            return False
        return not any(path.is_relative_to(installed) for installed in _installed())

    def owns_module(self, module: types.ModuleType) -> bool:
        """Whether a module is the user's. A folder without `__init__.py` is none."""
        name = module.__name__
        if name.partition(".")[0] == _OWN_PACKAGE or name in sys.builtin_module_names:
            return False
        filename = getattr(module, "__file__", None)
        if filename is None:
            return name == "__main__"  # a notebook or an interactive session
        return self.owns(filename)

    def find_file(self, module: str) -> Path | None:
        """The user's file of a module, found without importing anything."""
        if module.partition(".")[0] == _OWN_PACKAGE:
            return None
        loaded = sys.modules.get(module)
        filename = getattr(loaded, "__file__", None)
        if filename and self.owns(filename):
            return _resolved(filename)
        relative = Path(*module.split("."))
        for folder in self.folders:
            for candidate in (folder / relative / "__init__.py", folder / relative.with_name(relative.name + ".py")):
                if candidate.is_file() and self.owns(str(candidate)):
                    return candidate.resolve()
        return None

    def relative(self, filename: str) -> str:
        """A file's path below the root, for people; code without a file is shown as it calls itself."""
        path = Path(filename)
        if not path.exists():
            return filename
        path = path.resolve()
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def read(self, path: Path) -> bytes:
        """Bytes of a file as imported, else as it is now."""
        known = self.texts.get(path)
        return path.read_bytes() if known is None else known


@functools.cache
def _installed() -> tuple[Path, ...]:
    # Of dmlpipe its folders, not their parent: its own repository holds examples, which are a user's code.
    root = Path(__file__).resolve().parents[2]
    own = [root / layer for layer in _LAYERS] + [root / "src" / _OWN_PACKAGE]
    return (*own, *[Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib")])


@functools.lru_cache(maxsize=65536)
def _resolved(filename: str) -> Path:
    return Path(filename).resolve()


class Source:
    """One file's syntax tree, and where things are in it."""

    def __init__(self, filename: str, text: str | bytes) -> None:
        self.filename = filename
        self.tree = ast.parse(text, filename)
        self._definitions: list[tuple[str, Definable]] | None = None

    def definitions(self) -> list[tuple[str, Definable]]:
        """(Qualified name, node) of every function, class and lambda."""
        if self._definitions is None:
            self._definitions = list(_definitions(self.tree, ""))
        return self._definitions

    def function(self, code: types.CodeType) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | None:
        """The definition that `code` was compiled from; None if the file no longer has it there."""
        found: list[ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda] = []
        for qualname, node in self.definitions():
            if isinstance(node, ast.ClassDef) or first_line(node) != code.co_firstlineno:
                continue
            if qualname == plain_qualname(code.co_qualname):
                found.append(node)
        if len(found) > 1:
            found = [node for node in found if isinstance(node, ast.Lambda) and _encloses(node.body, code)] or found[:1]
        return found[0] if found else None

    def class_(self, qualname: str, lines: set[int]) -> ast.ClassDef | None:
        """The class of that name; of several, the one whose methods begin on `lines`, else the last."""
        found = [node for name, node in self.definitions() if name == qualname and isinstance(node, ast.ClassDef)]
        for node in found:
            if lines and all(first_line(node) <= line <= (node.end_lineno or line) for line in lines):
                return node
        return found[-1] if found else None

    def binding(self, name: str) -> ast.stmt | ImportedName | None:
        """What binds a module-level name: an import, or a statement. The last one counts."""
        found: ast.stmt | ImportedName | None = None
        for statement in _module_statements(self.tree.body):
            if isinstance(statement, ast.Import | ast.ImportFrom):
                for imported in imported_names(statement):
                    if imported.bound == name:
                        found = imported
            elif name in _targets(statement):
                found = statement
        return found

    def star_imports(self) -> list[ImportedName]:
        """Every `from m import *`."""
        return [item for item in imported_names(self.tree) if item.name == "*"]


class Sources:
    """Parsed files, by the name that code objects give for them."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._parsed: dict[str, Source | None] = {}

    def get(self, filename: str) -> Source | None:
        """The file's source; None where there is none (exec, a REPL)."""
        if filename not in self._parsed:
            self._parsed[filename] = self._parse(filename)
        return self._parsed[filename]

    def _parse(self, filename: str) -> Source | None:
        path = Path(filename)
        if not filename.startswith("<") and path.is_file():
            return Source(filename, self._project.read(path.resolve()))
        # Notebooks put the text of each cell here. "<string>" names many things, generated methods among them.
        lines = [] if filename == "<string>" else linecache.getlines(filename)
        return Source(filename, "".join(lines)) if lines else None


def first_line(node: Definable) -> int:
    """Line where a definition begins, its decorators included: what `co_firstlineno` is."""
    if isinstance(node, ast.Lambda):
        return node.lineno
    return min([node.lineno, *[item.lineno for item in node.decorator_list]])


def plain_qualname(qualname: str) -> str:
    """A qualified name without the comprehensions that up to Python 3.11 are functions of their own."""
    return re.sub(r"<(list|set|dict)comp>\.<locals>\.|<genexpr>\.<locals>\.", "", qualname)


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Definable]]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield prefix + child.name, child
                # Decorators and defaults are evaluated outside.
                outside = [*child.decorator_list, child.args, *([child.returns] if child.returns else [])]
                for item in outside:
                    yield from _definitions(ast.Expr(value=item), prefix)  # type: ignore[arg-type]
                for statement in child.body:
                    yield from _definitions(ast.Module([statement], []), f"{prefix}{child.name}.<locals>.")
            case ast.Lambda():
                yield prefix + "<lambda>", child
                yield from _definitions(ast.Expr(value=child.body), f"{prefix}<lambda>.<locals>.")
            case ast.ClassDef():
                yield prefix + child.name, child
                yield from _definitions(ast.Module(child.body, []), f"{prefix}{child.name}.")
                for item in child.decorator_list:
                    yield from _definitions(ast.Expr(value=item), prefix)
            case _:
                yield from _definitions(child, prefix)


def _encloses(node: ast.expr, code: types.CodeType) -> bool:
    """Whether all positions of `code` lie in `node`; tells apart two lambdas on one line."""
    end = (node.end_lineno or node.lineno, node.end_col_offset or 0)
    for line, end_line, column, end_column in code.co_positions():
        if line is None or end_line is None or not column or end_column is None:
            continue
        if not ((node.lineno, node.col_offset) <= (line, column) and (end_line, end_column) <= end):
            return False
    return True


def _module_statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With | ast.For | ast.While | ast.TryStar | ast.Match):
            for child in ast.iter_child_nodes(statement):
                if isinstance(child, ast.stmt):
                    yield from _module_statements([child])
                elif isinstance(child, ast.ExceptHandler | ast.match_case):
                    yield from _module_statements(child.body)


def _targets(statement: ast.stmt) -> set[str]:
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {statement.name}
        case ast.Assign():
            nodes: list[ast.expr] = list(statement.targets)
        case ast.AnnAssign() | ast.AugAssign() | ast.For():
            nodes = [statement.target]
        case ast.With():
            nodes = [item.optional_vars for item in statement.items if item.optional_vars is not None]
        case _:
            return {node.target.id for node in ast.walk(statement) if isinstance(node, ast.NamedExpr)}
    return {item.id for node in nodes for item in ast.walk(node) if isinstance(item, ast.Name)}
