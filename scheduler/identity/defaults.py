"""Defaults of a function's parameters: which count as they are, and which are the pipeline's.

Needs the standard library only.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Collection, Iterator

__all__ = ["live_defaults", "pipeline_defaults"]


def live_defaults(
    function: types.FunctionType, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, skip: Collection[ast.AST]
) -> dict[str, object]:
    """Return the defaults that a function has now, by parameter, but for those whose expressions are in `skip`."""
    skipped = {id(item) for item in skip}
    arguments = [*node.args.posonlyargs, *node.args.args]
    positional = zip(reversed(arguments), reversed(node.args.defaults), strict=False)
    values = dict(zip(reversed(arguments), reversed(function.__defaults__ or ()), strict=False))
    named: dict[str, object] = {
        argument.arg: values[argument] for argument, item in positional if id(item) not in skipped
    }
    for argument, item in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        if item is not None and id(item) not in skipped and argument.arg in (function.__kwdefaults__ or {}):
            named[argument.arg] = (function.__kwdefaults__ or {})[argument.arg]
    return named


def pipeline_defaults(node: ast.AST, given: Collection[tuple[str, str]]) -> Iterator[ast.AST]:
    """Yield the defaults of a transform that do not count, since their values are parameters of the pipeline.

    Parameters
    ----------
    given
        (function name, parameter) of each.
    """
    functions = [node] if not isinstance(node, ast.ClassDef) else node.body
    for function in functions:
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            name = getattr(function, "name", "<lambda>")
            for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
                if default is not None and (name, argument.arg) in given:
                    yield default
