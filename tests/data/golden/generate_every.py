"""Make the golden store that holds every kind of object of format 1: open commits and a running job among them.

    python -m tests.data.golden.generate_every

Run once per format version; never again on a version that was released: what it made is what readers must read.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from tests.storage.fsck.everything import fill, small_objects

from dmlpipe.storage.store import Store

HERE = Path(__file__).parent


def main() -> None:
    """Write `every/` beside this file."""
    target = HERE / "every"
    shutil.rmtree(target, ignore_errors=True)
    os.environ["DMLPIPE_USER"] = "ada"
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as cache:
        small_objects(patch)
        fill(Store.init(target, cache_dir=Path(cache), actor="ada@golden", description="every kind of object"))
    # It would hide the store from git.
    (target / ".gitignore").unlink()


if __name__ == "__main__":
    main()
