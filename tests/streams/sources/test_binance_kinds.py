"""Binance beyond candles: ticks, books and funding, live and from history; clocks, pings, plain disconnects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.waiting import limit

from coordinator.streams.feeds.stage import FeedStage
from coordinator.streams.log.errors import OperatorError, WorldError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.binance.live_messages import LiveReader, stream_path
from coordinator.streams.sources.binance.source import BinanceSource, Hosts
from coordinator.streams.sources.catalog import source_by_name
from coordinator.streams.sources.waiting import Patience

MINUTE = 60_000
FIRST_OPEN = 1_700_000_040_000
HURRIED = Patience(
    request_timeout_seconds=2,
    attempts=4,
    wait_initial_seconds=0.02,
    wait_max_seconds=0.1,
    wait_jitter_seconds=0.02,
    idle_seconds_min=20,
)
TICKS = Subscription("binance", "BTCUSDT", "tick", "1s")
DEPTH = Subscription("binance", "BTCUSDT", "depth", "1s")
FUNDING = Subscription("binance", "BTCUSDT", "funding", "1s")
SETTLED = Subscription("binance", "BTCUSDT", "funding", "8h")
CANDLES = Subscription("binance", "BTCUSDT", "candle", "1m")


@pytest.fixture
def garbage() -> list[tuple[str, str]]:
    return []


def source_at(exchange: Any, garbage: list[tuple[str, str]], **options: Any) -> BinanceSource:
    return BinanceSource(
        Hosts(exchange.rest_url, exchange.websocket_url, exchange.rest_url, exchange.websocket_url),
        lambda *reason_and_text: garbage.append(reason_and_text),
        options.pop("patience", HURRIED),
        **options,
    )


async def first_of(records: AsyncIterator[FeedRecord], count: int) -> list[FeedRecord]:
    assert isinstance(records, AsyncGenerator)
    async with limit(), aclosing(records) as stream:
        return [await anext(stream) for _ in range(count)]


async def whole(records: AsyncIterator[FeedRecord]) -> list[FeedRecord]:
    async with limit():
        return [record async for record in records]


def message(data: dict[str, Any]) -> str:
    return json.dumps({"stream": "x", "data": data})


def trade(number: int, at: int, price: str = "", quantity: str = "0.5") -> dict[str, Any]:
    event = {"e": "aggTrade", "E": at + 1, "s": "BTCUSDT", "a": number, "p": price or f"{100 + number}.10"}
    return event | {"q": quantity, "f": number, "l": number, "T": at, "m": True, "M": True}


def facts(records: list[FeedRecord]) -> dict[int, FeedRecord]:
    """The final records: for each time the record with the highest revision."""
    newest: dict[int, FeedRecord] = {}
    for record in records:
        if record.ts_event not in newest or newest[record.ts_event].revision < record.revision:
            newest[record.ts_event] = record
    return newest


async def test_trades_of_one_millisecond_are_revisions_of_one_tick_and_history_agrees(
    exchange: Any, garbage: list[tuple[str, str]]
) -> None:
    at = FIRST_OPEN
    exchange.trades = [
        trade(1, at, "100.10"), trade(2, at, "100.30", "0.25"), trade(3, at + 1), trade(4, at + 250), trade(5, at + 999)
    ]  # fmt: skip
    exchange.now_ms = at + MINUTE
    exchange.script = [[*[message(trade) for trade in exchange.trades], message(exchange.trades[4]), "hold"]]
    source = source_at(exchange, garbage)
    live = await first_of(source.stream([TICKS]), 5)
    assert exchange.paths == ["/stream?streams=btcusdt@aggTrade"]
    assert [(record.ts_event - at, record.at - at, record.revision) for record in live] == [
        (0, 0, 0), (0, 0, 1), (1, 1, 0), (250, 250, 0), (999, 999, 0)
    ]  # fmt: skip
    assert live[1].values == {"price": "100.30", "quantity": "0.75", "trade_id": "2"}
    history = await whole(source.history(TICKS, at, at + MINUTE))
    assert [record.ts_event - at for record in history] == [0, 1, 250, 999]
    assert facts(history) == facts(live)
    assert garbage == []


def test_the_order_of_the_trades_of_a_millisecond_does_not_matter() -> None:
    trades = [trade(1, FIRST_OPEN), trade(2, FIRST_OPEN), trade(3, FIRST_OPEN), trade(4, FIRST_OPEN + 1)]
    ends = []
    for order in permutations(trades):
        reader = LiveReader([TICKS])
        records = [reader.record(message(trade)) for trade in [*order, *order]]
        assert records[4:] == [None] * 4
        ends.append(facts([record for record in records if record is not None]))
    assert all(end == ends[0] for end in ends)
    assert ends[0][FIRST_OPEN].values == {"price": "103.10", "quantity": "1.5", "trade_id": "3"}


async def test_trades_of_many_pages_come_once_each_also_if_a_millisecond_spans_two_pages(
    exchange: Any, garbage: list[tuple[str, str]]
) -> None:
    exchange.trades = [trade(n, FIRST_OPEN + n // 3) for n in range(3_500)]
    exchange.now_ms = FIRST_OPEN + MINUTE
    records = await whole(source_at(exchange, garbage).history(TICKS, FIRST_OPEN, FIRST_OPEN + 1_000))
    assert [record.ts_event - FIRST_OPEN for record in records] == list(range(1_001))
    assert {record.revision for record in records} == {2}
    assert len(exchange.requests) == 4
    assert "fromId" not in exchange.requests[0]
    assert [query["fromId"] for query in exchange.requests[1:]] == ["1000", "2000", "3000"]


async def test_a_book_has_its_best_levels_and_the_exchanges_own_time(
    exchange: Any, garbage: list[tuple[str, str]]
) -> None:
    book = {
        "e": "depthUpdate",
        "E": FIRST_OPEN + 9,
        "T": FIRST_OPEN + 3,
        "s": "BTCUSDT",
        "U": 1,
        "u": 2,
        "pu": 0,
    }
    good = book | {"b": [["100.0", "2"], ["99.9", "5"]], "a": [["100.1", "1"]]}
    exchange.script = [
        [
            message(book | {"b": [], "a": []}),
            message(book | {"b": [["100.2", "1"]], "a": [["100.1", "1"]]}),
            message(book | {"b": [["100.2"]], "a": [["100.3", "1"]]}),
            message(good),
            "hold",
        ]
    ]
    (record,) = await first_of(source_at(exchange, garbage, depth_levels=10).stream([DEPTH]), 1)
    assert exchange.paths == ["/public/stream?streams=btcusdt@depth10@500ms"]
    assert (record.ts_event, record.at) == (FIRST_OPEN + 3, FIRST_OPEN + 3)
    assert record.values == {
        "bid_price_1": "100.0", "bid_quantity_1": "2", "bid_price_2": "99.9", "bid_quantity_2": "5",
        "ask_price_1": "100.1", "ask_quantity_1": "1",
    }  # fmt: skip
    assert [reason for reason, _ in garbage] == [
        "binance stream: a book with an empty side",
        "binance stream: bid 100.2 is not below ask 100.1",
        "binance stream: bid 1 is not a pair of price and quantity",
    ]


async def test_funding_is_expected_rates_live_and_settled_rates_from_history(
    exchange: Any, garbage: list[tuple[str, str]]
) -> None:
    mark = {"e": "markPriceUpdate", "E": FIRST_OPEN, "s": "BTCUSDT", "p": "100.5", "i": "100.4", "P": "100.3"}
    mark |= {"r": "-0.00010000", "T": FIRST_OPEN + 8 * 60 * MINUTE}
    exchange.script = [[message(mark), "hold"]]
    source = source_at(exchange, garbage)
    (record,) = await first_of(source.stream([FUNDING]), 1)
    assert record.values == {
        "funding_rate": "-0.00010000", "mark_price": "100.5", "index_price": "100.4",
        "next_funding_ms": str(FIRST_OPEN + 8 * 60 * MINUTE),
    }  # fmt: skip
    with pytest.raises(WorldError, match="binance has no history of funding 1s"):
        await whole(source.history(FUNDING, 0, FIRST_OPEN))
    with pytest.raises(WorldError, match="binance has no history of depth 1s"):
        await whole(source.history(DEPTH, 0, FIRST_OPEN))

    hours8 = 8 * 60 * MINUTE
    exchange.fundings = [
        {"symbol": "BTCUSDT", "fundingRate": f"0.000{n}", "fundingTime": n * hours8 + n % 3, "markPrice": ""}
        for n in range(1, 2_400)
    ]
    exchange.now_ms = FIRST_OPEN
    settled = await whole(source.history(SETTLED, 0, FIRST_OPEN))
    assert [record.ts_event for record in settled] == [
        funding["fundingTime"] for funding in exchange.fundings
    ]
    assert settled[0].values == {"funding_rate": "0.0001"}
    assert len(exchange.requests) == 3


async def test_settled_rates_are_requested_while_live(exchange: Any, garbage: list[tuple[str, str]]) -> None:
    now = FIRST_OPEN
    source = source_at(exchange, garbage, now_ms=lambda: now, funding_poll_seconds=0.05)
    exchange.now_ms = now
    stream = source.stream([SETTLED, CANDLES])
    exchange.script = [[exchange.message(-2), "hold"]]
    assert isinstance(stream, AsyncGenerator)
    async with limit(), aclosing(stream):
        assert (await anext(stream)).kind == "candle"
        now += 5
        exchange.now_ms = now + MINUTE
        exchange.fundings = [
            {"symbol": "BTCUSDT", "fundingRate": "0.0001", "fundingTime": now, "markPrice": "7"}
        ]
        record = await anext(stream)
    assert (record.kind, record.ts_event) == ("funding", now)
    assert record.values == {"funding_rate": "0.0001", "mark_price": "7"}


async def test_a_clock_in_the_future_and_a_candle_closed_before_its_end_are_garbage(
    exchange: Any, garbage: list[tuple[str, str]]
) -> None:
    now = FIRST_OPEN + MINUTE
    early = exchange.message(0).replace(f'"E": {now}', f'"E": {now - 5_000}')
    exchange.script = [[exchange.message(3), early, exchange.message(0), "hold"]]
    source = source_at(exchange, garbage, now_ms=lambda: now)
    (record,) = await first_of(source.stream([CANDLES]), 1)
    assert record.ts_event == FIRST_OPEN
    assert [reason for reason, _ in garbage] == [
        f"binance stream: ts_event {now + 2 * MINUTE} is 120 s in the future",
        f"binance stream: a candle said to be closed at {now - 5_000}, before its end at {now}",
    ]
    assert source.health.refused == 2


async def test_a_ping_is_answered_and_the_daily_disconnect_is_no_failure(
    exchange: Any, garbage: list[tuple[str, str]]
) -> None:
    goodbye = message({"e": "serverShutdown", "E": FIRST_OPEN})
    exchange.script = [
        [exchange.message(0), "ping", goodbye, "close"],
        [exchange.message(1), "hold"],
    ]
    source = source_at(exchange, garbage)
    records = await first_of(source.stream([CANDLES]), 2)
    assert [record.ts_event for record in records] == [FIRST_OPEN, FIRST_OPEN + MINUTE]
    assert exchange.pongs == 1
    assert source.health.connections == 2
    assert garbage == []


async def test_a_server_that_answers_no_ping_is_left_and_connected_again(
    exchange: Any, garbage: list[tuple[str, str]]
) -> None:
    """A relay passes both directions on, then only the server's messages: our pings reach nobody."""
    first = True

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal first
        deaf, first = first, False
        port = int(exchange.websocket_url.rsplit(":", 1)[1])
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)

        async def upward() -> None:
            handshake = await reader.readuntil(b"\r\n\r\n")
            up_writer.write(handshake)
            while data := await reader.read(65_536):
                if not deaf:
                    up_writer.write(data)

        async def downward() -> None:
            while data := await up_reader.read(65_536):
                writer.write(data)

        tasks = [asyncio.create_task(upward()), asyncio.create_task(downward())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        up_writer.close()
        writer.close()

    open_update = exchange.message(1, closed=False)
    exchange.script = [
        [exchange.message(0), *[part for _ in range(200) for part in (open_update, 0.05)]],
        [exchange.message(1), "hold"],
    ]
    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    async with server:
        exchange_url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        patience = Patience(
            wait_initial_seconds=0.02, wait_max_seconds=0.1, wait_jitter_seconds=0.02, ping_seconds=0.5
        )
        source = BinanceSource(Hosts(exchange.rest_url, exchange_url), patience=patience)
        records = await first_of(source.stream([CANDLES]), 2)
    assert [record.ts_event for record in records] == [FIRST_OPEN, FIRST_OPEN + MINUTE]
    assert source.health.connections == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth_levels": "7"}, "depth_levels is '7'; give one of 5, 10, 20"),
        ({"ping_seconds": "0"}, "ping_seconds is '0'; give a positive number of seconds"),
        ({"ping_seconds": "nan"}, "ping_seconds is 'nan'; give a positive number of seconds"),
        ({"attempts": "0"}, "attempts is '0'; give at least 1"),
    ],
)
def test_a_wrong_option_of_binance_is_refused_with_what_to_change(
    options: dict[str, str], message: str
) -> None:
    with pytest.raises(OperatorError, match="binance") as error:
        source_by_name("binance", options)
    assert message in str(error.value)


