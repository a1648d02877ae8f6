"""Pyth: prices live from Hermes as server-sent events, and their history.

Reads Hermes' stream (`/v2/updates/price/stream`), its list of price feeds (subjects become ids there), and
Pyth's history server: updates by stretches of a minute for ticks, bars for candles. Pyth streams no candles,
so live candles are asked of its bars once each has closed, and a bit later, because a bar asked for at once
may not be whole. What it does not offer is not made up.

`PYTH_API_KEY` goes into the header of requests to Hermes and nowhere else. Failures: a lost stream, 429 and
5xx are retried for ever with backoff, jitter and Retry-After; 401 and 403 are the operator's (the key), and
so is an unknown subject; an update that cannot be read goes to `on_garbage`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from random import uniform
from types import MappingProxyType
from typing import ClassVar, TypeVar

import httpx
import msgspec
import structlog
from httpx_sse import ServerSentEvent, SSEError, aconnect_sse

from coordinator.streams.errors import WorldError
from coordinator.streams.granularity import granularity_ms
from coordinator.streams.ports import FeedRecord, SourceHealth, Subscription
from coordinator.streams.sources.candle_values import OnGarbage
from coordinator.streams.sources.merged import merged
from coordinator.streams.sources.options import Options
from coordinator.streams.sources.pyth_messages import (
    OFFERS,
    RESOLUTIONS,
    PriceFeed,
    bars_of,
    candle_of,
    feed_for,
    feeds_of,
    granularity_of,
    is_id,
    plain_id,
    tick_of,
    update_of,
    updates_of,
    updates_of_page,
)
from coordinator.streams.sources.rest import Params, Rest
from coordinator.streams.sources.waiting import (
    BusyError,
    Patience,
    Probe,
    attempts,
    checked_url,
    future_fault,
    is_busy,
    log_garbage,
    reason_of,
    wall_ms,
)

HERMES_URL = "https://pyth.dourolabs.app/hermes"
"""Where Pyth's documentation sends keys since August 2026; the older host gives way to it."""
BENCHMARKS_URL = "https://benchmarks.pyth.network"
STREAM_PATH = "/v2/updates/price/stream"
STRETCH_SECONDS = 59
"""History counts both ends of a stretch, and a stretch is 60 seconds at most."""
BARS_PER_PAGE = 1_000
_ADVICE = MappingProxyType(
    {
        400: "",
        401: "Hermes wants a key: set PYTH_API_KEY",
        403: "this key may not: check PYTH_API_KEY",
        404: "",
    }
)

Body = TypeVar("Body", str, bytes)

log = structlog.get_logger(__name__)


