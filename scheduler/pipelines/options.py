"""The options of a pipeline, as one says them, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...storage.errors import InvalidInputError
from ...worker.child.secrets import parse_secret
from .quantities import check_share, parse_duration_s, parse_size_bytes
from .spec import Options, bad_spec

__all__ = [
    "make_options",
]


def make_options(
    *,
    batch: int = 0,
    cpus: float = 1.0,
    gpus: int = 0,
    memory: str | int | None = None,
    resources: Mapping[str, float] | None = None,
    priority: int = 0,
    tries: int = 1,
    timeout: str | float | None = None,
    job_timeout: str | float | None = None,
    max_failures: str | int = 0,
    secrets: Sequence[str] = (),
    keep: str | None = None,
    every_commit: bool = False,
    every_job: bool = False,
) -> Options:
    """Check the options of a pipeline.

    Raises
    ------
    InvalidInputError
        `BAD_SPEC`, naming the option.
    """
    _whole("batch", batch, 0)
    _whole("gpus", gpus, 0)
    _whole("tries", tries, 1)
    if isinstance(cpus, bool) or not isinstance(cpus, int | float) or not 0 < cpus < float("inf"):
        raise bad_spec(f"cpus: expected a number above 0, got {cpus!r}")
    if memory is not None:
        parse_size_bytes(memory, what="memory")
    for name, amount in (resources or {}).items():
        if name in ("cpu", "gpu", "memory") or not name.isidentifier():
            raise bad_spec(
                f'resources: expected names of what workers announce, such as {{"licence": 1}}, got {name!r}'
                " (cpus=, gpus= and memory= are options of their own)"
            )
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 < amount < float("inf"):
            raise bad_spec(f"resources: expected a number above 0 for {name!r}, got {amount!r}")
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise bad_spec(f"priority: expected a whole number, got {priority!r}")
    for name, flag in (("every_commit", every_commit), ("every_job", every_job)):
        if not isinstance(flag, bool):
            raise bad_spec(f"{name}: expected True or False, got {flag!r}")
    if keep not in (None, "latest"):
        raise bad_spec(f'keep: expected "latest", got {keep!r}')
    if isinstance(secrets, str) or not all(isinstance(item, str) for item in secrets):
        raise bad_spec(f'secrets: expected names of variables such as ["HF_TOKEN"], got {secrets!r}')
    for secret in secrets:
        try:
            parse_secret(secret)
        except InvalidInputError as err:
            raise bad_spec(f"secrets: {err.message}") from err
    return Options(
        batch=batch,
        cpus=float(cpus),
        gpus=gpus,
        memory="" if memory is None else str(memory),
        resources={name: float(amount) for name, amount in sorted((resources or {}).items())},
        priority=priority,
        tries=tries,
        timeout_s=0.0 if timeout is None else parse_duration_s(timeout, what="timeout"),
        job_timeout_s=0.0 if job_timeout is None else parse_duration_s(job_timeout, what="job_timeout"),
        max_failures=check_share(max_failures),
        secrets=tuple(secrets),
        keep=keep or "",
        every_commit=every_commit,
        every_job=every_job,
    )


def _whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise bad_spec(f"{name}: expected a whole number of {least} or more, got {value!r}")
