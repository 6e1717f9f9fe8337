"""What the scheduler's HTTP server says besides its health: ``/metrics``, in Prometheus' text format.

A module of routes as `distributed.http` wants it. Only this machine may ask, wherever the server listens: names of
pipelines are nobody else's business, and a scraper elsewhere goes through a tunnel or a proxy of its own. The text is
made here (`render` is pure); no client library is needed.
"""

from __future__ import annotations

import ipaddress
import resource
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..peers.tracker import Traffic
from .dask_seam import RequestHandler
from .job_status import Totals
from .pool import LeasePool

__all__ = ["Family", "families", "render", "routes"]

TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Family(NamedTuple):
    """One metric with its samples."""

    name: str
    kind: str
    """`gauge` or `counter`."""
    help: str
    samples: Sequence[tuple[Mapping[str, str], float]]
    """Labels and value."""


def render(found: Iterable[Family]) -> str:
    r"""Return the text of metrics.

    Examples
    --------
    >>> render([Family("up", "gauge", "Alive.", [({"job": 'a"b'}, 1.0)])])
    '# HELP up Alive.\n# TYPE up gauge\nup{job="a\\"b"} 1\n'
    """
    lines = []
    for family in found:
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        for labels, value in family.samples:
            inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
            lines.append(f"{family.name}{'{' + inside + '}' if inside else ''} {value:.10g}")
    return "".join(f"{line}\n" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def families(pool: LeasePool, traffic: Traffic | None = None) -> list[Family]:
    """Return what is known of a pool, and of what its workers hand each other."""

    def one(name: str, kind: str, text: str, value: float) -> Family:
        return Family(f"dmlpipe_{name}", kind, text, [({}, value)])

    jobs = pool.status()

    def each(name: str, text: str, value: Any) -> Family:
        return Family(
            f"dmlpipe_{name}", "gauge", text, [({"pipeline": j.pipeline, "job": j.job}, value(j)) for j in jobs]
        )

    def total(name: str, text: str, value: Any) -> Family:
        samples: list[tuple[Mapping[str, str], float]] = []
        for pipeline, totals in sorted(pool.totals().items()):
            samples.append(({"pipeline": pipeline}, value(totals)))
        return Family(f"dmlpipe_{name}", "counter", text, samples)

    def computed(totals: Totals) -> float:
        return totals.computed

    usage = resource.getrusage(resource.RUSAGE_SELF)
    found = [
        one("workers", "gauge", "Workers that are there.", pool.worker_count()),
        one("slots", "gauge", "Slots that can take leases.", pool.slots()),
        one("jobs", "gauge", "Jobs under way.", len(jobs)),
        one("leases_total", "counter", "Leases given since the scheduler began.", pool.leases_given),
        one("scheduler_cpu_seconds_total", "counter", "CPU seconds of the scheduler.", usage.ru_utime + usage.ru_stime),
        one("scheduler_peak_bytes", "gauge", "Most memory that the scheduler had.", usage.ru_maxrss * 1024),
        each("datums_queued", "Datums in no slot's hands.", lambda job: job.queued),
        each("datums_leased", "Datums in slots' hands, or computed and not stored yet.", lambda job: job.leased),
        total("datums_computed_total", "Datums that ended, failed ones included.", computed),
        total("datums_failed_total", "Datums that used up their tries.", lambda totals: totals.failed),
        total("datum_seconds_total", "Seconds that datums took.", lambda totals: totals.seconds),
    ]
    if traffic is not None:
        found += [
            one("origin_bytes_total", "counter", "Bytes that workers read from the store.", traffic.from_store),
            one("peer_bytes_total", "counter", "Bytes that workers read from each other.", traffic.from_peers),
        ]
    return found


class Metrics(RequestHandler):  # type: ignore[misc, unused-ignore]  # distributed has no stubs
    """``GET /metrics``."""

    def get(self) -> None:
        """Answer."""
        if not _is_here(self.request.remote_ip):
            self.set_status(403)
            self.write("metrics are told to this machine only\n")
            return
        server: Any = self.server
        service = server.dmlpipe
        self.set_header("Content-Type", TEXT)
        self.write(render(families(service.pool, service.sharing.traffic)))


def _is_here(address: str | None) -> bool:
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False


routes: list[tuple[str, type[RequestHandler], dict[str, Any]]] = [(r"metrics", Metrics, {})]
