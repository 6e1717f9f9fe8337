"""Hosts on one machine: network namespaces joined by a bridge, with links of a given speed. Needs root and iproute2."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Where a host runs."""

    address: str
    command: tuple[str, ...]
    """Put before what is to run there."""


def available() -> bool:
    """Whether namespaces can be made here."""
    name = f"dml-try-{os.getpid()}"
    try:
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
    if made:
        subprocess.run(["ip", "netns", "del", name], check=True)
    return made


@contextlib.contextmanager
def hosts(count: int, *, link_mbit: int = 0) -> Iterator[tuple[str, Sequence[Place]]]:
    """Yield the bridge's address, which this process has, and `count` hosts; all is removed at the end.

    Parameters
    ----------
    link_mbit
        Speed of each host's link in each direction; 0: as fast as it goes.
    """
    number = os.getpid() % 250
    bridge = f"dmlbr{number}"
    names = [f"dml-{number}-{host}" for host in range(count)]
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"10.213.{number}.254/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        places = []
        for host, name in enumerate(names):
            outside, address = f"dml{number}v{host}", f"10.213.{number}.{host + 1}"
            _ip("netns", "add", name)
            _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", outside, "master", bridge, "up")
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
            if link_mbit:
                limit = ("root", "tbf", "rate", f"{link_mbit}mbit", "burst", "512kb", "latency", "100ms")
                subprocess.run(["tc", "qdisc", "add", "dev", outside, *limit], check=True)
                subprocess.run(["ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "eth0", *limit], check=True)
            places.append(Place(address, ("ip", "netns", "exec", name)))
        yield f"10.213.{number}.254", places
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
