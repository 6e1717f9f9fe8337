"""Forty specifications as a team has them that leaves Pachyderm.

Chains, crosses, joins, groups, cron; images and the scripts inside them, secrets, fields that belong to Kubernetes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COUNT = 40
TEAMS = 8


def write_specs(folder: Path, count: int = COUNT) -> list[Path]:
    """Write one file each, `specs/NN.json`, and return them in order."""
    folder.mkdir(parents=True)
    paths = []
    for number in range(count):
        path = folder / f"{number:02}.json"
        path.write_text(json.dumps(_spec(number), indent=2) + "\n")
        paths.append(path)
    return paths


def _spec(number: int) -> dict[str, Any]:
    team, stage = divmod(number, COUNT // TEAMS)
    before = f"team{team}-stage{stage - 1}" if stage else f"raw{team}"
    name = f"team{team}-stage{stage}"
    inputs: list[dict[str, Any]] = [
        {"pfs": {"repo": before, "glob": "/*"}},
        {"cross": [{"pfs": {"repo": before, "glob": "/(*).csv"}}, {"pfs": {"repo": f"models{team}", "glob": "/"}}]},
        {
            "join": [
                {"pfs": {"repo": before, "glob": "/(*)_(*).csv", "join_on": "$1"}},
                {"pfs": {"repo": f"labels{team}", "glob": "/(*).json", "join_on": "$1"}},
            ]
        },
        {"group": [{"pfs": {"repo": before, "glob": "/*-(*).csv", "group_by": "$1"}}]},
        {"union": [{"pfs": {"repo": before, "glob": "/**"}}, {"cron": {"name": "tick", "spec": "@daily"}}]},
    ]
    return {
        "pipeline": {"name": name},
        "description": f"stage {stage} of team {team}",
        "transform": {
            "image": f"registry.example/team{team}/stage{stage}:1.{number}",
            "cmd": ["python3", f"/app/stage{stage}.py", "--in", f"/pfs/{before}", "--out", "/pfs/out"],
            "env": {"LEVEL": "info", "STAGE": str(stage)},
            "secrets": [{"name": f"team{team}", "key": "token", "env_var": "TOKEN"}],
        },
        "input": inputs[stage % len(inputs)],
        "parallelism_spec": {"constant": 4},
        "resource_requests": {"cpu": 1, "memory": "2G"},
        "resource_limits": {"cpu": 2, "memory": "4G"},
        "datum_timeout": "30m",
        "datum_tries": 3,
        "datum_set_spec": {"number": 10},
        "tolerations": [{"key": "pool", "value": "batch"}],
        "autoscaling": True,
    }
