"""A specification's `input`: nodes and leaves, each with its fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from ...storage.errors import InvalidInputError
from ..inputs.expression import MEMBERS_MAX, Cross, Group, Input, Join, Union, files, leaves, scope
from .fields import Fields

_T = TypeVar("_T")

_INPUT_KINDS = ("pfs", "cross", "join", "group", "union", "cron")
_COMBINED: dict[str, Callable[..., Input]] = {"cross": Cross, "join": Join, "group": Group, "union": Union}
_PFS_USED = (
    *("project", "name", "repo", "repo_type", "branch", "glob", "lazy", "commit"),
    *("join_on", "outer_join", "group_by", "glob_dirs"),
)
_PFS_NOT_YET = {
    "empty_files": "",
    "s3": "",
    "trigger": "",
    "propagation_spec": "",
    "reference": "",
}


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

    def read(self, data: object, path: str) -> tuple[Input, bool]:
        """An input, and whether a file of it has `outer_join`."""
        where = f"{self.where}: {path}"
        fields = Fields(data, where, _INPUT_KINDS)
        kinds = [kind for kind in _INPUT_KINDS if fields.value(kind) is not None]
        if len(kinds) != 1:
            raise fields.bad(f"expected one of {', '.join(_INPUT_KINDS)}, got {', '.join(kinds) or 'none'}")
        kind = kinds[0]
        if kind == "pfs":
            return self._pfs(fields.value("pfs"), f"{path}.pfs")
        if kind not in _COMBINED:
            raise fields.unsupported(kind, f"there are pfs, {', '.join(_COMBINED)}")
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
        fields = Fields(data, where, (*_PFS_USED, *_PFS_NOT_YET))
        for field, instead in _PFS_NOT_YET.items():
            if field in fields.given():
                raise fields.unsupported(field, instead)
        repo, glob = fields.required_text("repo"), fields.required_text("glob")
        if "commit" in fields.given():
            raise fields.bad("'commit' cannot be set: an input follows a branch", hint="name a branch with 'branch'")
        if fields.text("project") not in ("", "default"):
            raise fields.unsupported("project", "a store is one project; leave it out")
        if fields.text("repo_type") not in ("", "user"):
            raise fields.unsupported("repo_type")
        if "lazy" in fields.given():
            self.notices.append(f"{self.name}: without meaning here: {path}.lazy")
        folders = fields.flag("glob_dirs")
        if "**" in glob and not folders:
            self.notices.append(
                f"{self.name}: {path}.glob {glob!r} yields files only, in Pachyderm folders too (then: globDirs: true)"
            )
        name = fields.text("name") or None
        branch = fields.text("branch") or "master"
        found = self.checked(where, lambda: files(repo, _as_there(glob), name=name, branch=branch, folders=folders))
        keys = {"join_on": fields.text("join_on"), "group_by": fields.text("group_by")}
        return msgspec.structs.replace(found, **keys), fields.flag("outer_join")

    def checked(self, where: str, make: Callable[[], _T]) -> _T:
        try:
            return make()
        except InvalidInputError as err:
            raise InvalidInputError(f"{where}: {err.message}", code=err.code, hint=err.hint) from err


def _as_there(glob: str) -> str:
    """A glob that means here what it means in Pachyderm, where ``/**/`` takes at least one folder."""
    parts = glob.rstrip("/").split("/") if glob.strip("/") else [glob]
    return "/".join("*/**" if part == "**" and at < len(parts) - 1 else part for at, part in enumerate(parts))
