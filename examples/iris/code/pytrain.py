"""Train a Gaussian naive Bayes classifier on a CSV: pytrain.py TRAINING_FOLDER OUT_FOLDER.

Only the standard library: the same script runs wherever there is a Python 3.
"""

import csv
import sys
from pathlib import Path

training, out = Path(sys.argv[1]), Path(sys.argv[2])
classes: dict[str, list[list[float]]] = {}
for path in sorted(training.glob("*.csv")):
    with path.open(newline="") as lines:
        for row in csv.reader(lines):
            if row:
                classes.setdefault(row[-1], []).append([float(value) for value in row[:-1]])

total = sum(len(rows) for rows in classes.values())
with (out / "model.tsv").open("w") as model:
    # One line per class: name, share of the rows, then mean and variance of each attribute.
    for name, rows in sorted(classes.items()):
        cells = [f"{len(rows) / total:.6f}"]
        for column in zip(*rows, strict=True):
            mean = sum(column) / len(column)
            variance = sum((value - mean) ** 2 for value in column) / len(column)
            cells += [f"{mean:.6f}", f"{variance + 1e-9:.6f}"]
        model.write("\t".join([name, *cells]) + "\n")
