"""A job's page: one HTML file that needs nothing else, no script, no font, no network. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from ..planning.rows import DatumRow
from .gather import BINS, JobReport, Lane

LANE_PX = 16
WIDTH_PX = 960
LABEL_PX = 190
LANES_SHOWN = 200

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #646c75; --line: #d5dae0; --ok: #2f7d5b; --bad: #c4392f;
  --paper: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --dim: #98a1ab; --line: #353b43; --ok: #58b48a; --bad: #ef6d62; --paper: #15181c; } }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 1180px; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .2rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
code, pre, .num { font-family: ui-monospace, monospace; font-size: .92em; }
.dim { color: var(--dim); } .bad { color: var(--bad); } .ok { color: var(--ok); }
table { border-collapse: collapse; width: 100%; } th { text-align: left; color: var(--dim); font-weight: 500; }
th, td { padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere; }
td.num, th.num { text-align: right; white-space: nowrap; }
.facts { display: flex; flex-wrap: wrap; gap: .4rem 2.2rem; margin: 1rem 0; }
.facts div b { display: block; font-size: 1.25rem; font-weight: 600; }
pre { background: color-mix(in srgb, var(--line) 35%, transparent); padding: .6rem; overflow-x: auto; margin: .3rem 0; }
svg { max-width: 100%; height: auto; } svg text { fill: var(--dim); font: 11px ui-monospace, monospace; }
.busy { fill: var(--ok); } .failed { fill: var(--bad); }
.lane { fill: color-mix(in srgb, var(--line) 45%, transparent); }
"""


def render(report: JobReport) -> str:
    """Return the page."""
    state = report.state
    title = f"{state.pipeline}: job {report.id[:12]}"
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE}</style></head><body>",
        f"<h1>{escape(state.pipeline)} <span class=dim>v{state.version}</span></h1>",
        f"<p>job <code>{escape(report.id)}</code>, run <code>{escape(state.run)}</code>, {_state(report)}</p>",
        _facts(report),
        _section("Slots", _timeline(report)),
        _section("Failures", _failures(report.failures)) if report.failures else "",
        _section("Slowest datums", _slowest(report.slowest)) if report.slowest else "",
        _section("Inputs", _inputs(report)),
        _section("Environment", _environment(report)),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _state(report: JobReport) -> str:
    state = report.state
    mark = {"done": "ok", "failed": "bad", "stopped": "bad"}.get(state.state, "dim")
    reason = f": {escape(state.end.reason)}" if state.end.reason else ""
    commit = f", commit <code>{escape(state.commit[:12])}</code>" if state.commit else ""
    return f"<b class={mark}>{escape(state.state)}</b>{reason}{commit}"


def _facts(report: JobReport) -> str:
    counters = report.state.end.counters
    facts = [
        ("datums run", f"{counters.run:,}" if report.record else f"{report.datums:,} so far"),
        ("skipped", f"{counters.skipped:,}"),
        ("failed", f"{counters.failed:,}"),
        ("seconds of datums", f"{report.seconds:,.2f}"),
        ("from first to last", f"{report.wall_s:,.2f} s"),
        ("slots busy", f"{report.busy_share:.0%} of {len(report.lanes)}"),
        ("datums a second", f"{report.datums / report.wall_s:,.1f}" if report.wall_s else "n/a"),
        ("tries", f"{report.tries:,}"),
        *_traffic(report),
    ]
    times = f"<p class=dim>begun {escape(report.state.started)}, ended {escape(report.state.ended) or 'not yet'}</p>"
    return times + "<div class=facts>" + "".join(f"<div><b>{v}</b>{escape(k)}</div>" for k, v in facts) + "</div>"


def _traffic(report: JobReport) -> list[tuple[str, str]]:
    """What hosts took while the job ran; nothing where no record says so."""
    told = report.record.traffic if report.record is not None else {}
    store, peers = told.get("from_store", 0), told.get("from_peers", 0)
    if not told:
        return []
    return [
        ("MiB from the store, of files from 1 MiB on", f"{store / 2**20:,.1f}"),
        ("MiB from other hosts' caches", f"{peers / 2**20:,.1f}"),
        ("peers' share", f"{peers / (store + peers):.0%}" if store + peers else "n/a"),
    ]


