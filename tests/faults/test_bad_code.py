"""User code that does its worst on its first try: the second gives what an undisturbed run gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmlpipe.scheduler.store import Store
from dmlpipe.storage.objects.pack import read_rows
from dmlpipe.storage.objects.segment import Row, decode_rows
from tests.faults.arena import fill, trees, undisturbed_trees, wait_for

DAG = """
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dmlpipe as dml

dag = dml.DAG("mischief")
QUIET = {quiet!r}
HELD = []


def hog(x):
    block = bytearray(400 << 20)
    block[::4096] = b"x" * len(block[::4096])
    time.sleep(60)


def hold_the_lock(x):
    # A call that never lets go of the interpreter.
    ctypes.PyDLL(None).sleep(60)


def fork(x):
    for _ in range(20):
        subprocess.Popen(["sleep", "600", {marker!r}], start_new_session=True)
    os._exit(0)


def delete_inputs(x):
    os.unlink(x)


def overwrite_inputs(x):
    os.chmod(x, 0o644)
    x.write_text("changed")


def shout(x):
    for _ in range(200):
        os.write(1, b"x" * (1 << 20))
    raise RuntimeError("after 200 MB")


def write_outside(x):
    (Path({outside!r}) / x.name).write_text("outside")
    Path(x.name).write_text("in the working folder")
    raise RuntimeError("wrote outside")


def leak(x):
    HELD.append(bytearray(10 << 20))
    threading.Thread(target=time.sleep, args=(600,)).start()
    for _ in range(50):
        HELD.append(open(x))
    raise RuntimeError("leaked")


MISCHIEF = {{
    "crash": lambda x: ctypes.string_at(0),
    "exit": lambda x: os._exit(3),
    "sys-exit": lambda x: sys.exit(2),
    "kill": lambda x: os.kill(os.getpid(), signal.SIGKILL),
    "abort": lambda x: os.abort(),
    "hang": lambda x: time.sleep(600),
    "hang-locked": hold_the_lock,
    "raise": lambda x: 1 / 0,
    "close": lambda x: os.closerange(0, 64),
    "hog": hog,
    "fork": fork,
    "delete": delete_inputs,
    "overwrite": overwrite_inputs,
    "shout": shout,
    "outside": write_outside,
    "leak": leak,
}}


@dag.pipeline(dml.files("things", "/{{stem}}"), tries=3, timeout="3s", memory="300MiB")
def work(things: Path, stem: str) -> dml.Files:
    kind, _, _ = stem.partition("_")
    if not QUIET and kind in MISCHIEF and os.environ["DMLPIPE_TRY"] == "1":
        MISCHIEF[kind](things)
    return {{stem: things.read_text()}}
"""
KINDS = ["crash", "exit", "sys-exit", "kill", "abort", "hang", "hang-locked", "raise", "close", "hog", "fork"]
KINDS += ["delete", "overwrite", "shout", "outside", "leak"]


def test_every_mischief_costs_one_try_of_one_datum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLPIPE_FLUSH_S", "0.2")
    outside = tmp_path / "outside"
    outside.mkdir()
    marker = "6174" + str(abs(hash(str(tmp_path))))[:6]
    dag = tmp_path / "dag.py"
    dag.write_text(DAG.format(quiet=False, outside=str(outside), marker=marker))
    quiet = tmp_path / "quiet" / "dag.py"
    quiet.parent.mkdir()
    quiet.write_text(DAG.format(quiet=True, outside=str(outside), marker=marker))
    # Hangs take their whole time: one of each will do.
    twice = [kind for kind in KINDS if not kind.startswith("hang")]
    names = [f"{kind}_0" for kind in KINDS] + [f"{kind}_1" for kind in twice] + [f"good_{n}" for n in range(20)]
    data = {"things": {name: f"content of {name}" for name in names}}
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    fill(store, data)
    store.submit(dag)
    summary = store.run(slots=2, check=False)
    assert [job.failures for job in summary.jobs] == [()]
    assert trees(store) == undisturbed_trees(quiet, data, tmp_path)
    tries = {row.key.decode(): row.tries for row in rows(store)}
    assert {name: tries[name] for name in names if tries[name] != (1 if name.startswith("good") else 2)} == {}
    assert store["things"].read_bytes("/overwrite_0") == b"content of overwrite_0"
    wait_for(lambda: not alive(marker))


def rows(store: Store) -> list[Row]:
    keys = [key for key, _ in store.backend.list("results") if key.endswith(".seg")]
    return [row for key in keys for row in decode_rows(read_rows(store.backend, key)[0])]


def alive(marker: str) -> list[int]:
    """Processes that have `marker` among their words."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if marker.encode() in words:
                found.append(int(entry.name))
    return found
