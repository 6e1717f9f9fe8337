"""Every record that a store keeps: ledger records, the bodies behind them, and the folded state's values.

Three families:

- *Ledger records* (`Record`) stand in ledger entries as JSON objects tagged by ``t``. Digests are hex there.
- *Bodies* (`Commit`, `JobRecord`) are nodes, named by their hash.
- *State values* (`...State`, `Context`, ...) are what the fold of the ledger keeps per key (`state/view.py`).

A field is never reinterpreted; a new one has a default that means what its absence meant.
"""

from __future__ import annotations

from typing import Any

import msgspec

JobId = str
"""16 hex digits: hash of (run, pipeline, version)."""

RunId = str
"""16 hex digits: the first of the hash of the run's first cause."""

JOB_ID_BYTES = 8


class _Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", omit_defaults=True):
    pass


# --- ledger records: data ---------------------------------------------------------------------------------------


class RepoCreate(_Record, frozen=True, tag="repo.create"):
    """A repo begins. `pipeline` is set if it is the output of one."""

    repo: str
    description: str = ""
    pipeline: str = ""


class RepoDelete(_Record, frozen=True, tag="repo.delete"):
    """A repo ends; its history stays in the ledger."""

    repo: str


class CommitMade(_Record, frozen=True, tag="commit"):
    """A commit exists in a repo. Nothing shows it until a `RefSet` names it."""

    repo: str
    id: str
    tree: str
    files: int
    size: int
    job: str = ""
    packs: tuple[str, ...] = ()
    """Keys of the packs that this commit was the first to need (over 1,000: empty, and `index` lists them)."""
    index: str = ""
    """Key of the index object that maps hashes to places in `packs`; empty if nothing was packed."""
    session: str = ""
    """Open commit that this publishes. Valid once: it cannot be published again."""


class RefSet(_Record, frozen=True, tag="ref.set"):
    """A branch moves. Valid only where the folded state has `old`; `new` empty deletes the branch."""

    repo: str
    branch: str
    old: str
    new: str


class TagSet(_Record, frozen=True, tag="tag.set"):
    """A tag is made; `commit` empty removes it."""

    repo: str
    tag: str
    commit: str


