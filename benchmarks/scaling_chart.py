"""Plots of scaling results, one or two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dmlpipe.storage.errors import ErrorCode, InvalidInputError

from .points import SCALINGS, Level, Result, levels


def need_matplotlib() -> None:
    """Say what draws, before anything is measured.

    Raises
    ------
    InvalidInputError
        It is not installed.
    """
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        raise InvalidInputError(
            "a plot needs matplotlib, which is not installed",
            code=ErrorCode.UNSUPPORTED,
            hint="pip install 'dmlpipe[bench]', or --no-plot",
        )


def draw(result: Result, target: Path) -> None:
    """Draw throughput, efficiency and bytes of the store against slots."""
    draw_several({"": result}, target)


def draw_several(results: Mapping[str, Result], target: Path) -> None:
    """Draw results over each other; the first one's machine and unit are named.

    Parameters
    ----------
    target
        Its suffix says the format: .svg, .png.
    """
    import matplotlib
    from matplotlib.figure import Figure

    # Without a seed the ids in an SVG differ from run to run.
    matplotlib.rcParams["svg.hashsalt"] = "dmlpipe"
    first = next(iter(results.values()))
    figure = Figure(figsize=(12, 4), layout="constrained")
    rate, efficiency, origin = figure.subplots(1, 3)
    for number, (label, result) in enumerate(results.items()):
        found = levels(result.rows)
        for scaling, marker in zip(SCALINGS, "os", strict=True):
            mine = [level for level in found if level.scaling == scaling]
            if mine:
                name = " ".join(filter(None, (label, scaling)))
                _draw_levels((rate, efficiency, origin), mine, name, marker, f"C{number}", dashed=scaling == "weak")
    rate.set(xlabel="slots", ylabel=f"{first.unit} a second", xscale="log", yscale="log", title="throughput")
    efficiency.set(xlabel="slots", xscale="log", ylim=(0, None), title="efficiency: a slot / a slot of the smallest")
    efficiency.axhline(1.0, color="gray", linewidth=0.8)
    origin.set(xlabel="slots", xscale="log", ylim=(0, None), title="MiB from the store (files from 1 MiB on)")
    for axes in (rate, efficiency, origin):
        axes.grid(visible=True, which="major", alpha=0.3)
        ticks = sorted({level.slots for result in results.values() for level in levels(result.rows)})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
    rate.legend(fontsize="small")
    machine = first.hosts[0] if first.hosts else first.machine
    where = f"{first.cluster.get('kind', '')}, {len(first.hosts) or 1} host(s), {machine.get('cores')} cores, "
    where += str(machine.get("cpu", ""))
    figure.suptitle(f"{first.benchmark}: {_workload(first.workload)}; {where}", fontsize="small")
    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)


def _draw_levels(
    panels: Sequence[Any], mine: Sequence[Level], name: str, marker: str, color: str, *, dashed: bool
) -> None:
    rate, efficiency, origin = panels
    slots = [level.slots for level in mine]
    style = {"marker": marker, "color": color, "linestyle": "--" if dashed else "-", "label": name}
    spread = [[level.rate - level.low for level in mine], [level.high - level.rate for level in mine]]
    rate.errorbar(slots, [level.rate for level in mine], yerr=spread, capsize=2, **style)
    efficiency.plot(slots, [level.efficiency for level in mine], **style)
    told = [(level.slots, level.origin_bytes / 2**20) for level in mine if level.origin_bytes is not None]
    origin.plot([at for at, _ in told], [mib for _, mib in told], **style)


def _workload(workload: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in workload.items() if name != "about" and value != "")
