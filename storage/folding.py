"""What each record of the ledger does to the state.

A function of the state and the entry alone. Writes go to a `Scratch`: an entry counts whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from . import records as r
from .errors import ConflictError, ErrorCode, HeldError, InvalidInputError, NotFoundError
from .schedule import parse_time
from .state_view import LAST, StateView, down, merge_edits, up
from .triggers import check_trigger, holds

IDENTITY = "identity"
"""Key in `PipelineState.considered` beside the input branches."""


class Scratch(StateView):
    """A state whose edits are thrown away or taken over as a whole."""

    def __init__(self, below: StateView) -> None:
        super().__init__(None, below.n, below.chain)
        self._below = below

    @property
    def edits(self) -> dict[bytes, bytes | None]:
        """What was written so far; None drops a key."""
        return self._edits

    def get(self, key: bytes) -> bytes | None:
        """Value of a raw key."""
        return self._edits[key] if key in self._edits else self._below.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs whose raw key begins with `prefix`, sorted."""
        return merge_edits(_Below(self._below), self._edits, prefix)

    def put(self, key: str, value: object) -> None:
        """Set a key to a msgpack value."""
        self._edits[key.encode()] = msgspec.msgpack.encode(value)

    def put_text(self, key: str, value: str) -> None:
        """Set a key to a text as it is."""
        self._edits[key.encode()] = value.encode()

    def drop(self, key: str) -> None:
        """Take a key out."""
        self._edits[key.encode()] = None


class _Below:
    def __init__(self, state: StateView) -> None:
        self._state = state

    def get(self, key: bytes) -> bytes | None:
        return self._state.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return self._state.scan(prefix)


# --- what each record does -----------------------------------------------------------------------------------------


def fold_record(s: Scratch, record: r.Record, entry: r.Entry, entry_hash: str) -> None:
    """Do to a state what a record of an entry does.

    Raises
    ------
    DmlpipeError
        The record is invalid where it stands.
    """
    match record:
        case r.RepoCreate():
            if s.repo(record.repo) is not None:
                raise ConflictError(f"repo {record.repo!r} exists already", code=ErrorCode.EXISTS)
            s.put(
                f"repo/{record.repo}",
                r.RepoState(created=entry.n, time=entry.ts, description=record.description, pipeline=record.pipeline),
            )
        case r.RepoDelete():
            _need_repo(s, record.repo)
            s.drop(f"repo/{record.repo}")
            for branch in s.branches(record.repo):
                s.drop(f"branch/{record.repo}/{branch}")
            for tag in s.tags(record.repo):
                s.drop(f"tag/{record.repo}/{tag}")
            for branch in s.triggers(record.repo):
                s.drop(f"trigger/{record.repo}/{branch}")
        case r.CommitMade():
            _fold_commit(s, record, entry)
        case r.RefSet():
            _fold_ref(s, record, entry, entry_hash)
        case r.TagSet():
            _need_repo(s, record.repo)
            if record.commit:
                _need_commit(s, record.repo, record.commit)
                s.put_text(f"tag/{record.repo}/{record.tag}", record.commit)
            else:
                s.drop(f"tag/{record.repo}/{record.tag}")
        case (
            r.PipelineSet()
            | r.PipelineDelete()
            | r.PipelineStop()
            | r.PipelineStart()
            | r.Hold()
            | r.Release()
            | r.Retry()
            | r.DatumsRetry()
        ):
            _fold_pipeline(s, record, entry, entry_hash)
        case r.ControllerTake() | r.ControllerEnd() | r.RunStart() | r.RunDone():
            _fold_control(s, record, entry)
        case r.JobStart() | r.JobUnrunnable():
            _fold_job_start(s, record, entry)
        case r.JobDone() | r.JobFailed() | r.JobStopped():
            _fold_job_end(s, record, entry)
        case r.JobStop():
            job = _need_job(s, record.job)
            s.put(f"job/{record.job}", msgspec.structs.replace(job, stop=record.why))
        case r.EgressDone():
            if s.pipeline(record.pipeline) is None:
                raise NotFoundError(f"no pipeline {record.pipeline!r}", code=ErrorCode.NO_PIPELINE)
            state = r.EgressState(commit=record.commit, target=record.target, n=entry.n, time=entry.ts)
            s.put(f"egress/{record.pipeline}", state)
        case r.CommitDrop() | r.KeepSet() | r.GcSweep() | r.GcDone():
            _fold_space(s, record, entry)
        case r.Tick():
            _fold_tick(s, record)
        case r.TriggerSet() | r.TriggerTick():
            _fold_trigger(s, record, entry, entry_hash)
        case r.Damage():
            for key in record.objects:
                s.put_text(f"damage/{key}", str(entry.n))
        case r.Repair():
            for key in record.objects:
                s.drop(f"damage/{key}")
            _fold_content(s, entry, record.packs, record.index)
        case r.Redact():
            raise InvalidInputError(
                f"record {record.__struct_config__.tag!r} is reserved in this format version", code=ErrorCode.FORMAT
            )


