from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from dmlpipe.storage.errors import NotFoundError
from dmlpipe.storage.objects.value import Whole
from dmlpipe.storage.provenance.derivation import Use
from dmlpipe.storage.store import Store
from tests.storage.engine import Engine


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
        [
            {"type": "files", "repo": "images", "glob": "/*.png", "name": "in_images"},
            {"type": "files", "repo": "model"},
        ],
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
    assert (found.datum.seconds, found.datum.tries, len(found.datum.id)) == (0.25, 1, 64)


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
    images = whole.use("in_images")
    assert images.put is not None
    assert (images.path, images.put.message) == ("/", "week 36")
    assert whole.use("model").path == "/model.joblib"
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
    assert (problem.object, [touch.name for touch in problem.touches]) == (key, ["job 0000000000000003"])
