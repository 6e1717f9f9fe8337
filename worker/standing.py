"""``python -m dmlpipe.worker.standing --store URL --spec FILE --folder DIR``: one spout or service, until it ends.

Its command sees what a datum's command sees: inputs below ``/pfs`` (of a service, each repo as a whole), its scripts in
``/code``, its secrets. A spout finds the store in its environment, since it commits by ``dmlpipe put``; a service does
not. What is written to ``/pfs/out`` is nobody's. SIGTERM goes on to the command.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..storage.errors import DmlpipeError
from ..storage.info import STORE_VARIABLE
from ..storage.logs import log_to_stderr
from ..storage.objects.segment import Outcome
from ..storage.store import Store
from .child.commands import Commands
from .child.processes import adopt_orphans, children, die_with_parent, end_children
from .job import CommandTransform, Datum, JobSpec, decode_spec
from .segments import FlushLimits, SegmentWriter, worker_host
from .slots.job_work import JobWork, scratch_folder
from .slots.materialize import Materializer

logger = logging.getLogger(__name__)


def environment(base: dict[str, str], store: Store) -> dict[str, str]:
    """Return what a spout gets beside its own variables: the way to the store, and the program that commits."""
    found = dict(os.environ) | base
    folder = os.path.dirname(sys.executable)
    found["PATH"] = os.pathsep.join(dict.fromkeys([folder, *found.get("PATH", os.defpath).split(os.pathsep)]))
    return found | {STORE_VARIABLE: store.url, "DMLPIPE_CACHE_DIR": str(store.cache_dir)}


def run(store: Store, spec: JobSpec, folder: Path, *, spout: bool) -> bool:
    """Run the command to its end; return whether it ended well.

    Raises
    ------
    DmlpipeError
        An input, the code or a secret is not to be had.
    """
    transform = spec.transform
    assert isinstance(transform, CommandTransform)
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("d", "root"):
        (folder / name).mkdir(parents=True)
    parent = os.getppid()
    results = SegmentWriter(
        store,
        spec.job,
        worker="standing",
        host=worker_host(),
        next_seq=itertools.count().__next__,
        limits=FlushLimits(),
        clock=time.monotonic,
    )
    job = JobWork(store, spec, folder=folder / "job", results=results, environ=os.environ)
    try:
        setup = job.setup(scratch_folder(folder))
        if spout:
            setup = msgspec.structs.replace(setup, env=environment(setup.env, store))
        (prepared,) = Materializer(store, folder / "d").prepare(job.inputs, [(Datum(b"", b"", ()), 1)])
        commands = Commands(str(folder / "root"), users=bool(transform.user), tidy=end_children)
        # After the namespace: entering one forgets the death signal.
        die_with_parent(parent)
        if commands.notice:
            logger.warning("%s", commands.notice)
        commands.set_up(setup)
        ran = commands.run(prepared.payload)
        if ran.failure is not None:
            logger.warning("%s", ran.failure.message)
        return ran.outcome is Outcome.OK
    finally:
        job.close()


def _forward(number: int, frame: object) -> None:
    for pid in children():
        os.kill(pid, number)


def main(argv: Sequence[str]) -> int:
    """Run one; the exit code says whether it ended well."""
    parser = argparse.ArgumentParser(prog="python -m dmlpipe.worker.standing", description=__doc__)
    parser.add_argument("--store", required=True)
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--spout", action="store_true")
    arguments = parser.parse_args(argv)
    log_to_stderr("standing")
    adopt_orphans()
    signal.signal(signal.SIGTERM, _forward)
    try:
        store = Store.open(arguments.store)
        spec = decode_spec(arguments.spec.read_bytes())
        return 0 if run(store, spec, arguments.folder, spout=arguments.spout) else 1
    except DmlpipeError as err:
        logger.error("%s", err)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
