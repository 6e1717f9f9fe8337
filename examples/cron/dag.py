"""A report at fixed times: a schedule is an input like any other."""

import csv
from collections import Counter
from pathlib import Path

import dmlpipe as dml

dag = dml.DAG("reports")


# `day` ticks at six every morning (UTC). Sales do not start it (`propagate=False`); it sees them as they then are.
@dag.pipeline(dml.cross(dml.cron("0 6 * * *", name="day", overwrite=True), dml.files("sales", propagate=False)))
def report(day: Path, sales: Path) -> dml.Files:
    """Sum of all sales by shop, as of a tick."""
    sums: Counter[str] = Counter()
    for path in sorted(sales.iterdir()):
        for shop, amount in csv.reader(path.read_text().splitlines()):
            sums[shop] += int(amount)
    lines = [f"{shop}\t{total}" for shop, total in sorted(sums.items())]
    return {"report.tsv": "\n".join(lines) + "\n", "as-of.txt": day.name + "\n"}
