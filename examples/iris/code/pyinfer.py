"""Classify rows of attributes: pyinfer.py MODEL_FOLDER ATTRIBUTES_FOLDER OUT_FOLDER."""

import csv
import math
import sys
from pathlib import Path

model, attributes, out = (Path(argument) for argument in sys.argv[1:4])
classes: list[tuple[str, float, list[float]]] = []
for line in (model / "model.tsv").read_text().splitlines():
    name, share, *cells = line.split("\t")
    classes.append((name, float(share), [float(cell) for cell in cells]))


def score(row: list[float], share: float, cells: list[float]) -> float:
    """Log of the probability of the row in a class, up to a constant."""
    likelihood = math.log(share)
    for value, mean, variance in zip(row, cells[::2], cells[1::2], strict=True):
        likelihood -= (math.log(variance) + (value - mean) ** 2 / variance) / 2
    return likelihood


for path in sorted(attributes.glob("*.csv")):
    with path.open(newline="") as lines, (out / path.name).open("w") as found:
        for row in csv.reader(lines):
            if row:
                values = [float(value) for value in row]
                found.write(max(classes, key=lambda known: score(values, known[1], known[2]))[0] + "\n")
