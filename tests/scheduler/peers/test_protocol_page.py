"""`docs/protocol.md` shows the tables that the code goes by."""

from __future__ import annotations

from pathlib import Path

from dmlpipe.scheduler.peers.standing import DOUBT_MAX_S, DOUBT_S, REST_S, TRANSITIONS
from dmlpipe.scheduler.peers.tracker import Limits
from dmlpipe.worker.dask_seam import UPLOADS_MAX
from dmlpipe.worker.peers.exchange import ANNOUNCED_MAX
from dmlpipe.worker.peers.fill import CHUNK_BYTES, PeerSettings

PAGE = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()


def test_the_page_has_the_table_of_standings() -> None:
    rows = [
        f"| {before.value} | {reason.name.lower()} | {after.value} |" for (before, reason), after in TRANSITIONS.items()
    ]
    start = PAGE.index("| standing | report | standing after |")
    table = PAGE[start : PAGE.index("\n\n", start)].splitlines()[2:]
    assert sorted(table) == sorted(rows)


def test_the_page_names_the_limits() -> None:
    settings, limits = PeerSettings(), Limits()
    for said in (
        f"at most {ANNOUNCED_MAX:,}",
        f"at most {CHUNK_BYTES >> 20} MiB",
        f"fewer than {limits.uploads_max} uploads",
        f"at most {limits.claims_max} parts of a file",
        f"*Resting* ({REST_S:g} s)",
        f"*Doubted* ({DOUBT_S:g} s, doubled each time up to {DOUBT_MAX_S:g} s)",
        f"{settings.parts_at_once} parts of a file on their way, {settings.downloads_max} parts from peers at a time, "
        f"{UPLOADS_MAX} handed out",
        f"within {settings.tracker_s:g} s",
        f"nothing came for {settings.patience_s:g} s",
        f"longer than {settings.stall_min_s:g} s and four times",
    ):
        assert said in PAGE, said
    assert limits.uploads_max == UPLOADS_MAX == settings.parts_at_once
    assert settings.stall_factor == limits.claim_factor == 4
