"""Scopes, against Python's own symbol tables."""

from __future__ import annotations

import argparse
import ast
import asyncio.base_events
import collections
import dataclasses
import enum
import inspect
import json.decoder
import symtable
import typing
from collections.abc import Iterator
from types import ModuleType

import pytest

from dmlpipe.scheduler.identity.scope import ImportedName, imported_names, uses

MODULES = [argparse, ast, asyncio.base_events, collections, dataclasses, enum, inspect, json.decoder, typing]


def globals_of(table: symtable.SymbolTable) -> Iterator[str]:
    """Names that a block or one inside it looks up in the module."""
    for symbol in table.get_symbols():
        if symbol.is_global() and symbol.is_referenced():
            yield symbol.get_name()
    for child in table.get_children():
        yield from globals_of(child)


@pytest.mark.parametrize("module", MODULES, ids=[module.__name__ for module in MODULES])
def test_free_names_are_those_of_the_compiler(module: ModuleType) -> None:
    text = inspect.getsource(module)
    tables = {
        (table.get_name(), table.get_lineno()): table for table in symtable.symtable(text, "m", "exec").get_children()
    }
    seen = 0
    for node in ast.parse(text).body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        lines = [node.lineno, *[item.lineno for item in node.decorator_list]]
        table = next(tables[node.name, line] for line in lines if (node.name, line) in tables)
        # Decorators, defaults, annotations and bases belong to the block around.
        outside: list[ast.AST] = [*node.decorator_list]
        if isinstance(node, ast.ClassDef) and getattr(node, "type_params", None):
            pass  # the bases of `class X[T](...)` belong to a scope of its own, inside
        elif isinstance(node, ast.ClassDef):
            outside += [*node.bases, *[keyword.value for keyword in node.keywords]]
        else:
            outside += [*node.args.defaults, *[item for item in node.args.kw_defaults if item is not None]]
        found = uses(node, skip=outside)
        inner = {name for name in found.names | found.annotations if name not in _annotations_of(node)}
        # `super()` uses a cell that no source names; some versions list it.
        assert inner == set(globals_of(table)) - _annotations_of(node) - {"__class__"}, node.name
        seen += 1
    assert seen


def _annotations_of(node: ast.AST) -> set[str]:
    """Names in the definition's own annotations and type parameters, which are looked up elsewhere."""
    if isinstance(node, ast.ClassDef):
        return set()
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    notes = [item.annotation for item in every if item is not None and item.annotation is not None]
    notes += [node.returns] if node.returns is not None else []
    notes += getattr(node, "type_params", [])
    return {item.id for note in notes for item in ast.walk(note) if isinstance(item, ast.Name)}


def test_attributes_of_free_names_are_chains() -> None:
    found = uses(ast.parse("def f(x):\n    a.b.c(x.y)\n    return d, e().g").body[0])
    assert found.chains == {("a", "b", "c"), ("d",), ("e",)}


def test_names_of_annotations_are_kept_apart() -> None:
    found = uses(ast.parse("def f(x: A) -> B:\n    y: C = D\n    return y").body[0])
    assert (found.annotations, found.names) == ({"A", "B", "C"}, {"D"})


def test_imports_are_read_as_they_bind() -> None:
    tree = ast.parse("import a.b, c as d\nfrom .e import f as g, h\nfrom i import *")
    assert list(imported_names(tree)) == [
        ImportedName("a", "a.b", None, 0),
        ImportedName("d", "c", None, 0),
        ImportedName("g", "e", "f", 1),
        ImportedName("h", "e", "h", 1),
        ImportedName("*", "i", "*", 0),
    ]
