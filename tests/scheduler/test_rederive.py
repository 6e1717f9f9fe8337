"""Outputs that nobody has any more are made again from recorded code and inputs, and only taken if they are equal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import zarr

from dmlpipe.scheduler.leases.inline import InlineExecutor
from dmlpipe.scheduler.rederive import Rederivation
from dmlpipe.scheduler.store import Store
from dmlpipe.storage.commits import CommitView
from dmlpipe.storage.fsck import NOT_REPRODUCIBLE, FileRef, Mended

LETTERS = "abc"
DAG = """\
import os
from pathlib import Path

import dmlpipe as dml

dag = dml.DAG("letters")


def note(word):
    with open(os.environ["LETTERS_RAN"], "a") as file:
        file.write(word + "\\n")


@dag.pipeline(dml.files("texts", "/{stem}.txt"))
def upper(texts: bytes, stem: str, *, times: int = 300) -> dml.Files:
    note(f"upper {stem}")
    return {f"{stem}.up": texts.upper() * times, f"{stem}.big": texts[:1] * (2 << 20)}


@dag.pipeline(dml.files("upper"))
def joined(upper: Path) -> dml.Files:
    note("joined")
    return {"all.txt": b"".join(sorted(path.read_bytes() for path in upper.glob("*.up")))}


@dag.pipeline(dml.files("joined"))
def noisy(joined: Path) -> dml.Files:
    note("noisy")
    return {"noise.bin": os.urandom(NOISE), "size.txt": str(len((joined / "all.txt").read_bytes())) * 100}
"""


def write_dag(tmp_path: Path, *, noise: int) -> Path:
    # Less than what is kept in the tree itself cannot be lost: then the pipeline is none that is not reproducible.
    (tmp_path / "dag.py").write_text(DAG.replace("NOISE", str(noise)))
    return tmp_path / "dag.py"


def run(store: Store) -> None:
    executor = InlineExecutor(store)
    try:
        store.run(executor=executor)
    finally:
        executor.close()


def put_texts(tmp_path: Path) -> Store:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    store.put("texts", *((f"{name}.txt", name.encode() * 200) for name in LETTERS))
    return store


def made(tmp_path: Path, *, noise: int) -> Store:
    store = put_texts(tmp_path)
    store.submit(write_dag(tmp_path, noise=noise))
    run(store)
    (tmp_path / "dag.py").write_text("raise RuntimeError('this is not what was recorded')")
    return store


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where user code notes its calls."""
    monkeypatch.setenv("LETTERS_RAN", str(tmp_path / "ran"))
    return tmp_path / "ran"


def keys(store: Store, *prefixes: str) -> list[str]:
    return sorted(key for prefix in prefixes for key, _ in store.backend.list(prefix))


def elsewhere(store: Store, tmp_path: Path) -> Store:
    """The store as a machine sees it that never saw it before."""
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    return Store.open(store.url, cache_dir=tmp_path / "cache")


def mend(store: Store, tmp_path: Path) -> Mended:
    opened = elsewhere(store, tmp_path)
    return opened.repair(rederive=Rederivation(opened))


def contents(store: Store, *repos: str) -> dict[str, tuple[str, dict[str, bytes]]]:
    """Tree and files of the heads."""
    return {repo: (store[repo].body.tree, files(store[repo])) for repo in repos}


def files(view: CommitView, glob: str = "**") -> dict[str, bytes]:
    return {found.path: view.read_bytes(found.path) for found in view.glob(glob) if found.value is not None}


