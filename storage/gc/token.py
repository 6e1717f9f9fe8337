"""Who carries a sweep out, and whether they are gone for certain.

A sweep may be closed by whoever made it. Anybody else must know that its deletions are over: that is certain only of a
process of this machine that has ended, on a medium that is on this machine. Where it is not, the sweep stays open,
which costs the reuse of its names and nothing else.
"""

from __future__ import annotations

import os
import secrets

from ..actor import host_name
from ..host import boot_id, has_ended, process_space, process_start


def make_token() -> str:
    """Return a token of this process, of a new sweep."""
    return "/".join([_machine(), str(os.getpid()), process_start(os.getpid()) or "", secrets.token_hex(8)])


def is_gone(token: str) -> bool:
    """Whether the process of a token has certainly ended."""
    machine, _, rest = token.rpartition("/")[0].rpartition("/")[0].rpartition("/")
    started = token.rpartition("/")[0].rpartition("/")[2]
    if not machine or machine != _machine() or machine.endswith("/") or not rest.isdigit() or not started:
        return False
    return has_ended(int(rest), started)


def _machine() -> str:
    """Host, boot, and the space in which its process numbers count; empty parts where the system tells none."""
    boot, space = boot_id(), process_space()
    return f"{host_name()}/{boot}/{space}" if boot and space else f"{host_name()}//"