def _fold_commit(s: Scratch, record: r.CommitMade, entry: r.Entry) -> None:
    _need_repo(s, record.repo)
    if record.session:
        if s.session(record.session) is not None:
            raise ConflictError(f"open commit {record.session} was published already")
        s.put_text(f"session/{record.session}", f"{record.repo}/{record.id}")
    s.put(
        f"commit/{record.repo}/{record.id}",
        r.CommitState(n=entry.n, tree=record.tree, files=record.files, size=record.size, time=entry.ts, job=record.job),
    )
    _fold_content(s, entry, record.packs, record.index)


def _fold_content(s: Scratch, entry: r.Entry, packs: tuple[str, ...], index: str) -> None:
    if index:
        s.put_text(f"index/{down(entry.n)}/{index}", index)
    if packs:
        s.put(f"packs/{down(entry.n)}/{packs[0]}", packs)


def _fold_ref(s: Scratch, record: r.RefSet, entry: r.Entry, entry_hash: str) -> None:
    _need_repo(s, record.repo)
    head = s.head(record.repo, record.branch) or ""
    if head != record.old:
        raise ConflictError(
            f"{record.repo}@{record.branch} is at {head[:12] or 'no commit'}, not at {record.old[:12] or 'no commit'}"
        )
    if record.new:
        _need_commit(s, record.repo, record.new)
        _move(s, record.repo, record.branch, record.new, entry)
    else:
        s.drop(f"branch/{record.repo}/{record.branch}")
        s.drop(f"trigger/{record.repo}/{record.branch}")
    # What a job publishes belongs to its run; everything else that moves a branch somebody reads is a cause.
    if not any(isinstance(other, r.JobDone) for other in entry.recs):
        tells = {r.Hold: "revert", r.Tick: "tick"}
        kind = next((tells[type(other)] for other in entry.recs if type(other) in tells), "ref")
        _add_ref_cause(s, entry, entry_hash, kind, record.repo, record.branch)
    # A commit is evaluated; a branch that is moved by hand is not.
    if any(isinstance(o, r.CommitMade) and (o.repo, o.id) == (record.repo, record.new) for o in entry.recs):
        _follow(s, record.repo, record.branch, entry, entry_hash)


def _move(s: Scratch, repo: str, branch: str, commit: str, entry: r.Entry) -> None:
    s.put_text(f"branch/{repo}/{branch}", commit)
    s.put(f"hist/{repo}/{branch}/{down(entry.n)}", r.HeadState(n=entry.n, commit=commit))


def _add_ref_cause(s: Scratch, entry: r.Entry, entry_hash: str, kind: str, repo: str, branch: str) -> None:
    """A branch moved; where only pipelines read it that this starts nothing for, that is no cause."""
    for name in s.readers(repo, branch):
        pipeline = s.pipeline(name)
        if pipeline is not None and (repo, branch) not in pipeline.quiet and not pipeline.standing:
            _add_cause(s, entry, entry_hash, kind, f"{repo}@{branch}")
            return


def _follow(s: Scratch, repo: str, on: str, entry: r.Entry, entry_hash: str) -> None:
    """Move the branches whose rule holds now that branch `on` has a new head, and those that follow them."""
    head = s.head(repo, on) or ""
    new = _need_commit(s, repo, head)
    for branch, state in s.triggers(repo).items():
        if state.trigger.on != on:
            continue
        before = s.head(repo, branch) or ""
        old = s.commit(repo, before) if before else None
        if before != head and holds(
            state.trigger,
            grown=new.size - (old.size if old else 0),
            commits=_commits_since(s, repo, on, before, state.trigger.commits),
            since=old.time if old else state.since,
            now=entry.ts,
        ):
            _take_head(s, repo, branch, head, entry, entry_hash)


