"""The feed source `pyth`: live prices from Hermes as server-sent events, and their history.

Reads Hermes' stream (`/v2/updates/price/stream`), its list of price feeds (which gives the ids of subjects), Benchmarks
for the history of ticks (updates in periods of a minute), and Pyth's own bars (`/history`) for candles. Pyth does not
stream candles. So each live candle is read from the bars a little after it has closed, because a bar may not be
complete at once.

`PYTH_API_KEY` is sent in the header of requests to these hosts, and nowhere else. Failures: a lost stream, 429 and 5xx
are retried without limit, with backoff, jitter and Retry-After; a lasting refusal (a key that is refused after it was
accepted, 403, 451) is retried slowly; a missing key and an unknown subject are the operator's fault; a history that no
longer exists (404, 410) is not requested again; an update that cannot be read or relied on goes to `on_garbage`. A
subject that is no longer served is left out, and is in `health.gone`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import ClassVar, NamedTuple, TypeVar

import httpx
import msgspec
import structlog

from coordinator.streams.clock import wall_ms
from coordinator.streams.feeds.clock_witness import time_fault
from coordinator.streams.granularity import granularity_ms
from coordinator.streams.log.errors import NoHistoryError, OperatorError, RefusedError, WorldError
from coordinator.streams.ports import FeedRecord, SourceHealth, Subscription
from coordinator.streams.sources.candle_values import OnGarbage
from coordinator.streams.sources.merged_streams import merged
from coordinator.streams.sources.options import Options
from coordinator.streams.sources.pyth.bars import candles
from coordinator.streams.sources.pyth.hermes_stream import HermesStream
from coordinator.streams.sources.pyth.messages import (
    CONF_SHARE_MAX,
    OFFERS,
    DoubtfulError,
    NoSuchFeedError,
    PriceFeed,
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
from coordinator.streams.sources.rest import Refusals, Rest
from coordinator.streams.sources.waiting import (
    Patience,
    Probe,
    checked_url,
    log_garbage,
    wait_after,
)

HERMES_URL = "https://pyth.dourolabs.app/hermes"
"""The host for requests with a key, by Pyth's documentation since August 2026; it replaces an older one."""
BENCHMARKS_URL = "https://benchmarks.pyth.network"
STRETCH_SECONDS = 59
"""History includes both ends of a period, which may have 60 seconds at most."""
BARS_PATH = "/v1/real_time"
"""The path of bars on Hermes' host, with the same key, since Benchmarks no longer serves them (August 2026)."""
BARS_MOVED = "candles come from another address now: give it as PYTH_HISTORY_URL, or take FEED_KIND=tick"

Body = TypeVar("Body", str, bytes)

log = structlog.get_logger(__name__)


class Hosts(NamedTuple):
    """Where Pyth answers, and the key that these hosts are sent. Without `history_url` bars come from Hermes' host."""

    hermes_url: str = HERMES_URL
    benchmarks_url: str = BENCHMARKS_URL
    history_url: str = ""
    api_key: str = ""


class Trust(NamedTuple):
    """Which prices are relied on: how long after its end a candle is read, how large a share of a price its confidence
    interval may be, and how old a price of the stream may be.
    """

    candle_settle_seconds: float = 2.0
    conf_share_max: float = CONF_SHARE_MAX
    stale_seconds_max: float = 60.0


PYTHS, USUAL_TRUST = Hosts(), Trust()


