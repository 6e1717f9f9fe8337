"""The key of a cluster: one certificate that all its processes hold, and that makes them one cluster.

A folder of mode 0700 with `cert.pem` and `key.pem`; the certificate is its own authority. Whoever holds the key is the
cluster: Dask runs what it is sent.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import NamedTuple

from ..storage.errors import ErrorCode, InvalidInputError

CERT_NAME = "cert.pem"
KEY_NAME = "key.pem"


class ClusterKey(NamedTuple):
    """Where certificate and key are."""

    cert: Path
    key: Path


def read_cluster_key(folder: Path) -> ClusterKey:
    """Return the key in `folder`.

    Raises
    ------
    InvalidInputError
        One of its two files is not there, or others may read the key.
    """
    found = ClusterKey(folder / CERT_NAME, folder / KEY_NAME)
    for file in found:
        if not file.is_file():
            raise InvalidInputError(f"no key of a cluster in {folder}: there is no {file.name}", code=ErrorCode.CLUSTER)
    mode = os.stat(found.key).st_mode & 0o777
    if mode & 0o077:
        raise InvalidInputError(
            f"{found.key} has mode {mode:04o}: others may read the key of this cluster, and so run code in it",
            code=ErrorCode.CLUSTER,
            hint=f"chmod 600 {found.key}; if others could read it before, make a new key",
        )
    return found


def check_listen(host: str, key: ClusterKey | None, *, insecure: bool = False) -> None:
    """Refuse to listen beyond this machine without a key.

    Raises
    ------
    InvalidInputError
        `host` is not loopback, there is no key, and `insecure` is not set.

    Examples
    --------
    >>> check_listen("127.0.0.1", None)
    """
    if key is not None or insecure or is_loopback(host):
        return
    raise InvalidInputError(
        f"refusing to listen on {host} without a key: whoever reaches it could run code",
        code=ErrorCode.CLUSTER,
        hint="give the cluster's key (--key FOLDER); --insecure where the network itself is closed",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def protocol(key: ClusterKey | None) -> str:
    """`tls` or `tcp`."""
    return "tcp" if key is None else "tls"
