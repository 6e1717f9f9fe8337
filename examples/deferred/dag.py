"""Deferred processing: data arrives often, work begins when there is enough of it, or when somebody says so."""

import csv
from collections import Counter
from pathlib import Path

import dmlpipe as dml

dag = dml.DAG("orders")


# People and machines put into `staging`; nothing reads that. `master` is moved by hand.
@dag.pipeline(dml.files("orders", "/{order}.csv"))
def invoices(orders: bytes, order: str) -> dml.Files:
    """One invoice for each order."""
    total = sum(float(price) for _, price in csv.reader(orders.decode().splitlines()))
    return {f"{order}.txt": f"{order}: {total:.2f}\n"}


# A branch of its own that follows `staging`: it takes its head at each second commit.
@dag.pipeline(dml.files("orders", name="files", branch="batch", trigger=dml.trigger("staging", commits=2)))
def stock(files: Path) -> dml.Files:
    """How many of each thing to have in stock."""
    things = Counter(line.partition(",")[0] for path in files.iterdir() for line in path.read_text().splitlines())
    return {"stock.txt": "".join(f"{thing} {number}\n" for thing, number in sorted(things.items()))}