def _commits_since(s: Scratch, repo: str, branch: str, before: str, limit: int) -> int:
    """How many heads the branch had since `before`; no more than `limit` are counted."""
    found = 0
    for head in s.history(repo, branch) if limit else ():
        if head.commit == before or found == limit:
            break
        found += 1
    return found


def _take_head(s: Scratch, repo: str, branch: str, head: str, entry: r.Entry, entry_hash: str) -> None:
    _move(s, repo, branch, head, entry)
    _add_ref_cause(s, entry, entry_hash, "trigger", repo, branch)
    _follow(s, repo, branch, entry, entry_hash)


def _fold_trigger(s: Scratch, record: r.TriggerSet | r.TriggerTick, entry: r.Entry, entry_hash: str) -> None:
    key = f"trigger/{record.repo}/{record.branch}"
    if isinstance(record, r.TriggerSet):
        _need_repo(s, record.repo)
        if record.trigger is None:
            s.drop(key)
            return
        publisher = s.publisher(record.repo, record.branch)
        if publisher is not None:
            raise InvalidInputError(
                f"{record.repo}@{record.branch} is published by pipeline {publisher!r}: it follows none"
            )
        others = {branch: state.trigger for branch, state in s.triggers(record.repo).items()}
        check_trigger(record.repo, record.branch, record.trigger, others)
        s.put(key, r.TriggerState(trigger=record.trigger, since=entry.ts))
        return
    state = s.trigger(record.repo, record.branch)
    if state is None or not state.trigger.cron:
        raise NotFoundError(f"{record.repo}@{record.branch} follows no schedule", code=ErrorCode.NO_BRANCH)
    if parse_time(record.time) <= parse_time(state.since):
        raise ConflictError(f"{record.repo}@{record.branch} has ticked at {state.since} already")
    s.put(key, msgspec.structs.replace(state, since=record.time))
    head = s.head(record.repo, state.trigger.on)
    if head is not None and head != s.head(record.repo, record.branch):
        _take_head(s, record.repo, record.branch, head, entry, entry_hash)


def _fold_tick(s: Scratch, record: r.Tick) -> None:
    cron = s.cron(record.pipeline, record.input)
    if cron is None:
        raise NotFoundError(
            f"pipeline {record.pipeline!r} has no cron input {record.input!r}", code=ErrorCode.NO_PIPELINE
        )
    if record.manual:
        return
    if parse_time(record.time) <= parse_time(cron.since):
        raise ConflictError(f"input {record.input!r} of {record.pipeline!r} has ticked at {record.time} already")
    s.put(f"cron/{record.pipeline}/{record.input}", msgspec.structs.replace(cron, since=record.time))


def _add_cause(s: Scratch, entry: r.Entry, entry_hash: str, kind: str, subject: str) -> None:
    pipeline = s.pipeline(subject) if "@" not in subject else None
    if pipeline is not None and pipeline.standing:
        return
    cause = r.Cause(n=entry.n, hash=entry_hash, kind=kind, subject=subject)
    s.put(_cause_key(cause), cause)


def _cause_key(cause: r.Cause) -> str:
    return f"cause/{up(cause.n)}/{cause.kind}/{cause.subject}"


def _fold_pipeline(
    s: Scratch,
    record: r.PipelineSet
    | r.PipelineDelete
    | r.PipelineStop
    | r.PipelineStart
    | r.Hold
    | r.Release
    | r.Retry
    | r.DatumsRetry,
    entry: r.Entry,
    entry_hash: str,
) -> None:
    replace = msgspec.structs.replace
    match record:
        case r.PipelineSet():
            _fold_pipeline_set(s, record, entry, entry_hash)
        case r.PipelineDelete():
            pipeline = _need_pipeline(s, record.name)
            for repo, branch in pipeline.inputs:
                s.drop(f"reads/{repo}/{branch}/{record.name}")
            _set_crons(s, record.name, (), entry)
            s.drop(f"pipe/{record.name}")
            if s.egress(record.name) is not None:
                s.drop(f"egress/{record.name}")
        case r.PipelineStop():
            pipeline = _need_pipeline(s, record.name)
            s.put(f"pipe/{record.name}", replace(pipeline, stopped=True))
        case r.PipelineStart():
            pipeline = _need_pipeline(s, record.name)
            s.put(f"pipe/{record.name}", replace(pipeline, stopped=False, considered=None, since=entry.n))
            _add_cause(s, entry, entry_hash, "start", record.name)
        case r.Hold():
            pipeline = _need_pipeline(s, record.pipeline)
            s.put(f"pipe/{record.pipeline}", replace(pipeline, hold=record, hold_n=entry.n))
        case r.Release():
            pipeline = _need_pipeline(s, record.pipeline)
            if pipeline.hold is None:
                raise InvalidInputError(f"pipeline {record.pipeline!r} is not held")
            s.put(f"pipe/{record.pipeline}", replace(pipeline, hold=None, hold_n=0, since=entry.n))
            _add_cause(s, entry, entry_hash, "release", record.pipeline)
        case r.Retry():
            for name in record.pipelines:
                pipeline = _need_pipeline(s, name)
                s.put(f"pipe/{name}", replace(pipeline, considered=None))
                _add_cause(s, entry, entry_hash, "retry", name)
        case r.DatumsRetry():
            _fold_datums_retry(s, record, entry, entry_hash)


