"""A store that several users of a group write to."""

from __future__ import annotations

import os
import stat
from functools import partial
from pathlib import Path

import pytest

from dmlpipe.storage.errors import BackendError, ErrorCode
from dmlpipe.storage.gc.run import collect
from dmlpipe.storage.store import Store
from tests.faults.users import as_user, needs_root

ADA, BOB, LAB = 1001, 1002, 2001
CONTENT = {"small": os.urandom(3000), "large": os.urandom(2 << 20), "tiny": b"t"}

pytestmark = [needs_root, pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]


def put(root: Path, who: str) -> None:
    store = Store.open(root, cache_dir=root.parent / f"cache-{who}")
    store.put("shared", *((f"{who}/{name}", data) for name, data in CONTENT.items()), create=True)


def test_two_users_of_a_group_share_a_store() -> None:
    with as_user.place(LAB) as place:
        root = place / "store"
        init = as_user(ADA, LAB, lambda: Store.init(root, cache_dir=place / "cache-ada"), umask=0o002)
        assert init is None
        for uid, who in ((ADA, "ada0"), (BOB, "bob0"), (ADA, "ada1"), (BOB, "bob1")):
            assert as_user(uid, LAB, partial(put, root, who), umask=0o002) is None
        owners = set()
        for path in root.rglob("*"):
            status = path.stat()
            owners.add(status.st_uid)
            assert status.st_gid == LAB, path
            wanted = 0o2775 if path.is_dir() else 0o664
            assert stat.S_IMODE(status.st_mode) == wanted, path
        assert owners == {ADA, BOB}

        def clean() -> None:
            store = Store.open(root, cache_dir=place / "cache-bob")
            with store.commit("shared") as session:
                session.delete("/ada0")
            store.delete_repo("shared")
            assert collect(store, grace_s=0).swept.objects > 0  # also what the other one wrote
            assert store.fsck().ok
            assert store.repair().ok

        assert as_user(BOB, LAB, clean, umask=0o002) is None
        assert as_user(ADA, LAB, lambda: put(root, "again"), umask=0o002) is None


def test_a_private_umask_is_kept_and_told_to_whoever_is_shut_out() -> None:
    with as_user.place(LAB) as place:
        root = place / "store"
        assert as_user(ADA, LAB, lambda: Store.init(root, cache_dir=place / "cache-ada"), umask=0o077) is None
        assert as_user(ADA, LAB, lambda: put(root, "ada"), umask=0o077) is None
        assert all(path.stat().st_mode & 0o077 == 0 for path in root.rglob("*"))
        error = as_user(BOB, LAB, lambda: put(root, "bob"), umask=0o002)
        assert isinstance(error, BackendError), error
        assert error.code is ErrorCode.PERMISSION
        assert "umask 002" in str(error.hint)


def test_who_may_only_read_reads() -> None:
    with as_user.place(LAB) as place:
        root = place / "store"
        assert as_user(ADA, LAB, lambda: Store.init(root, cache_dir=place / "cache-ada"), umask=0o022) is None
        assert as_user(ADA, LAB, lambda: put(root, "ada"), umask=0o022) is None

        def read() -> None:
            store = Store.open(root, cache_dir=place / "cache-bob", read_only=True)
            assert store["shared"].read_bytes("ada/large") == CONTENT["large"]
            assert store.fsck().ok

        assert as_user(BOB, BOB, read) is None
        assert isinstance(as_user(BOB, BOB, lambda: put(root, "bob")), BackendError)
