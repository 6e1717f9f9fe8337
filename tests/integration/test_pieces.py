"""A pipeline in a store that cuts large files by what they hold."""

from __future__ import annotations

from blake3 import blake3

from dmlpipe.storage.objects.value import Pieces
from tests.integration.terminal import Terminal

DAG = """
import dmlpipe as dml

dag = dml.DAG("pieces")


@dag.pipeline(dml.files("texts", "/{stem}.in"))
def grown(texts: bytes, stem: str) -> dml.Files:
    return {f"{stem}.bin": f"head of {stem}".encode() + texts}
"""


def test_large_outputs_share_what_they_have_in_common(terminal: Terminal) -> None:
    terminal.type("init", "--pieces", "content-defined")
    body = blake3(b"one").digest(length=20 << 20)
    terminal.write("dag.py", DAG)
    (terminal.folder / "a.in").write_bytes(body)
    (terminal.folder / "b.in").write_bytes(body[:1000] + b"inserted" + body[1000:])
    terminal.type("put", "texts", "a.in", "b.in")
    terminal.type("run", "dag.py", "-j", "1")
    store = terminal.store()
    view = store["grown"]
    assert view.read_bytes("/a.bin") == b"head of a" + body
    assert isinstance(view.value("/b.bin"), Pieces)
    used = sum(size for key, size in store.backend.list() if key.startswith(("objects/", "packs/", "results/")))
    assert used < 24 << 20
    report = store.fsck()
    assert report.ok
