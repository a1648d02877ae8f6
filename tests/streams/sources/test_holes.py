"""History fills the gaps of the stream: afterwards the log and the exchange have the same candles."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from random import Random
from typing import Any

import pytest
from tests.waiting import limit

from coordinator.streams.feeds.stage import FeedStage
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.binance.source import BinanceSource, Hosts
from coordinator.streams.sources.waiting import Patience

MINUTE = 60_000
FIRST_OPEN = 1_700_000_040_000
HURRIED = Patience(wait_initial_seconds=0.02, wait_max_seconds=0.1, wait_jitter_seconds=0.02)
BTC = Subscription("binance", "BTCUSDT", "candle", "1m")
ETH = Subscription("binance", "ETHUSDT", "candle", "1m")


def source_at(exchange: Any) -> BinanceSource:
    return BinanceSource(Hosts(exchange.rest_url, exchange.websocket_url), patience=HURRIED)


async def take(records: AsyncIterator[FeedRecord], count: int) -> list[FeedRecord]:
    assert isinstance(records, AsyncGenerator)
    async with limit(), aclosing(records) as stream:
        return [await anext(stream) for _ in range(count)]


def offered(stage: FeedStage, records: Iterable[FeedRecord]) -> list[Any]:
    draft = stage.offer(list(records), None, rehearsal=False)
    if draft is None:
        return []
    stage.remember(draft)
    return list(draft.events)


def digest(rows: Iterable[tuple[str, int, str]]) -> str:
    return hashlib.sha256("\n".join(map(repr, sorted(rows))).encode()).hexdigest()


async def test_a_restart_backfills_exactly_what_was_missed(exchange: Any) -> None:
    """A life, an outage of 1,500 minutes, another life: history fills the gap from the watermark on."""
    stage, log = FeedStage(), []
    exchange.script = [
        [exchange.message(0), exchange.message(1), exchange.message(2, closed=False), "hold"],
        [exchange.message(1_503), "hold"],
    ]
    log += offered(stage, await take(source_at(exchange).stream([BTC]), 2))

    source = source_at(exchange)
    exchange.candles_count, exchange.now_ms = 1_503, FIRST_OPEN + 1_503 * MINUTE + 5
    live = asyncio.create_task(take(source.stream([BTC]), 1))
    missed = source.history(BTC, stage.own.last_at(BTC) + 1, exchange.now_ms)
    log += offered(stage, [record async for record in missed])
    assert [event.data.ts_event for event in log[2:]] == [FIRST_OPEN + n * MINUTE for n in range(2, 1_503)]
    log += offered(stage, await live)
    assert [event.data.ts_event for event in log] == [FIRST_OPEN + n * MINUTE for n in range(1_504)]
    assert len({event.id for event in log}) == 1_504


async def test_a_candle_that_the_exchange_corrects_is_recorded_again_with_a_higher_revision(
    exchange: Any,
) -> None:
    """The exchange closes a minute twice with different prices, then history sends the later one once more."""
    stage, log = FeedStage(), []
    corrected = exchange.row(1)
    corrected[4] = "20001.05000000"
    first, exchange.rows_instead[1] = exchange.message(1), corrected
    again = first.replace('"c": "20001.10000000"', '"c": "20001.05000000"').replace(
        '"l": "20001.10000000"', '"l": "20001.05000000"'
    )
    corrected[3] = "20001.05000000"
    exchange.script = [[exchange.message(0), first, again, first, exchange.message(2), "hold"]]
    exchange.candles_count, exchange.now_ms = 3, FIRST_OPEN + 3 * MINUTE + 5
    source = source_at(exchange)
    log += offered(stage, await take(source.stream([BTC]), 5))
    log += offered(stage, [record async for record in source.history(BTC, FIRST_OPEN, exchange.now_ms)])
    assert [((event.data.ts_event - FIRST_OPEN) // MINUTE, event.data.revision, event.data.values["close"]) for event in log] == [
        (0, 0, "20000.10000000"),
        (1, 0, "20001.10000000"),
        (1, 1, "20001.05000000"),
        (2, 0, "20002.10000000"),
    ]  # fmt: skip
    assert len({event.id for event in log}) == 4


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_random_gaps_of_the_stream_leave_no_trace_in_the_log(exchange: Any, seed: int) -> None:
    """Two subjects; missing, repeated and late messages, and connections lost in between. Gaps are requested at the
    end.
    """
    random, count = Random(seed), 1_200
    sent = {"BTCUSDT": 0, "ETHUSDT": 0}
    exchange.candles_count, exchange.now_ms = count, FIRST_OPEN + count * MINUTE
    while max(sent.values()) < count:
        messages: list[Any] = []
        for _ in range(random.randrange(20, 120)):
            symbol = random.choice(list(sent))
            if random.random() < 0.05:
                sent[symbol] += random.randrange(1, 40)
            number = max(0, sent[symbol] - random.choice([0, 0, 0, 0, 1, 3]))
            if number < count:
                messages.append(exchange.message(number, closed=random.random() < 0.9, symbol=symbol))
            sent[symbol] += 1
        exchange.script.append([*messages, random.choice(["close", "abort"])])
    exchange.script.append([exchange.message(0), "hold"])
    connections = len(exchange.script)

    source, stage, log = source_at(exchange), FeedStage(), []
    stream = source.stream([BTC, ETH])
    assert isinstance(stream, AsyncGenerator)
    async with limit(), aclosing(stream):
        async for record in stream:
            log += offered(stage, [record])
            if not exchange.script:
                break
    live = len(log)
    for subscription in (BTC, ETH):
        missed = source.history(subscription, FIRST_OPEN, exchange.now_ms)
        log += offered(stage, [record async for record in missed])

    everything = [(s, FIRST_OPEN + n * MINUTE, exchange.row(n)[1]) for s in sent for n in range(count)]
    held = [(event.data.subject, event.data.ts_event, event.data.values["open"]) for event in log]
    assert digest(held) == digest(everything)
    assert 0 < live < len(log)
    assert len(exchange.paths) >= connections
