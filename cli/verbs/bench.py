"""`bench`: strong and weak scaling on a cluster, on this machine, in Slurm; two results compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..app import App
from ..command import Noun
from ..text import size

if TYPE_CHECKING:
    from ...benchmarks.points import Result
    from ...benchmarks.works import Work


@click.group("bench", cls=Noun)
def command() -> None:
    """inference, overhead, broadcast, storage, compare.

    Measures how a cluster scales, and goes on where it was if called again with the same --out. --store names a
    bucket or a folder that all workers reach; a store of its own is made below it and removed at the end.
    """


class _Numbers(click.ParamType[tuple[int, ...]]):
    """`1,2,4`."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            numbers = sorted({int(word) for word in str(value).split(",") if word.strip()})
        except ValueError:
            numbers = []
        if not numbers or numbers[0] < 1:
            self.fail(f"{value!r} is no list of numbers above 0, such as 1,2,4", param, ctx)
        return tuple(numbers)


def _common(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every benchmark."""
    options = [
        click.option(
            "--cluster",
            default="local",
            show_default=True,
            metavar="WHERE",
            help="local, slurm, or the address of a Dask scheduler: tcp://HOST:8786.",
        ),
        click.option(
            "--workers",
            type=_Numbers(),
            default="1,2",
            show_default=True,
            metavar="N,N,…",
            help="Numbers of workers to measure. Locally, a worker is a slot.",
        ),
        click.option(
            "--scaling",
            type=click.Choice(["strong", "weak", "both"]),
            default="both",
            show_default=True,
            help="The same work for any number of workers, or for each of them.",
        ),
        click.option("--rounds", type=click.IntRange(min=1), default=1, show_default=True, metavar="N"),
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Result file; the plot goes beside it. Default: bench-NAME.json.",
        ),
        click.option(
            "--dir",
            "folder",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            help="For logs, caches and, without --store, the store; shared by all hosts. Default: beside the result.",
        ),
        click.option("--wait", type=float, metavar="S", help="How long workers may take. Default: 60 (slurm: 3600)."),
        click.option("--keep", is_flag=True, help="Leave the store at the end."),
        click.option("--no-plot", is_flag=True, help="Write figures only: needs no matplotlib."),
        click.option(
            "--slots", type=click.IntRange(min=1), default=1, show_default=True, help="slurm: slots of each worker."
        ),
        click.option("--host", default="", metavar="ADDRESS", help="slurm: address of this machine that nodes reach."),
        click.option("--sbatch", default="", metavar="OPTIONS", help="slurm: more options of sbatch: '-p cpu -A lab'."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@command.command("inference")
@click.option(
    "--model",
    type=click.Choice(["forest", "onnx", "magika", "minilm"]),
    default="forest",
    show_default=True,
    help="forest and onnx label drawn scans; magika and minilm files of --data.",
)
@click.option("--files", type=click.IntRange(min=1), default=2000, show_default=True, help="Strong scaling: in all.")
@click.option("--each", type=click.IntRange(min=1), default=500, show_default=True, help="Weak scaling: a worker's.")
@click.option("--trees", type=click.IntRange(min=1), default=130, show_default=True, help="Of the forest.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Whose files magika and minilm read. Default: Python's own library.",
)
@_common
@click.pass_obj
def inference(app: App, /, model: str, files: int, each: int, trees: int, data: Path | None, **common: Any) -> None:
    """Label files with a resident model; results are committed with provenance.

    A datum is a file; what is timed begins with the plan, all slots waiting, and ends with the commit.
    """
    from ...benchmarks.works import InferenceWork

    _scale(app, InferenceWork(files, each, model=model, data=data, trees=trees), **common)


@command.command("overhead")
@click.option("--datums", type=click.IntRange(min=1), default=20000, show_default=True, help="Strong scaling: in all.")
@click.option("--each", type=click.IntRange(min=1), default=10000, show_default=True, help="Weak scaling: a worker's.")
@_common
@click.pass_obj
def overhead(app: App, /, datums: int, each: int, **common: Any) -> None:
    """Do nothing to many datums: what one costs beside its own work."""
    from ...benchmarks.works import OverheadWork

    _scale(app, OverheadWork(datums, each), **common)


@command.command("broadcast")
@click.option("--mib", type=click.IntRange(min=1), default=256, show_default=True, help="Size of the file.")
@_common
@click.pass_obj
def broadcast(app: App, /, mib: int, **common: Any) -> None:
    """Bring one large file to every worker at once, from the store and from each other.

    Locally each worker has a cache of its own; elsewhere each host has one.
    """
    from ...benchmarks.works import BroadcastWork

    if common["scaling"] == "both":
        common["scaling"] = "weak"  # the file is as large for any number of workers: there is only this one
    if common["scaling"] == "strong":
        raise click.UsageError("the same file goes to every worker: its scaling is weak")
    _scale(app, BroadcastWork(mib), **common)


@command.command("storage")
@click.option("--files", type=click.IntRange(min=1), default=20000, show_default=True, help="Strong scaling: in all.")
@click.option("--each", type=click.IntRange(min=1), default=5000, show_default=True, help="Weak scaling: a process's.")
@_common
@click.pass_obj
def storage(app: App, /, files: int, each: int, **common: Any) -> None:
    """Put and get folders of files of 1 to 4 KiB by several processes at once.

    What is plotted is files put a second; the result file has those got, too.
    """
    from ...benchmarks.folders_work import StorageWork

    _scale(app, StorageWork(files, each), **common)


@command.command("compare")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), metavar="PLOT", help="Draw both: .svg or .png.")
@click.pass_obj
def compare(app: App, a: Path, b: Path, out: Path | None) -> None:
    """Compare two results: rates, and how many times faster B is.

    What else differs (workload, cluster, machine, version) is said first.
    """
    from ...benchmarks import comparing, points

    first, second = points.read_result(a), points.read_result(b)
    pairs = comparing.compare(first, second)
    for text in comparing.differences(first, second):
        app.note(text)
    if app.json:
        for pair in pairs:
            app.emit(
                {
                    "scaling": pair.a.scaling,
                    "workers": pair.a.workers,
                    "a": pair.a._asdict(),
                    "b": pair.b._asdict(),
                    "ratio": pair.ratio,
                }
            )
    else:
        rows = [
            (
                pair.a.scaling,
                str(pair.a.workers),
                f"{pair.a.rate:,.1f}",
                f"{pair.b.rate:,.1f}",
                f"{pair.ratio:.2f}",
                f"{pair.a.efficiency:.2f}",
                f"{pair.b.efficiency:.2f}",
            )
            for pair in pairs
        ]
        header = ("scaling", "workers", f"A {first.unit}/s", f"B {first.unit}/s", "B/A", "A eff.", "B eff.")
        app.table(rows, header=header, right=frozenset(range(1, 7)))
    if out is not None:
        from ...benchmarks.scaling_chart import draw_several, need_matplotlib

        need_matplotlib()
        draw_several({"A": first, "B": second}, out)
        app.say(f"plot: {out}")


def _scale(
    app: App,
    work: Work,
    *,
    cluster: str,
    workers: tuple[int, ...],
    scaling: str,
    rounds: int,
    out: Path | None,
    folder: Path | None,
    wait: float | None,
    keep: bool,
    no_plot: bool,
    slots: int,
    host: str,
    sbatch: str,
) -> None:
    from ...benchmarks.fleets import fleet_for
    from ...benchmarks.points import SCALINGS, Scaling, all_points
    from ...benchmarks.scaling import scale
    from ...benchmarks.scaling_chart import need_matplotlib

    if not no_plot:
        need_matplotlib()
    out = out or Path(f"bench-{work.name}.json")
    if out.is_dir():
        out /= f"bench-{work.name}.json"
    folder = folder or out.absolute().with_suffix(".work")
    fleet = fleet_for(cluster, folder=folder, wait_s=wait, slots=slots, host=host, sbatch=sbatch)
    chosen: list[Scaling] = [each for each in SCALINGS if scaling in (each, "both")]
    result = scale(
        work,
        fleet,
        all_points(workers, chosen, rounds),
        out=out,
        store_url=app.url,
        folder=folder,
        keep=keep,
        plot=not no_plot,
        say=app.note if not app.json else lambda text: None,
    )
    _show(app, result)
    app.say(f"figures: {out}" + ("" if no_plot else f"\nplot:    {out.with_suffix('.svg')}"))


def _show(app: App, result: Result) -> None:
    from ...benchmarks.points import levels

    found = levels(result.rows)
    if app.json:
        for level in found:
            app.emit(level._asdict())
        return
    rows = [
        (
            level.scaling,
            str(level.workers),
            str(level.slots),
            f"{level.rate:,.1f}" + (f" ({level.low:,.1f}-{level.high:,.1f})" if level.rounds > 1 else ""),
            f"{level.efficiency:.2f}",
            "" if level.origin_bytes is None else size(round(level.origin_bytes)),
            "" if level.peer_bytes is None else size(round(level.peer_bytes)),
        )
        for level in found
    ]
    header = ("scaling", "workers", "slots", f"{result.unit}/s", "efficiency", "from the store", "from peers")
    app.table(rows, header=header, right=frozenset(range(1, 7)))
