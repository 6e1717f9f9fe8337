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
import sys
import types
import typing
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ...storage.errors import ErrorCode, InvalidInputError
from .defaults import live_defaults, pipeline_defaults
from .definitions import MISSING, Definitions, module_name
from .encode import UnencodableError, encode_node, encode_value, frame, text
from .imports import import_own, imported_module, outside_module, unshipped
from .outside import is_opaque, outside, own_decorators, top_package, unwrapped
from .scope import DYNAMIC, ImportedName, Uses, imported_names, uses
from .source import Project, Source, plain_qualname


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
        self.definitions = Definitions(project)
        self.root_module = module_name(root)
        self.entries: dict[str, Entry] = {}
        self.keys: dict[int, str] = {}
        self.alive: list[object] = []  # ids in `keys` must not be reused
        self.taken: dict[str, int] = {}
        self.work: deque[_Work] = deque()
        self.whole: dict[str, str] = {}
        self.notices: dict[str, None] = {}

    def run(self) -> Reached:
        if self._define(self.root, key="") is None:
            raise self.definitions.no_source(self.root)
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
        found = self.definitions.locate(obj)
        if found is None:
            return None
        name = f"{self._module_label(module_name(obj))}{plain_qualname(obj.__qualname__)}"
        if key is None:
            key = self._new_key(obj, name)
        self.keys[id(obj)] = key
        self.alive.append(obj)
        kind = "class" if isinstance(obj, type) else "function"
        self.work.append(_Work(key, name, kind, obj, found.source, found.node, found.namespace, found.cells))
        return key

    def _new_key(self, obj: typing.Any, name: str) -> str:
        module = module_name(obj)
        key = ":" + plain_qualname(obj.__qualname__) if module == self.root_module else name
        count = self.taken[key] = self.taken.get(key, 0) + 1
        return key if count == 1 else f"{key}#{count}"

    def _module_label(self, module: str) -> str:
        return "" if module == "__main__" else f"{module}."

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
        own = own_decorators(node, work.namespace)
        defaults: list[bytes] = []
        skip: list[ast.AST] = list(own)
        unseen: list[ast.AST] = list(own)
        if work.obj is self.root:
            dropped = list(pipeline_defaults(node, self.skip_defaults))
            skip += dropped
            unseen += dropped
        if isinstance(work.obj, types.FunctionType):
            # The defaults as they are; their expressions were evaluated elsewhere.
            assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            unseen += [item for item in (*node.args.defaults, *node.args.kw_defaults) if item is not None]
            defaults = [
                frame(name, self._value(value, work, f"the default of {name!r}", None))
                for name, value in sorted(live_defaults(work.obj, node, skip).items())
            ]
        found = uses(node, skip=unseen)
        bases = [base for base in getattr(work.obj, "__bases__", ()) if self.definitions.owns_class(base)]
        body = frame(
            "definition",
            encode_node(node, skip=skip, anonymous=work.obj is self.root),
            frame("defaults", *defaults),
            frame("bases", *[self._reference(base) or b"" for base in bases]),
            *self._resolve(work, found),
        )
        line = getattr(node, "lineno", 0)
        self._enter(work.key, work.name, source.filename, line, body)

    def _encode_module(self, work: _Work) -> None:
        module: types.ModuleType = work.obj
        source = work.source
        if source is None:
            self._enter(work.key, work.name, getattr(module, "__file__", "") or "", 0, frame("empty"))
            return
        skip = [decorator for _, node in source.definitions() for decorator in own_decorators(node, vars(module))]
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
            if value is MISSING:
                if not only_annotation:
                    self._whole_of(work, f"{name!r} cannot be resolved")
                continue
            if name in DYNAMIC and value is getattr(builtins, name, None):
                self._whole_of(work, f"{name}()")
            if value is getattr(builtins, name, MISSING) and name not in work.namespace and name not in work.cells:
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
        return work.namespace.get(name, getattr(builtins, name, MISSING))

    def _bind(self, work: _Work, name: str, value: object) -> bytes:
        binding = work.source.binding(name) if work.source is not None and name not in work.cells else None
        if isinstance(binding, ImportedName):
            home = outside_module(binding, work.namespace, self.project)
            if home is not None:
                notice = unshipped(home, self.project)
                if notice is not None:
                    self.notices[notice] = None
                return frame("outside", text(home), text(binding.name or ""))
        what = f"variable {name!r} of the function around it" if name in work.cells else f"global {name!r}"
        return self._value(value, work, what, name)

    def _value(self, value: object, work: _Work, what: str, name: str | None) -> bytes:
        """A reference, or plain data as an entry of its own where it has a name."""
        if isinstance(unwrapped(value), type | types.FunctionType | types.ModuleType | types.BuiltinFunctionType):
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
        module = sys.modules.get(module_name(obj))
        source = None if module is None else self.definitions.source_of(module)
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
        value = unwrapped(value)
        match value:
            case types.ModuleType():
                if self.project.owns_module(value):
                    return self._whole_module(value, "used as a value")
                return frame("outside", text(value.__name__))
            case types.FunctionType():
                if self.definitions.owns_function(value):
                    return self._follow(value)
                return outside(value)
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
            if self.definitions.owns_class(value):
                return self._follow(value)
            return outside(value)
        if is_opaque(value):
            return frame("outside", text(type(value).__qualname__))
        if isinstance(value, enum.Enum) and self.definitions.owns_class(type(value)):
            return frame("member", self._reference(type(value)) or b"", text(value.name))
        if self.definitions.owns_class(type(value)):
            return self._instance(value)
        named = isinstance(getattr(value, "__name__", None), str)
        if callable(value) and named and top_package(value) not in ("", "__main__"):
            return outside(value)  # a builtin, a method descriptor, a ufunc
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
            source = self.definitions.source_of(module)
            label = f"{self._module_label(name)}*"
            self.work.append(_Work(key, label, "module", module, source, None, vars(module)))
        return frame("ref", text(key))

    def _whole_of(self, work: _Work, why: str) -> None:
        """Let the module count as a whole that a definition stands in."""
        name = str(work.namespace.get("__name__", ""))
        module = sys.modules.get(name)
        if module is None or vars(module) is not work.namespace:
            module = types.ModuleType(name)
            module.__dict__.update(work.namespace)
        shown = work.name.rpartition(".")[2] or work.name
        self._whole_module(module, f"{why} in {shown}")

    def _stars(self, source: Source, namespace: Mapping[str, object]) -> None:
        for item in source.star_imports():
            module = imported_module(item, namespace, self.project)
            if module is not None:
                self._whole_module(module, "import *")

    def _imports(self, work: _Work, imports: Iterator[ImportedName] | list[ImportedName]) -> list[bytes]:
        """Follow imports of the user's modules that stand inside a definition."""
        out: list[bytes] = []
        for item in sorted(imports, key=lambda item: (item.level, item.module, item.name or "", item.bound)):
            if item.module == "importlib" and work.kind != "module":
                self._whole_of(work, "importlib")
            module = imported_module(item, work.namespace, self.project)
            if module is None or item.name == "*":
                continue
            if item.name is None:
                out.append(frame(item.bound, self._whole_module(module, "imported inside a definition")))
                continue
            value = getattr(module, item.name, MISSING)
            if value is MISSING:
                submodule = import_own(f"{module.__name__}.{item.name}", self.project)
                if submodule is None:
                    self._whole_module(module, f"{item.name!r} cannot be resolved")
                    continue
                value = submodule
            inner = _Work(work.key, work.name, "import", None, self.definitions.source_of(module), None, vars(module))
            out.append(frame(item.bound, self._bind(inner, item.name, value)))
        return out

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


def _a(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"
