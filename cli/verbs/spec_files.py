"""What `submit` says of specifications without recording any: `--check` and `--to-python`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...storage.errors import ErrorCode, FormatError
from ..app import App
from ..text import count

if TYPE_CHECKING:
    from ...scheduler.specs.check import Verdict

FAILED = 1
_SHOWN = 3
"""Names in one cell of the table; `-v` and `--json` have all."""


def show_check(app: App, files: Sequence[Path], given: Mapping[str, Any]) -> int:
    """Print one table of verdicts; exit 1 if one is refused."""
    from ...scheduler.specs.check import check_specs

    verdicts = check_specs(files, repos=_repos(app), **given)
    refused = [each for each in verdicts if each.verdict == "refused"]
    if app.json:
        for each in verdicts:
            app.emit(each.to_dict())
        return FAILED if refused else 0
    header = ("pipeline", "verdict", "runs as", "image", "lacks", "without meaning here")
    app.table([_row(each, app.verbosity > 0) for each in verdicts], header=header)
    for each in refused:
        app.line()
        app.line(f"{each.file}:{each.line}  {each.pipeline}".rstrip())
        app.line(f"  {each.why}")
        if each.hint:
            app.line(f"  {each.hint}")
    app.line()
    app.line(_summary(verdicts))
    for line in _to_do(verdicts):
        app.line(line)
    return FAILED if refused else 0


def _row(each: Verdict, everything: bool) -> tuple[str, ...]:
    missing = [name.removesuffix(" (missing)") for name in each.secrets if name.endswith(" (missing)")]
    lacks = [
        *(f"script {path}" for path in each.scripts),
        *(f"secret {name}" for name in missing),
        *(f"repo {name}" for name in each.missing_repos),
    ]
    name = each.pipeline or Path(each.file).name
    return (
        name,
        each.verdict,
        each.runs,
        each.image,
        _cell(lacks, everything),
        _cell(each.without_meaning, everything),
    )


def _cell(names: Sequence[str], everything: bool) -> str:
    if everything or len(names) <= _SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[:_SHOWN])} and {len(names) - _SHOWN} more"


def _summary(verdicts: Sequence[Verdict]) -> str:
    parts = [count(len(verdicts), "pipeline")]
    for verdict in ("ok", "ok with notices", "refused"):
        number = sum(each.verdict == verdict for each in verdicts)
        if number:
            parts.append(f"{number} {verdict}")
    return " · ".join(parts) + "; nothing was written"


def _to_do(verdicts: Sequence[Verdict]) -> list[str]:
    lines = []
    repos = dict.fromkeys(name for each in verdicts for name in each.missing_repos)
    if repos:
        lines.append(f"repos to put first: {', '.join(repos)}")
    if any(path.startswith("/code/") for each in verdicts for path in each.scripts):
        lines.append("scripts in /code: take them out of the image, and give their folder with --code DIR")
    secrets = dict.fromkeys(
        name.removesuffix(" (missing)") for each in verdicts for name in each.secrets if name.endswith(" (missing)")
    )
    if secrets:
        lines.append(f"secrets to set where workers run: {', '.join(secrets)}")
    return lines


def _repos(app: App) -> list[str] | None:
    """The repos of the store; None where there is no store yet."""
    try:
        return [name for name, _ in app.data(read_only=True).state.repos()]
    except FormatError as err:
        if err.code != ErrorCode.NO_STORE:
            raise
        return None


def show_python(app: App, files: Sequence[Path], given: Mapping[str, Any]) -> int:
    """Print one DAG for the specifications of all files."""
    from ...scheduler.specs.documents import read_text
    from ...scheduler.specs.reader import Code, Source, parse_specs
    from ...scheduler.specs.to_python import to_python

    code: Path | None = given["code"]

    def open_code(folder: Path) -> Code:
        return Code("0" * 64)

    specs = []
    for path in files:
        source = Source(
            path.name, path.resolve().parent, open_code(code) if code else None, open_code, container=given["container"]
        )
        arguments = given["arguments"] if path.suffix == ".jsonnet" else {}
        found, notices = parse_specs(read_text(path, arguments), source)
        specs += found
        for notice in notices:
            app.note(notice)
    app.line(to_python(specs, name=files[0].name.partition(".")[0], code=str(code) if code else "").rstrip("\n"))
    return 0
