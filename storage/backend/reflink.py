"""Files that share blocks (reflinks): a copy that takes no space and no time, where the file system can.

btrfs, XFS and bcachefs can, others say that they cannot. A shared block is copied when one of its files is written to,
so that each file stays what it is.
"""

from __future__ import annotations

import errno
import fcntl
import struct

_FICLONERANGE = 0x4020940D
_CANNOT = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.ENOSYS, errno.EISDIR}
)


def clone_range(source: int, start: int, length: int, dest: int, at: int) -> bool:
    """Let bytes of one file appear in another one, sharing their blocks; return False where that cannot be.

    Parameters
    ----------
    source, start, length
        Descriptor, and which bytes: whole blocks, but that the last may end with the file.
    dest, at
        Descriptor, open for writing, and where.

    Raises
    ------
    OSError
        The disk is full, or broken.
    """
    if not length:
        return False
    try:
        fcntl.ioctl(dest, _FICLONERANGE, struct.pack("=qQQQ", source, start, length, at))
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    return True
