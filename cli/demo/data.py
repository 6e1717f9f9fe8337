"""The demo's input: scikit-learn's 1,797 scans of handwritten digits, written as PNG files.

Everything follows from one seed. The 80 mislabelled scans are 40 ones filed under 7 and 40 sevens filed under 1, as if
somebody had swapped two folders: enough to be seen in every figure that follows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SEED = 28
TRAINING = 697
INPUT = 1000
ARRIVING = 10
"""Scans that arrive later, twice."""
MISLABELLED = 80
SWAPPED = (1, 7)


def split(labels: list[int]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Deal the scans out.

    Parameters
    ----------
    labels
        True label of each scan, by its number.

    Returns
    -------
    tuple
        Numbers of the scans for training, as input, that arrive later, to be mislabelled.
    """
    import random

    order = list(range(len(labels)))
    random.Random(SEED).shuffle(order)
    swapped = [n for digit in SWAPPED for n in [n for n in order if labels[n] == digit][: MISLABELLED // 2]]
    rest = [n for n in order if n not in set(swapped)]
    return rest[:TRAINING], rest[TRAINING : TRAINING + INPUT], rest[TRAINING + INPUT :], swapped


def write_scans(folder: Path) -> None:
    """Write the scans to `folder`.

    ``training/7/0012.png`` (the folder is the label), ``images/0012.png``, ``arrived-1`` and ``arrived-2`` (more of
    the latter), ``mislabelled/1/0345.png`` (more of the former, wrongly), ``labels.json`` (the truth for all input).
    """
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    labels = [int(label) for label in digits.target]
    # 16 grey values, spread over the 256 of a PNG.
    pixels = np.asarray(digits.images * 15, dtype=np.uint8)

    def write(numbers: Iterable[int], name: str, filed: dict[int, int] | None = None) -> None:
        for n in numbers:
            place = folder / name if filed is None else folder / name / str(filed[n])
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[n]).save(place / f"{n:04d}.png")

    training, given, later, swapped = split(labels)
    write(training, "training", dict(enumerate(labels)))
    write(given, "images")
    write(later[:ARRIVING], "arrived-1")
    write(later[ARRIVING:], "arrived-2")
    write(swapped, "mislabelled", {n: sum(SWAPPED) - labels[n] for n in swapped})
    truth = {f"{n:04d}": labels[n] for n in sorted([*given, *later])}
    (folder / "labels.json").write_text(json.dumps(truth, indent=0) + "\n")
