"""The plot of a storage result: `python -m benchmarks.storage_chart RESULT.json PLOT.svg` draws one again."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .storage_peers import DMLPIPE


def draw(result: Mapping[str, Any], target: Path) -> None:
    """Draw seconds of each contender and step, one column a workload.

    Parameters
    ----------
    target
        Its suffix says the format: .svg, .png.
    """
    import matplotlib
    from matplotlib.figure import Figure

    # Without a seed the ids in an SVG differ from run to run.
    matplotlib.rcParams["svg.hashsalt"] = "dmlpipe"
    workloads = result["workloads"]
    figure = Figure(figsize=(6 * len(workloads), 7), layout="constrained")
    for axes, (name, workload) in zip(
        figure.subplots(1, len(workloads), squeeze=False)[0], workloads.items(), strict=True
    ):
        rows = [row for row in reversed(workload["rows"]) if "absent" not in row]
        medians = [sorted(row["seconds"])[len(row["seconds"]) // 2] for row in rows]
        axes.barh(
            range(len(rows)),
            medians,
            color=["tab:orange" if row["contender"] == DMLPIPE else "tab:blue" for row in rows],
        )
        axes.set_yticks(range(len(rows)), [f"{row['contender']}: {row['step']}" for row in rows], fontsize="small")
        axes.set_xlabel(f"seconds, whole process; median of {result['rounds']}")
        axes.set_title(f"{name}: {workload['files']:,} files", fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)


def main() -> None:
    """Draw a stored result."""
    source, target = map(Path, sys.argv[1:])
    draw(json.loads(source.read_text()), target)


if __name__ == "__main__":
    main()