def _fold_datums_retry(s: Scratch, record: r.DatumsRetry, entry: r.Entry, entry_hash: str) -> None:
    pipeline = _need_pipeline(s, record.pipeline)
    context = s.context(record.key)
    if context is None:
        raise NotFoundError(f"no context {record.key[:12]}")
    running = next((name for name, job in s.running_jobs() if job.context == record.key), None)
    if running is not None:
        raise ConflictError(
            f"job {running[:6]} of {record.pipeline!r} is running",
            hint=f"wait for it: dmlpipe job wait {running[:6]}, or end it: dmlpipe job stop {running[:6]}",
        )
    s.put(f"ctx/{record.key}", msgspec.structs.replace(context, f=record.f))
    s.put(f"pipe/{record.pipeline}", msgspec.structs.replace(pipeline, considered=None))
    _add_cause(s, entry, entry_hash, "retry", record.pipeline)


def _fold_pipeline_set(s: Scratch, record: r.PipelineSet, entry: r.Entry, entry_hash: str) -> None:
    last = next((version for version, _ in s.versions(record.name)), 0)
    if record.version != last + 1:
        raise ConflictError(f"pipeline {record.name!r} is at version {last}; version {record.version} cannot follow")
    _need_repo(s, record.name)
    before = s.pipeline(record.name)
    for repo, branch in before.inputs if before else ():
        s.drop(f"reads/{repo}/{branch}/{record.name}")
    for repo, branch in record.inputs:
        s.put_text(f"reads/{repo}/{branch}/{record.name}", "")
    after = r.PipelineState(
        version=record.version,
        spec=record.spec,
        identity=record.identity,
        inputs=record.inputs,
        dag=record.dag,
        n=entry.n,
        quiet=record.quiet,
        standing=record.standing,
        branch=record.branch,
        every_commit=record.every_commit,
        since=entry.n,
    )
    _set_crons(s, record.name, record.crons, entry)
    if before is not None:
        after = msgspec.structs.replace(
            after,
            stopped=before.stopped,
            hold=before.hold,
            hold_n=before.hold_n,
            considered=_elsewhere(before.considered) if record.branch != before.branch else before.considered,
            last_job=before.last_job,
            last_state=before.last_state,
        )
    s.put(f"pipe/{record.name}", after)
    s.put(
        f"ver/{record.name}/{down(record.version)}",
        r.VersionState(n=entry.n, time=entry.ts, actor=entry.actor, spec=record.spec, identity=record.identity),
    )
    _fold_content(s, entry, record.packs, record.index)
    _add_cause(s, entry, entry_hash, "pipeline", record.name)


def _elsewhere(considered: dict[str, str] | None) -> dict[str, str] | None:
    """What was considered, of a pipeline that publishes on another branch now: there it has published nothing."""
    return {key: value for key, value in considered.items() if key != IDENTITY} if considered is not None else None


def _set_crons(s: Scratch, pipeline: str, crons: Sequence[r.CronInput], entry: r.Entry) -> None:
    """Ticks go on from the last one, unless they are kept elsewhere now or begin later."""
    before = {name: cron for _, name, cron in s.crons(pipeline)}
    for name in before.keys() - {cron.name for cron in crons}:
        s.drop(f"cron/{pipeline}/{name}")
    for cron in crons:
        old = before.get(cron.name)
        since = cron.start or entry.ts
        if old is not None and old.repo == cron.repo:
            since = max(old.since, cron.start or old.since, key=parse_time) if cron.start != old.start else old.since
        s.put(
            f"cron/{pipeline}/{cron.name}",
            r.CronState(repo=cron.repo, spec=cron.spec, since=since, overwrite=cron.overwrite, start=cron.start),
        )


