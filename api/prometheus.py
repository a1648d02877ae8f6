"""`GET /metrics` in Prometheus' format: how the API is used, and how far the read models are.

Counters are kept as requests come; what the read models know is read when it is asked for. Labels are bounded: a
route's template, never its path, and a topic or status of the node.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import islice

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_1_0_0
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coordinator.api.health import stage_rows
from coordinator.projections.folding.projector import Projector
from coordinator.projections.views.checkpoints import UNSETTLED
from coordinator.projections.views.prediction_rows import COUNTED
from coordinator.streams.clock import wall_ms
from coordinator.streams.events import RoundScored

CHECKPOINTS_COUNTED = 100
BOARD_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The registry of one application. Others may register collectors of their own with it."""

    def __init__(self, projector: Projector, now: Callable[[], int] = wall_ms) -> None:
        """`now`: the time in ms."""
        self.registry = CollectorRegistry()
        self._now, self._began = now, now()
        self._requests = Counter(
            "coordinator_api_requests",
            "Answered calls by route template, method and status.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "coordinator_api_request_seconds",
            "Time to the first byte of an answer.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._refused = Counter(
            "coordinator_api_refused",
            "Calls turned away: key, scope, origin, rate, body.",
            ("reason",),
            registry=self.registry,
        )
        for reason in ("key", "scope", "origin", "rate", "body"):
            self._refused.labels(reason)  # a counter that is not there yet cannot be watched
        self._board_seconds = Histogram(
            "coordinator_truth_to_board_seconds",
            "From the time at which a truth became known to its scores on the board; live rounds only.",
            buckets=BOARD_SECONDS,
            registry=self.registry,
        )
        projector.on_scored = self._scored
        self.registry.register(_ReadModels(projector))

    def _scored(self, event: RoundScored) -> None:
        # A round from before this start is folded only now because of the start. Its age does not measure the pipeline.
        if not event.data.rehearsal and event.at >= self._began:
            self._board_seconds.observe(max(0, self._now() - event.at) / 1000)

    def refused(self, reason: str) -> None:
        """Count a call that was turned away."""
        self._refused.labels(reason).inc()

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a call that was answered."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def router(self) -> APIRouter:
        """The route."""
        routes = APIRouter()

        @routes.get(
            "/metrics",
            response_class=PlainTextResponse,
            responses={200: {"content": {CONTENT_TYPE_PLAIN_1_0_0: {"schema": {"type": "string"}}}}},
        )
        async def metrics() -> Response:
            """Everything, as Prometheus reads it."""
            return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_PLAIN_1_0_0)

        return routes


