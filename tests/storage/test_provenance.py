from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from dmlpipe.storage.bodies import encode_body
from dmlpipe.storage.derivation import Use
from dmlpipe.storage.errors import NotFoundError
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
from dmlpipe.storage.value import Whole, encode_value

Leaf = dict[str, object]


class Engine:
    """Records what the layers above would, without them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        store.publish([ControllerTake(epoch=1, host="h", boot="b", pid=1, started="")])

    def pipeline(self, name: str, inputs: list[Leaf], parameters: Mapping[str, object]) -> None:
        spec = self.store.nodes.put(
            msgspec.msgpack.encode({"name": name, "input": {"type": "cross", "inputs": inputs}, "source": "dag.py:7"})
        )
        repos = tuple((str(leaf["repo"]), "master") for leaf in inputs if "repo" in leaf)
        self.store.publish(
            [
                RepoCreate(repo=name, pipeline=name),
                PipelineSet(name=name, version=1, spec=spec.hex(), identity="i", inputs=repos),
            ]
        )
        self.specs = {**getattr(self, "specs", {}), name: (spec.hex(), dict(parameters))}

    def job(
        self,
        pipeline: str,
        number: int,
        roles: Mapping[str, str],
        order: tuple[str, ...],
        outputs: Mapping[str, tuple[bytes, bytes, int]],
    ) -> str:
        """Publish a commit; outputs: path -> (datum key, content, number of the job that computed it)."""
        store, job = self.store, f"{number:016x}"
        run = f"{number + 1000:016x}"
        spec, parameters = self.specs[pipeline]
        bound = tuple(
            InputBinding(
                name=name,
                repo=name.removeprefix("in_"),
                branch="master",
                commit=store[name.removeprefix("in_")].id,
                tree=store[name.removeprefix("in_")].body.tree,
                role=role,
            )
            for name, role in roles.items()
        )
        key = pipeline.encode().hex().ljust(64, "0")
        n = store.refresh().n
        store.publish([RunStart(run=run, epoch=1, first=n, last=n, view={}, versions={pipeline: 1})])
        store.publish([JobStart(job=job, run=run, pipeline=pipeline, version=1, epoch=1, context=key, inputs=bound)])
        writer = store.objects.writer()
        values = {path: encode_value(writer.put(data)) for path, (_, data, _) in outputs.items()}
        out = store.tree().update([(path.encode(), value) for path, value in sorted(values.items())])
        origins = [
            (path.encode(), msgspec.msgpack.encode((datum, bytes.fromhex(f"{origin:016x}"))))
            for path, (datum, _, origin) in sorted(outputs.items())
        ]
        p = store.tree().update(origins)
        record = JobRecord(
            id=job,
            run=run,
            pipeline=pipeline,
            version=1,
            spec=spec,
            code_id="c0de",
            bundle="",
            context=key,
            parameters=parameters,
            env={"python": "3.11"},
            inputs=bound,
            base_job="",
            state="done",
            counters=Counters(),
            t="",
            p=p.root.hex(),
            out=out.root.hex(),
            origins={},
            started="s",
            ended="e",
            host="h",
        )
        head = store.state.head(pipeline)
        body = Commit(
            tree=out.root.hex(),
            parents=(head,) if head else (),
            message="",
            author="dmlpipe",
            time="t",
            job=job,
            files=len(out),
        )
        commit = store.nodes.put(encode_body(body)).hex()
        written = writer.flush()
        store.publish(
            [
                CommitMade(
                    repo=pipeline,
                    id=commit,
                    tree=body.tree,
                    files=len(out),
                    size=0,
                    job=job,
                    packs=written.packs,
                    index=written.index,
                ),
                RefSet(repo=pipeline, branch="master", old=head or "", new=commit),
                JobDone(
                    job=job,
                    epoch=1,
                    key=key,
                    context=Context(inputs={}, order=order, p=p.root.hex(), out=out.root.hex()),
                    commit=commit,
                    end=JobEnd(record=store.nodes.put(encode_body(record)).hex()),
                ),
            ]
        )
        store.publish([RunDone(run=run, epoch=1)])
        return commit


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    store.put("training", ("7/1.png", b"t1"), ("7/2.png", b"t2"), message="first batch")
    store.put("images", ("1.png", b"i1"), message="week 34")
    store.put("images", ("2.png", b"i2"), message="week 35")
    engine = Engine(store)
    engine.pipeline("model", [{"type": "files", "repo": "training", "glob": "/"}], {"C": 1.0})
    engine.pipeline(
        "predictions",
        [{"type": "files", "repo": "images", "glob": "/*.png", "name": "image"}, {"type": "files", "repo": "model"}],
        {},
    )
    engine.job("model", 1, {"training": "data"}, (), {"model.joblib": (b"", b"m" * 300, 1)})
    engine.job(
        "predictions",
        2,
        {"in_images": "data", "model": "model"},
        ("in_images",),
        {"1.json": (b"1.png", b"{1}", 2), "2.json": (b"2.png", b"{2}", 2)},
    )
    store.put("images", ("3.png", b"i3"), message="week 36")
    engine.job(
        "predictions",
        3,
        {"in_images": "data", "model": "model"},
        ("in_images",),
        {"1.json": (b"1.png", b"{1}", 2), "2.json": (b"2.png", b"{2}", 2), "3.json": (b"3.png", b"{3}", 3)},
    )
    return store


def test_a_prediction_leads_to_its_image_its_model_and_the_training_data(store: Store) -> None:
    found = store.why("predictions:/3.json")
    assert found.job is not None
    assert found.computed_by is not None
    assert found.datum is not None
    assert (found.job.id, found.computed_by.id, found.datum.key) == ("0" * 15 + "3", "0" * 15 + "3", ("3.png",))
    image = found.use("in_images")
    assert (image.repo, image.path, image.commit) == ("images", "/3.png", store["images"].id)
    assert image.put is not None
    assert image.put.message == "week 36"
    model = found.use("model")
    assert (model.path, model.role) == ("/model.joblib", "model")
    made = model.made_by
    assert made is not None
    assert made.code is not None
    assert (made.code.pipeline, made.code.parameters, made.code.source) == ("model", {"C": 1.0}, "dag.py:7")
    training = made.use("training")
    assert training.put is not None
    assert (training.path, training.put.message, training.put.files) == ("/", "first batch", 2)
    assert [one.repo for one in found.walk()] == ["predictions", "model"]


def test_what_was_carried_over_has_two_truths(store: Store) -> None:
    found = store.why("predictions:/1.json")
    assert found.job is not None
    assert found.computed_by is not None
    assert (found.job.id[-1], found.computed_by.id[-1]) == ("3", "2")
    image = found.use("in_images")
    assert (image.commit, image.valid_for) == (store["images^"].id, store["images"].id)
    assert image.put is not None
    assert image.put.message == "week 34"
    assert found.use("model").valid_for == ""


def test_why_of_a_commit_and_of_what_people_put(store: Store) -> None:
    whole = store.why("predictions")
    assert (whole.path, whole.datum, whole.size) == ("/", None, None)
    assert {use.name for use in whole.inputs} == {"in_images", "model"}
    put = store.why("images@master^:/1.png")
    assert put.put is not None
    assert (put.put.message, put.code, put.inputs) == ("week 34", None, ())


def test_why_of_content(store: Store) -> None:
    value = store["model"].value("model.joblib")
    assert isinstance(value, Whole)
    found = store.why(value.hash.hex()[:10])
    assert (found.repo, found.path) == ("model", "/model.joblib")
    with pytest.raises(NotFoundError, match="no branch's head holds content"):
        store.why("0" * 12)


def test_why_of_nothing_says_so(store: Store) -> None:
    with pytest.raises(NotFoundError, match=r"no file /9\.json"):
        store.why("predictions:/9.json")


def test_impact_follows_jobs_downward(store: Store) -> None:
    assert [commit.repo for commit, _ in store.impact("training")] == ["model", "predictions", "predictions"]
    assert [commit.id for commit, _ in store.impact("images")] == [store["predictions"].id]


def test_answers_are_plain_data_and_html(store: Store) -> None:
    found = store.why("predictions:/3.json")
    plain = found.to_dict()
    assert msgspec.json.decode(msgspec.json.encode(plain)) == plain
    assert plain["inputs"][1]["made_by"]["code"]["parameters"] == {"C": 1.0}
    page = found._repr_html_()
    assert "model.joblib" in page
    assert "put by" in page
    assert Use("C", value="0.5").shown == "0.5"


def test_fsck_follows_what_jobs_keep(store: Store) -> None:
    assert store.fsck().ok
    p = store.state.job("0" * 15 + "3")
    assert p is not None
    key = f"nodes/{p.end.record[:2]}/{p.end.record[2:]}"
    store.backend.delete_many([key])
    (problem,) = store.fsck().problems
    assert (problem.object, problem.touches) == (key, ("job 0000000000000003",))
