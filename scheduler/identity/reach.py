"""Everything of the user's own code that a transform reaches.

Names are resolved through globals, closures, defaults, decorators, base classes and whole class bodies, in the user's
own modules. Plain data counts by value. What names cannot show (attributes of a user module, `getattr`, `importlib`,
`exec`, `import *`, a name that cannot be resolved) makes the whole module count. What can neither be encoded nor
followed is refused by name. Third-party code is named, never entered.

Needs the standard library only, and hashes nothing: it yields canonical bytes. Long for a module: following names,
values and modules recurses through one walk and its tables.
"""

from __future__ import annotations

import ast
import builtins
import enum
import functools
import importlib
import inspect
import logging
import sys
import threading
import types
import typing
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...storage.errors import ErrorCode, InvalidInputError
from .encode import UnencodableError, encode_node, encode_value, frame, text
from .scope import DYNAMIC, ImportedName, Uses, imported_names, uses
from .source import Definable, Project, Source, Sources, plain_qualname

_OPAQUE: tuple[type, ...] = (logging.Logger, type(threading.Lock()), type(threading.RLock()), threading.local)
"""Values that change no output: their type counts, not what is in them."""

_MISSING = object()
_STANDARD = sys.stdlib_module_names - {"__main__"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One definition that counts."""

    key: str
    """What it is sorted and referred to by: its qualified name, without the module that holds the transform."""
    name: str
    """Its qualified name, for people."""
    file: str
    """Relative to the project root."""
    line: int
    body: bytes
    """Canonical encoding, references to other entries by key included."""


@dataclass(frozen=True, slots=True)
class Reached:
    """All that a transform reaches."""

    entries: tuple[Entry, ...]
    """Sorted by key."""
    whole_modules: tuple[tuple[str, str], ...]
    """(module, why) of those that count as a whole, sorted."""
    notices: tuple[str, ...] = ()


def reach(root: Callable[..., object], project: Project, *, skip_defaults: Collection[tuple[str, str]] = ()) -> Reached:
    """Follow a function or class to all it uses.

    Parameters
    ----------
    root
        The transform, as the user wrote it.
    project
        Whose code counts.
    skip_defaults
        (function name, parameter) whose default does not count, since its value is a parameter of the pipeline.

    Raises
    ------
    InvalidInputError
        `BAD_CODE`: something it uses cannot be encoded, or its source cannot be found.
    """
    walk = _Walk(root, project, frozenset(skip_defaults))
    return walk.run()


def locate(root: Callable[..., object], project: Project) -> tuple[str, int]:
    """File (relative to the project root) and line of a definition; ("", 0) where it has no source."""
    walk = _Walk(root, project, frozenset())
    found = walk.locate(root)
    if found is None or found.source is None:
        return "", 0
    return project.relative(found.source.filename), getattr(found.node, "lineno", 0)


@dataclass(slots=True)
class _Work:
    """A definition whose body is still to be encoded."""

    key: str
    name: str
    kind: str
    obj: typing.Any
    source: Source | None = None
    node: ast.AST | None = None
    namespace: Mapping[str, object] = field(default_factory=dict)
    cells: Mapping[str, object] = field(default_factory=dict)


class _Walk:
    def __init__(
        self, root: Callable[..., object], project: Project, skip_defaults: frozenset[tuple[str, str]]
    ) -> None:
        self.root = root
        self.project = project
        self.skip_defaults = skip_defaults
        self.sources = Sources(project)
        self.root_module = _module_name(root)
        self.entries: dict[str, Entry] = {}
        self.keys: dict[int, str] = {}
        self.alive: list[object] = []  # ids in `keys` must not be reused
        self.taken: dict[str, int] = {}
        self.work: deque[_Work] = deque()
        self.whole: dict[str, str] = {}
        self.notices: dict[str, None] = {}

    def run(self) -> Reached:
        if self._define(self.root, key="") is None:
            raise self._no_source(self.root)
        while self.work:
            self._encode(self.work.popleft())
        entries = tuple(sorted(self.entries.values(), key=lambda entry: text(entry.key)))
        return Reached(entries, tuple(sorted(self.whole.items())), tuple(self.notices))

    # --- definitions ---

    def _define(self, obj: typing.Any, key: str | None = None) -> str | None:
        """Queue a function or class; return its key, or None if it has no definition that can be found."""
        known = self.keys.get(id(obj))
        if known is not None:
            return known
        located = self.locate(obj)
        if located is None:
            return None
        located.name = f"{self._module_label(_module_name(obj))}{plain_qualname(obj.__qualname__)}"
        located.key = self._new_key(obj, located.name) if key is None else key
        self.keys[id(obj)] = located.key
        self.alive.append(obj)
        self.work.append(located)
        return located.key

    def _new_key(self, obj: typing.Any, name: str) -> str:
        module = _module_name(obj)
        key = ":" + plain_qualname(obj.__qualname__) if module == self.root_module else name
        count = self.taken[key] = self.taken.get(key, 0) + 1
        return key if count == 1 else f"{key}#{count}"

    def _module_label(self, module: str) -> str:
        return "" if module == "__main__" else f"{module}."

    def locate(self, obj: typing.Any) -> _Work | None:
        """Find the source of a function or class; None where there is none."""
        return self._locate_class(obj) if isinstance(obj, type) else self._locate_function(obj)

    def _locate_function(self, function: types.FunctionType) -> _Work | None:
        source = self.sources.get(function.__code__.co_filename)
        node = source.function(function.__code__) if source else None
        if node is None:
            return None
        cells: dict[str, object] = {}
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                cells[name] = cell.cell_contents
            except ValueError:
                cells[name] = _MISSING  # not assigned yet
        return _Work("", "", "function", function, source, node, function.__globals__, cells)

    def _locate_class(self, cls: type) -> _Work | None:
        namespace, filename, lines = self._class_home(cls)
        source = self.sources.get(filename) if filename else None
        node = source.class_(plain_qualname(cls.__qualname__), lines) if source else None
        return None if node is None else _Work("", "", "class", cls, source, node, namespace)

    def _class_home(self, cls: type) -> tuple[Mapping[str, object], str | None, set[int]]:
        """Globals, file and first lines of the methods of a class."""
        functions = [item for item in map(_function_of, vars(cls).values()) if item is not None]
        own = [item for item in functions if item.__qualname__ == f"{cls.__qualname__}.{item.__name__}"]
        own = [item for item in own if self._has_source(item.__code__.co_filename)]
        if own:
            return own[0].__globals__, own[0].__code__.co_filename, {item.__code__.co_firstlineno for item in own}
        module = self._module(cls.__module__)
        return (vars(module), getattr(module, "__file__", None), set()) if module else ({}, None, set())

    def _has_source(self, filename: str) -> bool:
        """Whether a file is the user's or a cell's; others are not even parsed."""
        if Path(filename).is_file():
            return self.project.owns(filename)
        return self.sources.get(filename) is not None

    def _module(self, name: str) -> types.ModuleType | None:
        return sys.modules.get(name)

    # --- bodies ---

    def _encode(self, work: _Work) -> None:
        match work.kind:
            case "module":
                self._encode_module(work)
            case "statement":
                self._encode_statement(work)
            case _:
                self._encode_definition(work)

    def _encode_definition(self, work: _Work) -> None:
        node, source = work.node, work.source
        assert node is not None
        assert source is not None
        own = self._own_decorators(node, work.namespace)
        defaults: list[bytes] = []
        skip: list[ast.AST] = list(own)
        unseen: list[ast.AST] = list(own)
        if work.obj is self.root:
            dropped = list(self._parameter_defaults(node))
            skip += dropped
            unseen += dropped
        if isinstance(work.obj, types.FunctionType):
            # The defaults as they are; their expressions were evaluated elsewhere.
            assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            unseen += [item for item in (*node.args.defaults, *node.args.kw_defaults) if item is not None]
            defaults = self._live_defaults(work, work.obj, node, skip)
        found = uses(node, skip=unseen)
        bases = [base for base in getattr(work.obj, "__bases__", ()) if self._is_own_class(base)]
        body = frame(
            "definition",
            encode_node(node, skip=skip, anonymous=work.obj is self.root),
            frame("defaults", *defaults),
            frame("bases", *[self._reference(base) or b"" for base in bases]),
            *self._resolve(work, found),
        )
        line = getattr(node, "lineno", 0)
        self._enter(work.key, work.name, source.filename, line, body)

    def _live_defaults(
        self, work: _Work, function: types.FunctionType, node: Definable, skip: list[ast.AST]
    ) -> list[bytes]:
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        skipped = {id(item) for item in skip}
        arguments = [*node.args.posonlyargs, *node.args.args]
        positional = zip(reversed(arguments), reversed(node.args.defaults), strict=False)
        values = dict(zip(reversed(arguments), reversed(function.__defaults__ or ()), strict=False))
        named = {argument.arg: values[argument] for argument, item in positional if id(item) not in skipped}
        for argument, item in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
            if item is not None and id(item) not in skipped and argument.arg in (function.__kwdefaults__ or {}):
                named[argument.arg] = (function.__kwdefaults__ or {})[argument.arg]
        return [frame(name, self._value(named[name], work, f"the default of {name!r}", None)) for name in sorted(named)]

    def _parameter_defaults(self, node: ast.AST) -> Iterator[ast.AST]:
        functions = [node] if not isinstance(node, ast.ClassDef) else node.body
        for function in functions:
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                name = getattr(function, "name", "<lambda>")
                for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
                    if default is not None and (name, argument.arg) in self.skip_defaults:
                        yield default

    def _own_decorators(self, node: ast.AST, namespace: Mapping[str, object]) -> list[ast.AST]:
        """Decorators that are dmlpipe's: they say how a pipeline runs, not what it computes."""
        return [item for item in getattr(node, "decorator_list", []) if _is_dmlpipe(_owner(item, namespace))]

    def _encode_module(self, work: _Work) -> None:
        module: types.ModuleType = work.obj
        source = work.source
        if source is None:
            self._enter(work.key, work.name, getattr(module, "__file__", "") or "", 0, frame("empty"))
            return
        skip = [decorator for _, node in source.definitions() for decorator in self._own_decorators(node, vars(module))]
        self._stars(source, vars(module))
        body = frame("module", encode_node(source.tree, skip=skip), *self._imports(work, imported_names(source.tree)))
        self._enter(work.key, work.name, source.filename, 1, body)

    def _encode_statement(self, work: _Work) -> None:
        assert work.node is not None
        assert work.source is not None
        body = frame("statement", encode_node(work.node), *self._resolve(work, uses(work.node)))
        self._enter(work.key, work.name, work.source.filename, getattr(work.node, "lineno", 0), body)

    def _enter(self, key: str, name: str, filename: str, line: int, body: bytes) -> None:
        self.entries[key] = Entry(key, name, self.project.relative(filename) if filename else "", line, body)

    # --- names ---

    def _resolve(self, work: _Work, found: Uses) -> list[bytes]:
        """Encode what each name that a definition takes from outside stands for."""
        out: list[bytes] = []
        for name in sorted(found.names | found.annotations):
            only_annotation = name not in found.names
            value = self._look_up(work, name)
            if value is _MISSING:
                if not only_annotation:
                    self._whole_of(work, f"{name!r} cannot be resolved")
                continue
            if name in DYNAMIC and value is getattr(builtins, name, None):
                self._whole_of(work, f"{name}()")
            if value is getattr(builtins, name, _MISSING) and name not in work.namespace and name not in work.cells:
                continue  # the name in the syntax says it all
            if isinstance(value, types.ModuleType):
                self._modules(work, value, [chain[1:] for chain in found.chains if chain[0] == name])
            out.append(frame(name, self._bind(work, name, value)))
        out += self._imports(work, found.imports)
        if work.source is not None:
            self._stars(work.source, work.namespace)
        return out

    def _look_up(self, work: _Work, name: str) -> object:
        if name in work.cells:
            return work.cells[name]
        return work.namespace.get(name, getattr(builtins, name, _MISSING))

    def _bind(self, work: _Work, name: str, value: object) -> bytes:
        binding = work.source.binding(name) if work.source is not None and name not in work.cells else None
        if isinstance(binding, ImportedName):
            outside = self._import_from_outside(binding, work.namespace)
            if outside is not None:
                return outside
        what = f"variable {name!r} of the function around it" if name in work.cells else f"global {name!r}"
        return self._value(value, work, what, name)

    def _value(self, value: object, work: _Work, what: str, name: str | None) -> bytes:
        """A reference, or plain data as an entry of its own where it has a name."""
        if isinstance(_unwrapped(value), type | types.FunctionType | types.ModuleType | types.BuiltinFunctionType):
            reference = self._reference(value)
            if reference is not None:
                return reference
        try:
            body = encode_value(value, self._reference)
        except UnencodableError as err:
            raise self._refusal(work, what, value, err) from err
        if name is None or name in work.cells or work.source is None:
            return frame("value", body)
        module = str(work.namespace.get("__name__", ""))
        # The sign keeps it apart from a definition of that name, which the value may wrap.
        key = f":{name}=" if module == self.root_module else f"{module}.{name}="
        if key not in self.entries:
            line = self._line_of(work.source, name)
            self._enter(key, f"{self._module_label(module)}{name}", work.source.filename, line, frame("value", body))
        return frame("ref", text(key))

    def _line_of(self, source: Source, name: str) -> int:
        binding = source.binding(name)
        return binding.lineno if isinstance(binding, ast.stmt) else 0

    def _follow(self, obj: typing.Any) -> bytes | None:
        """Refer to a function or class of the user's; None if nothing says what it is."""
        key = self._define(obj)
        if key is not None:
            return frame("ref", text(key))
        # Without a `def` of its own (`namedtuple(...)`): the statement that made it counts.
        module = self._module(_module_name(obj))
        source = None if module is None else self._source_of(module)
        name = obj.__name__
        statement = None if source is None else source.binding(name)
        if module is None or not isinstance(statement, ast.stmt):
            return None
        key = f":{name}:=" if module.__name__ == self.root_module else f"{module.__name__}.{name}:="
        self.keys[id(obj)] = key
        self.alive.append(obj)
        label = f"{self._module_label(module.__name__)}{name}"
        self.work.append(_Work(key, label, "statement", obj, source, statement, vars(module)))
        return frame("ref", text(key))

    # --- references ---

    def _reference(self, value: object) -> bytes | None:
        """Encode what is no plain value but can be named or followed; None: it cannot."""
        value = _unwrapped(value)
        match value:
            case types.ModuleType():
                if self.project.owns_module(value):
                    return self._whole_module(value, "used as a value")
                return frame("outside", text(value.__name__))
            case types.FunctionType():
                if self._is_own_function(value):
                    return self._follow(value)
                return _outside(value)
            case types.MethodType():
                parts = [self._reference(value.__func__), encode_value(value.__self__, self._reference)]
                return frame("method", *[part or b"" for part in parts])
            case types.BuiltinFunctionType() if not isinstance(value.__self__, types.ModuleType | type | None):
                return frame("method", text(value.__name__), encode_value(value.__self__, self._reference))
            case functools.partial():
                arguments = (value.func, value.args, value.keywords)
                return frame("partial", *[encode_value(item, self._reference) for item in arguments])
            case property() | classmethod() | staticmethod():
                return None
        return self._type_reference(value)

    def _type_reference(self, value: object) -> bytes | None:
        origin = typing.get_origin(value)
        if origin is not None:
            parts = (origin, *typing.get_args(value))
            return frame("generic", *[encode_value(item, self._reference) for item in parts])
        if isinstance(value, typing.TypeVar | typing.ParamSpec):
            return frame("type variable", text(value.__name__))
        if isinstance(value, typing.NewType):
            return frame("new type", text(value.__name__), encode_value(value.__supertype__, self._reference))
        if isinstance(value, type):
            if self._is_own_class(value):
                return self._follow(value)
            return _outside(value)
        if isinstance(value, _OPAQUE) or _is_dmlpipe(value):
            return frame("outside", text(type(value).__qualname__))
        if isinstance(value, enum.Enum) and self._is_own_class(type(value)):
            return frame("member", self._reference(type(value)) or b"", text(value.name))
        if self._is_own_class(type(value)):
            return self._instance(value)
        named = isinstance(getattr(value, "__name__", None), str)
        if callable(value) and named and _top(value) not in ("", "__main__"):
            return _outside(value)  # a builtin, a method descriptor, a ufunc
        return None

    def _instance(self, value: object) -> bytes | None:
        """An instance of a class of the user's: its class and its attributes."""
        state: dict[str, object] = dict(getattr(value, "__dict__", {}))
        for cls in type(value).__mro__:
            slots: str | Iterable[str] = vars(cls).get("__slots__", ())
            for slot in (slots,) if isinstance(slots, str) else slots:
                if slot not in ("__dict__", "__weakref__") and hasattr(value, slot):
                    state[slot] = getattr(value, slot)
        reference = self._reference(type(value))
        if reference is None:
            return None
        plain = (
            [encode_value(tuple.__getitem__(value, slice(None)), self._reference)] if isinstance(value, tuple) else []
        )
        names = sorted(state)
        fields = [frame(name, encode_value(state[name], self._reference)) for name in names]
        return frame("instance", reference, *plain, *fields)

    def _is_own_function(self, function: types.FunctionType) -> bool:
        filename = function.__code__.co_filename
        name = str(function.__globals__.get("__name__", ""))
        if name.partition(".")[0] == _PACKAGE:
            return False
        if self.project.owns(filename):
            return True
        module_file = function.__globals__.get("__file__")
        if filename.startswith("<frozen"):
            return False
        if module_file is None:
            return name not in _STANDARD
        return filename.startswith("<") and self.project.owns(str(module_file))

    def _is_own_class(self, cls: type) -> bool:
        name = cls.__module__
        if name == "builtins" or name.partition(".")[0] in (_PACKAGE, *_STANDARD):
            return False
        module = self._module(name)
        if module is not None and (name != "__main__" or hasattr(module, "__file__")):
            return self.project.owns_module(module)
        _, filename, _ = self._class_home(cls)
        return filename is None or self.project.owns(filename) or not Path(filename).exists()

    # --- modules ---

    def _modules(self, work: _Work, module: types.ModuleType, chains: Collection[tuple[str, ...]]) -> None:
        """Note what attribute access on a module reaches."""
        if module.__name__ == "importlib":
            self._whole_of(work, "importlib")
        for chain in sorted(chains):
            current: object = module
            for attribute in chain:
                if not isinstance(current, types.ModuleType) or not self.project.owns_module(current):
                    break
                self._whole_module(current, f"attribute {attribute!r} is taken from it")
                current = getattr(current, attribute, None)

    def _whole_module(self, module: types.ModuleType, why: str) -> bytes:
        name = module.__name__
        key = ":*" if name == self.root_module else f"{name}.*"
        if name not in self.whole:
            self.whole[name] = why
            filename = getattr(module, "__file__", None)
            source = self.sources.get(filename) if filename else None
            label = f"{self._module_label(name)}*"
            self.work.append(_Work(key, label, "module", module, source, None, vars(module)))
        return frame("ref", text(key))

    def _whole_of(self, work: _Work, why: str) -> None:
        """Let the module count as a whole that a definition stands in."""
        name = str(work.namespace.get("__name__", ""))
        module = self._module(name)
        if module is None or vars(module) is not work.namespace:
            module = types.ModuleType(name)
            module.__dict__.update(work.namespace)
        shown = work.name.rpartition(".")[2] or work.name
        self._whole_module(module, f"{why} in {shown}")

    def _stars(self, source: Source, namespace: Mapping[str, object]) -> None:
        for item in source.star_imports():
            module = self._import(item, namespace)
            if module is not None:
                self._whole_module(module, "import *")

    def _imports(self, work: _Work, imports: Iterator[ImportedName] | list[ImportedName]) -> list[bytes]:
        """Follow imports of the user's modules that stand inside a definition."""
        out: list[bytes] = []
        for item in sorted(imports, key=lambda item: (item.level, item.module, item.name or "", item.bound)):
            if item.module == "importlib" and work.kind != "module":
                self._whole_of(work, "importlib")
            module = self._import(item, work.namespace)
            if module is None or item.name == "*":
                continue
            if item.name is None:
                out.append(frame(item.bound, self._whole_module(module, "imported inside a definition")))
                continue
            value = getattr(module, item.name, _MISSING)
            if value is _MISSING:
                submodule = self._import_named(f"{module.__name__}.{item.name}")
                if submodule is None:
                    self._whole_module(module, f"{item.name!r} cannot be resolved")
                    continue
                value = submodule
            inner = _Work(work.key, work.name, "import", None, self._source_of(module), None, vars(module))
            out.append(frame(item.bound, self._bind(inner, item.name, value)))
        return out

    def _source_of(self, module: types.ModuleType) -> Source | None:
        filename = getattr(module, "__file__", None)
        return self.sources.get(filename) if filename else None

    def _import(self, item: ImportedName, namespace: Mapping[str, object]) -> types.ModuleType | None:
        """The user's module that an import statement names; None if it is not the user's."""
        return self._import_named(_absolute(item, namespace))

    def _import_named(self, name: str) -> types.ModuleType | None:
        if not name or self.project.find_file(name) is None:
            return None
        module = self._module(name)
        if module is not None and self.project.owns_module(module):
            return module
        try:
            return importlib.import_module(name)
        except ImportError:
            return None

    def _import_from_outside(self, item: ImportedName, namespace: Mapping[str, object]) -> bytes | None:
        """Name what comes from third-party modules by the import statement; None if it is the user's."""
        name = _absolute(item, namespace)
        module = self._module(name)
        if item.level or self.project.find_file(name) is not None:
            return None
        if module is not None and self.project.owns_module(module):
            return None
        if module is None or getattr(module, "__file__", None) is None:
            top = self._module(name.partition(".")[0])
            if top is not None and getattr(top, "__path__", None) and self.project.find_file(f"{name}.{item.name}"):
                return None  # a user's folder without __init__.py
        self._notice_unshipped(name, module)
        return frame("outside", text(name), text(item.name or ""))

    def _notice_unshipped(self, name: str, module: types.ModuleType | None) -> None:
        filename = getattr(module, "__file__", None)
        if filename is None or name.partition(".")[0] in (*sys.stdlib_module_names, _PACKAGE):
            return
        if "site-packages" in filename or "dist-packages" in filename:
            return
        self.notices[
            f"{name} ({filename}) is outside the project root {self.project.root}: "
            "it is not sent along and its edits do not count"
        ] = None

    # --- errors ---

    def _refusal(self, work: _Work, what: str, value: object, err: UnencodableError) -> InvalidInputError:
        kind = type(value).__qualname__
        inside = "" if err.culprit is value else f", which holds {_a(type(err.culprit).__qualname__)}"
        where = ""
        if work.source is not None and work.obj is not self.root:
            line = getattr(work.node, "lineno", 0)
            where = f" ({self.project.relative(work.source.filename)}:{line})"
        shown = work.name.rpartition(".")[2] or work.name
        call = "()" if work.kind == "function" else ""
        return InvalidInputError(
            f"{shown}{call}{where} uses {what} ({kind}{inside}): pass it as a parameter or an input",
            code=ErrorCode.BAD_CODE,
            hint='or declare what the code is with version="1" and raise it when the code changes',
        )

    def _no_source(self, root: Callable[..., object]) -> InvalidInputError:
        name = getattr(root, "__qualname__", repr(root))
        code = getattr(root, "__code__", None)
        filename = code.co_filename if code is not None else self._class_home(typing.cast("type", root))[1]
        if filename and self.sources.get(filename) is not None:
            return InvalidInputError(
                f"{name}: {self.project.relative(filename)} changed since it was imported: import it again",
                code=ErrorCode.BAD_CODE,
            )
        return InvalidInputError(
            f"{name} has no source code that could be read (made by exec, or in an interactive session)",
            code=ErrorCode.BAD_CODE,
            hint='write it into a file, or declare what it is with version="1"',
        )


_PACKAGE = __name__.partition(".")[0]


def _absolute(item: ImportedName, namespace: Mapping[str, object]) -> str:
    if not item.level:
        return item.module
    package = str(namespace.get("__package__") or str(namespace.get("__name__", "")).rpartition(".")[0])
    parts = package.split(".")
    base = ".".join(parts[: len(parts) - item.level + 1])
    return f"{base}.{item.module}" if item.module else base


def _module_name(obj: typing.Any) -> str:
    if isinstance(obj, types.FunctionType):
        return str(obj.__globals__.get("__name__", ""))
    return str(getattr(obj, "__module__", ""))


def _function_of(item: object) -> types.FunctionType | None:
    """The function behind an attribute of a class."""
    if isinstance(item, property):
        item = item.fget
    elif isinstance(item, classmethod | staticmethod):
        item = item.__func__
    elif isinstance(item, functools.cached_property):
        item = item.func
    item = inspect.unwrap(item) if callable(item) else item
    return item if isinstance(item, types.FunctionType) else None


def _unwrapped(value: object) -> object:
    """What a cache or another object from outside wraps; a user's own wrapper is a function and is followed itself."""
    if isinstance(value, staticmethod):
        return value.__func__
    wrapped = getattr(value, "__wrapped__", None) if not isinstance(value, type | types.FunctionType) else None
    return wrapped if isinstance(wrapped, types.FunctionType) else value


def _owner(decorator: ast.expr, namespace: Mapping[str, object]) -> object:
    """The object whose method a decorator is (`dag` of `@dag.pipeline(...)`)."""
    node = decorator.func if isinstance(decorator, ast.Call) else decorator
    if not isinstance(node, ast.Attribute):
        return None
    names: list[str] = []
    base: ast.expr = node.value
    while isinstance(base, ast.Attribute):
        names.append(base.attr)
        base = base.value
    if not isinstance(base, ast.Name):
        return None
    value = namespace.get(base.id)
    for name in reversed(names):
        value = getattr(value, name, None)
    return value


def _is_dmlpipe(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == _PACKAGE


def _top(value: object) -> str:
    module = getattr(value, "__module__", None) or type(value).__module__
    return str(module).partition(".")[0]


def _outside(value: typing.Any) -> bytes:
    """Name a thing from outside by its top-level package: inner modules move between versions."""
    owner = getattr(value, "__self__", None)
    top = owner.__name__ if isinstance(owner, types.ModuleType) else _top(value)
    return frame("outside", text(top), text(getattr(value, "__qualname__", getattr(value, "__name__", ""))))


def _a(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"
