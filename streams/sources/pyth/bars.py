"""Pyth's own bars, page by page, as candles: the only history of candles that it has."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from coordinator.streams.granularity import granularity_ms
from coordinator.streams.log.errors import WorldError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.candle_values import OnGarbage
from coordinator.streams.sources.pyth.messages import RESOLUTIONS, PriceFeed, bars_of, candle_of
from coordinator.streams.sources.rest import Rest

BARS_PER_PAGE = 1_000


async def candles(
    rest: Rest,
    feed: PriceFeed,
    subscription: Subscription,
    start_ms: int,
    end_ms: int,
    on_garbage: OnGarbage,
) -> AsyncGenerator[FeedRecord, None]:
    """Candles with start_ms <= at <= end_ms, in order. Raises WorldError, and what `Rest.get` raises."""
    length_ms = granularity_ms(subscription.granularity)
    next_ms = -(-(start_ms - length_ms) // length_ms) * length_ms
    last_ms = end_ms - length_ms
    async with rest.client() as client:
        while next_ms <= last_ms:
            until_ms = min(last_ms, next_ms + (BARS_PER_PAGE - 1) * length_ms)
            params: dict[str, str | int] = {
                "symbol": feed.symbol,
                "resolution": RESOLUTIONS[subscription.granularity],
                "from": next_ms // 1000,
                "to": until_ms // 1000,
            }
            answer = await rest.get(client, "/history", params)
            try:
                bars = bars_of(answer)
            except ValueError as error:
                raise WorldError(f"pyth: {error}") from error
            records: dict[int, FeedRecord] = {}
            for row in range(len(bars.t)):
                try:
                    record = candle_of(bars, row, subscription)
                except ValueError as error:
                    on_garbage(f"pyth history: {error}", f"{subscription.subject} bar {row} of {until_ms}")
                    continue
                if record is not None and next_ms <= record.ts_event <= until_ms:
                    records.setdefault(record.ts_event, record)
            for open_ms in sorted(records):
                yield records[open_ms]
            next_ms = until_ms + length_ms