@pytest.mark.parametrize("gone", [True, False], ids=["deleted", "damaged"])
def test_a_chain_of_pipelines_is_made_again_from_its_first_inputs(tmp_path: Path, ran: Path, gone: bool) -> None:
    store = made(tmp_path, noise=20)
    before = contents(store, "upper", "joined", "noisy")
    lost = keys(store, "results/", "objects/")
    assert len([key for key in lost if key.startswith("objects/")]) >= len(LETTERS)
    if gone:
        store.backend.delete_many(lost)
    else:
        for key in lost:
            store.backend.put(key, bytes(len(store.backend.get(key))))
    ran.unlink()
    assert not elsewhere(store, tmp_path).fsck().ok
    mended = mend(store, tmp_path)
    assert mended.ok, (mended.refused, mended.lost)
    # Each datum once, whatever the number of its files; those before those that read them.
    assert ran.read_text().split("\n") == ["upper a", "upper b", "upper c", "joined", "noisy", ""]
    assert {name for name, _ in mended.remade} >= {
        "upper@master:/a.up",
        "upper@master:/c.big",
        "joined@master:/all.txt",
    }
    after = elsewhere(store, tmp_path)
    assert after.fsck().ok
    assert contents(after, "upper", "joined", "noisy") == before
    run(after)
    assert ran.read_text().count("\n") == 5, "what was made again is known, and not computed again"


def test_what_comes_out_otherwise_is_refused(tmp_path: Path, ran: Path) -> None:
    store = made(tmp_path, noise=4000)
    before = contents(store, "upper", "joined")
    store.backend.delete_many(keys(store, "results/"))
    mended = mend(store, tmp_path)
    assert mended.refused == (("noisy@master:/noise.bin", NOT_REPRODUCIBLE),)
    assert "noisy@master:/size.txt" in {name for name, _ in mended.remade}
    assert [touch.name for problem in mended.lost for touch in problem.touches if touch.what == "file"] == [
        "noisy@master:/noise.bin"
    ]
    assert mended.to_dict()["refused"] == [{"file": "noisy@master:/noise.bin", "why": NOT_REPRODUCIBLE}]
    after = elsewhere(store, tmp_path)
    assert contents(after, "upper", "joined") == before
    assert [problem.object for problem in after.fsck().problems] == [problem.object for problem in mended.lost]


@pytest.mark.parametrize(
    ("what", "why"), [("texts", "an input is lost, too"), ("code", "its code or an input is lost, too")]
)
def test_what_it_was_made_from_is_lost_too(tmp_path: Path, ran: Path, what: str, why: str) -> None:
    store = put_texts(tmp_path)
    packs = {"texts": keys(store, "packs/")}
    store.submit(write_dag(tmp_path, noise=20))
    packs["code"] = sorted({*keys(store, "packs/")} - {*packs["texts"]})
    run(store)
    assert all(packs.values())
    store.backend.delete_many([*keys(store, "results/"), *packs[what]])
    ran.unlink()
    mended = mend(store, tmp_path)
    refused = dict(mended.refused)
    assert refused["upper@master:/a.up"].startswith(why), refused
    assert not ran.exists()
    assert not mended.remade
    assert not mended.ok


def test_older_commits_are_made_again_by_the_code_and_parameters_of_their_time(tmp_path: Path, ran: Path) -> None:
    store = made(tmp_path, noise=20)
    first = store["upper"]
    before = files(first, "*.up")
    store.submit(write_dag(tmp_path, noise=20), params={"upper": {"times": 200}})
    run(store)
    assert store["upper"].read_bytes("a.up") != before["/a.up"]
    store.backend.delete_many(keys(store, "results/"))
    mended = mend(store, tmp_path)
    assert mended.ok, (mended.refused, mended.lost)
    after = elsewhere(store, tmp_path)
    assert files(after[f"upper@{first.id}"], "*.up") == before


def test_who_made_it_is_not_known(tmp_path: Path, ran: Path) -> None:
    store = made(tmp_path, noise=20)
    job = store["upper"].job
    refs = [FileRef("upper@master", "/none.up", job, b""), FileRef("upper@master", "/a.up", "f" * 16, b"")]
    reasons: Sequence[Path | str] = [why for _, why in Rederivation(store)(refs)]
    assert all(str(why).startswith("how it was made is not known any more: ") for why in reasons)
    assert len(reasons) == 2


