from __future__ import annotations

import io

import pytest
from rich.console import Console

from dmlpipe.cli.tree import derivation_tree
from dmlpipe.storage.provenance.derivation import Code, Datum, Derivation, Job, PutCommit, Use

JOB = Job("20ce31aa", "3f", "done", "2026-11-23T19:01:00Z", "2026-11-23T19:02:00Z", "a")
TRAINED = Job("11aa22bb", "3e", "done", "2026-11-23T18:01:00Z", "", "a")
MODEL = Derivation(
    "model", "7d02b1ff", "/model.joblib", 4096, "c0",
    job=TRAINED, computed_by=TRAINED, code=Code("model", 3, "ab", "dag.py:11", parameters={"C": 1.0, "seed": 0}),
    inputs=(Use("training", "training", "e41f07ff", "/", put=PutCommit("training", "e", "ada", "first batch", "", 7)),),
)  # fmt: skip


def derivation(*, job: Job = JOB, image: str = "/0012.png") -> Derivation:
    return Derivation(
        "predictions", "41c2aaff", "/0012.json", 12, "c1",
        job=job, computed_by=JOB, datum=Datum(("0012.png",), "51ab0cdd", 0.0004, 1),
        code=Code("predictions", 2, "cd", "dag.py:18", "8f3c21 (clean)", {}, {"declared": "xyz"}),
        inputs=(
            Use("image", "images", "9c41e2ff", image, put=PutCommit("images", "9c", "ada", "week 34", "", 1000)),
            Use("n", value="3"),
            Use("model", "model", "7d02b1ff", "/model.joblib", role="model", made_by=MODEL),
            Use("again", "model", "7d02b1ff", "/model.joblib", role="model", made_by=MODEL, valid_for="999999ff"),
        ),
    )  # fmt: skip


def drawn(one: Derivation, data: bytes | None = b'{"label":\n 7}', *, pictures: bool = False) -> list[str]:
    out = Console(file=io.StringIO(), width=400, highlight=False, emoji=False, markup=False)
    out.print(derivation_tree(one, read=lambda *_: data, pictures=pictures))
    assert isinstance(out.file, io.StringIO)
    return [line.rstrip() for line in out.file.getvalue().splitlines()]


def test_the_tree_of_a_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmlpipe.cli.tree.when", lambda text: text[:16].replace("T", " "))
    assert drawn(derivation()) == [
        'predictions@41c2aa:/0012.json   {"label": 7}   datum 51ab0c  0.4 ms   job 20ce31 (2026-11-23 19:02, host a)',
        '├─ image   images@9c41e2:/0012.png      put by ada, "week 34"',
        "├─ n       3",
        "├─ code    predictions  v2  dag.py:18   git 8f3c21 (clean)",
        "├─ model   model@7d02b1:/model.joblib   job 11aa22 (2026-11-23 18:01, host a)",
        "│  ├─ code       model  v3  dag.py:11   C=1.0 seed=0",
        '│  └─ training   training@e41f07:/      7 files, put by ada, "first batch"',
        "└─ again   model@7d02b1:/model.joblib   job 11aa22 (2026-11-23 18:01, host a)"
        "   equal to what model@999999 has there   (as above)",
    ]


def test_a_reused_result_names_both_jobs() -> None:
    later = Job("777777ff", "40", "done", "", "2026-11-24T08:00:00Z", "b")
    assert "reused by job 777777" in drawn(derivation(job=later))[0]


@pytest.mark.parametrize("data", [None, b"\xff\xfe", b"x" * 61])
def test_what_is_no_short_text_is_not_shown(data: bytes | None) -> None:
    assert "   datum 51ab0c" in drawn(derivation(), data)[0].removeprefix("predictions@41c2aa:/0012.json")[:18]


def test_an_image_is_drawn_under_its_name() -> None:
    image = pytest.importorskip("PIL.Image").new("RGB", (4, 4), "red")
    data = io.BytesIO()
    image.save(data, "PNG")
    lines = drawn(derivation(), data.getvalue(), pictures=True)
    assert lines[1].startswith("├─ image   images@9c41e2:/0012.png")
    assert lines[2:4] == ["│  ▀▀▀▀", "│  ▀▀▀▀"]


def test_names_in_a_tree_cannot_move_the_cursor() -> None:
    assert "/\\x1b[2J.png" in drawn(derivation(image="/\x1b[2J.png"))[1]
