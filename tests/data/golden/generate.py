"""Make the golden store of format 1 and what is expected of it.

    python -m tests.data.golden.generate

Run once per format version; never again on a version that was released: what it made is what readers must read.
Nonces and times differ from run to run, content and trees do not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.storage.engine import Engine

from dmlpipe.storage.store import Store

HERE = Path(__file__).parent
CONTENT: dict[str, bytes] = {
    "empty": b"",
    "inline.txt": b"up to 128 bytes stand in the tree\n",
    "packed.bin": bytes(range(256)) * 20,
    "loose.bin": b"\0" * (1 << 20),
    "cam/1.png": b"one" * 100,
    "cam/2.png": b"two" * 100,
    "\u00fcml\u00e4ut/na\u00efve.txt": b"names are UTF-8, NFC\n",
}
WIDE = {f"many/{number:05d}": f"{number}".encode() for number in range(3000)}


def fill(store: Store) -> None:
    """Put everything into an empty store."""
    store.put("images", *CONTENT.items(), message="first")
    store.put("images", ("cam/2.png", b"two, again" * 40), message="second")
    store.create_branch("images", "dev", "images^")
    store.create_tag("images", "v1", "images^")
    store.put("wide", *WIDE.items(), message="more than one node")
    store.put("training", ("7/1.png", b"t" * 200), ("7/2.png", b"u" * 200), message="first batch")
    for number in range(20):
        store.put("counter", ("n", f"{number}"))
    engine = Engine(store)
    engine.pipeline("model", [{"type": "files", "repo": "training", "glob": "/"}], {"C": 1.0})
    engine.pipeline(
        "predictions",
        [
            {"type": "files", "repo": "images", "glob": "/cam/*.png", "name": "in_images"},
            {"type": "files", "repo": "model", "glob": "/"},
        ],
        {},
    )
    engine.job("model", 1, {"training": "data"}, (), {"model.joblib": (b"", b"m" * 300, 1)})
    roles = {"in_images": "data", "model": "model"}
    first = {"1.json": (b"cam/1.png", b"{1}", 2)}
    engine.job("predictions", 2, roles, ("in_images",), first)
    engine.job("predictions", 3, roles, ("in_images",), {**first, "2.json": (b"cam/2.png", b"{2}" * 60, 3)})


def expected(store: Store) -> dict[str, Any]:
    """Describe a store with hashes that it does not use itself."""
    refs = {}
    for ref in ("images", "images@dev", "images@v1", "images^", "wide", "training", "counter", "model", "predictions"):
        commit = store[ref]
        refs[ref] = {
            "commit": commit.id,
            "tree": commit.body.tree,
            "message": commit.message,
            "parents": list(commit.parents),
            "files": {
                info.path: hashlib.sha256(commit.read_bytes(info.path)).hexdigest()
                for info in commit.ls(recursive=True)
            },
        }
    state = store.state
    return {
        "n": state.n,
        "chain": state.chain,
        "refs": refs,
        "why": store.why("predictions:/2.json").to_dict(),
    }


def main() -> None:
    """Write `store/` and `expected.json` beside this file."""
    target = HERE / "store"
    shutil.rmtree(target, ignore_errors=True)
    os.environ["DMLPIPE_USER"] = "ada"
    with tempfile.TemporaryDirectory() as cache:
        store = Store.init(target, cache_dir=Path(cache), actor="ada@golden", description="golden store of format 1")
        fill(store)
        described = expected(store)
    # It would hide the store from git.
    (target / ".gitignore").unlink()
    (HERE / "expected.json").write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
