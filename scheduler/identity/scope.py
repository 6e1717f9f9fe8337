"""What a definition takes from outside: free names, attributes of them, imports inside it.

Follows Python's rules of scope on the syntax tree: functions, lambdas, comprehensions, classes (whose names are not
seen by the functions inside), `global`, `nonlocal`, walrus, type parameters. Pure.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

DYNAMIC = frozenset({"__import__", "eval", "exec", "getattr", "globals"})
"""Builtins through which code can reach what no name shows."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_NESTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, *_COMPREHENSIONS)


@dataclass(frozen=True, slots=True)
class ImportedName:
    """One name that an import statement binds."""

    bound: str
    """The name it has afterwards; `*` for a star import."""
    module: str
    """As written, without leading dots."""
    name: str | None
    """What is taken from the module; None: the module itself."""
    level: int
    """Leading dots."""


@dataclass(slots=True)
class Uses:
    """What a definition takes from outside."""

    names: set[str] = field(default_factory=set)
    """Free names of code."""
    annotations: set[str] = field(default_factory=set)
    """Free names that stand in annotations only."""
    chains: set[tuple[str, ...]] = field(default_factory=set)
    """Attributes of free names: `a.b.c` is `("a", "b", "c")`; a bare `a` is `("a",)`."""
    imports: list[ImportedName] = field(default_factory=list)
    """Imports anywhere inside."""


def uses(node: ast.AST, *, skip: Collection[ast.AST] = ()) -> Uses:
    """Find what `node` takes from outside; nodes in `skip` (by identity) are not looked at."""
    finder = _Finder(frozenset(id(item) for item in skip))
    finder.visit(node)
    return finder.found


def imported_names(node: ast.AST) -> Iterator[ImportedName]:
    """Yield what each import statement inside `node` binds, in the order of the text."""
    for item in ast.walk(node):
        if isinstance(item, ast.Import):
            for alias in item.names:
                if alias.asname:
                    yield ImportedName(alias.asname, alias.name, None, 0)
                else:
                    yield ImportedName(alias.name.partition(".")[0], alias.name, None, 0)
        elif isinstance(item, ast.ImportFrom):
            for alias in item.names:
                yield ImportedName(alias.asname or alias.name, item.module or "", alias.name, item.level)


@dataclass(slots=True)
class _Scope:
    bound: set[str]
    is_class: bool = False
    global_names: set[str] = field(default_factory=set)