class Trigger(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a branch takes the head of another branch of its repo: once one of the conditions holds."""

    on: str = "master"
    """The branch that is followed."""
    size: int = 0
    """It has grown by so many bytes; 0: no such condition."""
    commits: int = 0
    """So many commits were made; 0: no such condition."""
    rate: str = ""
    """This schedule had a time since; empty: no such condition."""
    cron: str = ""
    """A schedule: at its times, and by no other condition."""
    all: bool = False
    """All of the conditions must hold."""


class TriggerSet(_Record, frozen=True, tag="trigger.set"):
    """A branch follows another one from here on; None: it does not."""

    repo: str
    branch: str
    trigger: Trigger | None = None


class TriggerTick(_Record, frozen=True, tag="trigger.tick"):
    """A time of a trigger's `cron` came: the branch takes the head. The fold drops one that is not newer."""

    repo: str
    branch: str
    time: str


# --- ledger records: pipelines and work -------------------------------------------------------------------------


class CronInput(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A schedule whose ticks a pipeline reads."""

    name: str
    """Of the input."""
    repo: str
    spec: str
    start: str = ""
    """Ticks count from here; empty: from the entry that first has this input."""
    overwrite: bool = False
    """A tick takes the place of the one before it."""


class PipelineSet(_Record, frozen=True, tag="pipeline.set"):
    """A new version of a pipeline. `spec` names the node of its `PipelineSpec`."""

    name: str
    version: int
    spec: str
    identity: str
    """Hash of what can change its outputs: code id, parameters, env, salt, input expression, writes."""
    inputs: tuple[tuple[str, str], ...]
    """(repo, branch) of each input, as declared."""
    dag: str = ""
    packs: tuple[str, ...] = ()
    index: str = ""
    quiet: tuple[tuple[str, str], ...] = ()
    """Of `inputs`, those whose new commits start no job."""
    crons: tuple[CronInput, ...] = ()
    standing: str = ""
    """`spout` or `service`: a process that stands, in place of jobs; empty: jobs."""
    branch: str = "master"
    """Of its repo: where its jobs publish."""
    every_commit: bool = False
    """It has a job for each commit to its inputs, not only for their heads."""


class PipelineDelete(_Record, frozen=True, tag="pipeline.delete"):
    """A pipeline ends; its output repo stays unless a `RepoDelete` follows."""

    name: str


class PipelineStop(_Record, frozen=True, tag="pipeline.stop"):
    """No new jobs until `PipelineStart`."""

    name: str


class PipelineStart(_Record, frozen=True, tag="pipeline.start"):
    """Jobs again, with the heads as they then are."""

    name: str


class Hold(_Record, frozen=True, tag="hold"):
    """`revert`: the pipeline publishes nothing until released."""

    pipeline: str
    branch: str
    commit: str
    why: str = ""


class Release(_Record, frozen=True, tag="release"):
    """Ends a `Hold`."""

    pipeline: str


class Retry(_Record, frozen=True, tag="retry"):
    """Pipelines to be considered again though nothing changed."""

    pipelines: tuple[str, ...]


class DatumsRetry(_Record, frozen=True, tag="datums.retry"):
    """Datums of a pipeline to be computed again, though results of them are known.

    Invalid while a job of the context runs: its end writes the context anew.
    """

    pipeline: str
    key: str
    """K, hex."""
    f: str
    """The context's `f` from here on."""


class Tick(_Record, frozen=True, tag="tick"):
    """A cron input's tick, keyed by (input, scheduled time); the same entry holds its commit.

    Unless it was made by hand, it is invalid if its time is not after that of the last one: the fold drops a duplicate.
    """

    pipeline: str
    input: str
    time: str
    manual: bool = False


class ControllerTake(_Record, frozen=True, tag="controller.take"):
    """A controller begins an epoch. Smaller epochs' records are ignored from here on."""

    epoch: int
    host: str
    boot: str
    pid: int
    started: str
    kind: str = "run"
    """`run` (ends when idle) or `up`."""


class ControllerEnd(_Record, frozen=True, tag="controller.end"):
    """The controller of `epoch` ended in order."""

    epoch: int


class RunStart(_Record, frozen=True, tag="run.start"):
    """A run takes all causes up to entry `last`; `view` pins what it sees of source branches."""

    run: str
    epoch: int
    first: int
    last: int
    view: dict[str, str]
    """`repo@branch` to commit id (empty: no commit), of every branch that some pipeline reads and none writes."""
    versions: dict[str, int]
    """Pipeline to version."""


class RunDone(_Record, frozen=True, tag="run.done"):
    """Nothing of the run is left to do."""

    run: str
    epoch: int


class InputBinding(msgspec.Struct, frozen=True, kw_only=True):
    """One input of a job, bound to a commit."""

    name: str
    repo: str
    branch: str
    commit: str
    """Empty: the branch has no commit."""
    tree: str
    role: str = "data"
    """`data` (a repo that people write), `model` (one-datum output that others read) or `intermediate`."""


class JobStart(_Record, frozen=True, tag="job.start"):
    """A job begins."""

    job: str
    run: str
    pipeline: str
    version: int
    epoch: int
    context: str
    """K, hex."""
    inputs: tuple[InputBinding, ...]
    base: str = ""
    """The output branch's head that the new commit will follow."""


class Counters(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Datums of a job by what became of them. `total` = run + skipped + failed + recovered."""

    total: int = 0
    run: int = 0
    skipped: int = 0
    failed: int = 0
    recovered: int = 0
    removed: int = 0


class Context(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is remembered of one context K: enough to plan its next job from the change alone.

    All roots are hex digests of prolly trees; empty means an empty tree.
    """

    inputs: dict[str, str]
    """Varying input name to the tree id that `T` was computed for (of `values`, which have no tree, to their JSON list,
    beginning with ``[``; of a branch without commit, empty); empty before the first success."""
    order: tuple[str, ...]
    """Varying inputs in the order of the datum key."""
    out: str = ""
    """Output tree (path to value)."""
    t: str = ""
    """Datum key to (output paths, origin job)."""
    p: str = ""
    """Output path to (datum key, origin job)."""
    s: str = ""
    """Datum key + fingerprint to (origin job, (path, value)...): successes that are not in `t`."""
    f: str = ""
    """Datum key to reason: to be tried again."""
    job: str = ""
    """The last job that was done under this context."""
    size: int = 0
    """Bytes of content in `out`."""
    metadata: str = ""
    """Tree of what `out` holds besides the datums' outputs (an output array's metadata); empty: nothing."""


class JobEnd(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every way of ending a job says."""

    counters: Counters = Counters()
    reason: str = ""
    record: str = ""
    """Node of the `JobRecord`."""
    packs: tuple[str, ...] = ()
    index: str = ""
    rows: str = ""
    """Root of the tree datum key to (segment key, row): where seconds and logs are."""


class JobDone(_Record, frozen=True, tag="job.done"):
    """The job made a commit; the same entry holds its `CommitMade` and `RefSet`."""

    job: str
    epoch: int
    key: str
    """K, hex."""
    context: Context
    commit: str
    end: JobEnd


class JobFailed(_Record, frozen=True, tag="job.failed"):
    """No commit; the successes are in the context's S."""

    job: str
    epoch: int
    key: str
    context: Context
    end: JobEnd


class JobStopped(_Record, frozen=True, tag="job.stopped"):
    """Somebody ended it, or a newer version of its pipeline did; the successes are in the context's S."""

    job: str
    epoch: int
    key: str
    context: Context
    end: JobEnd


class JobUnrunnable(_Record, frozen=True, tag="job.unrunnable"):
    """An upstream job of the same run failed."""

    job: str
    run: str
    pipeline: str
    version: int
    epoch: int
    inputs: tuple[InputBinding, ...]
    because: str
    """Job that failed."""


class JobStop(_Record, frozen=True, tag="job.stop"):
    """Somebody asks that a running job be stopped."""

    job: str
    why: str = ""


# --- ledger records: giving space back -----------------------------------------------------------------------------


class Dropped(msgspec.Struct, frozen=True):
    """One commit that goes, and what it followed: whoever asks for its child's parent is led past it."""

    id: str
    parents: tuple[str, ...] = ()


class EgressDone(_Record, frozen=True, tag="egress.done"):
    """What a pipeline published arrived where its egress leads."""

    pipeline: str
    commit: str
    target: str
    """Hash of the declared egress, hex: another target is owed the same commit again."""
    files: int = 0
    """That were sent."""
    rows: int = 0


class CommitDrop(_Record, frozen=True, tag="commit.drop"):
    """Commits end: nothing may name them again, and what only they refer to may be collected.

    Invalid for a head, a tagged or held commit, and one that an open run sees.
    """

    repo: str
    commits: tuple[Dropped, ...]
    why: str = ""


class KeepSet(_Record, frozen=True, tag="keep.set"):
    """How long a repo's commits are kept. Heads, tagged commits and what runs use are kept anyway."""

    repo: str
    last: int = 0
    """The newest so many heads of each branch; 0: no such rule."""
    days: float = 0.0
    """Commits younger than this; 0: no such rule. With neither, everything is kept."""


class GcSweep(_Record, frozen=True, tag="gc.sweep"):
    """The objects named in the node `list` die.

    From this entry on nobody relies on them: a writer that catches up past it and did must store them anew, under
    names that the sweep does not hold.
    """

    list: str
    token: str = ""
    """Who carries it out: ``host/boot/pid/start/nonce``. Only they may close it while they live."""
    packs: tuple[str, ...] = ()
    """Packs made of what was still alive in `drop_packs`."""
    index: str = ""
    """Index that takes the place of `drop_indexes`."""
    drop_packs: tuple[str, ...] = ()
    drop_indexes: tuple[tuple[int, str], ...] = ()
    """(entry that named it, key)."""
    commits: tuple[str, ...] = ()
    """Reserved: commits end by `CommitDrop`."""


class GcDone(_Record, frozen=True, tag="gc.done"):
    """All deletions of the sweep in entry `sweep` are over: its names may be used again."""

    sweep: int


# --- ledger records: damage ---------------------------------------------------------------------------------------


class Damage(_Record, frozen=True, tag="damage"):
    """Objects were found damaged or missing. They stay known as such until a `Repair` names them."""

    objects: tuple[str, ...]


class Repair(_Record, frozen=True, tag="repair"):
    """Objects are what their names say again, or their content is stored elsewhere."""

    objects: tuple[str, ...]
    packs: tuple[str, ...] = ()
    """Packs with content that was stored anew."""
    index: str = ""
    """Index over them."""


# --- ledger records: reserved for purge (its place is fixed now) ---------------------------------------------------


class Redact(_Record, frozen=True, tag="redact"):
    """Reads of node `old` see node `new`. Reserved."""

    old: str
    new: str


Record = (
    RepoCreate
    | RepoDelete
    | CommitMade
    | RefSet
    | TagSet
    | PipelineSet
    | PipelineDelete
    | PipelineStop
    | PipelineStart
    | Hold
    | Release
    | Retry
    | DatumsRetry
    | Tick
    | TriggerSet
    | TriggerTick
    | ControllerTake
    | ControllerEnd
    | RunStart
    | RunDone
    | JobStart
    | JobDone
    | JobFailed
    | JobStopped
    | JobUnrunnable
    | JobStop
    | EgressDone
    | CommitDrop
    | KeepSet
    | GcSweep
    | GcDone
    | Damage
    | Repair
    | Redact
)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One ledger entry. Its hash is the digest of the file's bytes."""

    v: int
    n: int
    prev: str
    """Hash of entry n-1 (64 zeros for the first)."""
    ts: str
    """UTC, ISO 8601 with microseconds. Informative: nothing is decided by it but cron and rates."""
    nonce: str
    actor: str
    """`user@host`."""
    recs: tuple[Record, ...]
    sig: str = ""
    """Reserved for a signature."""


# --- bodies (nodes) ----------------------------------------------------------------------------------------------


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit's body; its id is the hash of the canonical encoding (see `node.py`)."""

    v: int = 1
    tree: str
    parents: tuple[str, ...]
    message: str
    author: str
    time: str
    job: str = ""
    files: int = 0
    size: int = 0
    """Bytes of content, as if each file were stored alone."""
    failed: str = ""
    """Root of the tree of tolerated failures (datum key to cause), empty if none."""


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `why` says of a job. A node; outlives retention of the job's commits."""

    v: int = 1
    id: str
    run: str
    pipeline: str
    version: int
    spec: str
    """Node of the pipeline's spec."""
    code_id: str
    bundle: str
    context: str
    parameters: dict[str, Any]
    env: dict[str, str]
    """Declared environment (`declared`: its digest) and the versions actually used (package to version)."""
    inputs: tuple[InputBinding, ...]
    base_job: str
    state: str
    """`done`, `failed` or `stopped`."""
    counters: Counters
    t: str
    p: str
    out: str
    origins: dict[str, int]
    """Origin job to how many of the live datums it computed."""
    started: str
    ended: str
    host: str
    failures: tuple[dict[str, Any], ...] = ()
    """The first failures by cause: {cause, count, datum, path, where, line}."""
    traffic: dict[str, int] = {}
    """Bytes of files from 1 MiB on that the cluster's hosts took while the job ran: `from_store`, `from_peers`."""


# --- values of the folded state ------------------------------------------------------------------------------------


class RepoState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A repo that exists."""

    created: int
    time: str
    description: str = ""
    pipeline: str = ""


class CommitState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A commit of a repo: enough to list it without reading its body."""

    n: int
    tree: str
    files: int
    size: int
    time: str
    job: str = ""


class HeadState(msgspec.Struct, frozen=True, kw_only=True):
    """One head that the ledger gave a branch."""

    n: int
    commit: str


class PipelineState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A pipeline's present version and what it has considered."""

    version: int
    spec: str
    identity: str
    inputs: tuple[tuple[str, str], ...]
    dag: str = ""
    n: int = 0
    stopped: bool = False
    hold: Hold | None = None
    hold_n: int = 0
    considered: dict[str, str] | None = None
    """`identity` and each `repo@branch`, as of the last job that ended; None: never, or to be tried again."""
    last_job: str = ""
    last_state: str = ""
    quiet: tuple[tuple[str, str], ...] = ()
    standing: str = ""
    branch: str = "master"
    every_commit: bool = False
    since: int = 0
    """Entry of its present version, or of its last start or release: what came before is considered together."""


class CronState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A cron input of a pipeline, and how far it has ticked."""

    repo: str
    spec: str
    since: str
    """Ticks are due after this time: the start, or the last tick."""
    overwrite: bool = False
    start: str = ""
    """As given."""


class EgressState(msgspec.Struct, frozen=True, kw_only=True):
    """The last commit of a pipeline that arrived where its egress leads."""

    commit: str
    target: str
    n: int
    time: str


class TriggerState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The rule that a branch follows."""

    trigger: Trigger
    since: str
    """When it was set, or last ticked."""


class VersionState(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded version of a pipeline."""

    n: int
    time: str
    actor: str
    spec: str
    identity: str


class JobState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job as the ledger knows it."""

    run: str
    pipeline: str
    version: int
    context: str
    inputs: tuple[InputBinding, ...]
    base: str = ""
    start_n: int = 0
    started: str = ""
    end_n: int = 0
    ended: str = ""
    state: str = "running"
    """`running`, `done`, `failed`, `stopped`, `unrunnable`."""
    commit: str = ""
    end: JobEnd = JobEnd()
    stop: str | None = None
    """Why somebody asked to stop it."""
    because: str = ""


class SweepState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A sweep."""

    list: str
    token: str
    time: str
    open: bool = True


class DropState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A commit that was dropped."""

    n: int
    parents: tuple[str, ...] = ()
    why: str = ""


class RunState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run: its causes and what it sees."""

    n: int
    first: int
    last: int
    view: dict[str, str]
    versions: dict[str, int]
    time: str
    done: bool = False
    jobs: tuple[str, ...] = ()


class Cause(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A ledger entry that can make pipelines due."""

    n: int
    hash: str
    kind: str
    """`ref`, `pipeline`, `revert`, `release`, `retry`, `start`, `tick`, `trigger`."""
    subject: str
    """`repo@branch` or the pipeline's name."""


class ControllerState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who drives."""

    epoch: int
    host: str
    boot: str
    pid: int
    started: str
    kind: str
    n: int
    ended: bool = False
