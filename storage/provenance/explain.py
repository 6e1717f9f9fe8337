"""What made this (`why`), and what came of this (`impact`).

Every output path leads to its datum and to the job that computed it (the context's tree P), the datum to the items of
its inputs, the job to the commits of its inputs, and these to whatever made them. Nothing is read but that chain.

A content that was reused has two truths: the job that computed it, and the inputs that the asked commit names, which
hold equal content but may be other commits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..archive import Archive
from ..commits import CommitView
from ..digest import digest, from_hex
from ..errors import CorruptError, NotFoundError
from ..objects.bodies import read_job
from ..objects.pack import read_footer
from ..objects.segment import Row, decode_rows
from ..objects.value import Whole, decode_value
from ..paths import normalize_folder, show_path
from ..records import InputBinding, JobRecord, JobState
from ..state import State
from ..trees.prolly import Tree
from .datum_key import KeyPart, labelled_leaves, read_key
from .derivation import Code, Datum, Derivation, Job, PutCommit, Use

_HISTORY_SEARCHED = 512
CONTENT_PREFIX_MIN = 8


def why(archive: Archive, state: State, commit: CommitView, path: str = "/") -> Derivation:
    """Say what made a file, a folder or (path ``/``) a whole commit.

    Parameters
    ----------
    archive, state
        Of the store.
    commit
        Where the file is.
    path
        Which.

    Returns
    -------
    Derivation
        With the derivations of everything that went into it.

    Raises
    ------
    NotFoundError
        The commit has no such file.

    Notes
    -----
    Per step: the job record, two or three tree nodes, and one segment footer for the datum's seconds.
    """
    commit.info(path)
    return _Why(archive, state).file(commit, normalize_folder(path))


def find_content(archive: Archive, state: State, prefix: str) -> Iterator[tuple[CommitView, str]]:
    """Yield where, in the heads of all branches, there is content whose hash begins with `prefix` (8 digits or more).

    Notes
    -----
    Reads every head's whole tree.
    """
    for repo, _ in state.repos():
        for head in sorted(set(state.branches(repo).values())):
            view = CommitView(archive, repo, head)
            for path, raw in view.tree.scan():
                value = decode_value(raw)
                if isinstance(value, Whole) and value.hash.hex().startswith(prefix):
                    yield view, show_path(path)


def impact(archive: Archive, state: State, commit: CommitView) -> Iterator[tuple[CommitView, JobState]]:
    """Yield the commits that jobs made from `commit`, directly or through others, oldest first within a step."""
    seen = {(commit.repo, commit.id)}
    open_ = [commit]
    jobs = [job for _, job in state.jobs()][::-1]
    while open_:
        source = open_.pop(0)
        for job in jobs:
            if not job.commit or (job.pipeline, job.commit) in seen:
                continue
            if any((bound.repo, bound.commit) == (source.repo, source.id) for bound in job.inputs):
                seen.add((job.pipeline, job.commit))
                made = CommitView(archive, job.pipeline, job.commit)
                open_.append(made)
                if state.commit(job.pipeline, job.commit) is not None:
                    yield made, job


@dataclass(slots=True)
class _Why:
    archive: Archive
    state: State
    _known: dict[tuple[str, str, bytes], Derivation] = field(default_factory=dict)
    _rows: dict[str, list[Row]] = field(default_factory=dict)

    def file(self, commit: CommitView, path: bytes) -> Derivation:
        key = (commit.repo, commit.id, path)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._file(commit, path)
        return found

    def _file(self, commit: CommitView, path: bytes) -> Derivation:
        raw = commit.tree.get(path) if path else None
        content = digest(raw).hex() if raw is not None else commit.body.tree
        size = decode_value(raw).size if raw is not None else None
        about = (commit.repo, commit.id, show_path(path), size, content)
        job = self.state.job(commit.job) if commit.job else None
        if job is None or not job.end.record:
            return Derivation(*about, put=self._put(commit, path if raw is not None else b""))
        record = self._record(job)
        origin, origin_job, key = record, job, None
        made = self.archive.tree(record.p).get(path) if raw is not None else None
        if made is not None:
            key, origin_id = _decode_origin(made, path)
            found = self.state.job(origin_id)
            if found is not None and found.end.record:
                origin, origin_job = self._record(found), found
        spec = self._spec(origin)
        return Derivation(
            *about,
            job=_job(job, record),
            computed_by=_job(origin_job, origin),
            datum=self._datum(origin, origin_job, key),
            code=_code(origin, spec, claim=_claim(record, self._spec(record))),
            inputs=tuple(self._uses(origin, record, key, spec)),
        )

    # --- the parts of one derivation ---------------------------------------------------------------------------------

    def _put(self, commit: CommitView, path: bytes) -> PutCommit:
        """The commit in which people gave the file its content: the oldest of an unbroken line that has it."""
        value = commit.tree.get(path) if path else None
        if value is not None:
            for _ in range(_HISTORY_SEARCHED):
                above = [
                    CommitView(self.archive, commit.repo, parent)
                    for parent in self.state.live_parents(commit.repo, commit.parents[:1])[:1]
                    if self.state.commit(commit.repo, parent) is not None
                ]
                if not above or above[0].tree.get(path) != value:
                    break
                commit = above[0]
        body = commit.body
        return PutCommit(commit.repo, commit.id, body.author, body.message, body.time, body.files)

    def _dropped(self, repo: str, commit: str) -> str:
        found = self.state.dropped(repo, commit)
        return f"dropped at entry {found.n}: {found.why or 'by hand'}" if found is not None else "not in this store"

    def _record(self, job: JobState) -> JobRecord:
        return read_job(self.archive.nodes, job.end.record)

    def _spec(self, record: JobRecord) -> dict[str, Any]:
        """The pipeline's spec as plain data: what stands in it belongs to a higher layer."""
        if not record.spec:
            return {}
        try:
            return msgspec.msgpack.decode(self.archive.nodes.get(from_hex(record.spec)), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise CorruptError(f"node {record.spec[:12]} is no pipeline spec: {error}") from error

    def _order(self, record: JobRecord) -> tuple[str, ...]:
        context = self.state.context(record.context)
        return context.order if context is not None else ()

    def _datum(self, record: JobRecord, job: JobState, key: bytes | None) -> Datum | None:
        if key is None:
            return None
        parts = tuple(part.decode("utf-8", "backslashreplace") for part in key.split(b"\0")) if key else ()
        row = self._row(job, key)
        if row is None:
            return Datum(parts)
        return Datum(parts, row.fingerprint.hex(), row.seconds, row.tries, row.log.hex())

    def _row(self, job: JobState, key: bytes) -> Row | None:
        """The datum's row in its segment; None if the job computed no such datum or its segments are gone."""
        try:
            raw = self.archive.tree(job.end.rows).get(key)
        except NotFoundError:
            return None  # collected: the commit that the job made was dropped
        if raw is None:
            return None
        segment, number = msgspec.msgpack.decode(raw, type=tuple[str, int])
        rows = self._rows.get(segment)
        if rows is None:
            try:
                rows = decode_rows(read_footer(self.archive.backend, segment).rows)
            except NotFoundError:
                rows = []
            self._rows[segment] = rows
        return rows[number] if number < len(rows) and rows[number].key == key else None

    def _uses(self, origin: JobRecord, valid: JobRecord, key: bytes | None, spec: dict[str, Any]) -> Iterator[Use]:
        input = spec.get("input")
        node: dict[str, Any] = input if isinstance(input, dict) else {}
        parts = read_key(node, self._order(origin), key) if key is not None and node else None
        leaves = dict(labelled_leaves(node)) if node else {}
        now = {bound.name: bound for bound in valid.inputs}
        by_label = {part.label: part for part in parts or () if part.label}
        varying = set(self._order(origin)) if parts is not None else set()
        for bound in origin.inputs:
            part = by_label.get(bound.name)
            leaf = leaves.get(bound.name, {})
            if not bound.repo or (part is None and str(leaf.get("name") or leaf.get("repo")) in varying):
                continue  # a member of a union, or a partner, that this datum lacks
            other = now.get(bound.name)
            valid_for = other.commit if other is not None and other.commit != bound.commit else ""
            yield self._use(bound, part, leaf, valid_for)
        for part in parts or ():
            if part.leaf is None:
                yield Use(part.name, value=json.dumps(part.text, ensure_ascii=False))
            elif part.leaf.get("type") == "values":
                yield Use(part.name, value=part.text)

    def _use(self, bound: InputBinding, part: KeyPart | None, leaf: Mapping[str, Any], valid_for: str) -> Use:
        if not bound.commit:
            return Use(bound.name, bound.repo, role=bound.role, path="/")
        if self.state.commit(bound.repo, bound.commit) is None:
            gone = f"/{part.text.strip('/')}" if part is not None else "/"
            why_gone = self._dropped(bound.repo, bound.commit)
            return Use(bound.name, bound.repo, bound.commit, gone, bound.role, valid_for=valid_for, dropped=why_gone)
        view = CommitView(self.archive, bound.repo, bound.commit)
        if part is not None and part.grouped:
            path, shown = b"", f"/{part.text}"
        else:
            path = _used_path(view.tree, part.text.encode() if part is not None else None, leaf)
            shown = show_path(path)
        if view.job:
            made = self.file(view, path)
            return Use(bound.name, bound.repo, bound.commit, shown, bound.role, valid_for=valid_for, made_by=made)
        put = self._put(view, path)
        return Use(bound.name, bound.repo, bound.commit, shown, bound.role, valid_for=valid_for, put=put)


def _used_path(tree: Tree, item: bytes | None, leaf: Mapping[str, Any]) -> bytes:
    """Tree path of what an input took: its item, or for a constant input its folder, or its only file."""
    if leaf.get("type") == "array":
        array = str(leaf.get("path", "")).strip("/").encode()
        return b"/".join(part for part in (array, item or b"") if part)
    if item is not None:
        return item.strip(b"/")
    folder = str(leaf.get("glob", "/")).strip("/").encode()
    if folder:
        # A pattern names no folder: then the datum is not known, and the input is the whole commit.
        there = tree.get(folder) is not None or next(tree.prefix(folder + b"/"), None) is not None
        return folder if there else b""
    first = tree.first()
    return first[0] if first is not None and len(tree) == 1 else b""


def _decode_origin(raw: bytes, path: bytes) -> tuple[bytes, str]:
    try:
        key, origin = msgspec.msgpack.decode(raw, type=tuple[bytes, bytes])
    except msgspec.DecodeError as error:
        raise CorruptError(f"the provenance of {show_path(path)} is unreadable: {error}") from error
    return key, origin.hex()


def _job(state: JobState, record: JobRecord) -> Job:
    return Job(record.id, record.run, state.state, record.started, record.ended, record.host)


def _claim(record: JobRecord, spec: dict[str, Any]) -> str:
    """Say what the version of the commit's job claims of its code, if it does."""
    claim = spec.get("claim")
    if not isinstance(claim, dict):
        return ""
    compared, why = claim.get("compared", 0), claim.get("why", "")
    how = f"{compared} datums compared" if compared else f"by {claim.get('by', '')}"
    return f"v{record.version} is said to make what v{claim.get('version')} made: {how}" + (f", {why}" if why else "")


def _code(record: JobRecord, spec: dict[str, Any], *, claim: str) -> Code:
    return Code(
        record.pipeline,
        record.version,
        record.code_id,
        str(spec.get("source", "")),
        str(spec.get("git", "")),
        record.parameters,
        record.env,
        claim,
    )
