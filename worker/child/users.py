"""Who a command runs as: names and numbers of users and groups of this machine."""

from __future__ import annotations

import grp
import os
import pwd

from ...storage.errors import ErrorCode, InvalidInputError


def find_user(user: str) -> tuple[int, int] | None:
    """User and group ids of `name`, `1000` or `name:group`; None: it is who we are.

    Raises
    ------
    InvalidInputError
        There is no such user or group here (code ``bad-spec``).
    """
    name, _, group = user.partition(":")
    try:
        if name.isdigit():
            uid = gid = int(name)
            if any(entry.pw_uid == uid for entry in pwd.getpwall()):
                gid = pwd.getpwuid(uid).pw_gid
        else:
            entry = pwd.getpwnam(name)
            uid, gid = entry.pw_uid, entry.pw_gid
        if group:
            gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError as err:
        raise InvalidInputError(
            f"the command is to run as user {user!r}, who does not exist where the worker runs",
            code=ErrorCode.BAD_SPEC,
        ) from err
    return None if uid == os.geteuid() else (uid, gid)
