"""Binance: candles, trades, books and funding live over websockets, and their history over REST.

Gives `FeedRecord`s of facts only. All subjects of a market share one websocket: spot carries candles and
ticks, the USD-M futures' path /public carries depth and its path /market funding (`messages.py` says why).

Whose fault a failure is decides what happens: a lost connection, 429 and 5xx are the world's, and are retried with
backoff, jitter and the server's Retry-After (the stream for ever, history a bounded number of times); a refusal that
lasts (403, 451, the ban 418) is tried slowly; a symbol or a URL that the other side refuses is the operator's; a
message that cannot be read, or whose time is in the future, goes to `on_garbage`, and the next one is read. What
was missed between two connections is not looked for here: the feed worker sees the hole and asks `history`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import ClassVar, NamedTuple

import structlog

from coordinator.streams.clock import wall_ms
from coordinator.streams.feeds.clock_witness import time_fault
from coordinator.streams.granularity import granularity_ms
from coordinator.streams.log.errors import NoHistoryError, RefusedError, WorldError
from coordinator.streams.ports import FeedRecord, SourceHealth, Subscription
from coordinator.streams.sources.binance import history as binance_history
from coordinator.streams.sources.binance.live_messages import LiveReader, stream_path
from coordinator.streams.sources.binance.messages import OFFERS, interval_of, refusal_text
from coordinator.streams.sources.candle_values import OnGarbage
from coordinator.streams.sources.merged_streams import merged
from coordinator.streams.sources.options import Options
from coordinator.streams.sources.rest import Refusals, Rest
from coordinator.streams.sources.socket_messages import socket_messages
from coordinator.streams.sources.waiting import (
    Patience,
    Probe,
    checked_url,
    log_garbage,
    trouble_of,
)

DEPTH_LEVELS = (5, 10, 20)
FUNDING_LOOK_BACK_MS = 60_000

log = structlog.get_logger(__name__)


class Hosts(NamedTuple):
    """Where the exchange answers: the spot market and the futures, over REST and over a websocket."""

    rest_url: str = "https://api.binance.com"
    websocket_url: str = "wss://stream.binance.com:9443"
    futures_rest_url: str = "https://fapi.binance.com"
    futures_websocket_url: str = "wss://fstream.binance.com"


THE_EXCHANGE = Hosts()


class BinanceSource:
    """The feed source `binance`. Subjects are symbols as the exchange writes them, e.g. BTCUSDT."""

    name = "binance"
    about = "Binance, over one websocket per market for all subjects; history over REST"
    offers: ClassVar[Mapping[str, tuple[str, ...]]] = OFFERS

    def __init__(
        self,
        hosts: Hosts = THE_EXCHANGE,
        on_garbage: OnGarbage | None = None,
        patience: Patience | None = None,
        *,
        depth_levels: int = 5,
        funding_poll_seconds: float = 60.0,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._patience = patience or Patience()
        web, sockets = ("http", "https"), ("ws", "wss")
        self._spot = self._rest(checked_url(self.name, "rest_url", hosts.rest_url, web))
        self._futures = self._rest(checked_url(self.name, "futures_rest_url", hosts.futures_rest_url, web))
        self._spot_socket = checked_url(self.name, "websocket_url", hosts.websocket_url, sockets)
        # The route is chosen per kind: drop it from an address that names one.
        self._futures_socket = re.sub(
            "/(public|market)$",
            "",
            checked_url(self.name, "futures_websocket_url", hosts.futures_websocket_url, sockets),
        )
        self._garbage = on_garbage or log_garbage
        self._depth_levels = depth_levels
        self._funding_poll_seconds = funding_poll_seconds
        self._now_ms = now_ms
        self.health = SourceHealth()

    @classmethod
    def from_options(cls, texts: Mapping[str, str], on_garbage: OnGarbage | None = None) -> BinanceSource:
        """The source with its `FEED_OPT_*` options. Raises OperatorError."""
        waits = ("request_timeout_seconds", "idle_seconds_min", "ping_seconds", "future_seconds_max")
        options = Options(cls.name, texts, (*Hosts._fields, *waits, "attempts", "depth_levels"))
        default = Patience()
        depth_levels = options.whole("depth_levels", 5)
        if depth_levels not in DEPTH_LEVELS:
            raise options.wrong("depth_levels", f"give one of {', '.join(map(str, DEPTH_LEVELS))}")
        return cls(
            Hosts(*(options.text(name, default_url) for name, default_url in THE_EXCHANGE._asdict().items())),
            on_garbage,
            Patience(
                **{name: options.seconds(name, getattr(default, name)) for name in waits},
                attempts=options.whole("attempts", default.attempts, 1),
            ),
            depth_levels=depth_levels,
        )

    @property
    def state(self) -> str:
        """The state of the live side as one line."""
        health = self.health
        return f"{health.state}: {health.reason}" if health.reason else health.state

    async def probe(self, timeout_seconds: float = 3.0) -> Probe:
        """Whether the REST server answers in time. Asks once; does not raise for a fault of the world."""
        return await self._spot.probe("/api/v3/ping", timeout_seconds)

    async def time_ms(self) -> int:
        """The exchange's own time. Raises WorldError."""
        self.health.time_ms = await self._spot.time_ms("/api/v3/ping")
        return self.health.time_ms

    async def stream(self, subscriptions: Sequence[Subscription]) -> AsyncIterator[FeedRecord]:
        """Records as they arrive, without end; reconnects by itself."""
        spot = [
            subscription
            for subscription in subscriptions
            if interval_of(subscription) and subscription.kind in ("candle", "tick")
        ]
        settled = [
            subscription
            for subscription in subscriptions
            if (subscription.kind, subscription.granularity) == ("funding", "8h")
        ]
        futures = [
            subscription
            for subscription in subscriptions
            if subscription not in spot and subscription not in settled
        ]
        parts = [
            self._live(url + path, streamed)
            for url, part in ((self._spot_socket, spot), (self._futures_socket, futures))
            for path, streamed in stream_path(part, self._depth_levels).items()
        ]
        parts += [self._polled(subscription) for subscription in settled]
        if not parts:
            return
        async with aclosing(merged(parts)) as records:
            async for record in records:
                yield record

    async def history(
        self, subscription: Subscription, start_ms: int, end_ms: int
    ) -> AsyncGenerator[FeedRecord, None]:
        """Records with start_ms <= at <= end_ms, in order.

        Raises WorldError if they cannot be read (NoHistoryError for depth and `funding 1s`, which have no history),
        OperatorError if the exchange refuses the request.
        """
        interval_of(subscription)
        end_ms = min(end_ms, self._now_ms() + self._patience.future_ms_max)
        question = (subscription, start_ms, end_ms, self._refused)
        match subscription.kind, subscription.granularity:
            case "candle", _:
                pages = binance_history.candles(self._spot, *question)
            case "tick", _:
                pages = binance_history.trades(self._spot, *question)
            case "funding", "8h":
                pages = binance_history.fundings(self._futures, *question)
            case kind, granularity:
                raise NoHistoryError(f"binance has no history of {kind} {granularity}")
        async with aclosing(pages) as records:
            async for record in records:
                yield record

    async def _live(
        self, url: str, subscriptions: Sequence[Subscription]
    ) -> AsyncGenerator[FeedRecord, None]:
        reader = LiveReader(subscriptions)
        idle_seconds = max(
            self._patience.idle_seconds_min,
            2 * min(granularity_ms(subscription.granularity) for subscription in subscriptions) / 1000,
        )
        messages = socket_messages(url, self.name, self._patience, idle_seconds, self.health, refusal_text)
        async with aclosing(messages):
            async for message in messages:
                try:
                    record = reader.record(message)
                    now_ms = max(self._now_ms(), self.health.time_ms)
                    future_ms_max = self._patience.future_ms_max
                    fault = record and time_fault(record.ts_event, record.at, now_ms, future_ms_max)
                    if fault:
                        raise ValueError(fault)
                    # A message from the far future must not make later ones credible.
                    if time_fault(reader.said_ms, reader.said_ms, now_ms, future_ms_max) is None:
                        self.health.time_ms = reader.said_ms
                except ValueError as error:
                    text = message if isinstance(message, str) else message.decode(errors="backslashreplace")
                    self._refused(f"binance stream: {error}", text)
                    continue
                if record is not None:
                    yield record

    async def _polled(self, subscription: Subscription) -> AsyncGenerator[FeedRecord, None]:
        """Poll for settled rates from now on: there is no stream of them."""
        next_ms = self._now_ms() - FUNDING_LOOK_BACK_MS
        while True:
            try:
                async for record in self.history(subscription, next_ms, self._now_ms()):
                    next_ms = record.at + 1
                    yield record
            except WorldError as error:
                if self.health.reason != str(error):
                    log.warning("feed_poll_failed", source=self.name, reason=str(error))
                self.health.state, self.health.reason = trouble_of(error)
                if isinstance(error, RefusedError):
                    await asyncio.sleep(error.again_seconds)
            else:
                if self.health.state != "connected":
                    self.health.connections += 1
                self.health.state, self.health.reason = "connected", ""
            await asyncio.sleep(self._funding_poll_seconds)

    def _refused(self, reason: str, text: str) -> None:
        self.health.refused += 1
        self._garbage(reason, text)

    def _rest(self, url: str) -> Rest:
        return Rest(self.name, url, self._patience, refusals=Refusals(text_of=refusal_text))
