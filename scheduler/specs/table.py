"""Every field of a specification: how it is written, and what it is here.

The one list that the reader, the JSON Schema, `submit --check` and the guide go by. A field is *used*, *ignored* (with
a notice: it means something to Kubernetes, or to a request, and nothing here) or *refused* with the reason.
"""

from __future__ import annotations

from typing import NamedTuple

USED = "used"
IGNORED = "ignored"
REFUSED = "refused"


class Field(NamedTuple):
    """One field of one object."""

    name: str
    """In snake_case."""
    form: str
    """`text`, `texts`, `integer`, `integers`, `number`, `flag`, `duration`, `size`, `share`, `variables`, `scalars`,
    `any`; the name of another object, or that with `[]` behind it for a list."""
    here: str
    """What it is here; of a refused one: why, and what to do instead."""
    verdict: str = USED
    ours: bool = False
    """Pachyderm does not have it."""


OBJECTS: dict[str, tuple[Field, ...]] = {
    "spec": (
        Field("pipeline", "pipeline", "the name of the pipeline and of the repo it writes"),
        Field("description", "text", "a sentence for people"),
        Field("metadata", "any", "labels of pods", IGNORED),
        Field("transform", "transform", "the command"),
        Field("tf_job", "any", "TensorFlow jobs never ran in Pachyderm either: train in a command", REFUSED),
        Field("parallelism_spec", "any", "how many datums run at once is said when they run: `run -j N`", IGNORED),
        Field("egress", "egress", "where each commit is sent once it is published"),
        Field("update", "any", "`submit` makes and updates", IGNORED),
        Field("reprocess", "flag", "computing all anew is asked for once: dmlpipe pipeline reprocess NAME", REFUSED),
        Field("dry_run", "any", "`submit -n`", IGNORED),
        Field("spec_commit", "any", "versions are numbered", IGNORED),
        Field("output_branch", "text", "the branch of its repo on which its jobs publish; `master` if not given"),
        Field("s3_out", "flag", "there is no S3 gateway: write to /pfs/out", REFUSED),
        Field("resource_requests", "resources", "what one slot needs"),
        Field("resource_limits", "resources", "what one slot needs, where `resource_requests` does not say"),
        Field("sidecar_resource_requests", "any", "there is no sidecar", IGNORED),
        Field("sidecar_resource_limits", "any", "there is no sidecar", IGNORED),
        Field("input", "input", "what it reads"),
        Field("service", "service", "a process that serves the newest commits of its inputs; `up` keeps it running"),
        Field("spout", "spout", "a process that commits to its own repo by `dmlpipe put`; `up` keeps it running"),
        Field("datum_set_spec", "any", "slots take shares whose size follows the datums' own seconds", IGNORED),
        Field("datum_timeout", "duration", "a datum that takes longer is killed with all it started: a failed try"),
        Field("job_timeout", "duration", "a job that takes longer is ended; what is finished is kept"),
        Field("salt", "text", "part of every fingerprint: another salt computes all anew"),
        Field("datum_tries", "integer", "how often a datum is tried; 3 if not given"),
        Field("scheduling_spec", "any", "nodes are chosen by who starts the workers", IGNORED),
        Field("pod_spec", "any", "there are no pods", IGNORED),
        Field("pod_patch", "any", "there are no pods", IGNORED),
        Field("tolerations", "any", "there are no pods", IGNORED),
        Field(
            "reprocess_spec",
            "text",
            "`until_success`: what was computed once from the same inputs is not again; `every_job`: it is, each time",
        ),
        Field("autoscaling", "any", "workers are there while something runs", IGNORED),
        Field("determined", "any", "there is no link to Determined", IGNORED),
        Field("maximum_expected_uptime", "any", "an alert of Pachyderm's", IGNORED),
        Field("params", "scalars", "values that the command finds as variables; `--set NAME.PARAM=VALUE`", ours=True),
        Field(
            "env",
            "text",
            "what the command runs with: a requirements or conda file, a folder, `module load ...`, an image by digest",
            ours=True,
        ),
        Field("batch", "integer", "`datum_batching` with a new process after so many datums", ours=True),
        Field("max_failures", "share", 'datums that may fail without failing the job: 3 or "0.1%"', ours=True),
        Field(
            "every_commit",
            "flag",
            "a job for each commit to its inputs, as in Pachyderm: that is what happens unless it says `false`",
            ours=True,
        ),
        Field("by_content", "flag", "names of files do not count: equal content is computed once", ours=True),
        Field("code", "text", "folder of scripts beside this file, as `--code DIR`", ours=True),
    ),
    "pipeline": (
        Field("name", "text", "1 to 63 letters, digits, `-`, `_`, `.`"),
        Field("project", "text", "a store is one project: leave it out, or `default`"),
    ),
    "transform": (
        Field("image", "text", "what a container runs (`--container`); else the command runs as it is"),
        Field("cmd", "texts", "program and arguments; no shell"),
        Field("stdin", "texts", "lines that the program reads; it need not read them all"),
        Field(
            "err_cmd", "texts", "runs when `cmd` failed; if it ends well the datum is recovered: no output, no failure"
        ),
        Field("err_stdin", "texts", "lines for `err_cmd`"),
        Field("env", "variables", "variables of the command"),
        Field("secrets", "secret[]", "read where the worker runs; never stored, redacted in output"),
        Field("accept_return_code", "integers", "exit codes that are success, beside 0"),
        Field("working_dir", "text", "where the command starts"),
        Field("user", "text", "who runs the command, where the worker may choose (root, or a container)"),
        Field("datum_batching", "flag", "one process for many datums: `dmlpipe next datum`"),
        Field("image_pull_secrets", "any", "log in with the container program itself", IGNORED),
        Field("dockerfile", "any", "Pachyderm does not use it either", IGNORED),
        Field("debug", "any", "`-v`, and logs are kept anyway", IGNORED),
        Field("memory_volume", "any", "$TMPDIR is the worker's", IGNORED),
    ),
    "secret": (
        Field("name", "text", "name of the secret"),
        Field("key", "text", "which of its values"),
        Field("env_var", "text", "the variable that holds it"),
        Field("mount_path", "text", "the folder in which it is a file of mode 0600"),
    ),
    "egress": (
        Field("url", "text", "a folder or bucket: any fsspec URL"),
        Field("object_storage", "object_storage", "the same"),
        Field("sql_database", "sql_database", "a database whose tables take the rows"),
    ),
    "object_storage": (Field("url", "text", "a folder or bucket: any fsspec URL"),),
    "sql_database": (
        Field("url", "text", "any SQLAlchemy URL (extra `sql`)"),
        Field("file_format", "file_format", "how rows are written"),
        Field("secret", "sql_secret", "the password"),
    ),
    "file_format": (
        Field("type", "text", "`CSV` or `JSON`"),
        Field("columns", "texts", "the columns, in order; of CSV, a first line that names them is a header"),
    ),
    "sql_secret": (
        Field("name", "text", "name of the secret"),
        Field("key", "text", "which of its values; `PACHYDERM_SQL_PASSWORD` if not given"),
    ),
    "input": (
        Field("pfs", "pfs", "files of a repo: `files`"),
        Field("cross", "input[]", "all combinations: `cross`"),
        Field("union", "input[]", "one after the other: `union`"),
        Field("join", "input[]", "combinations with an equal key: `join`"),
        Field("group", "input[]", "one datum per key: `group`"),
        Field("cron", "cron", "ticks: `cron`"),
    ),
    "pfs": (
        Field("project", "text", "a store is one project: leave it out, or `default`"),
        Field("name", "text", "the folder in /pfs; the repo's name if not given"),
        Field("repo", "text", "the repo"),
        Field("repo_type", "text", "`user`; there are no others"),
        Field("branch", "text", "the branch; `master` if not given"),
        Field("commit", "text", "an input follows a branch"),
        Field("glob", "text", "what is one datum"),
        Field("join_on", "text", "the key in a join: `$1`"),
        Field("outer_join", "flag", "stays where another input has none of its key"),
        Field("group_by", "text", "the key in a group: `$1`"),
        Field("lazy", "flag", "named pipes, fetched when they are opened; each can be read once"),
        Field("empty_files", "flag", "empty placeholders; a link to one in /pfs/out is a copy of what it stands for"),
        Field("s3", "flag", "there is no S3 gateway: inputs are files", REFUSED),
        Field("trigger", "trigger", "the rule by which `branch` follows another branch"),
        Field("propagation_spec", "propagation", "whether a commit starts a job"),
        Field("reference", "flag", "its content does not count: a change of it alone makes no datum run"),
        Field("glob_dirs", "flag", "`**` yields folders too, as in Pachyderm; else files only", ours=True),
    ),
    "trigger": (
        Field("branch", "text", "the branch that is followed; `master` if not given"),
        Field("all", "flag", "all conditions are needed; else one will do"),
        Field("rate_limit_spec", "text", "at most once per cron interval"),
        Field("size", "size", "bytes that it must have grown by"),
        Field("commits", "integer", "commits that must have come"),
        Field("cron_spec", "text", "when it follows; excludes the others"),
    ),
    "propagation": (Field("never", "flag", "a new commit starts no job by itself; the next job sees it"),),
    "cron": (
        Field("project", "text", "a store is one project: leave it out, or `default`"),
        Field("name", "text", "the folder in /pfs"),
        Field("repo", "text", "holds the ticks; `PIPELINE_NAME` if not given"),
        Field("commit", "text", "an input follows a branch"),
        Field("spec", "text", "five fields, `@daily`, `@every 20s`, `@never`"),
        Field("start", "text", "ticks count from here; from the first version if not given"),
        Field("overwrite", "flag", "a tick takes the place of the one before it"),
    ),
    "resources": (
        Field("cpu", "number", "cores (0.5, 500m): how many threads libraries start"),
        Field("memory", "size", "recorded"),
        Field("gpu", "gpu", "recorded"),
        Field("disk", "any", "not asked for", IGNORED),
    ),
    "service": (
        Field("internal_port", "integer", "where the command listens: so on the machine of `up`"),
        Field("external_port", "integer", "no port is forwarded", IGNORED),
        Field("ip", "any", "no port is forwarded", IGNORED),
        Field("type", "any", "no port is forwarded", IGNORED),
    ),
    "spout": (Field("service", "service", "where the spout listens"),),
    "gpu": (
        Field("type", "text", "of no consequence"),
        Field("number", "integer", "how many"),
    ),
}


