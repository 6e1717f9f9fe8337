"""The plot of an inference result: `python -m benchmarks.chart RESULT.json PLOT.svg` draws one again."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .contender import DMLPIPE


def draw(result: Mapping[str, Any], target: Path) -> None:
    """Draw items a second of each contender, from the first lease and of the whole process.

    Parameters
    ----------
    target
        Its suffix says the format: .svg, .png.
    """
    import matplotlib
    from matplotlib.figure import Figure

    # Without a seed the ids in an SVG differ from run to run.
    matplotlib.rcParams["svg.hashsalt"] = "dmlpipe"
    rows = list(reversed(result["contenders"]))
    places = list(range(len(rows)))
    figure = Figure(figsize=(8, 0.5 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    for offset, key, shade, label in (
        (0.2, "items_per_s", 1.0, "from the first file handed out"),
        (-0.2, "items_per_s_whole", 0.45, "whole process"),
    ):
        axes.barh(
            [place + offset for place in places],
            [row[key]["median"] for row in rows],
            xerr=[
                [row[key]["median"] - row[key]["low"] for row in rows],
                [row[key]["high"] - row[key]["median"] for row in rows],
            ],
            height=0.38,
            color=["tab:orange" if row["contender"] == DMLPIPE else "tab:blue" for row in rows],
            alpha=shade,
            ecolor="black",
            error_kw={"linewidth": 0.8},
        )
        axes.barh([0], [0], color="gray", alpha=shade, label=label)
    axes.set_yticks(places, [f"{row['contender']}, {row['slots']} slot{'s'[: row['slots'] > 1]}" for row in rows])
    axes.set_xlabel(f"items a second; median and range of {result['rounds']} rounds")
    axes.set_title(
        f"{result['workload'].get('about', 'a random forest over scans of digits')}, "
        f"{result['workload']['files']:,} files, "
        f"{result['machine']['cores']} cores",
        fontsize="medium",
    )
    axes.legend(loc="upper right", fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)


def draw_overhead(result: Mapping[str, Any], target: Path) -> None:
    """Draw items a second of those that do nothing to them, warm and as whole processes, on a logarithmic axis."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "dmlpipe"
    rows = sorted(result["contenders"], key=lambda row: row["whole_items_per_s"]["median"])
    figure = Figure(figsize=(8, 0.5 * len(rows) + 1.3), layout="constrained")
    axes = figure.subplots()
    for key, up in (("items_per_s", 0.2), ("whole_items_per_s", -0.2)):
        shown = [(place, row) for place, row in enumerate(rows) if key in row]
        axes.barh(
            [place + up for place, _ in shown],
            [row[key]["median"] for _, row in shown],
            height=0.4,
            xerr=[
                [row[key]["median"] - row[key]["low"] for _, row in shown],
                [row[key]["high"] - row[key]["median"] for _, row in shown],
            ],
            color=["tab:orange" if row["keeps"] != "nothing" else "tab:blue" for _, row in shown],
            alpha=1.0 if up > 0 else 0.5,
            error_kw={"linewidth": 0.8},
        )
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [row["contender"] for row in rows])
    axes.set_xlabel(
        f"items a second; median and range of {result['rounds']} rounds; orange: results are kept; "
        "pale: the whole process"
    )
    axes.set_title(f"Doing nothing to items, 2 slots, {result['machine']['cores']} cores", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)


def main() -> None:
    """Draw a stored result."""
    source, target = map(Path, sys.argv[1:])
    result = json.loads(source.read_text())
    (draw_overhead if result["benchmark"] == "overhead" else draw)(result, target)


if __name__ == "__main__":
    main()