class PythSource:
    """The feed source `pyth`. Subjects: BTC/USD, Crypto.BTC/USD, or a price feed's id."""

    name = "pyth"
    about = "Pyth: ticks streamed from Hermes, candles from Pyth's own bars; PYTH_API_KEY, PYTH_HERMES_URL"
    offers: ClassVar[Mapping[str, tuple[str, ...]]] = OFFERS

    def __init__(
        self,
        hermes_url: str = HERMES_URL,
        benchmarks_url: str = BENCHMARKS_URL,
        on_garbage: OnGarbage | None = None,
        patience: Patience | None = None,
        *,
        api_key: str = "",
        candle_settle_seconds: float = 2.0,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._patience = patience or Patience()
        web = ("http", "https")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        hermes, benchmarks = (
            checked_url(self.name, option, url, web)
            for option, url in (("hermes_url", hermes_url), ("benchmarks_url", benchmarks_url))
        )
        self._hermes = Rest(self.name, hermes, self._patience, headers, _ADVICE)
        self._benchmarks = Rest(self.name, benchmarks, self._patience, advice=_ADVICE)
        self._garbage = on_garbage or log_garbage
        self._candle_settle_seconds = candle_settle_seconds
        self._now_ms = now_ms
        self._feeds: dict[str, PriceFeed] = {}
        self.health = SourceHealth()

    @classmethod
    def from_options(cls, given: Mapping[str, str], on_garbage: OnGarbage | None = None) -> PythSource:
        """The source with its options (`FEED_OPT_*`, and PYTH_* by `options_from`). Raises OperatorError."""
        waits = ("request_timeout_seconds", "idle_seconds_min", "future_seconds_max")
        known = ("hermes_url", "benchmarks_url", "api_key", *waits, "attempts", "candle_settle_seconds")
        options = Options(cls.name, given, known)
        usual = Patience()
        return cls(
            options.text("hermes_url", HERMES_URL),
            options.text("benchmarks_url", BENCHMARKS_URL),
            on_garbage,
            Patience(
                **{name: options.seconds(name, getattr(usual, name)) for name in waits},
                attempts=options.whole("attempts", usual.attempts, 1),
            ),
            api_key=options.text("api_key"),
            candle_settle_seconds=options.seconds("candle_settle_seconds", 2.0),
        )

    async def probe(self, timeout_seconds: float = 3.0) -> Probe:
        """Whether Hermes answers in time; asked once, never retried, never raises for the world."""
        return await self._hermes.probe("/v2/price_feeds?query=btc&asset_type=crypto", timeout_seconds)

    async def time_ms(self) -> int:
        """Pyth's own time. Raises WorldError."""
        return await self._hermes.time_ms("/live")

    def history(self, subscription: Subscription, start_ms: int, end_ms: int) -> AsyncIterator[FeedRecord]:
        """Records with start_ms <= at <= end_ms, in order, none of a time that has not come.

        Raises WorldError when they cannot be had, OperatorError for a subject or a key that is refused.
        """
        return self._history(subscription, start_ms, end_ms)

    async def stream(self, subscriptions: Sequence[Subscription]) -> AsyncIterator[FeedRecord]:
        """Ticks as they are published, candles once they have closed, for ever; reconnects by itself."""
        ticks = [one for one in subscriptions if granularity_of(one) and one.kind == "tick"]
        parts = [self._polled(one) for one in subscriptions if one.kind == "candle"]
        if ticks:
            parts.append(self._live(ticks))
        if not parts:
            return
        async with aclosing(merged(parts)) as records:
            async for record in records:
                yield record

    async def _feed(self, subject: str) -> PriceFeed:
        """The price feed of a subject; Hermes is asked once."""
        if subject not in self._feeds:
            wanted = plain_id(subject) if is_id(subject) else ""
            query = {} if wanted else {"query": subject.rpartition(".")[2].partition("/")[0]}
            async with self._hermes.client() as client:
                answer = await self._hermes.get(client, "/v2/price_feeds", query)
            try:
                feeds = feeds_of(answer.content)
            except ValueError as error:
                raise WorldError(f"pyth: {error}") from error
            same = [feed for feed in feeds if plain_id(feed.id) == wanted]
            self._feeds[subject] = same[0] if same else feed_for(subject, feeds)
        return self._feeds[subject]

    async def _feed_for_ever(self, subject: str) -> PriceFeed:
        while True:
            try:
                return await self._feed(subject)
            except WorldError as error:
                self._lost(str(error))
                log.warning("feed_connection_lost", source=self.name, reason=str(error))
            await asyncio.sleep(uniform(0, self._patience.wait_max_seconds))

    # --- history ------------------------------------------------------------------------------------

    async def _history(
        self, subscription: Subscription, start_ms: int, end_ms: int
    ) -> AsyncGenerator[FeedRecord, None]:
        granularity_of(subscription)
        end_ms = min(end_ms, self._now_ms())
        if end_ms < start_ms:
            return
        feed = await self._feed(subscription.subject)
        pages = self._ticks if subscription.kind == "tick" else self._candles
        async with self._benchmarks.client() as client:
            async for record in pages(client, feed, subscription, start_ms, end_ms):
                yield record

    async def _ticks(
        self, client: httpx.AsyncClient, feed: PriceFeed, wanted: Subscription, start_ms: int, end_ms: int
    ) -> AsyncGenerator[FeedRecord, None]:
        first, last = -(-start_ms // 1000), end_ms // 1000
        while first <= last:
            seconds = min(STRETCH_SECONDS, last - first)
            path = f"/v1/updates/price/{first}/{seconds}"
            asked = {"ids": plain_id(feed.id), "parsed": "true", "unique": "true"}
            answer = await self._benchmarks.get(client, path, asked)
            found: dict[int, FeedRecord] = {}
            for record in self._ticks_of(answer.content, {plain_id(feed.id): [wanted]}, updates_of_page):
                if first * 1000 <= record.ts_event <= (first + seconds) * 1000:
                    found.setdefault(record.ts_event, record)
            for at_ms in sorted(found):
                yield found[at_ms]
            first += seconds + 1

    async def _candles(
        self, client: httpx.AsyncClient, feed: PriceFeed, wanted: Subscription, start_ms: int, end_ms: int
    ) -> AsyncGenerator[FeedRecord, None]:
        length_ms = granularity_ms(wanted.granularity)
        next_ms = -(-(start_ms - length_ms) // length_ms) * length_ms
        last_ms = end_ms - length_ms
        while next_ms <= last_ms:
            until_ms = min(last_ms, next_ms + (BARS_PER_PAGE - 1) * length_ms)
            asked: dict[str, str | int] = {
                "symbol": feed.symbol,
                "resolution": RESOLUTIONS[wanted.granularity],
                "from": next_ms // 1000,
                "to": until_ms // 1000,
            }
            answer = await self._benchmarks.get(client, "/v1/shims/tradingview/history", asked)
            try:
                bars = bars_of(answer.content)
            except ValueError as error:
                raise WorldError(f"pyth: {error}") from error
            found: dict[int, FeedRecord] = {}
            for row in range(len(bars.t)):
                try:
                    record = candle_of(bars, row, wanted)
                except ValueError as error:
                    self._refused(f"pyth history: {error}", f"{wanted.subject} bar at {bars.t[row]}")
                    continue
                if next_ms <= record.ts_event <= until_ms:
                    found.setdefault(record.ts_event, record)
            for open_ms in sorted(found):
                yield found[open_ms]
            next_ms = until_ms + length_ms

    # --- live ---------------------------------------------------------------------------------------

    async def _live(self, subscriptions: Sequence[Subscription]) -> AsyncGenerator[FeedRecord, None]:
        wanted: dict[str, list[Subscription]] = {}
        for one in subscriptions:
            feed = await self._feed_for_ever(one.subject)
            wanted.setdefault(plain_id(feed.id), []).append(one)
        async with aclosing(self._events(list(wanted))) as events:
            async for event in events:
                for record in self._ticks_of(event, wanted, updates_of):
                    fault = future_fault(record.at, max(self._now_ms(), self.health.time_ms), self._patience)
                    if fault is None:
                        yield record
                    else:
                        self._refused(f"pyth stream: {fault}", msgspec.json.encode(record).decode())

    async def _events(self, ids: Sequence[str]) -> AsyncGenerator[str, None]:
        """The data of every event of the stream, for ever. Raises OperatorError for what Hermes refuses."""
        while True:
            stack, events, first = await self._connected(ids)
            async with stack:
                self.health.state, self.health.reason = "connected", ""
                self.health.connections += 1
                why = "the server ended the stream"
                try:
                    yield first
                    async for event in events:
                        yield event.data
                except httpx.TransportError as error:
                    why = reason_of(error)
            self._lost(why)
            log.warning("feed_connection_lost", source=self.name, reason=why)
            await asyncio.sleep(uniform(0, self._patience.wait_initial_seconds))

    async def _connected(
        self, ids: Sequence[str]
    ) -> tuple[AsyncExitStack, AsyncGenerator[ServerSentEvent, None], str]:
        """A stream that has said something, what ends it, and what it said first."""
        asked = {"ids[]": list(ids), "parsed": "true", "benchmarks_only": "true", "allow_unordered": "false"}
        timeout = httpx.Timeout(self._patience.request_timeout_seconds, read=self._patience.idle_seconds_min)
        async for attempt in attempts(self._patience, None):
            with attempt:
                try:
                    async with AsyncExitStack() as trial:
                        client = await trial.enter_async_context(self._hermes.client())
                        opening = aconnect_sse(client, "GET", STREAM_PATH, params=asked, timeout=timeout)
                        source = await trial.enter_async_context(opening)
                        await self._check(source.response, asked)
                        events = source.aiter_sse()
                        first = await _first_of(events)
                        stack = trial.pop_all()
                except (httpx.TransportError, BusyError) as error:
                    self._lost(reason_of(error))
                    raise
        return stack, events, first

    async def _check(self, response: httpx.Response, asked: Params) -> None:
        if response.status_code == httpx.codes.OK:
            return
        if is_busy(response.status_code):
            raise BusyError(response.status_code, response.headers.get("Retry-After"))
        self._hermes.check(response.status_code, STREAM_PATH, asked, await response.aread())

    async def _polled(self, subscription: Subscription) -> AsyncGenerator[FeedRecord, None]:
        """Each candle once Pyth's bars have it; asked for again, ever more slowly, while they do not."""
        length_ms = granularity_ms(subscription.granularity)
        known_ms, pause_seconds = self._now_ms(), self._candle_settle_seconds
        while True:
            due_ms = (known_ms // length_ms + 1) * length_ms + int(self._candle_settle_seconds * 1000)
            late_seconds = (self._now_ms() - due_ms) / 1000
            await asyncio.sleep(pause_seconds if late_seconds > 0 else -late_seconds)
            before_ms = known_ms
            try:
                async for record in self._history(subscription, known_ms + 1, self._now_ms()):
                    known_ms = record.at
                    yield record
            except WorldError as error:
                self._lost(str(error))
                log.warning("feed_poll_failed", source=self.name, reason=str(error))
            else:
                if self.health.state != "connected":
                    self.health.connections += 1
                self.health.state, self.health.reason = "connected", ""
            slower = min(2 * pause_seconds, length_ms / 1000)
            pause_seconds = self._candle_settle_seconds if known_ms > before_ms else slower

    def _ticks_of(
        self,
        body: Body,
        wanted: Mapping[str, Sequence[Subscription]],
        read: Callable[[Body], list[msgspec.Raw]],
    ) -> Iterator[FeedRecord]:
        """The ticks in a body, in its order; what is none goes to `on_garbage`, one part at a time."""
        try:
            parts = read(body)
        except ValueError as error:
            text = body if isinstance(body, str) else body.decode(errors="backslashreplace")
            self._refused(f"pyth: {error}", text)
            return
        for part in parts:
            try:
                update = update_of(part)
                subscriptions = wanted.get(plain_id(update.id))
                if subscriptions is None:
                    raise ValueError(f"a price of {update.id[:70]}, which nobody asked for")
                records = [tick_of(update, one) for one in subscriptions]
            except ValueError as error:
                self._refused(f"pyth: {error}", bytes(part).decode(errors="backslashreplace"))
                continue
            yield from (record for record in records if record is not None)

    def _lost(self, why: str) -> None:
        self.health.state, self.health.reason = "reconnecting", why

    def _refused(self, reason: str, text: str) -> None:
        self.health.refused += 1
        self._garbage(reason, text)


async def _first_of(events: AsyncGenerator[ServerSentEvent, None]) -> str:
    """The first event. A stream that ends at once, or is none, is the world's fault and tried again."""
    try:
        return (await anext(events)).data
    except StopAsyncIteration:
        raise httpx.RemoteProtocolError("the stream ended at once") from None
    except SSEError as error:
        raise httpx.RemoteProtocolError(str(error)) from error
