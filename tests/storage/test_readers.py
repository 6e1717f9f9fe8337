"""Libraries that read through fsspec read ``dml://`` as they are: needs pandas, pyarrow, DuckDB, Polars and xarray."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from dmlpipe.storage.store import Store

pytestmark = pytest.mark.slow

ROWS = 20_000
CSV = "".join(["n,name\n", *(f"{n},name {n % 7}\n" for n in range(ROWS))]).encode()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with a table, found as a user's would be: by a variable."""
    store = Store.init(tmp_path / "store", cache_dir=tmp_path / "cache")
    monkeypatch.setenv("DMLPIPE_STORE", store.url)
    monkeypatch.setenv("DMLPIPE_CACHE_DIR", str(tmp_path / "cache"))
    store.put("tables", ("old.csv", b"n,name\n"), ("all.csv", CSV))
    return store


@pytest.fixture
def parquet(store: Store) -> Store:
    """The same with the table as two files of Parquet."""
    pa, csv, pq = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.csv", "pyarrow.parquet"))
    table = csv.read_csv(pa.BufferReader(CSV))
    files = []
    for number, part in enumerate((table.slice(0, ROWS // 2), table.slice(ROWS // 2))):
        out = io.BytesIO()
        pq.write_table(part, out, row_group_size=1000)
        files.append((f"part/{number}.parquet", out.getvalue()))
    store.put("tables", *files)
    return store


def test_pandas(parquet: Store) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv("dml://tables@master/all.csv")
    assert (len(frame), int(frame["n"].sum())) == (ROWS, ROWS * (ROWS - 1) // 2)
    assert len(pandas.read_csv("dml://tables/all.csv", storage_options={"store": parquet.url})) == ROWS
    assert len(pandas.read_csv("dml://tables@master^/all.csv")) == ROWS
    column = pandas.read_parquet("dml://tables@master/part/1.parquet", columns=["n"])
    assert column["n"].tolist() == list(range(ROWS // 2, ROWS))


def test_pyarrow(parquet: Store) -> None:
    dataset = pytest.importorskip("pyarrow.dataset")
    fs = fsspec.filesystem("dml")
    found = dataset.dataset("tables@master/part", filesystem=fs, format="parquet")
    assert found.count_rows() == ROWS
    late = found.to_table(filter=dataset.field("n") >= ROWS - 3, columns=["name"])
    assert late["name"].to_pylist() == [f"name {n % 7}" for n in range(ROWS - 3, ROWS)]


def test_duckdb(parquet: Store) -> None:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as db:
        db.register_filesystem(fsspec.filesystem("dml"))

        def ask(query: str) -> Any:
            return db.execute(query).fetchone()

        assert ask("SELECT count(*), sum(n) FROM read_csv('dml://tables@master/all.csv')") == (
            ROWS,
            ROWS * (ROWS - 1) // 2,
        )
        assert ask("SELECT count(*) FROM 'dml://tables@master/part/*.parquet'") == (ROWS,)
        assert ask("SELECT max(n) FROM read_parquet('dml://tables@master/part/0.parquet')") == (ROWS // 2 - 1,)


def test_polars(parquet: Store) -> None:
    polars = pytest.importorskip("polars")
    with fsspec.open("dml://tables@master/part/1.parquet") as file:
        assert polars.read_parquet(file)["n"].sum() == sum(range(ROWS // 2, ROWS))
    with fsspec.open("dml://tables@master/all.csv") as file:
        assert polars.read_csv(file).shape == (ROWS, 2)
    dataset = pytest.importorskip("pyarrow.dataset")
    found = dataset.dataset("tables@master/part", filesystem=fsspec.filesystem("dml"))
    lazy = polars.scan_pyarrow_dataset(found).filter(polars.col("n") < 5).select("n")
    assert lazy.collect()["n"].to_list() == list(range(5))


def test_xarray(store: Store) -> None:
    xarray = pytest.importorskip("xarray")
    heights = np.arange(60.0).reshape(6, 10)
    made = xarray.Dataset({"height": (("y", "x"), heights)}, coords={"x": np.arange(10), "y": np.arange(6)})
    with store.commit("scenes") as session:
        made.to_zarr(session.zarr(), zarr_format=3, consolidated=False)
    opened = xarray.open_zarr("dml://scenes@master", consolidated=False, chunks=None)
    assert opened.height.sel(y=5).values.tolist() == heights[5].tolist()
    assert xarray.testing.assert_identical(opened.load(), made) is None