def test_a_path_that_people_have_too_does_not_hide_who_made_it(tmp_path: Path, ran: Path) -> None:
    store = made(tmp_path, noise=20)
    store.put("a-copy", ("all.txt", store["joined"].read_bytes("all.txt")))
    store.backend.delete_many(keys(store, "results/"))
    assert mend(store, tmp_path).ok
    assert elsewhere(store, tmp_path).fsck().ok


def test_a_copy_under_the_same_path_is_whole_with_what_it_is_a_copy_of(tmp_path: Path, ran: Path) -> None:
    store = put_texts(tmp_path)
    (tmp_path / "dag.py").write_text(
        "from pathlib import Path\n\nimport dmlpipe as dml\n\ndag = dml.DAG('d')\n\n\n"
        "@dag.pipeline(dml.files('texts', '/{stem}.txt'))\n"
        "def upper(texts: bytes, stem: str) -> dml.Files:\n    return {f'{stem}.up': texts.upper()}\n\n\n"
        # Stands before the other one in the alphabet, reads from it, and would fail now.
        "@dag.pipeline(dml.files('upper', '/{stem}.up'))\n"
        "def copy(upper: bytes, stem: str) -> dml.Files:\n"
        f"    Path({str(tmp_path / 'once')!r}, stem).touch(exist_ok=False)\n    return {{f'{{stem}}.up': upper}}\n"
    )
    (tmp_path / "once").mkdir()
    store.submit(tmp_path / "dag.py")
    run(store)
    store.backend.delete_many(keys(store, "results/"))
    mended = mend(store, tmp_path)
    assert mended.ok, mended.lost
    assert not mended.refused
    assert [name for name, _ in mended.remade] == [f"upper@master:/{name}.up" for name in LETTERS]


def test_a_renamed_file_is_made_again_by_the_job_that_found_it_known(tmp_path: Path, ran: Path) -> None:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    store.put("texts", ("a.txt", b"a" * 200))
    (tmp_path / "dag.py").write_text(
        "import dmlpipe as dml\n\ndag = dml.DAG('d')\n\n\n"
        "@dag.pipeline(dml.files('texts', '/*'), by_content=True)\n"
        "def upper(texts: bytes) -> dml.Files:\n    return {'up': texts.upper() * 3}\n"
    )
    store.submit(tmp_path / "dag.py")
    run(store)
    with store.commit("texts") as session:
        session.delete("a.txt")
        session.write("b.txt", b"a" * 200)
    run(store)
    before = contents(store, "upper")
    store.backend.delete_many(keys(store, "results/"))
    mended = mend(store, tmp_path)
    assert mended.ok, (mended.refused, mended.lost)
    assert contents(elsewhere(store, tmp_path), "upper") == before


def test_chunks_and_metadata_of_arrays(tmp_path: Path) -> None:
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    with store.commit("scenes") as session:
        array = zarr.create_array(session.zarr(), name="x", shape=(100, 60), chunks=(50, 30), dtype="float32")
        array[:] = np.random.default_rng(0).random((100, 60), dtype="float32")
    (tmp_path / "dag.py").write_text(
        "import numpy as np\n\nimport dmlpipe as dml\n\ndag = dml.DAG('d')\n\n\n"
        "@dag.pipeline(dml.array('scenes', '/x', name='x'), writes=dml.like('x', dtype='float64'))\n"
        "def roots(x: np.ndarray) -> np.ndarray:\n    return np.sqrt(x.astype('float64'))\n"
    )
    store.submit(tmp_path / "dag.py")
    before_run = set(keys(store, "packs/"))
    run(store)
    before = contents(store, "roots")
    assert {"/zarr.json", "/c/1/1"} <= before["roots"][1].keys()
    lost = [*keys(store, "results/"), *(set(keys(store, "packs/")) - before_run)]
    store.backend.delete_many(lost)
    mended = mend(store, tmp_path)
    assert mended.ok, (mended.refused, mended.lost)
    assert {"roots@master:/zarr.json", "roots@master:/c/1/1"} <= {name for name, _ in mended.remade}
    after = elsewhere(store, tmp_path)
    assert after.fsck().ok
    assert contents(after, "roots") == before
