"""What is computed: frozen descriptions, and the files made from them.

Everything follows from the seed: two machines with the same scikit-learn make the same files.
"""

from __future__ import annotations

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

    def names(self) -> Iterator[str]:
        """Names of the files without their suffix, in order."""
        return (f"{number:05d}" for number in range(self.files))


def write_inputs(workload: InferenceWorkload, folder: Path) -> int:
    """Write the files to label: real scans drawn with replacement, with a little noise so that no two files agree.

    Returns
    -------
    int
        Bytes written.
    """
    import numpy as np
    from sklearn.datasets import load_digits

    scans = load_digits(return_X_y=True)[0].astype(np.uint8)
    rng = np.random.default_rng(workload.seed)
    folder.mkdir(parents=True)
    size = 0
    for name in workload.names():
        drawn = scans[rng.integers(len(scans), size=workload.items)]
        noise = rng.integers(0, 2, size=drawn.shape, dtype=np.uint8)
        path = folder / f"{name}.npy"
        np.save(path, drawn + noise)
        size += path.stat().st_size
    return size


def write_training(folder: Path) -> None:
    """Write scikit-learn's digits as one file, `digits.npz` with `scans` and `labels`."""
    import numpy as np
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    folder.mkdir(parents=True)
    np.savez(folder / "digits.npz", scans=scans.astype(np.uint8), labels=labels)
