"""The answer to `why`: what made a file, as plain frozen values.

A derivation is a tree: a file of a pipeline's output leads to its datum and job, the code, and one `Use` for each
input; an input that a job made leads to its own derivation, one that people put leads to their commit.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..refs import show_commit


@dataclass(frozen=True, slots=True)
class PutCommit:
    """A commit that people made."""

    repo: str
    commit: str
    author: str
    message: str
    time: str
    files: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with stable keys."""
        return {
            "repo": self.repo,
            "commit": self.commit,
            "author": self.author,
            "message": self.message,
            "time": self.time,
            "files": self.files,
        }


@dataclass(frozen=True, slots=True)
class Code:
    """The version of a pipeline that ran."""

    pipeline: str
    version: int
    code_id: str
    source: str = ""
    """`dag.py:18`; empty where there is no file."""
    git: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    """Declared environment and the versions actually used."""
    claim: str = ""
    """What lets a result of other code stand here: `v2 is said to make what v1 made: 20 datums compared`."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with stable keys."""
        return {
            "pipeline": self.pipeline,
            "version": self.version,
            "code_id": self.code_id,
            "source": self.source,
            "git": self.git,
            "parameters": self.parameters,
            "env": self.env,
            "claim": self.claim,
        }


@dataclass(frozen=True, slots=True)
class Datum:
    """The datum that made a file."""

    key: tuple[str, ...]
    """Path, region or value of each varying input, in the datum key's order."""
    id: str = ""
    """Fingerprint, hex; empty where its row is not at hand."""
    seconds: float | None = None
    tries: int | None = None
    log: str = ""
    """Blob with what it printed, hex; empty if it printed nothing."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with stable keys."""
        return {"id": self.id, "key": list(self.key), "seconds": self.seconds, "tries": self.tries, "log": self.log}


@dataclass(frozen=True, slots=True)
class Job:
    """A job, as an answer names it."""

    id: str
    run: str
    state: str
    started: str
    ended: str
    host: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with stable keys."""
        return {
            "id": self.id,
            "run": self.run,
            "state": self.state,
            "started": self.started,
            "ended": self.ended,
            "host": self.host,
        }


@dataclass(frozen=True, slots=True)
class Use:
    """One input of a derivation."""

    name: str
    repo: str = ""
    """Empty: a value."""
    commit: str = ""
    """The commit that the datum was computed from, hex."""
    path: str = ""
    """What of it was used, with leading slash."""
    role: str = "data"
    """`data`, `model` or `intermediate`."""
    value: str = ""
    """Of a `values` input: its canonical JSON."""
    valid_for: str = ""
    """Another commit with equal content that the asked commit names instead; empty: the same."""
    put: PutCommit | None = None
    """Who put it, if people did."""
    made_by: Derivation | None = None
    """What made it, if a job did."""
    dropped: str = ""
    """Why the commit is no longer there, if it is not."""

    @property
    def shown(self) -> str:
        """`images@9c41e2:/0012.png`, or the value."""
        gone = f" ({self.dropped})" if self.dropped else ""
        return show_commit(self.repo, self.commit, self.path) + gone if self.repo else self.value

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with stable keys."""
        return {
            "name": self.name,
            "repo": self.repo,
            "commit": self.commit,
            "path": self.path,
            "role": self.role,
            "value": self.value,
            "valid_for": self.valid_for,
            "put": self.put.to_dict() if self.put else None,
            "made_by": self.made_by.to_dict() if self.made_by else None,
            "dropped": self.dropped,
        }


@dataclass(frozen=True, slots=True)
class Derivation:
    """What made a file or commit."""

    repo: str
    commit: str
    path: str
    """With leading slash; ``/`` is the whole commit."""
    size: int | None
    """Bytes of content; None for a folder."""
    content: str
    """Content id, hex: of the value or the tree."""
    put: PutCommit | None = None
    """Who put it, if people did; then the rest is empty."""
    job: Job | None = None
    """The job that made the commit: what the content is valid for."""
    computed_by: Job | None = None
    """The job that computed the content: the same one, or an earlier one with an equal fingerprint."""
    datum: Datum | None = None
    """None: not made by a datum (array metadata, a whole commit)."""
    code: Code | None = None
    inputs: tuple[Use, ...] = ()

    @property
    def shown(self) -> str:
        """`predictions@41c2aa:/0012.json`."""
        return show_commit(self.repo, self.commit, self.path)

    def use(self, name: str) -> Use:
        """Return the input of that name.

        Raises
        ------
        KeyError
            There is none.
        """
        for use in self.inputs:
            if use.name == name:
                return use
        raise KeyError(name)

    def walk(self) -> Iterator[Derivation]:
        """Yield this derivation and all above it, each once."""
        seen: set[tuple[str, str, str]] = set()
        open_: list[Derivation] = [self]
        while open_:
            one = open_.pop(0)
            if (one.repo, one.commit, one.path) in seen:
                continue
            seen.add((one.repo, one.commit, one.path))
            yield one
            open_.extend(use.made_by for use in one.inputs if use.made_by is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with stable keys."""
        return {
            "repo": self.repo,
            "commit": self.commit,
            "path": self.path,
            "size": self.size,
            "content": self.content,
            "put": self.put.to_dict() if self.put else None,
            "job": self.job.to_dict() if self.job else None,
            "computed_by": self.computed_by.to_dict() if self.computed_by else None,
            "datum": self.datum.to_dict() if self.datum else None,
            "code": self.code.to_dict() if self.code else None,
            "inputs": [use.to_dict() for use in self.inputs],
        }

    def _repr_html_(self) -> str:
        return f"<ul><li>{_html(self)}</li></ul>"


def _html(one: Derivation) -> str:
    parts = [f"<code>{html.escape(one.shown)}</code>"]
    if one.put is not None:
        parts.append(_html_put(one.put))
    if one.computed_by is not None:
        parts.append(f"job <code>{html.escape(one.computed_by.id)}</code>")
    rows = []
    if one.code is not None:
        given = " ".join(f"{name}={value}" for name, value in one.code.parameters.items())
        text = f"{one.code.pipeline} v{one.code.version} {one.code.source} {given}".rstrip()
        rows.append(f"<li>code {html.escape(text)}</li>")
    for use in one.inputs:
        if use.made_by is not None:
            rows.append(f"<li>{html.escape(use.name)}: {_html(use.made_by)}</li>")
        else:
            put = f" {_html_put(use.put)}" if use.put else ""
            rows.append(f"<li>{html.escape(use.name)}: <code>{html.escape(use.shown)}</code>{put}</li>")
    return " ".join(parts) + (f"<ul>{''.join(rows)}</ul>" if rows else "")


def _html_put(put: PutCommit) -> str:
    return html.escape(f'put by {put.author}, "{put.message}"' if put.message else f"put by {put.author}")
