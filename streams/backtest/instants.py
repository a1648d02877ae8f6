"""The market of a backtest, instant by instant: from a file of candles, or from the history of a feed.

Memory is bounded: a file is read as it is needed, a history one day at a time. Records that are not possible are
refused and counted, as at the node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from coordinator.streams.durations import DAY_MS
from coordinator.streams.feeds.order import merge_by_time
from coordinator.streams.ports import FeedRecord, FeedSource, Subscription, subscriptions_of
from coordinator.streams.settings import Settings
from coordinator.streams.sources.files.candles import iter_candles, path_for
from coordinator.streams.sources.files.file_rows import make_reading
from coordinator.streams.sources.record_faults import record_fault

OnRefused = Callable[[str], None]
"""Called with the reason for each row or record that is refused."""


def from_file(settings: Settings, on_refused: OnRefused) -> Iterator[tuple[int, Sequence[FeedRecord]]]:
    """The candles of FEED_CANDLES_FILE within REPLAY_FROM_MS..REPLAY_UNTIL_MS. Raises OperatorError."""
    reading = make_reading(settings.feed_columns, settings.feed_stamp, any_price=settings.feed_any_price)
    histories = [
        iter_candles(
            path_for(settings.feed_candles_file, subscription.subject),
            subscription,
            settings.replay_from_ms,
            settings.replay_until_ms,
            lambda row: on_refused(row.said(Path(settings.feed_candles_file).name)),
            reading,
        )
        for subscription in subscriptions_of(settings)
    ]
    return merge_by_time(histories)


def from_history(
    settings: Settings, source: FeedSource, start_ms: int, end_ms: int, on_refused: OnRefused
) -> Iterator[tuple[int, Sequence[FeedRecord]]]:
    """The records of a feed's history with start_ms <= at <= end_ms. Raises WorldError."""
    with asyncio.Runner() as runner:
        yield from merge_by_time(
            [
                _by_day(settings, source, subscription, start_ms, end_ms, on_refused, runner)
                for subscription in subscriptions_of(settings)
            ]
        )


def _by_day(
    settings: Settings,
    source: FeedSource,
    subscription: Subscription,
    start_ms: int,
    end_ms: int,
    on_refused: OnRefused,
    runner: asyncio.Runner,
) -> Iterator[FeedRecord]:
    async def of_day(first: int, last: int) -> list[FeedRecord]:
        return [record async for record in source.history(subscription, first, last)]

    for day in range(start_ms // DAY_MS * DAY_MS, end_ms + 1, DAY_MS):
        for record in runner.run(of_day(max(day, start_ms), min(day + DAY_MS - 1, end_ms))):
            fault = record_fault(record, end_ms, any_price=settings.feed_any_price)
            if fault is None:
                yield record
            else:
                on_refused(f"{record.subject} {record.ts_event}: {fault}")