async def test_more_subjects_than_one_connection_carries_are_refused(
    exchange: Any, garbage: list[tuple[str, str]]
) -> None:
    many = [Subscription("binance", f"S{n}USDT", "candle", "1m") for n in range(1_025)]
    with pytest.raises(OperatorError, match="one connection carries 1024 subjects, not 1025"):
        await first_of(source_at(exchange, garbage).stream(many), 1)


CLOSED = [FIRST_OPEN + n * MINUTE for n in range(12)]


def candle(subject: str, number: int) -> FeedRecord:
    values = dict.fromkeys(("open", "high", "low", "close", "volume"), f"{number}.5")
    return FeedRecord("binance", subject, "candle", "1m", CLOSED[number], CLOSED[number] + MINUTE, values)


@given(data=st.data())
def test_however_live_and_history_interleave_the_log_has_each_candle_once(data: st.DataObject) -> None:
    """Live loses and repeats candles, and history comes in overlapping parts. Both are offered as the worker does it."""
    expected = {(subject, n) for subject in ("BTCUSDT", "ETHUSDT") for n in range(len(CLOSED))}
    queues = []
    for subject in ("BTCUSDT", "ETHUSDT"):
        live = data.draw(st.lists(st.integers(0, 11), max_size=20))
        cut = data.draw(st.integers(0, 11))
        history = [*range(cut + 1), *range(max(0, cut - 3), 12)]
        queues += [[candle(subject, n) for n in sorted(live)], [candle(subject, n) for n in history]]
    stage, log = FeedStage(), []
    while any(queues):
        queue = data.draw(st.sampled_from([queue_ for queue_ in queues if queue_]))
        draft = stage.offer([queue.pop(0)], None, rehearsal=False)
        if draft is not None:
            stage.remember(draft)
            log += draft.events
    assert len(log) == len(expected)
    assert {(event.data.subject, CLOSED.index(event.data.ts_event)) for event in log} == expected
    assert len({event.id for event in log}) == len(log)


