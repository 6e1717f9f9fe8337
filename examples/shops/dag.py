"""Shops, what was bought in them and what came back: inputs that belong together by parts of their names."""

import csv
import json
from pathlib import Path

import dmlpipe as dml

dag = dml.DAG("shops")


def total(slip: bytes) -> float:
    """Sum of a list of things and prices."""
    return sum(float(price) for _, price in csv.reader(slip.decode().splitlines()))


# One datum for each list of purchases, with the shop that it belongs to: `{shop}` is what both names have in common.
@dag.pipeline(dml.join(dml.files("shops", "/{shop}.json"), dml.files("purchases", "/{shop}_{month}.csv")))
def revenue(shops: bytes, purchases: bytes, shop: str, month: str) -> dml.Files:
    """Purchases of a shop and month, in euros."""
    return {f"{month}/{shop}.txt": f"{total(purchases) * json.loads(shops)['euros']:.2f}\n"}


# One datum for each month, with all shops' files.
@dag.pipeline(dml.group(dml.files("revenue", "/{month}/{shop}.txt"), by="month"))
def months(revenue: list[Path], month: str) -> dml.Files:
    """Sum of a month over all shops."""
    return {f"{month}.txt": f"{sum(float(path.read_text()) for path in revenue):.2f} in {len(revenue)} shops\n"}


# Nothing came back in most months; an outer join has their purchases all the same.
@dag.pipeline(
    dml.join(
        bought=dml.files("purchases", "/{shop}_{month}.csv"),
        returned=dml.files("returns", "/{shop}_{month}.csv"),
        outer="bought",
    )
)
def kept(bought: bytes, returned: bytes | None, shop: str, month: str) -> dml.Files:
    """What a shop keeps of a month, in its own money."""
    return {f"{shop}_{month}.txt": f"{total(bought) - (total(returned) if returned else 0):g}\n"}


# Two repos as one input, for any language.
dag.command(
    "things",
    'cut -d, -f1 "$slip" > "$out/$kind-$(basename "$slip" .csv).txt"',
    dml.union(
        dml.cross(dml.files("purchases", "/*", name="slip"), dml.values(kind=["bought"])),
        dml.cross(dml.files("returns", "/*", name="slip"), dml.values(kind=["returned"])),
    ),
)
