"""The answer to `why` as a tree: what made a result, down to what people put.

::

    predictions@41c2aa:/0012.json   {"label": 7}   datum 51ab0c  0.4 ms   job 20ce31 (2026-11-23 19:02, host a)
    ├─ image   images@9c41e2:/0012.png            put by ada, "week 34"
    ├─ code    predictions  v2  dag.py:18         git 8f3c21 (clean)   scikit-learn 1.5.2
    └─ model   model@7d02b1:/model.joblib         ...
       ├─ code       model  v3  dag.py:11         C=1.0 seed=0
       └─ training   training@e41f07:/            797 files, put by ada, "first batch"
"""

from __future__ import annotations

import json
from collections.abc import Callable

from rich.text import Text
from rich.tree import Tree

from ..storage.provenance.derivation import Code, Derivation, Job, PutCommit, Use
from ..storage.refs import show_commit
from .packages import roots
from .picture import SUFFIXES, draw
from .select import is_glob
from .text import count, duration, printable, short, when

Read = Callable[[str, str, str], "bytes | None"]
"""Content of (repo, commit, path) if it is small; None otherwise."""

PREVIEW_CHARS = 60
PACKAGES_SHOWN = 4
_VALUE_CHARS = 40

_GUIDES = [("   ", "│  ", "├─ ", "└─ "), ("   ", "┃  ", "┣━ ", "┗━ "), ("   ", "║  ", "╠═ ", "╚═ ")]


class Branches(Tree):
    """A rich tree with guides of three cells."""

    TREE_GUIDES = _GUIDES


def derivation_tree(derivation: Derivation, *, read: Read, pictures: bool = False, verbose: bool = False) -> Branches:
    """Draw a derivation.

    Parameters
    ----------
    derivation
        The answer of `Store.why`.
    read
        Gets small contents: of the result for a preview, of an image that went in for a picture.
    pictures
        Draw small images under the inputs they are.
    verbose
        All packages, and the ids of code and content in full.
    """
    return _Drawing(read, pictures, verbose).root(derivation)


class _Drawing:
    def __init__(self, read: Read, pictures: bool, verbose: bool) -> None:
        self._read = read
        self._pictures = pictures
        self._verbose = verbose
        self._seen: set[tuple[str, str, str]] = set()

    def root(self, top: Derivation) -> Branches:
        label = Text(printable(top.shown), style="bold")
        parts = [self._preview(top), *_datum(top), *_jobs(top)]
        if top.put is not None:
            parts.append(_put(top.put, count_files=top.path == "/"))
        for part in filter(None, parts):
            label.append("   ").append(part, style="not bold")
        tree = Branches(self._pictured(label, top.repo, top.commit, top.path), guide_style="bright_black")
        self._grow(tree, top)
        return tree

    def _grow(self, tree: Tree, one: Derivation) -> None:
        self._seen.add((one.repo, one.commit, one.path))
        rows: list[tuple[str, str, str, Use | None]] = []
        first = [use for use in one.inputs if use.made_by is None and use.path != "/"]
        rows += [(use.name, _shown(use), _about(use), use) for use in first]
        if one.code is not None:
            rows.append(("code", _version(one.code), self._facts(one.code), None))
        rows += [(use.name, _shown(use), _about(use), use) for use in one.inputs if use not in first]
        names = max((len(name) for name, *_ in rows), default=0)
        things = max((len(shown) for _, shown, about, _ in rows if about), default=0)
        for name, shown, about, use in rows:
            # Gaps stand behind words: some viewers of the pictures drop what leads.
            label = Text(f"{name.ljust(names)}   ", style="cyan")
            label.append(f"{shown.ljust(things)}   " if about else shown, style="default")
            label.append(about, style="bright_black")
            made = use.made_by if use is not None else None
            if use is not None and made is None and use.repo:
                tree.add(self._pictured(label, use.repo, use.commit, use.path))
                continue
            known = made is not None and (made.repo, made.commit, made.path) in self._seen
            branch = tree.add(label.append("   (as above)", style="bright_black") if known else label)
            if made is not None and not known:
                self._grow(branch, made)

    def _pictured(self, label: Text, repo: str, commit: str, path: str) -> Text:
        if not self._pictures or not path.lower().endswith(SUFFIXES):
            return label
        data = self._read(repo, commit, path)
        picture = draw(data) if data is not None else None
        return label if picture is None else label.append("\n").append_text(picture)

    def _preview(self, top: Derivation) -> str:
        if top.size is None or top.path.lower().endswith(SUFFIXES):
            return ""
        data = self._read(top.repo, top.commit, top.path) if top.size <= PREVIEW_CHARS * 4 else None
        if data is None:
            return ""
        try:
            text = data.decode("utf-8").strip()
        except UnicodeDecodeError:
            return ""
        line = " ".join(text.split())
        return printable(line) if len(line) <= PREVIEW_CHARS else ""

    def _facts(self, code: Code) -> str:
        parts = [" ".join(f"{name}={_value(value)}" for name, value in code.parameters.items())]
        parts.append(f"git {code.git}" if code.git else "")
        packages = {name: f"{name} {version}" for name, version in code.env.items() if name != "declared"}
        names = sorted(packages, key=str.lower) if self._verbose else roots(packages)[:PACKAGES_SHOWN]
        shown = [packages[name] for name in names]
        more = len(packages) - len(shown)
        parts.append(", ".join(shown) + (f" and {more} more" if more and shown else ""))
        parts.append(code.claim)
        if self._verbose:
            parts.append(f"code id {code.code_id}")
        return printable("   ".join(part for part in parts if part))


def _datum(one: Derivation) -> list[str]:
    if one.datum is None or not one.datum.id:
        return []
    parts = [f"datum {short(one.datum.id)}"]
    if one.datum.seconds is not None:
        parts.append(duration(one.datum.seconds))
    if one.datum.tries is not None and one.datum.tries > 1:
        parts.append(f"{one.datum.tries} tries")
    return ["  ".join(parts)]


def _jobs(one: Derivation) -> list[str]:
    if one.computed_by is None:
        return []
    told = [_job(one.computed_by)]
    if one.job is not None and one.job.id != one.computed_by.id:
        told.append(f"reused by job {short(one.job.id)}")
    return told


def _job(job: Job) -> str:
    where = f", host {job.host}" if job.host else ""
    return f"job {short(job.id)} ({when(job.ended or job.started)}{where})"


def _shown(use: Use) -> str:
    return printable(use.shown)


def _about(use: Use) -> str:
    parts = []
    if use.put is not None:
        parts.append(_put(use.put, count_files=use.path == "/" or is_glob(use.path)))
    if use.made_by is not None:
        parts += [*_datum(use.made_by), *_jobs(use.made_by)]
    if use.valid_for:
        parts.append(f"equal to what {show_commit(use.repo, use.valid_for)} has there")
    if use.repo and not use.commit:
        parts.append("no commit")
    return "   ".join(parts)


def _put(put: PutCommit, *, count_files: bool) -> str:
    files = f"{count(put.files, 'file')}, " if count_files else ""
    message = f', "{printable(put.message)}"' if put.message else ""
    return f"{files}put by {printable(put.author)}{message}"


def _version(code: Code) -> str:
    return "  ".join(part for part in (code.pipeline, f"v{code.version}", code.source) if part)


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _VALUE_CHARS else f"{text[: _VALUE_CHARS - 3]}..."


__all__ = ["Branches", "derivation_tree"]
