"""Recording versions of pipelines: what is new, what changed and why, what is refused.

One entry records all pipelines of a submission, so that they run once, together.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..storage import records as r
from ..storage.errors import ConflictError, ErrorCode, InvalidInputError, NotFoundError
from ..storage.objects.node import OverlayNodes
from ..storage.objects.writer import Written
from ..storage.refs import nearest
from ..storage.state import State
from ..storage.store import Store
from ..storage.trees.codetree import ValuesOnly, write_code
from ..storage.trees.prolly import Tree
from .inputs.expression import Array, Files
from .inputs.standing import cron_inputs
from .inputs.walk import leaves
from .pipelines.commands import read_folder
from .pipelines.dag import DAG
from .pipelines.parameters import with_parameters
from .pipelines.spec import Claim, PipelineSpec, encode_pipeline, identity
from .pipelines.topology import topological_order
from .report import Submitted
from .succession import recorded, succeed
from .versions import describe_change

Params = Mapping[str, Mapping[str, Any]]

SPEC_SUFFIXES = (".json", ".yaml", ".yml", ".jsonnet")


What = DAG | Sequence[DAG | PipelineSpec] | PipelineSpec | Path | str
"""A DAG, several, specs, or a file: Python with DAGs, or Pachyderm's JSON or YAML."""


@dataclasses.dataclass(frozen=True, slots=True)
class Given:
    """What a user submits, with its settings; see `build`."""

    what: What
    params: Params | None = None
    code: Path | None = None
    container: str = ""
    arguments: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Built:
    """Specs, ready to be recorded or planned.

    Attributes
    ----------
    specs
        Upstream first.
    notices
        Pipeline to sentences that somebody should read.
    dags
        Names of the DAGs they belong to: pipelines of these that are not among `specs` are orphans.
    """

    specs: tuple[PipelineSpec, ...]
    notices: Mapping[str, tuple[str, ...]]
    dags: tuple[str, ...]


