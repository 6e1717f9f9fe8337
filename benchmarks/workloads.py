"""What is computed: frozen descriptions, and the files made from them.

Everything follows from the seed: two machines with the same scikit-learn make the same files.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class InferenceWorkload:
    """Files of handwritten digits to be labelled by a random forest."""

    files: int = 2_000
    """Files to label; each is one datum, one line of work."""
    items: int = 100
    """Scans in a file."""
    trees: int = 130
    """Of the forest: about 7 ms a file of 100 scans on a 2026 server core."""
    seed: int = 0

    @property
    def total_items(self) -> int:
        """Scans in all files."""
        return self.files * self.items


def scan_files(workload: InferenceWorkload, count: int | None = None) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of files to label: real scans drawn with replacement, with a little noise each.

    Parameters
    ----------
    count
        How many; None: all of the workload. The first ones are the same whatever their number.
    """
    import numpy as np
    from sklearn.datasets import load_digits

    scans = load_digits(return_X_y=True)[0].astype(np.uint8)
    rng = np.random.default_rng(workload.seed)
    for number in range(workload.files if count is None else count):
        drawn = scans[rng.integers(len(scans), size=workload.items)]
        noise = rng.integers(0, 2, size=drawn.shape, dtype=np.uint8)
        raw = io.BytesIO()
        np.save(raw, drawn + noise)
        yield f"{number:05d}.npy", raw.getvalue()


def write_training(folder: Path) -> None:
    """Write scikit-learn's digits as one file, `digits.npz` with `scans` and `labels`."""
    import numpy as np
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    folder.mkdir(parents=True)
    np.savez(folder / "digits.npz", scans=scans.astype(np.uint8), labels=labels)