class PythSource:
    """The feed source `pyth`. Subjects: BTC/USD, Crypto.BTC/USD, or a price feed's id."""

    name = "pyth"
    about = "Pyth: ticks streamed from Hermes, candles from Pyth's own bars; PYTH_API_KEY, PYTH_HERMES_URL"
    offers: ClassVar[Mapping[str, tuple[str, ...]]] = OFFERS

    def __init__(
        self,
        hosts: Hosts = PYTHS,
        on_garbage: OnGarbage | None = None,
        patience: Patience | None = None,
        *,
        trust: Trust = USUAL_TRUST,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._patience = patience or Patience()
        web = ("http", "https")
        headers = {"Authorization": f"Bearer {hosts.api_key}"} if hosts.api_key else {}
        hermes, benchmarks = (
            checked_url(self.name, option, url, web)
            for option, url in (("hermes_url", hosts.hermes_url), ("benchmarks_url", hosts.benchmarks_url))
        )
        history_url = hosts.history_url or hermes.removesuffix("/hermes") + BARS_PATH
        if hosts.api_key:
            refused = "the key is refused here: check PYTH_API_KEY, and what it may ask"
            operators, lasting = {400: ""}, {401: refused, 403: refused}
        else:
            operators, lasting = {400: "", 401: "a key is wanted here: set PYTH_API_KEY"}, {403: ""}
        self._hermes = Rest(
            self.name, hermes, self._patience, headers, Refusals({404: "", **lasting, **operators})
        )
        past = (self._patience, headers)
        gone_ticks, gone_bars = {404: "", 410: ""}, {404: BARS_MOVED, 410: BARS_MOVED}
        self._benchmarks = Rest(self.name, benchmarks, *past, Refusals(operators, lasting, gone_ticks))
        bars = checked_url(self.name, "history_url", history_url, web)
        self._bars = Rest(self.name, bars, *past, Refusals(operators, lasting, gone_bars))
        self._garbage = on_garbage or log_garbage
        self._trust = trust
        self._now_ms = now_ms
        self._doubted: set[str] = set()
        self._feeds: dict[str, PriceFeed] = {}
        self.health = SourceHealth()

    @classmethod
    def from_options(cls, texts: Mapping[str, str], on_garbage: OnGarbage | None = None) -> PythSource:
        """The source with its options (`FEED_OPT_*`, and PYTH_* by `options_from`). Raises OperatorError."""
        waits = ("request_timeout_seconds", "idle_seconds_min", "future_seconds_max")
        option_names = (
            *Hosts._fields,
            *waits,
            "attempts",
            *Trust._fields,
        )
        options = Options(cls.name, texts, option_names)
        default = Patience()
        return cls(
            Hosts(
                options.text("hermes_url", HERMES_URL),
                options.text("benchmarks_url", BENCHMARKS_URL),
                options.text("history_url"),
                options.secret("api_key"),
            ),
            on_garbage,
            Patience(
                **{name: options.seconds(name, getattr(default, name)) for name in waits},
                attempts=options.whole("attempts", default.attempts, 1),
            ),
            trust=Trust(
                options.seconds("candle_settle_seconds", USUAL_TRUST.candle_settle_seconds),
                options.positive("conf_share_max", CONF_SHARE_MAX, "a share, e.g. 0.1"),
                options.seconds("stale_seconds_max", USUAL_TRUST.stale_seconds_max),
            ),
        )

    async def probe(self, timeout_seconds: float = 3.0) -> Probe:
        """Whether Hermes answers in time. Asks once; does not raise for a fault of the world."""
        return await self._hermes.probe("/v2/price_feeds?query=btc&asset_type=crypto", timeout_seconds)

    async def time_ms(self) -> int:
        """Pyth's own time. Raises WorldError."""
        self.health.time_ms = await self._hermes.time_ms("/live")
        return self.health.time_ms

    async def stream(self, subscriptions: Sequence[Subscription]) -> AsyncIterator[FeedRecord]:
        """Ticks as they are published, candles once they have closed, without end; reconnects by itself."""
        for subscription in subscriptions:
            granularity_of(subscription)
        since_ms = self._now_ms()
        served = await self._served(subscriptions)
        ticks = [subscription for subscription in served if subscription.kind == "tick"]
        parts = [
            self._polled(subscription, since_ms) for subscription in served if subscription.kind == "candle"
        ]
        if ticks:
            parts.append(self._live(ticks))
        if not parts:
            return
        async with aclosing(merged(parts)) as records:
            async for record in records:
                yield record

    async def _served(self, subscriptions: Sequence[Subscription]) -> list[Subscription]:
        """The subscriptions that Pyth knows; the others are noted in `health`.

        Raises OperatorError if it knows none of them, or if two are the same price feed.
        """
        served: list[Subscription] = []
        subject_of_id: dict[str, str] = {}
        faults: list[NoSuchFeedError] = []
        for subscription in subscriptions:
            try:
                feed = await self._feed_for_ever(subscription.subject)
            except NoSuchFeedError as error:
                faults.append(error)
                (self.health.gone if is_id(subscription.subject) else self.health.unknown)[
                    subscription.subject
                ] = str(error)
                log.warning(
                    "feed_subject_unknown", source=self.name, subject=subscription.subject, reason=str(error)
                )
                continue
            other = subject_of_id.setdefault(plain_id(feed.id), subscription.subject)
            if other != subscription.subject:
                raise OperatorError(
                    f"pyth: {other} and {subscription.subject} are the same price feed; keep one of them"
                )
            served.append(subscription)
        if faults and not served:
            raise faults[0]
        return served

    async def _feed(self, subject: str) -> PriceFeed:
        """The price feed of a subject; requested from Hermes once."""
        if subject not in self._feeds:
            wanted = plain_id(subject) if is_id(subject) else ""
            query = {} if wanted else {"query": subject.rpartition(".")[2].partition("/")[0]}
            async with self._hermes.client() as client:
                answer = await self._hermes.get(client, "/v2/price_feeds", query)
            try:
                feeds = feeds_of(answer)
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
                await wait_after(error, self.name, self.health, self._patience)

    # --- history ------------------------------------------------------------------------------------

    async def history(
        self, subscription: Subscription, start_ms: int, end_ms: int
    ) -> AsyncGenerator[FeedRecord, None]:
        """Records with start_ms <= at <= end_ms, in order, none in the future.

        Raises WorldError if they cannot be read, OperatorError for a subject or a key that is refused.
        """
        granularity_of(subscription)
        end_ms = min(end_ms, self._now_ms())
        if end_ms < start_ms:
            return
        try:
            feed = await self._feed(subscription.subject)
        except NoSuchFeedError as error:
            if is_id(subscription.subject):  # an id is not misspelt: Pyth has removed the feed
                raise NoHistoryError(str(error)) from error
            raise
        if subscription.kind == "tick":
            async with self._benchmarks.client() as client:
                async for record in self._ticks(client, feed, subscription, start_ms, end_ms):
                    yield record
        else:
            async for record in candles(self._bars, feed, subscription, start_ms, end_ms, self._refused):
                yield record

    async def _ticks(
        self, client: httpx.AsyncClient, feed: PriceFeed, wanted: Subscription, start_ms: int, end_ms: int
    ) -> AsyncGenerator[FeedRecord, None]:
        first, last = -(-start_ms // 1000), end_ms // 1000
        while first <= last:
            seconds = min(STRETCH_SECONDS, last - first)
            path = f"/v1/updates/price/{first}/{seconds}"
            params = {"ids": plain_id(feed.id), "parsed": "true", "unique": "true"}
            answer = await self._benchmarks.get(client, path, params)
            records: dict[int, FeedRecord] = {}
            for record in self._ticks_of(answer, {plain_id(feed.id): wanted}, updates_of_page):
                if first * 1000 <= record.ts_event <= (first + seconds) * 1000:
                    records.setdefault(record.ts_event, record)
            for at_ms in sorted(records):
                yield records[at_ms]
            first += seconds + 1

    # --- live ---------------------------------------------------------------------------------------

    async def _live(self, subscriptions: Sequence[Subscription]) -> AsyncGenerator[FeedRecord, None]:
        wanted = {
            plain_id((await self._feed_for_ever(subscription.subject)).id): subscription
            for subscription in subscriptions
        }
        subjects = {feed_id: subscription.subject for feed_id, subscription in wanted.items()}
        stream = HermesStream(self._hermes, self._patience, self.health)
        async with aclosing(stream.events(subjects)) as events:
            async for event in events:
                for record in self._ticks_of(event, wanted, updates_of):
                    now_ms = self._now_ms()
                    age_seconds = (now_ms - record.at) / 1000
                    newest_ms = max(now_ms, self.health.time_ms)
                    fault = time_fault(record.ts_event, record.at, newest_ms, self._patience.future_ms_max)
                    if fault is not None:
                        self._refused(f"pyth stream: {fault}", msgspec.json.encode(record).decode())
                    elif age_seconds > self._trust.stale_seconds_max:
                        limit = f"stale_seconds_max is {self._trust.stale_seconds_max:g}"
                        stale = f"its price is {age_seconds:.0f} s old; {limit}"
                        self._doubt(record.subject, stale, msgspec.json.encode(record).decode())
                    else:
                        self._doubted.discard(record.subject)
                        self.health.gone.pop(record.subject, None)
                        yield record

    async def _polled(self, subscription: Subscription, since_ms: int) -> AsyncGenerator[FeedRecord, None]:
        """Each candle after `since_ms` once Pyth's bars have it; while they do not, the pauses get longer."""
        length_ms = granularity_ms(subscription.granularity)
        known_ms, pause_seconds = since_ms, self._trust.candle_settle_seconds
        while True:
            due_ms = (known_ms // length_ms + 1) * length_ms + int(self._trust.candle_settle_seconds * 1000)
            late_seconds = (self._now_ms() - due_ms) / 1000
            await asyncio.sleep(pause_seconds if late_seconds > 0 else -late_seconds)
            before_ms = known_ms
            try:
                async for record in self.history(subscription, known_ms + 1, self._now_ms()):
                    known_ms = record.at
                    yield record
            except NoHistoryError as error:
                self.health.state, self.health.reason = "refused", str(error)
                log.warning(
                    "feed_poll_ended", source=self.name, subject=subscription.subject, reason=str(error)
                )
                await asyncio.Event().wait()  # the history no longer exists: do not ask again
            except RefusedError as error:
                await wait_after(error, self.name, self.health, self._patience)
            except WorldError as error:
                self._lost(str(error))
                log.warning("feed_poll_failed", source=self.name, reason=str(error))
            else:
                if self.health.state != "connected":
                    self.health.connections += 1
                self.health.state, self.health.reason = "connected", ""
            slower = min(2 * pause_seconds, length_ms / 1000)
            pause_seconds = self._trust.candle_settle_seconds if known_ms > before_ms else slower

    def _ticks_of(
        self,
        body: Body,
        wanted: Mapping[str, Subscription],
        read: Callable[[Body], list[msgspec.Raw]],
    ) -> Iterator[FeedRecord]:
        """The ticks in a body, in order; each part that is not a tick goes to `on_garbage`."""
        try:
            parts = read(body)
        except ValueError as error:
            text = body if isinstance(body, str) else body.decode(errors="backslashreplace")
            self._refused(f"pyth: {error}", text)
            return
        for part in parts:
            try:
                update = update_of(part)
                subscription = wanted.get(plain_id(update.id))
                if subscription is None:
                    raise ValueError(f"a price of {update.id[:70]}, which nobody asked for")
                record = tick_of(update, subscription, self._trust.conf_share_max)
            except DoubtfulError as error:
                self._doubt(
                    wanted[plain_id(update.id)].subject, str(error), bytes(part).decode(errors="replace")
                )
                continue
            except ValueError as error:
                self._refused(f"pyth: {error}", bytes(part).decode(errors="backslashreplace"))
                continue
            if record is not None:
                yield record

    def _lost(self, reason: str) -> None:
        self.health.state, self.health.reason = "reconnecting", reason

    def _doubt(self, subject: str, reason: str, text: str) -> None:
        """Count an unreliable price; report only the first until the subject has a good price again."""
        if subject in self._doubted:
            self.health.refused += 1
            return
        self._doubted.add(subject)
        self._refused(f"pyth: {subject}: {reason}", text)

    def _refused(self, reason: str, text: str) -> None:
        self.health.refused += 1
        self._garbage(reason, text)
