"""A specification's `input`: nodes and leaves, each with its fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from ...storage.errors import InvalidInputError
from ...storage.records import Trigger
from ..inputs.combine import MEMBERS_MAX
from ..inputs.expression import Cross, Group, Input, Join, Union
from ..inputs.leaf import files
from ..inputs.scope import scope
from ..inputs.standing import cron, trigger, with_cron_repos
from ..inputs.walk import leaves
from .fields import Fields
from .table import names

_T = TypeVar("_T")

_KINDS = names("input")
_COMBINED: dict[str, Callable[..., Input]] = {"cross": Cross, "join": Join, "group": Group, "union": Union}


def read_input(data: object, *, pipeline: str, where: str, notices: list[str]) -> Input:
    """Read the `input` of a pipeline; append to `notices` what has no meaning here.

    Raises
    ------
    InvalidInputError
        A field is unknown, missing, wrong or not supported; names clash.
    """
    reader = _InputReader(pipeline, where, notices)
    node, _ = reader.read(data, "input")
    reader.checked(f"{where}: input", lambda: leaves(node))
    return node


class _InputReader:
    def __init__(self, name: str, where: str, notices: list[str]) -> None:
        self.name = name
        self.where = where
        self.notices = notices
        self.triggers = 0

    def read(self, data: object, path: str) -> tuple[Input, bool]:
        """An input, and whether a file of it has `outer_join`."""
        where = f"{self.where}: {path}"
        fields = Fields(data, where, "input")
        kinds = [kind for kind in _KINDS if fields.value(kind) is not None]
        if len(kinds) != 1:
            raise fields.bad(f"expected one of {', '.join(_KINDS)}, got {', '.join(kinds) or 'none'}")
        kind = kinds[0]
        if kind == "pfs":
            return self._pfs(fields.value("pfs"), f"{path}.pfs")
        if kind == "cron":
            return self._cron(fields.value("cron"), f"{path}.cron"), False
        items = fields.items(kind)
        if not items:
            raise fields.bad(f"{kind} is empty")
        if len(items) > MEMBERS_MAX:
            raise fields.bad(f"{kind} has {len(items)} inputs; at most {MEMBERS_MAX} are supported")
        nodes = [self.read(item, f"{path}.{kind}[{position}]") for position, item in enumerate(items)]
        inputs = tuple(node for node, _ in nodes)
        outer = tuple(at for at, (_, kept) in enumerate(nodes) if kept)
        made: Input = Join(inputs=inputs, outer=outer)
        if kind != "join":
            made = _COMBINED[kind](inputs=inputs)
        self.checked(where, lambda: scope(made))
        return made, bool(outer)

    def _pfs(self, data: object, path: str) -> tuple[Input, bool]:
        where = f"{self.where}: {path}"
        fields = Fields(data, where, "pfs")
        repo, glob = fields.required_text("repo"), fields.required_text("glob")
        if "commit" in fields.given():
            raise fields.bad("'commit' cannot be set: an input follows a branch", hint="name a branch with 'branch'")
        if fields.text("project") not in ("", "default"):
            raise fields.unsupported("project", "a store is one project; leave it out")
        if fields.text("repo_type") not in ("", "user"):
            raise fields.unsupported("repo_type")
        for field in fields.without_meaning():
            self.notices.append(f"{self.name}: without meaning here: {path}.{field}")
        folders = fields.flag("glob_dirs")
        if "**" in glob and not folders:
            self.notices.append(
                f"{self.name}: {path}.glob {glob!r} yields files only, in Pachyderm folders too (then: globDirs: true)"
            )
        name = fields.text("name") or None
        rule = self._trigger(fields, where)
        branch = fields.text("branch") or (f"{self.name}-trigger-{self.triggers}" if rule else "master")
        never = Fields(fields.value("propagation_spec") or {}, f"{where}.propagation_spec", "propagation").flag("never")
        found = self.checked(
            where,
            lambda: files(
                repo,
                _as_there(glob),
                name=name,
                branch=branch,
                folders=folders,
                lazy=fields.flag("lazy"),
                empty=fields.flag("empty_files"),
                reference=fields.flag("reference"),
                propagate=not never,
                trigger=rule,
            ),
        )
        keys = {"join_on": fields.text("join_on"), "group_by": fields.text("group_by")}
        return msgspec.structs.replace(found, **keys), fields.flag("outer_join")

    def _trigger(self, pfs: Fields, where: str) -> Trigger | None:
        if pfs.value("trigger") is None:
            return None
        self.triggers += 1
        fields = Fields(pfs.value("trigger"), f"{where}.trigger", "trigger")
        return self.checked(
            fields.where,
            lambda: trigger(
                fields.text("branch") or "master",
                size=fields.text("size") or 0,
                commits=fields.integer("commits"),
                rate=fields.text("rate_limit_spec"),
                cron=fields.text("cron_spec"),
                all=fields.flag("all"),
            ),
        )

    def _cron(self, data: object, path: str) -> Input:
        where = f"{self.where}: {path}"
        fields = Fields(data, where, "cron")
        if "commit" in fields.given():
            raise fields.bad("'commit' cannot be set: an input follows a branch")
        if fields.text("project") not in ("", "default"):
            raise fields.unsupported("project", "a store is one project; leave it out")
        name = fields.required_text("name")
        found = self.checked(
            where,
            lambda: cron(
                fields.required_text("spec"),
                name=name,
                repo=fields.text("repo"),
                start=fields.text("start"),
                overwrite=fields.flag("overwrite"),
            ),
        )
        return with_cron_repos(found, self.name)

    def checked(self, where: str, make: Callable[[], _T]) -> _T:
        try:
            return make()
        except InvalidInputError as err:
            raise InvalidInputError(f"{where}: {err.message}", code=err.code, hint=err.hint) from err


def _as_there(glob: str) -> str:
    """A glob that means here what it means in Pachyderm, where ``/**/`` takes at least one folder."""
    parts = glob.rstrip("/").split("/") if glob.strip("/") else [glob]
    return "/".join("*/**" if part == "**" and at < len(parts) - 1 else part for at, part in enumerate(parts))
