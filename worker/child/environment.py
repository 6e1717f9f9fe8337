"""Variables that user code sees: nothing of the cluster, the clouds or the store, but what its job declares."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..job import CommandTransform, JobSpec

_DROPPED = re.compile(
    r"""^(
        DMLPIPE_.* | DASK_.* | DISTRIBUTED_.* |
        AWS_.* | S3_.* | BOTO.* | FSSPEC_.* | MINIO_.* |
        GOOGLE_.* | GCS_.* | GCLOUD_.* | CLOUDSDK_.* | GCP_.* |
        AZURE_.* | ARM_.* | MSI_.* | IDENTITY_.* |
        KUBE.* | VAULT_.* | CONSUL_.* | SSH_AUTH_SOCK | SSH_AGENT_PID |
        SSL_.*KEY.* | .*_TLS_.* | TLS_.* |
        .*(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|APIKEY|API_KEY|ACCESS_KEY|PRIVATE_KEY).* |
        PYTEST_.* | VIRTUAL_ENV_PROMPT | LD_PRELOAD | PYTHONSTARTUP | PYTHONINSPECT
    )$""",
    re.VERBOSE | re.IGNORECASE,
)
_THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
    *("NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"),
)
"""What numeric libraries ask how many threads to start (PyTorch: the first three)."""


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what of a worker's environment its children may see.

    Examples
    --------
    >>> clean_environment({"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x", "DMLPIPE_STORE": "s3://b"})
    {'PATH': '/bin'}
    """
    return {name: value for name, value in environ.items() if not _DROPPED.match(name)}


def thread_count(cpus: float) -> int:
    """Threads that libraries may start in a slot of so many cpus.

    Examples
    --------
    >>> thread_count(0.5), thread_count(4)
    (1, 4)
    """
    return max(1, int(cpus))


def job_environment(
    spec: JobSpec,
    base: Mapping[str, str],
    secrets: Mapping[str, str],
    scratch: str,
    *,
    devices: Sequence[str] | None = None,
) -> dict[str, str]:
    """Variables that hold for a whole job: `base`, thread counts, the declared ones, `PACH_*`, `DMLPIPE_*`.

    A slot's thread counts (its `cpus`) and devices stand above what the worker's own environment says, which is meant
    for the whole machine. What a command declares in `env` stands above both.
    """
    threads = str(thread_count(spec.cpus))
    env = dict(base) | dict.fromkeys(_THREAD_VARIABLES, threads)
    if devices is not None:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    env |= {
        "TMPDIR": scratch,
        "PYTHONUNBUFFERED": "1",
        "DMLPIPE_JOB": spec.job,
        "DMLPIPE_RUN": spec.run,
        "DMLPIPE_PIPELINE": spec.pipeline,
        "DMLPIPE_VERSION": str(spec.version),
        "PACH_JOB_ID": spec.job,
        # In Pachyderm a job and its output commit have one id; here the commit's id is not known before it is made.
        "PACH_OUTPUT_COMMIT_ID": spec.job,
        "PACH_IN_WORKER": "true",
        "PACH_NAMESPACE": "default",
        "PPS_PIPELINE_NAME": spec.pipeline,
        "PPS_PROJECT_NAME": "default",
        "PPS_SPEC_COMMIT": f"{spec.pipeline}-v{spec.version}",
        "FILESET_ID": spec.job,
    }
    for item in spec.inputs:
        if item.commit:
            env[f"{item.name}_COMMIT"] = item.commit
    if isinstance(spec.transform, CommandTransform):
        env["cpus"] = threads
        env |= {name: parameter_text(value) for name, value in spec.parameters.items()}
        env |= spec.transform.env
    return env | dict(secrets)


def datum_environment(datum_id: str, attempt: int) -> dict[str, str]:
    """Variables of one datum that every kind of transform sees."""
    return {"DMLPIPE_DATUM": datum_id, "DMLPIPE_TRY": str(attempt), "PACH_DATUM_ID": datum_id}


def parameter_text(value: Any) -> str:
    """A plain value as a command's variable: text as it is, everything else as Python or JSON would show it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)
