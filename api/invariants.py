"""`GET /reports/invariants` and `/reports/chain`: what the node finds when it looks at itself, and at the chain.
The same as metrics.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import get_args

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator.api.invariant_shapes import AlertKind, Chain, Invariants
from coordinator.api.monitor import Monitor
from coordinator.api.queries import our_router
from coordinator.api.responses import shaped
from coordinator.api.times import zulu_or_none


def monitor_of(request: Request) -> Monitor:
    """The monitor of the application that was asked."""
    monitor: Monitor = request.app.state.monitor
    return monitor


@cache
def router() -> APIRouter:
    """The routes over the monitor's last look."""
    routes = our_router()

    @routes.get("/reports/invariants", response_model=Invariants)
    async def invariants(request: Request) -> Response:
        """Each invariant with what was found, and the alerts that are on. A broken one withholds a checkpoint."""
        monitor = monitor_of(request)
        if monitor.looked_at is None:
            monitor.peek()
        broken = [finding.name for finding in monitor.findings if not finding.ok]
        return shaped(
            Invariants,
            {
                "ok": not broken,
                "looked_at": zulu_or_none(monitor.looked_at),
                "withholding": [
                    finding.name for finding in monitor.findings if not finding.ok and finding.withholds
                ],
                "invariants": [msgspec.structs.asdict(finding) for finding in monitor.findings],
                "alerts": [
                    msgspec.structs.asdict(alert) | {"since": zulu_or_none(monitor.alerts.since[which])}
                    for which, alert in monitor.alerts.current.items()
                ],
            },
        )

    @routes.get("/reports/chain", response_model=Chain)
    async def chain(request: Request) -> Response:
        """What the chain watch saw and when: transactions of open checkpoints, and what a person must look at."""
        loop = monitor_of(request).chain
        body = {
            "adapter": loop.chain.name if loop else None,
            "checked_at": zulu_or_none(loop.checked_at) if loop else None,
            "error": (loop.error or None) if loop else None,
            "transactions": loop.transactions if loop else [],
            "concerns": [msgspec.structs.asdict(concern) for concern in loop.concerns] if loop else [],
        }
        return shaped(Chain, body)

    return routes


class GuardMetrics(Collector):
    """The monitor's last look as gauges."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def describe(self) -> list[Metric]:
        """Nothing is asked at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Invariants, alerts, the disk, the webhook and the chain watch."""
        monitor = self._monitor
        holds = GaugeMetricFamily("coordinator_invariant_ok", "1 while it holds.", labels=["name"])
        counts = GaugeMetricFamily(
            "coordinator_invariant_figure", "A figure behind an invariant.", labels=["name", "figure"]
        )
        for finding in monitor.findings:
            holds.add_metric([finding.name], float(finding.ok))
            for name, number in finding.counts.items():
                counts.add_metric([finding.name, name], number)
        yield holds
        yield counts
        kinds: dict[str, int] = {}
        for kind, _ in monitor.alerts.current:
            kinds[kind] = kinds.get(kind, 0) + 1
        alerts = GaugeMetricFamily("coordinator_alerts", "Alerts that are on.", labels=["kind"])
        for kind in get_args(AlertKind):
            alerts.add_metric([kind], kinds.get(kind, 0))
        yield alerts
        yield GaugeMetricFamily(
            "coordinator_disk_write_seconds",
            "Time of a write of 4 kB in the data directory until the disk has it; the newest one.",
            monitor.disk.write_ms / 1000,
        )
        if monitor.webhook is not None:
            posts = CounterMetricFamily("coordinator_webhook_posts", "Posts by outcome.", labels=["outcome"])
            for outcome in ("sent", "failed", "dropped"):
                posts.add_metric([outcome], getattr(monitor.webhook, outcome))
            yield posts
        if monitor.chain is not None:
            looks = CounterMetricFamily("coordinator_chain_looks", "Looks at the chain.", labels=["outcome"])
            looks.add_metric(["ok"], monitor.chain.looks - monitor.chain.failures)
            looks.add_metric(["failed"], monitor.chain.failures)
            yield looks