class Measured:
    """An ASGI layer that counts and times what passes."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and count at the first byte of the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in _METHODS else "other"
                seconds = time.perf_counter() - began
                self._metrics.answered(_route(scope), method, message["status"], seconds)
            await send(message)

        await self._app(scope, receive, sending)


_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PATCH", "PUT", "DELETE"})


def _route(scope: Scope) -> str:
    """The template that answered; "none" where no route did (a refusal, a path that is not known)."""
    return str(getattr(scope.get("route"), "path", None) or "none")


class _ReadModels(Collector):
    """What the projector and its read models know now."""

    def __init__(self, projector: Projector) -> None:
        self._projector = projector

    def describe(self) -> list[Metric]:
        """Nothing is asked at registration: the projector may not have started."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Gauges and counters, by topic and by status."""
        projector = self._projector
        lag = GaugeMetricFamily("coordinator_lag_records", "Records not folded yet.", labels=["topic"])
        for topic, records in projector.lag().items():
            lag.add_metric([topic], records)
        yield lag
        at = GaugeMetricFamily("coordinator_next_offset", "Where folding goes on.", labels=["topic"])
        for topic, position in projector.positions().items():
            at.add_metric([topic], position)
        yield at
        yield CounterMetricFamily("coordinator_events_folded", "Events folded here.", projector.events_folded)
        behind = GaugeMetricFamily(
            "coordinator_stage_behind_seconds",
            "Event time from a stage's newest decision to the feed's clock.",
            labels=["stage"],
        )
        age = GaugeMetricFamily(
            "coordinator_stage_age_seconds",
            "Wall time since anything was written to a stage's topic.",
            labels=["stage"],
        )
        for stage in stage_rows(projector, wall_ms()):
            for family, name in ((behind, "behind_seconds"), (age, "last_written_seconds_ago")):
                if stage[name] is not None:
                    family.add_metric([stage["stage"]], stage[name])
        yield behind
        yield age
        totals = projector.read.predictions.totals()
        states = GaugeMetricFamily("coordinator_predictions", "Predictions by status.", labels=["status"])
        for status in COUNTED:
            states.add_metric([status], totals[status])
        yield states
        count_of_status: dict[str, int] = {}
        for row in islice(projector.read.checkpoints.newest(), CHECKPOINTS_COUNTED):
            count_of_status[row.status] = count_of_status.get(row.status, 0) + 1
        checkpoints = GaugeMetricFamily(
            "coordinator_checkpoints",
            "Statuses of the newest 100 checkpoints.",
            labels=["status"],
        )
        for status, count in sorted(count_of_status.items()):
            checkpoints.add_metric([status], count)
        yield checkpoints
        yield GaugeMetricFamily(
            "coordinator_healthy", "1 while folding moves, as /healthz says.", float(projector.health().ok)
        )
        letters = CounterMetricFamily(
            "coordinator_dead_letters",
            "Records that were set aside, by where they came from.",
            labels=["origin"],
        )
        for origin, count in projector.read.dead_letters.totals().items():
            letters.add_metric([origin], count)
        yield letters
        claims = CounterMetricFamily(
            "coordinator_claims",
            "Claims of a topic since its first record: one for each start of its stage, and one for each takeover.",
            labels=["topic"],
        )
        for topic, count in projector.claims().items():
            claims.add_metric([topic], count)
        yield claims
        yield CounterMetricFamily(
            "coordinator_appends_uncounted",
            "Records that do not count: repeated sends, and late appends of former owners.",
            projector.uncounted,
        )
        yield from self._sizes_and_ages()

    def _sizes_and_ages(self) -> Iterator[Metric]:
        projector, now = self._projector, wall_ms()
        oldest: dict[str, int] = {}
        for row in islice(projector.read.checkpoints.newest(), CHECKPOINTS_COUNTED):
            if row.status in UNSETTLED and not row.checkpoint.rehearsal:
                oldest[row.status] = row.created_at
        ages = GaugeMetricFamily(
            "coordinator_checkpoint_age_seconds",
            "Age of the oldest checkpoint in a status that is not final; replayed ones are left out.",
            labels=["status"],
        )
        for status in UNSETTLED:
            if status in oldest:
                ages.add_metric([status], max(0, now - oldest[status]) / 1000)
        yield ages
        sizes = GaugeMetricFamily("coordinator_store_bytes", "A read model on disk.", labels=["store"])
        for projection in projector.read.all():
            sizes.add_metric([projection.name], projection.store.bytes_on_disk())
        yield sizes
        begins = GaugeMetricFamily(
            "coordinator_past_from_timestamp_seconds",
            "From where on a read model answers about the past; absent while it holds all of it.",
            labels=["store"],
        )
        for projection in projector.read.all():
            if projection.keeps_past and projection.store.horizon is not None:
                begins.add_metric([projection.name], projection.store.horizon.from_ms / 1000)
        yield begins
        deleted = CounterMetricFamily(
            "coordinator_past_versions_deleted",
            "Rows, and earlier versions of rows, that were cut out of a read model since this start (PAST_DAYS).",
            labels=["store"],
        )
        for name, count in projector.cutter.deleted.items():
            deleted.add_metric([name], count)
        yield deleted
        build = GaugeMetricFamily(
            "coordinator_build_info", "1; its label is the version.", labels=["version"]
        )
        build.add_metric([version("coordinator-node")], 1)
        yield build
