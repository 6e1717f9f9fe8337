"""The main job with its store on a real S3 server: a real cluster, whose processes know the server by environment."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import dmlpipe as dml
from dmlpipe.scheduler.report import RunSummary
from tests.conftest import S3Server

pytestmark = [pytest.mark.s3, pytest.mark.timeout(120)]

DAG = """
import json
import os
from pathlib import Path

import dmlpipe as dml

dag = dml.DAG("sensors")


@dag.pipeline(dml.files("training"))
def model(training: Path, *, spread: float = 2.0) -> dml.Files:
    values = [float(line) for path in sorted(training.iterdir()) for line in path.read_text().split()]
    return {"model.json": json.dumps({"limit": spread * sum(values) / len(values)})}


@dag.pipeline(dml.cross(reading=dml.files("readings", "/{stem}.txt"), model=dml.files("model")), batch=4)
class alarms:
    def __init__(self, model: Path) -> None:
        self.limit = json.loads((model / "model.json").read_text())["limit"]

    def __call__(self, reading: list[Path], stem: list[str]) -> list[dml.Files]:
        high = [max(map(float, path.read_text().split())) for path in reading]
        return [{f"{name}.txt": str(value > self.limit)} for name, value in zip(stem, high, strict=True)]


@dag.pipeline(dml.files("alarms"))
def report(alarms: Path, out: Path) -> None:
    told = [path.stem for path in sorted(alarms.iterdir()) if path.read_text() == "True"]
    seen = sorted(name for name in os.environ if name.startswith("AWS_"))
    (out / "report.json").write_text(json.dumps({"alarms": told, "credentials": seen}))


@dag.pipeline(dml.files("training"))
def large(training: Path, out: Path) -> None:
    (out / "large.bin").write_bytes(b"0123456789abcdef" * (3 << 16))
"""

READINGS = {"mon": "1 2 3", "tue": "1 9 2", "wed": "2 2", "thu": "30", "fri": "0"}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, a DAG and caches of its own."""
    monkeypatch.setenv("DMLPIPE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("DMLPIPE_FLUSH_S", "0.2")
    for path, text in {"training/a.txt": "2 2\n2", "training/b.txt": "2 2"}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "readings").mkdir()
    for stem, text in READINGS.items():
        (tmp_path / "readings" / f"{stem}.txt").write_text(text)
    (tmp_path / "dag.py").write_text(DAG)
    return tmp_path


def counts(summary: RunSummary) -> dict[str, tuple[int, int]]:
    """Pipeline to datums run, datums skipped."""
    assert summary.ok
    return {job.pipeline: (job.counters.run, job.counters.skipped) for job in summary.jobs}


def report_of(store: dml.Store) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(store["report"].read_bytes("/report.json"))
    return found


def test_the_main_job_runs_with_its_store_in_a_bucket(s3_url: str, weed: S3Server, work: Path) -> None:
    store = dml.init(s3_url)
    store.put("training", work / "training", message="calibrated")
    store.put("readings", work / "readings", message="first week")
    store.submit(work / "dag.py")
    assert counts(store.run(slots=2)) == {"model": (1, 0), "alarms": (5, 0), "report": (1, 0), "large": (1, 0)}
    # User code sees no credentials.
    assert report_of(store) == {"alarms": ["thu", "tue"], "credentials": []}
    assert store["large"].info("/large.bin").size == 3 << 20

    # Another client, with caches of its own, reads what the workers wrote; what it puts this one sees.
    other = dml.open(s3_url, cache_dir=work / "other-cache", actor="ada@elsewhere")
    assert other["report"].tree.root == store["report"].tree.root
    assert other["large"].read_bytes("/large.bin") == b"0123456789abcdef" * (3 << 16)
    first = other["alarms"].id
    other.put("readings", ("sat.txt", b"5"), message="saturday")
    assert store["readings"].id == other["readings"].id
    assert counts(store.run(slots=2)) == {"alarms": (1, 5), "report": (1, 0)}
    other.put("training", ("c.txt", b"20 20"), message="recalibrated")
    assert counts(store.run(slots=2)) == {"model": (1, 0), "alarms": (6, 0), "report": (1, 0), "large": (1, 0)}
    assert report_of(other) == {"alarms": ["thu"], "credentials": []}

    # A revert finds all results; who asks afterwards is told where they came from.
    other.revert("model", "model@master^", why="wrong samples")
    assert counts(store.run(slots=2)) == {"alarms": (0, 6), "report": (0, 1)}
    assert report_of(store) == {"alarms": ["sat", "thu", "tue"], "credentials": []}
    why = other.why("alarms:/sat.txt")
    reading, model = why.use("reading"), why.use("model")
    assert (reading.path, reading.put and reading.put.message) == ("/sat.txt", "saturday")
    assert model.commit == store.resolve("model").commit
    assert model.made_by is not None
    training = model.made_by.use("training")
    assert training.put is not None
    assert training.put.message == "calibrated"
    assert store[f"alarms@{first[:8]}"].files == 5

    for client in (store, other):
        checked = client.fsck()
        assert checked.ok, checked.to_dict()
        assert "/sat.txt" in {file.path for file in client["alarms"].ls("/")}


def test_credentials_are_written_nowhere(s3_url: str, weed: S3Server, work: Path) -> None:
    store = dml.init(s3_url)
    store.put("training", work / "training")
    store.create_repo("readings")
    store.submit(work / "dag.py")
    assert counts(store.run(slots=1, targets=["model"])) == {"model": (1, 0)}
    secret = weed.secret.encode()
    for key, _ in store.backend.list(""):
        assert secret not in store.backend.get(key), key
    for folder, _, names in os.walk(work):
        for path in (Path(folder, name) for name in names):
            assert secret not in path.read_bytes(), path


def test_a_client_without_credentials_is_told_which_store_it_could_not_read(
    s3_url: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dml.init(s3_url)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(dml.DmlpipeError) as refused:
        dml.open(s3_url, cache_dir=work / "fresh").refresh()
    assert s3_url.removeprefix("s3://").partition("/")[0] in str(refused.value)
    assert "wrong" not in str(refused.value)
