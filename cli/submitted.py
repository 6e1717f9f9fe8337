"""How the outcome of a submit is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..scheduler.report import Submitted
from ..storage.state import State
from .app import App
from .text import count

_MANY = 8


def header(state: State, submitted: Sequence[Submitted], title: str) -> str:
    """One line for `run FILE`: `digits  model new · predictions same   (images: 1,000 files)`.

    Parameters
    ----------
    state
        After the submit: says how large the inputs are.
    title
        Stands first where the pipelines belong to no DAG or to several.
    """
    if len(submitted) > _MANY:
        tally = Counter(each.status for each in submitted)
        told = " · ".join(f"{number} {status}" for status, number in tally.items())
    else:
        told = " · ".join(f"{each.name} {each.status}" for each in submitted)
    pipelines = {each.name: state.pipeline(each.name) for each in submitted}
    dags = {pipeline.dag for pipeline in pipelines.values() if pipeline is not None}
    inputs = dict.fromkeys(repo for each in submitted for repo in each.inputs if state.pipeline(repo) is None)
    sizes = ", ".join(f"{repo}: {_files(state, repo)}" for repo in inputs)
    name = next(iter(dags)) if len(dags) == 1 else ""
    return f"{name or title}  {told}" + (f"   ({sizes})" if sizes else "")


def _files(state: State, repo: str) -> str:
    head = state.head(repo)
    commit = state.commit(repo, head) if head else None
    return count(commit.files, "file") if commit else "no commit"


def show(app: App, submitted: Sequence[Submitted]) -> None:
    """Print a table of verdicts, notices on stderr."""
    notices = dict.fromkeys(notice for each in submitted for notice in each.notices)
    for notice in notices:
        app.note(notice)
    if app.json:
        for each in submitted:
            app.emit(to_dict(each))
        return
    app.table(
        [
            (
                each.name,
                each.status,
                f"v{each.version}" if each.version else "",
                ", ".join(each.why) or ("no longer in the file; --prune removes it" if each.status == "orphan" else ""),
            )
            for each in submitted
        ]
    )


def show_effective(app: App, submitted: Sequence[Submitted]) -> None:
    """Print what would be recorded: specifications on stdout, verdicts and notices on stderr."""
    import msgspec

    from ..scheduler.specs.effective import effective

    for notice in dict.fromkeys(notice for each in submitted for notice in each.notices):
        app.note(notice)
    for each in submitted:
        spec = effective(each.spec) if each.spec is not None else None
        if app.json:
            app.emit({**to_dict(each), "spec": spec})
            continue
        why = f" ({', '.join(each.why)})" if each.why else ""
        app.note(f"{each.name}: {each.status}{why}")
        if spec is not None:
            app.line(msgspec.json.format(msgspec.json.encode(spec), indent=2).decode())


def to_dict(each: Submitted) -> dict[str, object]:
    """Plain data with stable keys."""
    return {
        "pipeline": each.name,
        "version": each.version,
        "status": each.status,
        "why": list(each.why),
        "inputs": list(each.inputs),
        "notices": list(each.notices),
    }
