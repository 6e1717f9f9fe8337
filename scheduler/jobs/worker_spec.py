"""A version of a pipeline, planned, as its workers see it."""

from __future__ import annotations

from ...worker.job import ArrayWrites, JobSpec
from ..pipelines.quantities import parse_size_bytes
from ..pipelines.spec import Options, PipelineSpec
from ..planning.plan import JobPlan

__all__ = [
    "array_writes",
    "memory_bytes",
    "worker_spec",
]


def worker_spec(spec: PipelineSpec, plan: JobPlan, *, job: str, run: str, version: int) -> JobSpec:
    """Return a version of a pipeline, planned, as its workers see it."""
    options = spec.options
    return JobSpec(
        job=job,
        run=run,
        pipeline=spec.name,
        version=version,
        context=plan.key.hex(),
        transform=spec.transform,
        parameters=spec.parameters,
        inputs=plan.job_inputs(),
        writes=array_writes(spec),
        batch=options.batch,
        tries=options.tries,
        timeout_s=options.timeout_s,
        cpus=options.cpus,
        gpus=options.gpus,
        memory_bytes=memory_bytes(options),
        secrets=options.secrets,
    )


def memory_bytes(options: Options) -> int:
    """Return what a slot of a pipeline may hold; 0: not said."""
    text = options.memory
    return parse_size_bytes(int(text) if text.isdigit() else text) if text else 0


def array_writes(spec: PipelineSpec) -> ArrayWrites | None:
    """Return what a pipeline's output array is to be like; None: it writes files."""
    if spec.writes is None:
        return None
    return ArrayWrites(like=spec.writes.input, dtype=spec.writes.dtype, fill_value=spec.writes.fill_value)
