"""A grid over two hyper-parameters of a nearest-neighbour classifier: one datum for each pair, kept for ever."""

import json
from pathlib import Path

import dmlpipe as dml

dag = dml.DAG("grid")
GRID = {"k": [1, 3, 9, 27], "power": [1, 2]}


def accuracy(points: list[tuple[float, float, int]], k: int, power: int) -> float:
    """Share of the points that the k nearest others name rightly."""
    right = 0
    for x, y, label in points:
        nearest = sorted(points, key=lambda other: abs(other[0] - x) ** power + abs(other[1] - y) ** power)
        votes = sum(1 if other[2] else -1 for other in nearest[1 : k + 1])
        right += (votes > 0) == bool(label)
    return right / len(points)


@dag.pipeline(dml.cross(dml.files("training"), dml.values(k=GRID["k"]), dml.values(power=GRID["power"])))
def scores(training: Path, k: int, power: int) -> dml.Files:
    rows = [line.split(",") for path in training.glob("*.csv") for line in path.read_text().splitlines()]
    points = [(float(x), float(y), int(label)) for x, y, label in rows]
    return {f"k={k}/power={power}.json": json.dumps({"k": k, "power": power, "accuracy": accuracy(points, k, power)})}


@dag.pipeline(dml.files("scores"))
def best(scores: Path) -> dml.Files:
    found = [json.loads(path.read_text()) for path in sorted(scores.rglob("*.json"))]
    return {"best.json": json.dumps(max(found, key=lambda score: score["accuracy"])) + "\n"}
