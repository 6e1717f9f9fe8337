"""A job's page: what is gathered, and that it stands on its own."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import dmlpipe as dml
from dmlpipe.cli.main import main
from dmlpipe.scheduler.jobreport.gather import BINS, lane_of, read_report
from dmlpipe.scheduler.jobreport.page import render

DAG = """
import time
import dmlpipe as dml

dag = dml.DAG("pages")


@dag.pipeline(dml.files("texts", "/{stem}.txt"), max_failures=5)
def upper(texts: bytes, stem: str) -> dml.Files:
    if stem.startswith("bad"):
        raise ValueError(f"<b>no & {stem}</b>")
    if stem == "slow":
        time.sleep(0.2)
    return {stem: texts.upper()}
"""


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        if tag not in {"meta", "br", "rect"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in {"meta", "br", "rect"}:
            assert self.open.pop() == tag


def test_a_page_tells_what_ran_where_and_how_long(tmp_path: Path) -> None:
    (tmp_path / "dag.py").write_text(DAG)
    store = dml.init(tmp_path / ".dmlpipe", cache_dir=tmp_path / "cache")
    names = ["slow", "bad1", "bad2", *(f"n{number}" for number in range(20))]
    store.put("texts", *((f"{name}.txt", name.encode()) for name in names))
    store.submit(tmp_path / "dag.py")
    summary = store.run(slots=2)
    report = read_report(store, summary.jobs[0].job)
    assert (report.datums, sum(lane.datums for lane in report.lanes), report.untimed) == (23, 23, 0)
    assert {lane.slot for lane in report.lanes} <= {0, 1}
    assert report.slowest[0].shown == "texts:/slow.txt"
    assert report.slowest[0].seconds >= 0.2
    # Both failed at one place: one cause.
    assert [(row.failure.kind, count) for row, count in report.failures if row.failure] == [("ValueError", 2)]
    assert 0 < report.busy_share <= 1
    page = render(report)
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.names.isdisjoint({"script", "link", "img", "iframe", "b&"})
    assert not re.search(r"(src|href)=|url\(|@import|https?://", page)
    assert "&lt;b&gt;no &amp; bad" in page
    target = tmp_path / "page.html"
    assert main(["--store", store.url, "job", "report", "upper", "-o", str(target)]) == 0
    assert target.read_text() == page


def test_a_lane_shares_its_time_among_its_parts() -> None:
    lane = lane_of("w", 1, [(0.0, 2.0, False), (1.0, 2.0, False), (4.0, 4.0, True)], 0.0, 4.0)
    assert lane.datums == 3
    # Never more than whole, however the datums overlap (a batch's do not, a clock may be set back).
    assert max(lane.busy) <= 1.0
    assert round(sum(lane.busy), 6) == BINS / 2
    assert lane.failed == {BINS - 1}


def test_a_job_that_computed_nothing_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "dag.py").write_text(DAG)
    store = dml.init(tmp_path / ".dmlpipe", cache_dir=tmp_path / "cache")
    store.put("texts", ("n1.txt", b"x"))
    store.submit(tmp_path / "dag.py")
    store.run(slots=1)
    store.put("texts", ("n1.txt", b"y"))
    store.run(slots=1)
    store.put("texts", ("n1.txt", b"x"))
    again = store.run(slots=1)
    report = read_report(store, again.jobs[0].job)
    assert (report.datums, report.lanes) == (0, ())
    assert "none was computed" in render(report)