class CodeWriter:
    """Names bundles at once and stores them when everything was found right: a refused submission writes nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._bundles: dict[str, Mapping[str, tuple[bytes, int]]] = {}
        self._swept = 0

    def put(self, files: Mapping[str, tuple[bytes, int]]) -> str:
        """Return the root of the code tree that holds `files`, in hex."""
        root = write_code(ValuesOnly(self._store.objects.cutting), Tree(OverlayNodes(self._store.nodes)), files).hex()
        self._bundles[root] = files
        return root

    def flush(self) -> tuple[Written, list[str]]:
        """Store what was named; return its packs and the keys to sync."""
        self._swept = self._store.nodes.condemned.begin()
        writer = self._store.objects.writer()
        for files in self._bundles.values():
            write_code(writer, self._store.tree(""), files)
        return writer.flush(), writer.take_keys()

    def check(self) -> None:
        """Make sure that no garbage collection was published since `flush`; call where records are built.

        Raises
        ------
        ConflictError
            One was (code ``collected``), and may have taken code that was found in the store.
        """
        if self._bundles and self._store.nodes.condemned.version != self._swept:
            raise ConflictError(
                "a garbage collection was published meanwhile",
                code=ErrorCode.COLLECTED,
                hint="submit again: nothing was recorded",
            )


def build(
    what: What,
    writer: CodeWriter,
    *,
    params: Params | None = None,
    code: Path | None = None,
    container: str = "",
    arguments: Mapping[str, str] | None = None,
) -> Built:
    """Turn what a user gives into specs.

    Parameters
    ----------
    what
        A DAG, several, specs, or a file: Python with DAGs, or Pachyderm's JSON, YAML or
        Jsonnet.
    params
        Pipeline to parameter to value.
    code, container, arguments
        Of specifications; see `Store.submit`.

    Raises
    ------
    InvalidInputError, UserCodeError
        What is wrong with it.
    """
    if isinstance(what, str | Path):
        path = Path(what)
        if path.suffix in SPEC_SUFFIXES:
            return _build_specs(path, writer, params, code, container, arguments or {})
        if code is not None or container or arguments:
            option = "--code" if code is not None else "--container" if container else "--arg"
            raise InvalidInputError(f"{option} belongs to specs in JSON, YAML and Jsonnet; a Python DAG says it itself")
        from .pipelines.load import load_dags

        what = load_dags(path)
    items = [what] if isinstance(what, DAG | PipelineSpec) else list(what)
    specs: list[PipelineSpec] = []
    notices: dict[str, tuple[str, ...]] = {}
    dags: list[str] = []
    rest = dict(params or {})
    for item in items:
        if isinstance(item, PipelineSpec):
            specs.append(item)
            continue
        mine = {name: values for name, values in rest.items() if name in item.pipelines} if len(items) > 1 else rest
        made = item.build(mine, put_bundle=writer.put)
        rest = {name: values for name, values in rest.items() if name not in mine}
        specs += made
        dags.append(item.name)
        if item.notices and made:
            notices[made[0].name] = tuple(item.notices)
    if rest and len(items) > 1:
        raise InvalidInputError(f"parameters for {next(iter(rest))!r}: no such pipeline", code=ErrorCode.NO_PIPELINE)
    return Built(tuple(specs), notices, tuple(dags))


def _build_specs(
    path: Path,
    writer: CodeWriter,
    params: Params | None,
    code: Path | None,
    container: str,
    arguments: Mapping[str, str],
) -> Built:
    from .specs.documents import read_text
    from .specs.reader import Code, Source, parse_specs

    def open_code(folder: Path) -> Code:
        files = read_folder(folder)
        return Code(writer.put(files), files)

    source = Source(
        path.name,
        path.resolve().parent,
        open_code(code) if code is not None else None,
        open_code,
        writer.put,
        container,
    )
    specs, notices = parse_specs(read_text(path, arguments), source)
    specs = with_parameters(specs, params or {})
    return Built(tuple(specs), {specs[0].name: tuple(notices)} if notices and specs else {}, ())


def record(
    store: Store,
    built: Built,
    writer: CodeWriter,
    *,
    prune: bool = False,
    dry_run: bool = False,
    reprocess: bool = False,
    claims: Mapping[str, Claim] | None = None,
) -> list[Submitted]:
    """Record the versions that are new or changed; return what became of each pipeline.

    Parameters
    ----------
    claims
        Pipeline to what is claimed of its new code.

    Raises
    ------
    InvalidInputError
        A cycle, a name that another DAG or a repo of data has (code ``name-clash``).
    NotFoundError
        An input repo exists neither in the store nor in the submission.
    """
    _check(store.refresh(), built)
    written, keys = (Written(), list[str]()) if dry_run else writer.flush()
    salt = secrets.token_hex(8) if reprocess else ""
    outcome: list[Submitted] = []

    def build_records(state: State) -> Sequence[r.Record]:
        outcome.clear()
        if not dry_run:
            writer.check()
        records: list[r.Record] = []
        _check(state, built)
        for given in built.specs:
            old_state = state.pipeline(given.name)
            old = recorded(store, state, given.name)
            spec = succeed(store, state, given, salt=salt, claims=claims)
            status, why = _compare(spec, old)
            version = old_state.version if old_state else 0
            if status != "same":
                version = next((number for number, _ in state.versions(spec.name)), 0) + 1
                if state.repo(spec.name) is None:
                    records.append(r.RepoCreate(repo=spec.name, description=spec.description, pipeline=spec.name))
                published = any(isinstance(record, r.PipelineSet) for record in records)
                records.append(
                    r.PipelineSet(
                        name=spec.name,
                        version=version,
                        spec="" if dry_run else store.nodes.put(encode_pipeline(spec)).hex(),
                        identity=identity(spec),
                        inputs=_branches(spec),
                        quiet=_quiet(spec),
                        crons=cron_inputs(spec.input),
                        standing=spec.standing.kind if spec.standing else "",
                        branch=spec.output_branch,
                        every_commit=spec.options.every_commit,
                        dag=spec.dag,
                        packs=() if published else written.packs,
                        index="" if published else written.index,
                    )
                )
            records += _standing(state, records, spec)
            if old is not None:
                records += ended_triggers(state, old, spec)
            outcome.append(
                Submitted(
                    name=spec.name,
                    version=version,
                    status=status,
                    why=why,
                    inputs=tuple(repo for repo, _ in _branches(spec)),
                    notices=tuple(built.notices.get(spec.name, ())),
                    spec=spec,
                )
            )
        names = {spec.name for spec in built.specs}
        for name, pipeline in state.pipelines():
            if pipeline.dag and pipeline.dag in built.dags and name not in names:
                outcome.append(Submitted(name=name, version=pipeline.version, status="pruned" if prune else "orphan"))
                if prune:
                    gone = recorded(store, state, name)
                    records.append(r.PipelineDelete(name=name))
                    records += ended_triggers(state, gone) if gone is not None else ()
        return [] if dry_run else records

    if dry_run:
        build_records(store.refresh())
    else:
        store.ledger.try_append(build_records, sync=lambda: [*store.nodes.take_written(), *keys])
    return outcome


def _branches(spec: PipelineSpec) -> tuple[tuple[str, str], ...]:
    found = {(leaf.repo, leaf.branch): None for leaf in leaves(spec.input) if isinstance(leaf, Files | Array)}
    return tuple(found)


def _quiet(spec: PipelineSpec) -> tuple[tuple[str, str], ...]:
    """Branches that every input which reads them is quiet about."""
    found: dict[tuple[str, str], bool] = {}
    for leaf in leaves(spec.input):
        if isinstance(leaf, Files | Array):
            quiet = isinstance(leaf, Files) and leaf.quiet
            found[leaf.repo, leaf.branch] = quiet and found.get((leaf.repo, leaf.branch), True)
    return tuple(branch for branch, quiet in found.items() if quiet)


def _standing(state: State, records: Sequence[r.Record], spec: PipelineSpec) -> Iterator[r.Record]:
    """What a version's inputs need: repos for ticks, rules by which branches follow others."""
    made = {record.repo for record in records if isinstance(record, r.RepoCreate)}
    for cron in cron_inputs(spec.input):
        if state.repo(cron.repo) is None and cron.repo not in made:
            made.add(cron.repo)
            yield r.RepoCreate(repo=cron.repo, description=f"ticks of {spec.name}")
    for leaf in _triggered(spec):
        known = state.trigger(leaf.repo, leaf.branch)
        if known is None or known.trigger != leaf.trigger:
            yield r.TriggerSet(repo=leaf.repo, branch=leaf.branch, trigger=leaf.trigger)


