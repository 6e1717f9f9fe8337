"""Code that runs as another user, in a forked child: only root can."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can mount, and be somebody else")

_TIMEOUT_S = 60


class _AsUser:
    """Call with (uid, gid, what to do, umask): returns the exception that it ended with, or None."""

    def __call__(self, uid: int, gid: int, do: Callable[[], object], *, umask: int = 0o022) -> BaseException | None:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            signal.alarm(_TIMEOUT_S)
            answer: BaseException | None = None
            try:
                os.setgroups([gid])
                os.setgid(gid)
                os.setuid(uid)
                os.umask(umask)
                do()
            except BaseException as error:  # noqa: BLE001  (it is sent)
                answer = error
            with open(writing, "wb") as out:
                try:
                    out.write(pickle.dumps(answer))
                except Exception:  # noqa: BLE001  (whatever cannot be pickled is told as text)
                    out.write(pickle.dumps(RuntimeError(repr(answer))))
            os._exit(0)
        os.close(writing)
        with open(reading, "rb") as file:
            body = file.read()
        os.waitpid(child, 0)
        assert body, "the child was killed"
        found: BaseException | None = pickle.loads(body)
        return found

    @staticmethod
    @contextmanager
    def place(group: int | None = None) -> Iterator[Path]:
        """A folder that everybody can enter and write into; with `group` it is that group's, and setgid."""
        folder = Path(tempfile.mkdtemp(prefix="dmlpipe-users-", dir="/tmp"))
        try:
            if group is None:
                folder.chmod(0o777)
            else:
                os.chown(folder, 0, group)
                folder.chmod(0o2775)
            yield folder
        finally:
            shutil.rmtree(folder)


as_user = _AsUser()
