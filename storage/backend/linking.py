"""A new name for a file, exclusively: by a hard link, else by a rename that replaces nothing."""

from __future__ import annotations

import errno
import os

from ..errors import BackendError, ErrorCode

_RENAME_NOREPLACE = 1
_AT_FDCWD = -100


def link_new(temporary: str, path: str) -> bool:
    """Let the file `temporary` appear as `path` too, unless there is one: atomic; return whether this call did it.

    Raises
    ------
    OSError
        As `os.link` does.
    BackendError
        The file system cannot do it (code ``unsafe-backend``).
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        # NFS may report a link that it made, when it answers a retransmitted request.
        return os.stat(temporary).st_nlink == 2
    except OSError as err:
        if err.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        return _rename_no_replace(temporary, path)
    return True


def _rename_no_replace(temporary: str, path: str) -> bool:
    import ctypes

    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        done = renameat2(_AT_FDCWD, os.fsencode(temporary), _AT_FDCWD, os.fsencode(path), _RENAME_NOREPLACE)
        if done == 0:
            return True
        code = ctypes.get_errno()
        if code == errno.EEXIST:
            return False
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), path)
    raise BackendError(
        f"the file system of {path} has neither hard links nor an exclusive rename: two writers could both win",
        code=ErrorCode.UNSAFE_BACKEND,
        hint="put the store on another file system",
    )