def ended_triggers(state: State, old: PipelineSpec, new: PipelineSpec | None = None) -> Iterator[r.Record]:
    """End the rules that a version set for its inputs, unless the next one has them too, or others read there."""
    kept = {(leaf.repo, leaf.branch) for leaf in _triggered(new)} if new is not None else set()
    for leaf in _triggered(old):
        known = state.trigger(leaf.repo, leaf.branch)
        others = set(state.readers(leaf.repo, leaf.branch)) - {old.name}
        if (leaf.repo, leaf.branch) not in kept and known is not None and known.trigger == leaf.trigger and not others:
            yield r.TriggerSet(repo=leaf.repo, branch=leaf.branch)


def _triggered(spec: PipelineSpec) -> list[Files]:
    return [leaf for leaf in leaves(spec.input) if isinstance(leaf, Files) and leaf.trigger is not None]


def _compare(spec: PipelineSpec, old: PipelineSpec | None) -> tuple[str, tuple[str, ...]]:
    if old is not None and _substance(spec) == _substance(old):
        return "same", ()
    return describe_change(spec, old)


def _substance(spec: PipelineSpec) -> PipelineSpec:
    """A spec without what may differ between two submissions of the same files."""
    return msgspec.structs.replace(spec, git="", source="", definitions=(), whole_modules=())


def _check(state: State, built: Built) -> None:
    given = {spec.name: spec for spec in built.specs}
    if len(given) != len(built.specs):
        names = [spec.name for spec in built.specs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInputError(f"two pipelines are named {twice!r}", code=ErrorCode.NAME_CLASH)
    existing = dict(state.pipelines())
    for spec in built.specs:
        before = existing.get(spec.name)
        if before is not None and before.dag != spec.dag and before.dag and spec.dag:
            raise InvalidInputError(
                f"pipeline {spec.name!r} belongs to DAG {before.dag!r}, not to {spec.dag!r}",
                code=ErrorCode.NAME_CLASH,
                hint=f"rename one, or delete it first: dmlpipe pipeline delete {spec.name}",
            )
        repo = state.repo(spec.name)
        if repo is not None and before is None and not repo.pipeline:
            raise InvalidInputError(
                f"pipeline {spec.name!r} would write repo {spec.name!r}, which holds data that people put",
                code=ErrorCode.NAME_CLASH,
                hint="rename the pipeline or the repo",
            )
        ticks = {cron.repo for cron in cron_inputs(spec.input)}
        for repo_name in sorted(ticks):
            holder = state.repo(repo_name)
            if repo_name in given or (holder is not None and holder.pipeline):
                raise InvalidInputError(
                    f"pipeline {spec.name!r} would keep ticks in repo {repo_name!r}, which a pipeline writes",
                    code=ErrorCode.NAME_CLASH,
                    hint="give the cron input another repo=",
                )
        _check_output(state, spec)
        for repo_name, _ in _branches(spec):
            if repo_name not in given and repo_name not in ticks and state.repo(repo_name) is None:
                known = [name for name, _ in state.repos()] + list(given)
                near = nearest(repo_name, known)
                raise NotFoundError(
                    f"pipeline {spec.name!r} reads repo {repo_name!r}, which neither exists nor is made by a pipeline",
                    code=ErrorCode.NO_REPO,
                    hint=(f"did you mean {near}? " if near else "")
                    + f"make it: dmlpipe put {repo_name} PATH, or dmlpipe repo create {repo_name}",
                )
    inputs = {name: pipeline.inputs for name, pipeline in existing.items()}
    inputs |= {name: _branches(spec) for name, spec in given.items()}
    outputs = {name: pipeline.branch for name, pipeline in existing.items()}
    outputs |= {name: spec.output_branch for name, spec in given.items()}
    topological_order(
        {name: [repo for repo, branch in read if outputs.get(repo) == branch] for name, read in inputs.items()}
    )


def _check_output(state: State, spec: PipelineSpec) -> None:
    """Refuse a branch that something else moves, and input from the repo that the pipeline itself writes."""
    if state.trigger(spec.name, spec.output_branch) is not None:
        raise InvalidInputError(
            f"pipeline {spec.name!r} would publish on {spec.name}@{spec.output_branch}, which follows another branch",
            code=ErrorCode.NAME_CLASH,
            hint="publish on another branch, or end its trigger",
        )
    own = next((branch for repo, branch in _branches(spec) if repo == spec.name), None)
    if own is not None:
        raise InvalidInputError(
            f"pipeline {spec.name!r} reads its own output: {spec.name}@{own} is a branch of the repo that it writes",
            code=ErrorCode.CYCLE,
        )


__all__ = ["SPEC_SUFFIXES", "Built", "CodeWriter", "Params", "build", "record"]