async def test_each_path_of_the_futures_has_its_own_socket(
    exchange: Any, garbage: list[tuple[str, str]]
) -> None:
    book = {
        "e": "depthUpdate",
        "E": FIRST_OPEN,
        "T": FIRST_OPEN,
        "s": "BTCUSDT",
        "b": [["1", "1"]],
        "a": [["2", "1"]],
    }
    mark = {"e": "markPriceUpdate", "E": FIRST_OPEN, "s": "BTCUSDT", "p": "1", "r": "0.1", "T": FIRST_OPEN}
    exchange.script = [[message(book), message(mark), "hold"]] * 2
    for address in (
        exchange.websocket_url,
        f"{exchange.websocket_url}/market",
        f"{exchange.websocket_url}/public/",
    ):
        exchange.paths.clear()
        exchange.script = [[message(book), "hold"], [message(mark), "hold"]]
        source = BinanceSource(Hosts(exchange.rest_url, futures_websocket_url=address), patience=HURRIED)
        await first_of(source.stream([DEPTH, FUNDING]), 1)
        async with limit():
            while len(exchange.paths) < 2:
                await asyncio.sleep(0.01)
        assert sorted(exchange.paths) == [
            "/market/stream?streams=btcusdt@markPrice@1s",
            "/public/stream?streams=btcusdt@depth5@500ms",
        ]
    assert stream_path([TICKS, CANDLES]) == {
        "/stream?streams=btcusdt@aggTrade/btcusdt@kline_1m": [TICKS, CANDLES]
    }


