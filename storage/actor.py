"""Who acts: the names that ledger entries and commits carry. Informative, never an authority."""

from __future__ import annotations

import getpass
import os

UNKNOWN = "unknown"


def user_name() -> str:
    """Return `$DMLPIPE_USER`, else the login name, else ``unknown`` (a container's nameless user id)."""
    name = os.environ.get("DMLPIPE_USER")
    if name:
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return UNKNOWN


def host_name() -> str:
    """Return this host's name."""
    return os.uname().nodename


def actor_name() -> str:
    """Return ``user@host``."""
    return f"{user_name()}@{host_name()}"