def _fold_control(
    s: Scratch, record: r.ControllerTake | r.ControllerEnd | r.RunStart | r.RunDone, entry: r.Entry
) -> None:
    if isinstance(record, r.ControllerTake):
        now = s.controller()
        epoch = now.epoch if now else 0
        if record.epoch != epoch + 1:
            raise ConflictError(f"controller epoch {record.epoch} cannot follow epoch {epoch}")
        s.put(
            "controller",
            r.ControllerState(
                epoch=record.epoch,
                host=record.host,
                boot=record.boot,
                pid=record.pid,
                started=record.started,
                kind=record.kind,
                n=entry.n,
            ),
        )
        return
    controller = _need_epoch(s, record.epoch)
    match record:
        case r.ControllerEnd():
            s.put("controller", msgspec.structs.replace(controller, ended=True))
        case r.RunStart():
            if s.run(record.run) is not None:
                raise ConflictError(f"run {record.run} has started already")
            if s.open_run() is not None:
                raise ConflictError(f"run {record.run} cannot start before the one under way ends")
            s.put(
                f"run/{record.run}",
                r.RunState(
                    n=entry.n,
                    first=record.first,
                    last=record.last,
                    view=record.view,
                    versions=record.versions,
                    time=entry.ts,
                ),
            )
            s.put_text(_place(s, "runn", entry.n), record.run)
            for cause in list(s.causes(record.last)):
                s.drop(_cause_key(cause))
        case r.RunDone():
            run = s.run(record.run)
            if run is None:
                raise NotFoundError(f"no run {record.run}")
            s.put(f"run/{record.run}", msgspec.structs.replace(run, done=True))


def _fold_job_start(s: Scratch, record: r.JobStart | r.JobUnrunnable, entry: r.Entry) -> None:
    _need_epoch(s, record.epoch)
    if s.job(record.job) is not None:
        raise ConflictError(f"job {record.job} has started already")
    run = s.run(record.run)
    if run is None:
        raise NotFoundError(f"no run {record.run}")
    _need_pipeline(s, record.pipeline)
    job = r.JobState(
        run=record.run,
        pipeline=record.pipeline,
        version=record.version,
        context=record.context if isinstance(record, r.JobStart) else "",
        inputs=record.inputs,
        base=record.base if isinstance(record, r.JobStart) else "",
        start_n=entry.n,
        started=entry.ts,
    )
    if isinstance(record, r.JobUnrunnable):
        job = msgspec.structs.replace(job, state="unrunnable", end_n=entry.n, ended=entry.ts, because=record.because)
        _consider(s, record.job, job)
    s.put(f"job/{record.job}", job)
    s.put_text(_place(s, "jobn", entry.n), record.job)
    s.put_text(_place(s, f"jobp/{record.pipeline}", entry.n), record.job)
    s.put(f"run/{record.run}", msgspec.structs.replace(run, jobs=(*run.jobs, record.job)))


def _place(s: Scratch, kind: str, n: int) -> str:
    """Key for the next of what is listed newest first: one entry may begin several, the later one is the newer."""
    prefix = f"{kind}/{down(n)}/"
    newest = next(s.scan(prefix.encode()), None)
    before = 0 if newest is None else LAST - int(newest[0][len(prefix) :]) + 1
    return f"{prefix}{down(before)}"


_END_STATES = {r.JobDone: "done", r.JobFailed: "failed", r.JobStopped: "stopped"}


def _fold_job_end(s: Scratch, record: r.JobDone | r.JobFailed | r.JobStopped, entry: r.Entry) -> None:
    _need_epoch(s, record.epoch)
    job = _need_job(s, record.job)
    if job.state != "running":
        raise ConflictError(f"job {record.job} has ended already: {job.state}")
    job = msgspec.structs.replace(
        job,
        state=_END_STATES[type(record)],
        end_n=entry.n,
        ended=entry.ts,
        end=record.end,
        commit=record.commit if isinstance(record, r.JobDone) else "",
    )
    s.put(f"job/{record.job}", job)
    _keep_context(s, record.key, entry)
    s.put(f"ctx/{record.key}", record.context)
    _fold_content(s, entry, record.end.packs, record.end.index)
    _consider(s, record.job, job)


