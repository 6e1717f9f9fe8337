"""A store with work for it, and a cluster in the test's own hands; how it was done is compared with a quiet run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from dmlpipe.scheduler.store import Store
from tests.faults.arena import Arena, fill, stored_datums, tally, trees, undisturbed_trees

DAG = """
import os
import time
from pathlib import Path

import dmlpipe as dml

dag = dml.DAG("faults")


@dag.pipeline(dml.files("numbers", "/{{stem}}"), tries=1)
def work(numbers: Path, stem: str) -> dml.Files:
    time.sleep({seconds})
    if {log!r}:
        handle = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, (stem + "\\n").encode())  # one call a line: O_APPEND keeps them whole
        os.close(handle)
    return {{f"{{stem}}.out": numbers.read_text() * 50}}


@dag.pipeline(dml.files("work"))
def total(work: Path) -> dml.Files:
    return {{"total": "".join(path.read_text() for path in sorted(work.iterdir()))}}
"""


@dataclass
class Case:
    """Work, and how it was done."""

    folder: Path
    store: Store
    arena: Arena
    dag: Path
    data: dict[str, dict[str, str]]
    log: Path

    def calls(self) -> dict[str, int]:
        return dict(tally(self.log))

    def look(self, kept: dict[str, int]) -> None:
        """Note, of what is stored and was not seen before, how often it was computed until now."""
        fresh = stored_datums(self.store) - kept.keys()
        # Counted after the results were seen: a call beyond this count began after its datum was stored.
        calls = self.calls()
        kept.update((name, calls[name]) for name in fresh if name in calls)

    def check(self, kept: Collection[str]) -> None:
        """The result is that of a run that nobody disturbed; what was stored was not computed again.

        `kept` says how often each was computed when it was found stored (`look`); a set: once.
        """
        assert trees(self.store) == undisturbed_trees(self.dag, self.data, self.folder), self.arena.logs()
        calls = self.calls()
        assert set(calls) == set(self.data["numbers"])
        then = kept if isinstance(kept, Mapping) else dict.fromkeys(kept, 1)
        assert {name: calls[name] for name in kept if name in calls and calls[name] != then[name]} == {}


def make_case(folder: Path, url: str, *, datums: int, seconds: float) -> Case:
    log = folder / "calls"
    dag = folder / "dag.py"
    dag.write_text(DAG.format(log=str(log), seconds=seconds))
    quiet = folder / "quiet" / "dag.py"
    quiet.parent.mkdir()
    quiet.write_text(DAG.format(log="", seconds=0))
    data = {"numbers": {f"n{number:03d}": f"{number} " for number in range(datums)}}
    store = Store.init(url, cache_dir=folder / "cache")
    fill(store, data)
    store.submit(dag)
    return Case(folder, store, Arena(folder, url), quiet, data, log)
