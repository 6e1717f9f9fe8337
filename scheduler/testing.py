"""Run a DAG inside a test: a memory store, this process, no Dask, well under a second; breakpoints work.

Examples
--------
>>> from dmlpipe import DAG, Files, files, testing
>>> dag = DAG("letters")
>>> @dag.pipeline(files("texts", "/{stem}.txt"))
... def upper(texts: bytes, stem: str) -> Files:
...     return {f"{stem}.up": texts.upper()}
>>> testing.run(dag, {"texts": {"a.txt": b"abc"}})["upper"].read_bytes("/a.up")
b'ABC'
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..storage.commits import CommitView
from .errors import JobFailed
from .leases.inline import InlineExecutor
from .store import Store

if TYPE_CHECKING:
    from .pipelines.dag import DAG

__all__ = ["run"]

Contents = Mapping[str, bytes | str]


def run(
    dag: DAG | Sequence[DAG],
    data: Mapping[str, Path | str | Contents],
    *,
    params: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, CommitView]:
    """Run pipelines on data, in this process and in memory.

    Parameters
    ----------
    dag
        One DAG, or several.
    data
        Repo to a folder or file, or to a mapping of path to content.
    params
        Pipeline to parameter to value.

    Returns
    -------
    dict of str to CommitView
        The output of each pipeline, and the commit of each repo of `data`.

    Raises
    ------
    JobFailed
        A datum failed; its ``__cause__`` is what the user's code raised.
    """
    dags = [dag] if not isinstance(dag, Sequence) else list(dag)
    errors: list[BaseException] = []
    with tempfile.TemporaryDirectory(prefix="dmlpipe-testing-") as cache:
        store = Store.init(f"memory://testing-{uuid.uuid4().hex}", cache_dir=Path(cache))
        for repo, content in data.items():
            if isinstance(content, str | Path):
                store.put(repo, Path(content), create=True)
            else:
                with store.commit(repo, create=True) as session:
                    for path, text in content.items():
                        session.write(path, text)
        store.submit(dags, params=params)
        targets = {name: declared.transform for one in dags for name, declared in one.pipelines.items()}
        executor = InlineExecutor(store, targets=targets, on_error=lambda _, error: errors.append(error))
        try:
            store.run(executor=executor)
        except JobFailed as failed:
            if errors:
                raise failed from errors[0]
            raise
        finally:
            executor.close()
        state = store.state
        names = [*data, *(name for name, _ in state.pipelines())]
        return {name: store[name] for name in names if state.head(name)}
