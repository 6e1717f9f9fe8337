"""Names of things in a store: ``repo@ref^2:/path``, parsed and resolved.

A ref is a branch, a tag or a commit id (4 or more of its first digits), in this order. ``^`` and ``~`` go up to the
first parent, ``^3`` and ``~3`` three times. ``@master`` may be left out. ``dml://repo@ref/path`` says the same.

Pure: resolving reads a folded state and, for ``^``, commit bodies through the callable that it is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from .errors import ErrorCode, InvalidInputError, NotFoundError
from .paths import normalize_folder

if TYPE_CHECKING:
    from .state import State

DEFAULT_BRANCH = "master"
NAME_MAX_CHARS = 128
COMMIT_SHOWN_DIGITS = 6
COMMIT_PREFIX_MIN = 4
_AMBIGUOUS_SHOWN = 5

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_REF = re.compile(r"(?P<repo>[^@^~:]*)(?:@(?P<ref>[^@^~:]*))?(?P<up>(?:[\^~][0-9]{0,6})*)")
_STEP = re.compile(r"[\^~]([0-9]*)")
_HEX = re.compile(r"[0-9a-f]+")
_URL = "dml://"


class Ref(msgspec.Struct, frozen=True):
    """A parsed name; nothing is known of whether it exists."""

    repo: str
    ref: str = DEFAULT_BRANCH
    """Branch, tag or commit id prefix."""
    up: int = 0
    """How many first parents up."""
    path: str | None = None
    """Without leading slash, ``""`` for the root; None if no path was given."""

    def __str__(self) -> str:
        tail = "" if self.path is None else f":/{self.path}"
        return self.commitish + tail

    @property
    def commitish(self) -> str:
        """The name without its path."""
        ups = "" if not self.up else "^" if self.up == 1 else f"^{self.up}"
        return f"{self.repo}@{self.ref}{ups}"

    def at(self, path: str) -> Ref:
        """Return the same commit with another path."""
        return msgspec.structs.replace(self, path=path)


class CommitRef(msgspec.Struct, frozen=True):
    """A name that was resolved."""

    repo: str
    commit: str
    """64 hex digits."""
    path: str | None = None
    """As in `Ref`."""

    def __str__(self) -> str:
        return show_commit(self.repo, self.commit, self.path)


def check_name(name: str, what: str = "repo") -> str:
    """Return `name` if it may name a repo, branch, tag or pipeline.

    Raises
    ------
    InvalidInputError
        It does not match ``[A-Za-z0-9][A-Za-z0-9._-]*`` or is longer than 128 characters.
    """
    if not _NAME.fullmatch(name) or len(name) > NAME_MAX_CHARS:
        raise InvalidInputError(
            f"{name!r} cannot be the name of a {what}",
            code=ErrorCode.BAD_NAME,
            hint="names have letters, digits, '.', '_' and '-', begin with a letter or digit, "
            f"and have at most {NAME_MAX_CHARS} characters",
        )
    return name


def parse_ref(text: str) -> Ref:
    """Parse ``repo``, ``repo@ref``, ``repo@ref^2:/path`` or ``dml://repo@ref/path``.

    Raises
    ------
    InvalidInputError
        `text` is none of these (code ``bad-ref``), or a name in it is not allowed (``bad-name``, ``bad-path``).

    Examples
    --------
    >>> parse_ref("images:/a.png")
    Ref(repo='images', ref='master', up=0, path='a.png')
    >>> str(parse_ref("dml://model@master~2/m.joblib"))
    'model@master^2:/m.joblib'
    """
    path: str | None
    if text.startswith(_URL):
        left, slash, rest = text[len(_URL) :].partition("/")
        path = rest if slash else None
    else:
        left, colon, rest = text.partition(":")
        path = rest if colon else None
    match = _REF.fullmatch(left)
    if match is None or not match["repo"] or match["ref"] == "":
        raise InvalidInputError(
            f"{text!r} names nothing in a store", code=ErrorCode.BAD_REF, hint="names look like repo@branch:/path"
        )
    repo = check_name(match["repo"])
    ref = match["ref"] or DEFAULT_BRANCH
    check_name(ref, "branch")
    up = sum(int(step or "1") for step in _STEP.findall(match["up"]))
    if path is not None:
        path = normalize_folder(path).decode()
    return Ref(repo, ref, up, path)


def as_ref(name: str | Ref) -> Ref:
    """Return a `Ref`, parsing text."""
    return parse_ref(name) if isinstance(name, str) else name


def show_commit(repo: str, commit: str, path: str | None = None) -> str:
    """Return a commit as messages show it: ``repo@7d02b1`` or ``repo@7d02b1:/path``."""
    tail = "" if path is None else f":/{path.lstrip('/')}"
    return f"{repo}@{commit[:COMMIT_SHOWN_DIGITS]}{tail}"


def nearest(name: str, among: Iterable[str]) -> str | None:
    """Return the one of `among` that `name` was probably meant to be, or None."""
    import difflib

    found = difflib.get_close_matches(name, list(among), n=1, cutoff=0.7)
    return found[0] if found else None


def resolve(ref: Ref, state: State, parents: Callable[[str], tuple[str, ...]]) -> str:
    """Return the commit id that `ref` means now.

    Parameters
    ----------
    ref
        What to look for; its path is not looked at.
    state
        Folded ledger.
    parents
        Parents of a commit id, from its body.

    Returns
    -------
    str
        64 hex digits.

    Raises
    ------
    NotFoundError
        No such repo, branch, tag or commit, or fewer ancestors than asked; the hint names the nearest and the list.
    InvalidInputError
        A commit id prefix that several commits have.
    """
    commit = _start(ref, state)
    for step in range(ref.up):
        above = state.live_parents(ref.repo, parents(commit))
        if not above:
            has = f"only {step} ancestor{'s' if step > 1 else ''}" if step else "no parent"
            raise NotFoundError(
                f"{ref.commitish}: {ref.repo}@{ref.ref} has {has}",
                code=ErrorCode.NO_COMMIT,
                hint=f"list: dmlpipe log {ref.repo}@{ref.ref}",
            )
        commit = above[0]
    return commit


def need_repo(state: State, name: str, shown: str | None = None) -> None:
    """Raise `NotFoundError`, with the nearest name, unless the repo exists."""
    if state.repo(name) is not None:
        return
    near = nearest(name, (repo for repo, _ in state.repos()))
    prefix = f"{shown}: " if shown and shown != name else ""
    raise NotFoundError(
        f"{prefix}no repo {name!r}",
        code=ErrorCode.NO_REPO,
        hint=(f"did you mean {near}? " if near else "") + "list: dmlpipe repo list",
    )


def _start(ref: Ref, state: State) -> str:
    head = state.head(ref.repo, ref.ref)
    if head is not None and state.repo(ref.repo) is not None:
        return head
    need_repo(state, ref.repo, ref.commitish)
    tag = state.tag(ref.repo, ref.ref)
    if tag is not None:
        return tag
    looks_like_id = len(ref.ref) >= COMMIT_PREFIX_MIN and _HEX.fullmatch(ref.ref) is not None
    if looks_like_id:
        found = state.commits_by_prefix(ref.repo, ref.ref)
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(commit[: len(ref.ref) + 4] for commit in found[:_AMBIGUOUS_SHOWN])
            more = ", ..." if len(found) > _AMBIGUOUS_SHOWN else ""
            raise InvalidInputError(
                f"{ref.commitish}: {len(found)} commits begin with {ref.ref!r}: {shown}{more}",
                code=ErrorCode.BAD_REF,
                hint="give more digits",
            )
    raise _no_ref(ref, state, looks_like_id)


def _no_ref(ref: Ref, state: State, looks_like_id: bool) -> NotFoundError:
    branches = state.branches(ref.repo)
    if not branches and ref.ref == DEFAULT_BRANCH:
        pipeline = state.pipeline(ref.repo)
        hint = f"put files into it: dmlpipe put {ref.repo} FILE..."
        if pipeline is not None:
            hint = f"its pipeline makes them: dmlpipe {'job list' if pipeline.last_job else 'run'} {ref.repo}"
        return NotFoundError(
            f"{ref.commitish}: repo {ref.repo!r} has no commit yet", code=ErrorCode.NO_COMMIT, hint=hint
        )
    near = nearest(ref.ref, [*branches, *state.tags(ref.repo)])
    hint = (f"did you mean {ref.repo}@{near}? " if near else "") + f"list: dmlpipe branch list {ref.repo}"
    if looks_like_id and not near:
        return NotFoundError(
            f"{ref.commitish}: no branch, tag or commit {ref.ref!r} in repo {ref.repo!r}",
            code=ErrorCode.NO_COMMIT,
            hint=f"list: dmlpipe log {ref.repo}",
        )
    return NotFoundError(
        f"{ref.commitish}: no branch {ref.ref!r} in repo {ref.repo!r}", code=ErrorCode.NO_BRANCH, hint=hint
    )