class _Finder:
    def __init__(self, skip: frozenset[int]) -> None:
        self.skip = skip
        self.found = Uses()
        self.scopes: list[_Scope] = []
        self.in_annotation = 0

    # --- walking ---

    def visit(self, node: ast.AST | None) -> None:
        if node is None or id(node) in self.skip:
            return
        match node:
            case ast.Module():
                self._in_scope(_Scope(_bound(node.body)), node.body)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._function(node)
            case ast.Lambda():
                self._arguments(node.args)
                self._in_scope(_Scope(_argument_names(node.args) | _bound([node.body])), [node.body])
            case ast.ClassDef():
                self._class(node)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                self._comprehension(node)
            case ast.Name():
                self._name(node.id, (node.id,))
            case ast.Attribute():
                self._attribute(node)
            case ast.AnnAssign():
                self._annotation(node.annotation)
                self.visit(node.target)
                self.visit(node.value)
            case ast.Import() | ast.ImportFrom():
                self.found.imports.extend(imported_names(node))
            case _:
                self._all(ast.iter_child_nodes(node))

    def _all(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            self.visit(node)

    def _in_scope(self, scope: _Scope, body: Iterable[ast.AST]) -> None:
        body = list(body)
        for node in _same_scope(body):
            if isinstance(node, ast.Global):
                scope.global_names.update(node.names)
            elif isinstance(node, ast.Nonlocal):
                scope.bound.difference_update(node.names)
        scope.bound -= scope.global_names
        self.scopes.append(scope)
        self._all(body)
        self.scopes.pop()

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._all(node.decorator_list)
        depth = self._type_scope(node)
        self._arguments(node.args)
        self._annotation(node.returns)
        self._in_scope(_Scope(_argument_names(node.args) | _bound(node.body)), node.body)
        del self.scopes[depth:]

    def _type_scope(self, node: ast.AST) -> int:
        """Open the scope of type parameters where there are some; return the depth to go back to."""
        depth = len(self.scopes)
        parameters = {item.name for item in getattr(node, "type_params", [])}
        if parameters:
            # Only then: one that is always there would hide the class body from defaults and annotations in it.
            self.scopes.append(_Scope(parameters))
        return depth

    def _arguments(self, arguments: ast.arguments) -> None:
        self._all(arguments.defaults)
        self._all(arguments.kw_defaults)
        for argument in _every_argument(arguments):
            self._annotation(argument.annotation)

    def _class(self, node: ast.ClassDef) -> None:
        self._all(node.decorator_list)
        depth = self._type_scope(node)
        self._all(node.bases)
        self._all(keyword.value for keyword in node.keywords)
        given = {"__module__", "__qualname__"}
        self._in_scope(_Scope(_bound(node.body) | given, is_class=True), node.body)
        del self.scopes[depth:]

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        first, *rest = node.generators
        self.visit(first.iter)  # evaluated in the scope around
        targets = _bound([generator.target for generator in node.generators])
        inner: list[ast.AST] = [first.target, *first.ifs]
        for generator in rest:
            inner += [generator.target, generator.iter, *generator.ifs]
        inner += [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        self.scopes.append(_Scope(targets))
        self._all(inner)
        self.scopes.pop()

    def _annotation(self, node: ast.AST | None) -> None:
        self.in_annotation += 1
        self.visit(node)
        self.in_annotation -= 1

    # --- names ---

    def _attribute(self, node: ast.Attribute) -> None:
        parts = [node.attr]
        base: ast.expr = node.value
        while isinstance(base, ast.Attribute):
            parts.append(base.attr)
            base = base.value
        if isinstance(base, ast.Name) and id(base) not in self.skip:
            self._name(base.id, (base.id, *reversed(parts)))
        else:
            self.visit(base)

    def _name(self, name: str, chain: tuple[str, ...]) -> None:
        if self._is_local(name):
            return
        if self.in_annotation:
            self.found.annotations.add(name)
        else:
            self.found.names.add(name)
        self.found.chains.add(chain)

    def _is_local(self, name: str) -> bool:
        for depth, scope in enumerate(reversed(self.scopes)):
            if scope.is_class and depth > 0:
                continue  # names of a class body are not seen by the functions in it
            if name in scope.global_names:
                return False
            if name in scope.bound:
                return True
        return name == "__class__" and any(scope.is_class for scope in self.scopes)


def _every_argument(arguments: ast.arguments) -> list[ast.arg]:
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return every + [item for item in (arguments.vararg, arguments.kwarg) if item is not None]


def _argument_names(arguments: ast.arguments) -> set[str]:
    return {argument.arg for argument in _every_argument(arguments)}


def _same_scope(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Every node that belongs to the scope itself: nested scopes are named, not entered."""
    pending = list(body)
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, _COMPREHENSIONS):
            # A walrus inside binds in the scope around.
            pending.extend(item for item in ast.walk(node) if isinstance(item, ast.NamedExpr))
        elif not isinstance(node, _NESTED):
            pending.extend(ast.iter_child_nodes(node))


def _bound(body: Iterable[ast.AST]) -> set[str]:
    """Names that the statements bind in their own scope."""
    names: set[str] = set()
    for node in _same_scope(body):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                names.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                names.add(name)
            case ast.MatchMapping(rest=str(name)):
                names.add(name)
            case ast.Import() | ast.ImportFrom():
                names.update(item.bound for item in imported_names(node))
            case _ if type(node).__name__ == "TypeAlias":
                names.add(node.name.id)  # type: ignore[attr-defined]  # Python 3.12
    return names
