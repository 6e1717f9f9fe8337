from __future__ import annotations

from typing import Any

from dmlpipe.benchmarks.storage_limits import judge


def row(contender: str, step: str, *seconds: float) -> dict[str, Any]:
    return {"contender": contender, "step": step, "seconds": list(seconds), "peak_mib": 100}


def test_limits_are_medians_of_ratios_within_a_round_and_the_absent_are_told() -> None:
    small = [
        row("cp -r", "put", 1.0, 2.0, 1.0),
        row("cp -r", "get", 1.0, 2.0, 1.0),
        row("dmlpipe", "put", 0.9, 1.0, 5.0),
        row("dmlpipe", "again", 0.3, 0.3, 0.3),
        row("dmlpipe", "status", 0.2, 0.2, 0.2),
        row("dmlpipe", "get", 2.0, 4.0, 1.0),
        row("git", "put", 9.0),
        {"contender": "dvc", "absent": True},
    ]
    large = [row("cp -r", "put", 1.0), row("dmlpipe", "put", 1.25)]
    result = {
        "workloads": {"small": {"rows": small}, "large": {"rows": large}},
        "parts": {
            "tree": {
                "build_to_sort_and_encode": 1.2,
                "update_10": {"nodes_written": 11},
                "diff_10": {"nodes_read": 22},
                "list_folder": {"nodes_read": 6},
            },
            "ledger": {"group_records_per_s": 2000.0},
            "reading": {"one_by_one_to_plain": 2.5},
        },
    }
    found = {limit["work"]: (limit["measured"], limit["holds"]) for limit in judge(result)}
    assert found["put of small files / cp -r"] == (0.9, True)
    assert found["get of small files / cp -r"] == (2.0, False)
    assert found["git add and commit / put of small files"] == (10.0, True)
    assert found["dvc add / put of small files"] == (None, None)
    assert found["put of large files / cp -r"] == (1.25, True)
    assert found["nodes read by the listing of a folder of 1,000"] == (6, False)