FORMER: dict[str, dict[str, str]] = {
    "spec": {
        "standby": "autoscaling, which has no meaning here",
        "chunk_spec": "datum_set_spec, which has no meaning here",
        "enable_stats": "gone: times and logs of each datum are always kept",
        "cache_size": "gone: the cache is the host's, one for all pipelines",
        "max_queue_size": "gone: inputs of the next datums are fetched while one is computed",
        "hashtree_spec": "gone: there is nothing to shard",
        "scale_down_threshold": "autoscaling, which has no meaning here",
        "incremental": "gone: all pipelines are",
    },
    "spout": {
        "overwrite": "gone with its pipe: say by `dmlpipe put`, or `put --append`, what a commit does to a file",
        "marker": "gone with its pipe: keep the place in a file of the repo, and commit it by `dmlpipe put`",
    },
    "input": {"git": "gone: put a checkout into a repo, `dmlpipe put --mirror`", "atom": "pfs"},
}
"""What Pachyderm 1 had and Pachyderm 2 has not: object to field to what became of it."""


def names(kind: str) -> tuple[str, ...]:
    """The fields of an object, in snake_case."""
    return tuple(field.name for field in OBJECTS[kind])


def ignored(kind: str) -> frozenset[str]:
    """Those that have no meaning here."""
    return frozenset(field.name for field in OBJECTS[kind] if field.verdict == IGNORED)


def refused(kind: str) -> dict[str, str]:
    """Those that are refused, with the reason."""
    return {field.name: field.here for field in OBJECTS[kind] if field.verdict == REFUSED}
