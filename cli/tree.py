"""Trees in a terminal: `why` draws with these guides."""

from __future__ import annotations

from rich.tree import Tree

_GUIDES = [("   ", "│  ", "├─ ", "└─ "), ("   ", "┃  ", "┣━ ", "┗━ "), ("   ", "║  ", "╠═ ", "╚═ ")]


class Branches(Tree):
    """A rich tree with guides of three cells."""

    TREE_GUIDES = _GUIDES