def _timeline(report: JobReport) -> str:
    if not report.lanes:
        return "<p class=dim>No datum says when it ran: none was computed, or by an earlier version of dmlpipe.</p>"
    shown = report.lanes[:LANES_SHOWN]
    height = len(shown) * (LANE_PX + 4) + 22
    parts = [f'<svg viewBox="0 0 {LABEL_PX + WIDTH_PX} {height}" role="img" aria-label="What each slot did over time">']
    for number, lane in enumerate(shown):
        parts.append(_lane(lane, number * (LANE_PX + 4)))
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = LABEL_PX + share * WIDTH_PX
        anchor = "start" if share == 0 else "end" if share == 1 else "middle"
        parts.append(f'<text x="{x:g}" y="{height - 6}" text-anchor="{anchor}">{share * report.wall_s:.3g} s</text>')
    parts.append("</svg>")
    notes = [f"{len(report.lanes) - len(shown)} more slots are not drawn."] if len(shown) < len(report.lanes) else []
    notes += [f"{report.untimed:,} datums do not say when they ran."] if report.untimed else []
    began = datetime.fromtimestamp(report.began, UTC).isoformat(timespec="seconds")
    notes.append(f"The first datum began at {began}; a lane has {BINS} parts, darker where a datum ran for more of it.")
    return "".join(parts) + f"<p class=dim>{' '.join(notes)}</p>"


def _lane(lane: Lane, y: int) -> str:
    label = f"{lane.worker[:18]} · {lane.slot}"
    full = f"{lane.worker}, slot {lane.slot}: {lane.datums:,} datums, {lane.seconds:.2f} s"
    parts = [
        f'<g><title>{escape(full)}</title><text x="0" y="{y + LANE_PX - 4}">{escape(label)}</text>',
        f'<rect class=lane x="{LABEL_PX}" y="{y}" width="{WIDTH_PX}" height="{LANE_PX}"/>',
    ]
    width = WIDTH_PX / BINS
    for begin, stop, share, failed in _runs(lane):
        kind = "failed" if failed else "busy"
        parts.append(
            f'<rect class={kind} x="{LABEL_PX + begin * width:g}" y="{y}" width="{(stop - begin) * width:g}" '
            f'height="{LANE_PX}" opacity="{share:.2g}"/>'
        )
    return "".join(parts) + "</g>"


def _runs(lane: Lane) -> Iterable[tuple[int, int, float, bool]]:
    """Neighbouring parts that look alike, as one."""
    begin = 0
    looks = [(round(0.15 + 0.85 * share, 1) if share else 0.0, at in lane.failed) for at, share in enumerate(lane.busy)]
    for at in range(1, BINS + 1):
        if at == BINS or looks[at] != looks[begin]:
            share, failed = looks[begin]
            if share or failed:
                yield begin, at, share or 1.0, failed
            begin = at


def _failures(found: Sequence[tuple[DatumRow, int]]) -> str:
    parts = []
    for row, count in found:
        failure = row.failure
        assert failure is not None
        where = (
            f"<div class=dim>{escape(failure.where)}  <code>{escape(failure.line)}</code></div>"
            if failure.where
            else ""
        )
        trace = f"<pre>{escape(failure.traceback)}</pre>" if failure.traceback else ""
        parts.append(
            f"<p>{count:,} × <b class=bad>{escape(failure.kind)}</b> {escape(failure.message)}<br>"
            f"<span class=dim>first: {escape(row.shown) or 'its one datum'}, datum <code>{row.id[:12]}</code>, "
            f"tried {row.tries} ×</span></p>{where}{trace}"
        )
    return "".join(parts)


def _slowest(rows: Sequence[DatumRow]) -> str:
    body = [
        (
            f"{row.seconds:,.4f}",
            escape(row.shown) or "its one datum",
            f"<code>{row.id[:12]}</code>",
            escape(row.outcome),
        )
        for row in rows
    ]
    return _table(("seconds", "datum", "id", "outcome"), body, numbers={0})


def _inputs(report: JobReport) -> str:
    body = [
        (escape(bound.name), f"<code>{escape(bound.repo)}@{escape(bound.commit[:12])}</code>", escape(bound.role))
        for bound in report.state.inputs
    ]
    return _table(("input", "commit", "role"), body)


def _environment(report: JobReport) -> str:
    record = report.record
    if record is None:
        return "<p class=dim>The job has not ended.</p>"
    body = [("host", escape(record.host)), ("code", f"<code>{escape(record.code_id)}</code>")]
    body += [(f"parameter {escape(name)}", f"<code>{escape(str(v))}</code>") for name, v in record.parameters.items()]
    body += [(escape(name), f"<code>{escape(version)}</code>") for name, version in record.env.items()]
    return _table(("", ""), body)


def _table(header: Sequence[str], body: Iterable[Sequence[str]], numbers: Collection[int] = ()) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}{' class=num' if at in numbers else ''}>{cell}</{tag}>" for at, cell in enumerate(cells))

    head = f"<tr>{row(header, 'th')}</tr>" if any(header) else ""
    rows = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in body)
    return f"<table>{head}{rows}</table>"


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{body}"
