"""Whole clusters in virtual time."""

from __future__ import annotations

import pytest

from dmlpipe.scheduler.peers.standing import Standing
from dmlpipe.scheduler.peers.tracker import Limits
from tests.scheduler.peers.swarm import Swarm


@pytest.mark.parametrize(("hosts", "parts"), [(1, 8), (2, 32), (8, 32), (30, 32), (100, 32), (100, 1), (16, 300)])
def test_the_store_is_read_once_and_the_rest_takes_little_longer(hosts: int, parts: int) -> None:
    swarm = Swarm(hosts, parts, store_s=0.8, link_s=0.05, seed=hosts)
    seconds = swarm.run()
    assert swarm.origin_reads == parts
    assert swarm.most_uploads <= Limits().uploads_max
    assert seconds <= 1.5 * (parts * 0.8 + 0.05 * hosts.bit_length()) + 1.0


@pytest.mark.parametrize("hosts", [8, 32])
def test_with_slow_links_it_stays_near_the_ideal_pipeline(hosts: int) -> None:
    """The store as fast as a link: no schedule beats the time of one read over a link and a part for each doubling."""
    swarm = Swarm(hosts, 64, store_s=0.2, link_s=0.2, seed=5)
    seconds = swarm.run()
    assert swarm.origin_reads == 64
    assert seconds <= 1.5 * 0.2 * (64 + hosts.bit_length())


def test_the_cost_of_a_decision_is_bounded_by_polls() -> None:
    swarm = Swarm(50, 32, store_s=0.8, link_s=0.05, seed=3)
    seconds = swarm.run()
    # One request for each part that came, and one each 0.2 s.
    assert swarm.requests <= 50 * (2 * 32 + seconds / 0.2 + 2)


@pytest.mark.parametrize("seed", range(6))
def test_hosts_that_disappear_cost_what_only_they_had(seed: int) -> None:
    swarm = Swarm(12, 32, store_s=0.8, link_s=0.1, seed=seed)
    for name in ("w1", "w5", "w9"):
        for _ in range(60):
            swarm.step()
        swarm.kill(name)
    swarm.run()
    assert all(host.done_at >= 0 for host in swarm.hosts.values() if not host.gone)
    assert swarm.origin_reads <= 32 + 3 * 8


@pytest.mark.parametrize("seed", range(4))
def test_peers_that_send_garbage_are_asked_no_more(seed: int) -> None:
    swarm = Swarm(8, 32, store_s=0.8, link_s=0.1, seed=seed)
    for name in ("w2", "w6"):
        swarm.hosts[name].garbage = True
    swarm.run()
    assert {name for name in swarm.hosts if swarm.tracker.standing(name, swarm.now) is Standing.BANNED} <= {"w2", "w6"}
    # Each of the two is believed by at most as many as it serves at a time; what only it had is read again.
    assert swarm.origin_reads <= 32 + 2 * 32


def test_a_frozen_hosts_claims_pass_to_others_at_their_deadline() -> None:
    swarm = Swarm(4, 8, store_s=0.5, link_s=0.1, seed=1)
    swarm.ask(swarm.hosts["w0"])
    frozen = swarm.hosts["w0"]
    claimed = len(frozen.flying)
    frozen.gone = True  # and nobody says so
    seconds = swarm.run()
    assert all(host.done_at >= 0 for host in swarm.hosts.values() if not host.gone)
    assert swarm.origin_reads == 8 + claimed
    assert seconds <= 120
