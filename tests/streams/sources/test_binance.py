"""Binance's protocol over real sockets, against a local exchange that misbehaves on request."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.waiting import LIMIT_SECONDS, limit

from coordinator.streams.log.errors import OperatorError, RefusedError, WorldError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.binance.live_messages import LiveReader, stream_path
from coordinator.streams.sources.binance.source import BinanceSource, Hosts
from coordinator.streams.sources.waiting import Patience

MINUTE = 60_000
FIRST_OPEN = 1_700_000_040_000
HURRIED = Patience(
    request_timeout_seconds=60,
    attempts=4,
    wait_initial_seconds=0.02,
    wait_max_seconds=0.1,
    wait_jitter_seconds=0.02,
    retry_after_seconds_max=3,
    refused_seconds=0.1,
    idle_seconds_min=0.4,
)
ETH = Subscription("binance", "ETHUSDT", "candle", "1m")


@pytest.fixture
def garbage() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def source(exchange: Any, garbage: list[tuple[str, str]]) -> BinanceSource:
    return BinanceSource(
        Hosts(exchange.rest_url, exchange.websocket_url),
        lambda *reason_and_text: garbage.append(reason_and_text),
        patience=HURRIED,
    )


async def whole(records: AsyncIterator[FeedRecord]) -> list[FeedRecord]:
    async with limit():
        return [record async for record in records]


async def first_of(records: AsyncIterator[FeedRecord], count: int) -> list[FeedRecord]:
    assert isinstance(records, AsyncGenerator)
    async with limit(), aclosing(records) as stream:
        return [await anext(stream) for _ in range(count)]


def minutes(records: list[FeedRecord]) -> list[int]:
    return [(record.ts_event - FIRST_OPEN) // MINUTE for record in records]


async def all_history(source: BinanceSource, subscription: Subscription, count: int) -> list[FeedRecord]:
    return await whole(source.history(subscription, FIRST_OPEN, FIRST_OPEN + count * MINUTE))


async def test_history_reads_as_many_pages_as_it_needs(
    exchange: Any, source: BinanceSource, btc_minutes: Subscription
) -> None:
    exchange.candles_count, exchange.now_ms = 2_500, FIRST_OPEN + 9_999 * MINUTE
    records = await all_history(source, btc_minutes, 2_500)
    assert minutes(records) == list(range(2_500))
    assert records[0] == FeedRecord(
        source="binance",
        subject="BTCUSDT",
        kind="candle",
        granularity="1m",
        ts_event=FIRST_OPEN,
        at=FIRST_OPEN + MINUTE,
        values={"open": "20000.10000000", "high": "20001.0", "low": "20000.10000000",
                "close": "20000.10000000", "volume": "1.5"},
    )  # fmt: skip
    assert len(exchange.requests) == 3
    assert {query["limit"] for query in exchange.requests} == {"1000"}


async def test_history_keeps_to_its_window_with_both_ends_included(
    exchange: Any, source: BinanceSource, btc_minutes: Subscription
) -> None:
    exchange.candles_count, exchange.now_ms = 100, FIRST_OPEN + 100 * MINUTE
    start, end = FIRST_OPEN + 10 * MINUTE, FIRST_OPEN + 20 * MINUTE
    assert minutes(await whole(source.history(btc_minutes, start, end))) == list(range(9, 20))
    assert minutes(await whole(source.history(btc_minutes, start + 1, end - 1))) == list(range(10, 19))
    assert await whole(source.history(btc_minutes, end, start)) == []


async def test_a_candle_that_is_open_by_the_exchanges_clock_is_no_fact(
    exchange: Any, source: BinanceSource, btc_minutes: Subscription
) -> None:
    exchange.candles_count, exchange.now_ms = 5, FIRST_OPEN + 5 * MINUTE - 1
    assert minutes(await all_history(source, btc_minutes, 99)) == [0, 1, 2, 3]
    exchange.now_ms += 1
    assert minutes(await all_history(source, btc_minutes, 99)) == [0, 1, 2, 3, 4]


async def test_minutes_that_the_exchange_does_not_have_are_left_out(
    exchange: Any, source: BinanceSource, btc_minutes: Subscription
) -> None:
    exchange.candles_count, exchange.now_ms = 1_500, FIRST_OPEN + 1_500 * MINUTE
    exchange.withheld = {*range(300, 700), 1_499}
    records = await all_history(source, btc_minutes, 1_500)
    assert minutes(records) == [*range(300), *range(700, 1_499)]


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_exchange_is_asked_again_after_the_pause_that_it_requested(
    exchange: Any, source: BinanceSource, btc_minutes: Subscription, status: int
) -> None:
    exchange.candles_count, exchange.now_ms = 3, FIRST_OPEN + 3 * MINUTE
    exchange.answers = [(status, {"Retry-After": "1"}, "")]
    began = asyncio.get_running_loop().time()
    assert minutes(await all_history(source, btc_minutes, 3)) == [0, 1, 2]
    assert asyncio.get_running_loop().time() - began >= 1
    assert exchange.paths == ["time", "time", "klines"]


async def test_a_pause_may_be_requested_as_a_date(
    exchange: Any, source: BinanceSource, btc_minutes: Subscription
) -> None:
    exchange.candles_count, exchange.now_ms = 3, FIRST_OPEN + 3 * MINUTE
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    exchange.answers = [(429, {"Retry-After": later}, "")]
    began = asyncio.get_running_loop().time()
    assert len(await all_history(source, btc_minutes, 3)) == 3
    assert asyncio.get_running_loop().time() - began >= 0.8


async def test_failures_without_a_requested_pause_are_retried_with_growing_bounded_pauses(
    exchange: Any, source: BinanceSource, btc_minutes: Subscription
) -> None:
    exchange.candles_count, exchange.now_ms = 3, FIRST_OPEN + 3 * MINUTE
    exchange.answers = [(500, {}, ""), (502, {}, ""), (504, {}, "")]
    assert len(await all_history(source, btc_minutes, 3)) == 3
    exchange.answers = [(500, {}, "")] * 4
    with pytest.raises(WorldError, match="/api/v3/time: status 500"):
        await all_history(source, btc_minutes, 3)
    assert exchange.answers == []


async def test_a_pause_too_long_to_wait_for_ends_at_once(
    exchange: Any, source: BinanceSource, btc_minutes: Subscription
) -> None:
    exchange.answers = [(418, {"Retry-After": "7200"}, "")]
    with pytest.raises(WorldError, match="status 418, asks to wait 7200 s"):
        await all_history(source, btc_minutes, 3)


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ((400, {}, '{"code":-1121,"msg":"Invalid symbol."}'), OperatorError, "Invalid symbol. (code -1121)"),
        ((451, {}, "restricted\nlocation"), WorldError, "status 451: restricted location"),
        ((301, {"Location": "http://127.0.0.1:1/"}, ""), WorldError, "status 301"),
        ((200, {}, "<html>hello</html>"), WorldError, "not a page of rows"),
        ((200, {}, '{"code":0}'), WorldError, "not a page of rows"),
    ],
)
async def test_an_unusable_answer_is_reported_with_whose_fault_it_is(
    exchange: Any,
    source: BinanceSource,
    btc_minutes: Subscription,
    answer: tuple[int, dict[str, str], str],
    error: type[Exception],
    message: str,
) -> None:
    exchange.candles_count, exchange.now_ms = 3, FIRST_OPEN + 3 * MINUTE
    exchange.answers = [(200, {}, json.dumps({"serverTime": exchange.now_ms})), answer]
    with pytest.raises(error) as raised:
        await all_history(source, btc_minutes, 3)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


async def test_garbage_in_a_page_is_reported_and_the_rest_is_used(
    exchange: Any, source: BinanceSource, garbage: list[tuple[str, str]], btc_minutes: Subscription
) -> None:
    exchange.candles_count, exchange.now_ms = 6, FIRST_OPEN + 6 * MINUTE
    exchange.rows_instead = {
        1: [FIRST_OPEN + MINUTE, "NaN", "1", "1", "1", "1"],
        2: ["soon", "1", "1", "1", "1", "1"],
        3: [FIRST_OPEN + 3 * MINUTE, "1", "1"],
        4: [FIRST_OPEN + 4 * MINUTE + 5, "1", "1", "1", "1", "1"],
    }
    assert minutes(await all_history(source, btc_minutes, 6)) == [0, 5]
    assert [reason for reason, _ in garbage] == [
        "binance history: open is 'NaN', which is not a finite number",
        "binance history: a kline whose time is not a whole number or whose prices are not text",
        "binance history: a kline of 3 fields, 6 are needed",
        f"binance history: a 1m candle that opens at {FIRST_OPEN + 4 * MINUTE + 5}, which is off the grid",
    ]


async def test_a_page_that_repeats_itself_ends_the_reading(
    exchange: Any, source: BinanceSource, btc_minutes: Subscription
) -> None:
    exchange.candles_count, exchange.now_ms = 3, FIRST_OPEN + 3 * MINUTE
    first = json.dumps([exchange.row(0)])
    exchange.answers = [
        (200, {}, json.dumps({"serverTime": exchange.now_ms})),
        (200, {}, first),
        (200, {}, first),
    ]
    with pytest.raises(WorldError, match="holds no usable row"):
        await all_history(source, btc_minutes, 3)


async def test_a_kind_or_granularity_that_is_not_offered_is_refused(source: BinanceSource) -> None:
    for kind, granularity in (("depth", "1m"), ("candle", "5s"), ("tick", "1m"), ("trades", "1s")):
        wanted = Subscription("binance", "BTCUSDT", kind, granularity)
        with pytest.raises(OperatorError, match=f"not {kind} {granularity} for BTCUSDT"):
            await whole(source.history(wanted, 0, MINUTE))
        with pytest.raises(OperatorError, match=f"not {kind} {granularity} for BTCUSDT"):
            await whole(source.stream([wanted]))


async def test_a_probe_reports_why_it_failed(exchange: Any, source: BinanceSource) -> None:
    assert (await source.probe()).ok
    exchange.answers = [(451, {}, "")]
    assert (await source.probe()).reason == f"{exchange.rest_url}: status 451"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        probe = await BinanceSource(Hosts(url), patience=HURRIED).probe(timeout_seconds=0.3)
        assert (probe.ok, probe.reason) == (False, f"no answer from {url} within 0.3 s")
    closed = await BinanceSource(Hosts(url), patience=HURRIED).probe()
    assert not closed.ok
    assert "connection attempts failed" in closed.reason.lower()


async def test_the_stream_delivers_closed_candles_only_of_all_subjects_over_one_socket(
    exchange: Any, source: BinanceSource, garbage: list[tuple[str, str]], btc_minutes: Subscription
) -> None:
    exchange.script = [
        [
            exchange.message(0, closed=False),
            exchange.message(0),
            exchange.message(0, symbol="ETHUSDT"),
            exchange.message(1, closed=False),
            exchange.message(1),
            "hold",
        ]
    ]
    records = await first_of(source.stream([btc_minutes, ETH]), 3)
    assert [(record.subject, *minutes([record])) for record in records] == [
        ("BTCUSDT", 0),
        ("ETHUSDT", 0),
        ("BTCUSDT", 1),
    ]
    assert exchange.paths == ["/stream?streams=btcusdt@kline_1m/ethusdt@kline_1m"]
    assert garbage == []
    exchange.candles_count, exchange.now_ms = 1, FIRST_OPEN + MINUTE
    assert await all_history(source, btc_minutes, 1) == records[:1]


async def test_a_lost_connection_is_replaced_in_the_middle_of_a_candle(
    exchange: Any, source: BinanceSource, btc_minutes: Subscription
) -> None:
    exchange.script = [
        [exchange.message(0), exchange.message(1, closed=False), "abort"],
        ["close"],
        ["abort"],
        [exchange.message(1, closed=False), exchange.message(1), "close"],
        [exchange.message(2), "hold"],
    ]
    assert minutes(await first_of(source.stream([btc_minutes]), 3)) == [0, 1, 2]
    assert len(exchange.paths) == 5


async def test_a_refused_handshake_is_retried_after_the_pause_that_it_requested(
    exchange: Any, source: BinanceSource, btc_minutes: Subscription
) -> None:
    exchange.handshake_refusals = [(429, {"Retry-After": "1"}), (503, {}), (403, {})]
    exchange.script = [[exchange.message(0), "hold"]]
    began = asyncio.get_running_loop().time()
    assert minutes(await first_of(source.stream([btc_minutes]), 1)) == [0]
    assert asyncio.get_running_loop().time() - began >= 1


async def test_a_silent_socket_is_closed(
    exchange: Any, garbage: list[tuple[str, str]], btc_minutes: Subscription
) -> None:
    seconds = Subscription("binance", "BTCUSDT", "candle", "1s")
    source = BinanceSource(Hosts(exchange.rest_url, exchange.websocket_url), patience=HURRIED)
    update = exchange.message(0).replace('"i": "1m"', '"i": "1s"')
    exchange.script = [["hold"], [update, "hold"], [update, "hold"]]
    began = asyncio.get_running_loop().time()
    assert minutes(await first_of(source.stream([seconds]), 2)) == [0, 0]
    assert asyncio.get_running_loop().time() - began >= 4
    assert source.state == "connected"


async def test_garbage_on_the_stream_is_reported_and_the_next_message_is_read(
    exchange: Any, source: BinanceSource, garbage: list[tuple[str, str]], btc_minutes: Subscription
) -> None:
    exchange.script = [
        [
            "not json",
            b"\xff\xfe",
            '{"result":null,"id":1}',
            exchange.message(0).replace('"kline"', '"trade"'),
            exchange.message(0, symbol="DOGEUSDT"),
            exchange.message(0).replace("20001.0", "oops"),
            exchange.message(0).replace("20001.0", "1.0"),
            exchange.message(0).replace(str(FIRST_OPEN), str(FIRST_OPEN + 1)),
            exchange.message(0),
            "hold",
        ]
    ]
    assert minutes(await first_of(source.stream([btc_minutes]), 1)) == [0]
    assert [text[:12] for _, text in garbage[:2]] == ["not json", "\\xff\\xfe"]
    reasons = [reason.removeprefix("binance stream: ") for reason, _ in garbage]
    assert all(reason.startswith("not a message of ours: ") for reason in reasons[:4])
    assert reasons[4:] == [
        "a candle of DOGEUSDT 1m, which nobody asked for",
        "high is 'oops', which is not a finite number",
        "high 1.0 is below low 20000.10000000",
        f"a 1m candle that opens at {FIRST_OPEN + 1}, which is off the grid",
    ]


async def test_a_stream_that_waits_to_connect_or_for_a_message_can_be_cancelled(
    exchange: Any, btc_minutes: Subscription
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"ws://127.0.0.1:{listener.getsockname()[1]}"
    for url in (nobody, exchange.websocket_url):
        source = BinanceSource(Hosts(exchange.rest_url, url), patience=HURRIED)
        task = asyncio.create_task(first_of(source.stream([btc_minutes]), 1))
        await asyncio.sleep(0.3)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=LIMIT_SECONDS)
        assert done == {task}
        assert task.cancelled()


async def test_without_a_subscription_there_is_no_stream(source: BinanceSource) -> None:
    assert await whole(source.stream([])) == []


@given(
    raw=st.one_of(
        st.text(), st.binary(), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps)
    )
)
def test_any_message_whatever_raises_no_more_than_a_reason(raw: str | bytes) -> None:
    with pytest.raises(ValueError, match="not a message of ours"):
        LiveReader([]).record(raw)


BANNED = '{"code":-1003,"msg":"Way too much request weight used; IP banned until 1700000000000."}'
RESTRICTED = '{"code":0,"msg":"Service unavailable from a restricted location."}'


@pytest.mark.parametrize(
    ("rows", "garbage_count"),
    [
        ({2: [FIRST_OPEN + 2 * MINUTE, "1", "2", "0.5", "1.5", None]}, 1),
        ({2: [FIRST_OPEN + 2 * MINUTE, "1", "0.1", "0.5", "1.5", "1"]}, 1),
        ({2: [FIRST_OPEN + 2 * MINUTE, 1.0, 2.0, 0.5, 1.5, 1.0]}, 1),
        ({2: None}, 1),
        ({2: {"t": 1}}, 1),
        ({2: []}, 1),
        ({2: [FIRST_OPEN + 2 * MINUTE], 3: "x", 4: [FIRST_OPEN + 4 * MINUTE, "NaN"]}, 3),
    ],
)
async def test_a_page_of_malformed_candles_alone_settles_their_minutes(
    exchange: Any,
    source: BinanceSource,
    garbage: list[tuple[str, str]],
    btc_minutes: Subscription,
    rows: dict[int, Any],
    garbage_count: int,
) -> None:
    exchange.candles_count, exchange.now_ms, exchange.rows_instead = 5, FIRST_OPEN + 5 * MINUTE, rows
    start, end = FIRST_OPEN + 3 * MINUTE, FIRST_OPEN + (max(rows) + 1) * MINUTE
    assert await whole(source.history(btc_minutes, start, end)) == []
    assert len(garbage) == garbage_count
    assert len(exchange.requests) == 1


async def test_a_refusal_has_the_exchanges_own_reason_and_when_to_ask_again(
    exchange: Any, source: BinanceSource, btc_minutes: Subscription
) -> None:
    for answer, reason, seconds in (
        ((451, {}, RESTRICTED), "status 451: Service unavailable from a restricted location. (code 0)", 0.1),
        ((403, {}, "<html>WAF</html>"), "status 403: <html>WAF</html>", 0.1),
        ((418, {}, BANNED), "status 418: Way too much request weight used; IP banned until", 0.1),
        ((418, {"Retry-After": "7200"}, BANNED), "(code -1003), asks to wait 7200 s", 7200),
        ((429, {"Retry-After": "600"}, BANNED), "(code -1003), asks to wait 600 s", 600),
    ):
        exchange.answers = [answer] * (1 if seconds > 1 or answer[0] != 418 else 4)
        with pytest.raises(RefusedError) as refused:
            await all_history(source, btc_minutes, 3)
        assert reason in str(refused.value)
        assert refused.value.again_seconds == seconds
    exchange.answers = [(451, {}, RESTRICTED)]
    assert (await source.probe()).reason.endswith(
        "status 451: Service unavailable from a restricted location. (code 0)"
    )


async def test_a_refused_handshake_keeps_its_reason_and_is_retried_slowly(
    exchange: Any, btc_minutes: Subscription
) -> None:
    patience = msgspec.structs.replace(HURRIED, refused_seconds=1_000)
    source = BinanceSource(Hosts(exchange.rest_url, exchange.websocket_url), patience=patience)
    for status, body, complaint in (
        (451, RESTRICTED, "restricted location. (code 0)"),
        (418, BANNED, "IP banned until"),
    ):
        exchange.handshake_refusals = [(status, {"body": body})] * 3
        stream = source.stream([btc_minutes])
        assert isinstance(stream, AsyncGenerator)
        async with aclosing(stream):
            waiting = asyncio.ensure_future(anext(stream))
            async with limit():
                while complaint not in source.health.reason:
                    await asyncio.sleep(0.01)
            assert source.health.state == "refused"
            assert f"status {status}: " in source.health.reason
            await asyncio.sleep(0.3)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        assert len(exchange.handshake_refusals) == 2  # one attempt, then it waits


def test_one_symbol_in_two_spellings_is_refused() -> None:
    lower = Subscription("binance", "btcusdt", "candle", "1m")
    with pytest.raises(OperatorError, match="BTCUSDT and btcusdt are two spellings of the same symbol"):
        stream_path([Subscription("binance", "BTCUSDT", "candle", "1m"), lower])