def _keep_context(s: Scratch, key: str, entry: r.Entry) -> None:
    """Keep the record that is about to be replaced for other jobs of its context, whose plans were made from it."""
    before = s.context(key)
    if any(job.context == key for _, job in s.running_jobs()):
        if before is not None:
            s.put(f"ctxold/{key}/{up(entry.n)}", before)
    else:
        for old, _ in list(s._names(f"ctxold/{key}/", r.Context)):
            s.drop(f"ctxold/{key}/{old}")


def _consider(s: Scratch, name: str, job: r.JobState) -> None:
    pipeline = s.pipeline(job.pipeline)
    version = s.version(job.pipeline, job.version)
    if pipeline is None or version is None:
        return
    considered = {f"{bound.repo}@{bound.branch}": bound.commit for bound in job.inputs if bound.repo}
    considered[IDENTITY] = version.identity
    s.put(
        f"pipe/{job.pipeline}",
        msgspec.structs.replace(pipeline, considered=considered, last_job=name, last_state=job.state),
    )


def _fold_space(s: Scratch, record: r.CommitDrop | r.KeepSet | r.GcSweep | r.GcDone, entry: r.Entry) -> None:
    match record:
        case r.CommitDrop():
            _fold_drop(s, record, entry)
        case r.KeepSet():
            _need_repo(s, record.repo)
            if record.last or record.days:
                s.put(f"keep/{record.repo}", record)
            else:
                s.drop(f"keep/{record.repo}")
        case r.GcSweep():
            for n, index in record.drop_indexes:
                key = f"index/{down(n)}/{index}"
                if s.get(key.encode()) is None:
                    raise ConflictError(f"{index} is not an index of entry {n}")
                s.drop(key)
            for pack in record.drop_packs:
                s.put_text(f"dead/{pack}", "")
            _fold_content(s, entry, record.packs, record.index)
            s.put(f"sweep/{up(entry.n)}", r.SweepState(list=record.list, token=record.token, time=entry.ts))
        case r.GcDone():
            key = f"sweep/{up(record.sweep)}"
            sweep = s._value(key, r.SweepState)
            if sweep is None or not sweep.open:
                raise ConflictError(f"there is no open sweep in entry {record.sweep}")
            s.put(key, msgspec.structs.replace(sweep, open=False))


def _fold_drop(s: Scratch, record: r.CommitDrop, entry: r.Entry) -> None:
    kept = {(record.repo, commit) for commit in (*s.branches(record.repo).values(), *s.tags(record.repo).values())}
    kept |= s.pinned()
    for commit in record.commits:
        _need_commit(s, record.repo, commit.id)
        if (record.repo, commit.id) in kept:
            raise ConflictError(f"commit {commit.id[:12]} of {record.repo!r} is in use: a head, tagged, held or run on")
        s.drop(f"commit/{record.repo}/{commit.id}")
        s.put(f"drop/{record.repo}/{commit.id}", r.DropState(n=entry.n, parents=commit.parents, why=record.why))
    gone = {commit.id for commit in record.commits}
    for key, head in list(s._names(f"hist/{record.repo}/", r.HeadState)):
        if head.commit in gone:
            s.drop(f"hist/{record.repo}/{key}")


# --- what must hold ------------------------------------------------------------------------------------------------


def _need_repo(s: StateView, repo: str) -> r.RepoState:
    found = s.repo(repo)
    if found is None:
        raise NotFoundError(f"no repo {repo!r}", code=ErrorCode.NO_REPO, hint="list: dmlpipe repo list")
    return found


def _need_commit(s: StateView, repo: str, commit: str) -> r.CommitState:
    found = s.commit(repo, commit)
    if found is None:
        raise NotFoundError(f"no commit {commit[:12]} in repo {repo!r}", code=ErrorCode.NO_COMMIT)
    return found


def _need_pipeline(s: StateView, name: str) -> r.PipelineState:
    found = s.pipeline(name)
    if found is None:
        raise NotFoundError(f"no pipeline {name!r}", code=ErrorCode.NO_PIPELINE, hint="list: dmlpipe pipeline list")
    return found


def _need_job(s: StateView, job: str) -> r.JobState:
    found = s.job(job)
    if found is None:
        raise NotFoundError(f"no job {job!r}", code=ErrorCode.NO_JOB, hint="list: dmlpipe job list")
    return found


def _need_epoch(s: StateView, epoch: int) -> r.ControllerState:
    now = s.controller()
    if now is None or now.epoch != epoch:
        raise HeldError(f"epoch {epoch} has passed: the store is at epoch {now.epoch if now else 0}")
    return now
