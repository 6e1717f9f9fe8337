"""What the layers above record of pipelines and jobs, written without them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from dmlpipe.storage.digest import digest
from dmlpipe.storage.objects.bodies import encode_body
from dmlpipe.storage.objects.index import BlobIndex, index_key
from dmlpipe.storage.objects.pack import PackBuilder, parse_footer
from dmlpipe.storage.objects.segment import Outcome, Row, encode_rows, segment_key
from dmlpipe.storage.objects.value import encode_value
from dmlpipe.storage.records import (
    Commit,
    CommitMade,
    Context,
    ControllerTake,
    Counters,
    InputBinding,
    JobDone,
    JobEnd,
    JobRecord,
    JobStart,
    PipelineSet,
    RefSet,
    RepoCreate,
    RunDone,
    RunStart,
)
from dmlpipe.storage.store import Store

Leaf = dict[str, object]


class Engine:
    """Publishes pipelines and jobs of a store.

    An input's name is its repo's, after ``in_`` if it has that prefix.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.specs: dict[str, tuple[str, dict[str, object]]] = {}
        store.publish([ControllerTake(epoch=1, host="h", boot="b", pid=1, started="")])

    def pipeline(self, name: str, inputs: list[Leaf], parameters: Mapping[str, object]) -> None:
        body = {"name": name, "input": {"type": "cross", "inputs": inputs}, "source": "dag.py:7"}
        spec = self.store.nodes.put(msgspec.msgpack.encode(body)).hex()
        repos = tuple((str(leaf["repo"]), "master") for leaf in inputs)
        created = RepoCreate(repo=name, pipeline=name)
        self.store.publish([created, PipelineSet(name=name, version=1, spec=spec, identity="i", inputs=repos)])
        self.specs[name] = (spec, dict(parameters))

    def bindings(self, roles: Mapping[str, str]) -> tuple[InputBinding, ...]:
        bound = []
        for name, role in roles.items():
            head = self.store[name.removeprefix("in_")]
            bound.append(
                InputBinding(name=name, repo=head.repo, branch="master", commit=head.id, tree=head.body.tree, role=role)
            )
        return tuple(bound)

    def job(
        self,
        pipeline: str,
        number: int,
        roles: Mapping[str, str],
        order: tuple[str, ...],
        outputs: Mapping[str, tuple[bytes, bytes, int]],
    ) -> str:
        """Publish a commit; `outputs`: path -> (datum key, content, number of the job that computed it)."""
        store, job, run = self.store, f"{number:016x}", f"{number + 4096:016x}"
        spec, parameters = self.specs[pipeline]
        bound = self.bindings(roles)
        context_key = digest(pipeline.encode()).hex()
        n = store.refresh().n
        store.publish([RunStart(run=run, epoch=1, first=n, last=n, view={}, versions={pipeline: 1})])
        start = JobStart(job=job, run=run, pipeline=pipeline, version=1, epoch=1, context=context_key, inputs=bound)
        store.publish([start])

        builder = PackBuilder()
        writer = store.objects.writer(builder=builder)
        values = {path: encode_value(writer.put(data)) for path, (_, data, _) in outputs.items()}
        rows = [
            Row(key, digest(key), Outcome.OK, [(path, values[path])], 1, 0.25)
            for path, (key, _, origin) in sorted(outputs.items())
            if origin == number
        ]
        body = builder.finish(rows=encode_rows(rows), meta={"job": job})
        segment = segment_key(job, 0, "w", 0)
        store.backend.put_if_absent(segment, body)
        index = BlobIndex.build(parse_footer(body, segment).locations(segment))
        store.backend.put_if_absent(index_key(index), index)
        writer.close()

        encode = msgspec.msgpack.encode
        out = store.tree().update(sorted((path.encode(), value) for path, value in values.items()))
        origins = {path: bytes.fromhex(f"{origin:016x}") for path, (_, _, origin) in outputs.items()}
        p = store.tree().update(
            sorted((path.encode(), encode((key, origins[path]))) for path, (key, _, _) in outputs.items())
        )
        t = store.tree().update(sorted((key, encode(([path], origins[path]))) for path, (key, _, _) in outputs.items()))
        row_tree = store.tree().update((row.key, encode((segment, place))) for place, row in enumerate(rows))
        record = JobRecord(
            id=job,
            run=run,
            pipeline=pipeline,
            version=1,
            spec=spec,
            code_id="c0de",
            bundle="",
            context=context_key,
            parameters=parameters,
            env={"python": "3.11"},
            inputs=bound,
            base_job="",
            state="done",
            counters=Counters(total=len(outputs), run=len(rows), skipped=len(outputs) - len(rows)),
            t=t.root.hex(),
            p=p.root.hex(),
            out=out.root.hex(),
            origins={},
            started="2026-11-23T19:00:00.000000Z",
            ended="2026-11-23T19:00:01.000000Z",
            host="h",
        )
        head = store.state.head(pipeline)
        size = sum(len(data) for _, data, _ in outputs.values())
        commit_body = Commit(
            tree=out.root.hex(),
            parents=(head,) if head else (),
            message="",
            author="dmlpipe",
            time="2026-11-23T19:00:01.000000Z",
            job=job,
            files=len(out),
            size=size,
        )
        commit = store.nodes.put(encode_body(commit_body)).hex()
        end = JobEnd(
            counters=record.counters,
            record=store.nodes.put(encode_body(record)).hex(),
            packs=(segment,),
            index=index_key(index),
            rows=row_tree.root.hex(),
        )
        context = Context(
            inputs={name: store[name.removeprefix("in_")].body.tree for name in order},
            order=order,
            out=out.root.hex(),
            t=t.root.hex(),
            p=p.root.hex(),
        )
        store.publish(
            [
                CommitMade(repo=pipeline, id=commit, tree=commit_body.tree, files=len(out), size=size, job=job),
                RefSet(repo=pipeline, branch="master", old=head or "", new=commit),
                JobDone(job=job, epoch=1, key=context_key, context=context, commit=commit, end=end),
            ]
        )
        store.publish([RunDone(run=run, epoch=1)])
        return commit