async def test_a_malformed_trade_or_rate_does_not_spoil_its_page(
    exchange: Any, garbage: list[tuple[str, str]]
) -> None:
    exchange.now_ms = FIRST_OPEN + MINUTE
    exchange.trades = [trade(1, FIRST_OPEN), trade(2, FIRST_OPEN + 5) | {"p": None}, trade(3, FIRST_OPEN + 9)]
    records = await whole(source_at(exchange, garbage).history(TICKS, FIRST_OPEN, FIRST_OPEN + 1_000))
    assert [record.ts_event - FIRST_OPEN for record in records] == [0, 9]
    exchange.fundings = [
        {"fundingTime": FIRST_OPEN + n, "fundingRate": "x" if n else "0.1"} for n in range(2)
    ]
    exchange.fundings.append({"fundingTime": FIRST_OPEN + 2, "fundingRate": None})
    settled = await whole(source_at(exchange, garbage).history(SETTLED, FIRST_OPEN, FIRST_OPEN + 1_000))
    assert [record.ts_event - FIRST_OPEN for record in settled] == [0]
    assert len(garbage) == 3
    exchange.trades = [trade(2, FIRST_OPEN + 5) | {"p": None}]
    assert await whole(source_at(exchange, garbage).history(TICKS, FIRST_OPEN, FIRST_OPEN + 1_000)) == []
