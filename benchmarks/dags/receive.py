"""One large file to every slot: a datum a slot, which ends when the file is there and it has waited a moment."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import dmlpipe as dml

PLACES = 1

dag = dml.DAG("broadcast")


@dag.pipeline(dml.cross(dml.values(place=list(range(PLACES))), model=dml.files("model")))
def receive(place: int, model: Path, *, point: str = "", linger_s: float = 0.5) -> dml.Files:
    """Say which process has the file. The moment keeps a quick slot from taking what a slow one is meant to."""
    (path,) = model.iterdir()
    size = path.stat().st_size
    time.sleep(linger_s)
    return {f"{place}.txt": f"{socket.gethostname()} {os.getppid()} {size}\n"}
