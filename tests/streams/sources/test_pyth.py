"""Pyth's protocols over real sockets, against a local Hermes and a local history that misbehave on request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from hypothesis import given
from hypothesis import strategies as st
from tests.streams.sources.servers import rest_server
from tests.waiting import limit

from coordinator.streams.log.errors import NoHistoryError, OperatorError, RefusedError, WorldError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.catalog import source_by_name
from coordinator.streams.sources.options import options_from
from coordinator.streams.sources.pyth.messages import decimal_text
from coordinator.streams.sources.pyth.source import Hosts, PythSource, Trust
from coordinator.streams.sources.waiting import Patience

BTC_ID = "e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43"
ETH_ID = "ff61491a931112ddf1bd8147cd1b641375f79f5825126d665480874634fd0ace"
SECOND = 1_700_000_040
NOW_MS = (SECOND + 36_000) * 1000
HURRIED = Patience(
    request_timeout_seconds=60,
    attempts=3,
    wait_initial_seconds=0.02,
    wait_max_seconds=0.1,
    wait_jitter_seconds=0.02,
    idle_seconds_min=60.0,
    refused_seconds=0.05,
)
BTC = Subscription("pyth", "BTC/USD", "tick", "1s")
ETH = Subscription("pyth", "ETH/USD", "tick", "1s")
MINUTES = Subscription("pyth", "BTC/USD", "candle", "1m")


def price(number: int, feed: str = BTC_ID, prev: int | None = None, **changes: Any) -> dict[str, Any]:
    at = SECOND + number
    quoted = {
        "price": str(3_700_000_000_000 + number),
        "conf": "150",
        "expo": -8,
        "publish_time": at,
    } | changes
    metadata = {
        "slot": 1,
        "proof_available_time": at,
        "prev_publish_time": at - 1 if prev is None else SECOND + prev,
    }
    return {"id": feed, "price": quoted, "ema_price": quoted, "metadata": metadata}


def update(*prices: dict[str, Any]) -> str:
    return json.dumps({"binary": {"encoding": "hex", "data": []}, "parsed": list(prices)})


class LocalPyth:
    """Hermes and the history server in one. `script`: per connection of the stream, the events to send, then "hold" or
    the end; a status with headers refuses. `answers` are returned before true ones.
    """

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.answers: list[tuple[int, dict[str, str], str]] = []
        self.asked: list[tuple[str, list[tuple[str, str]]]] = []
        self.keys: list[str | None] = []
        self.seconds_published = 0
        self.bars_count = 0
        self.base_url = ""
        self.feeds = [
            {
                "id": BTC_ID,
                "attributes": {"symbol": "Crypto.BTC/USD", "base": "BTC", "quote_currency": "USD"},
            },
            {"id": "aa" * 32, "attributes": {"symbol": "Crypto.TBTC/USD"}},
            {"id": ETH_ID, "attributes": {"symbol": "Crypto.ETH/USD"}},
            {"id": "bb" * 32, "attributes": {"symbol": "Crypto.NAV.X/USD"}},
            {"id": "cc" * 32, "attributes": {"symbol": "Metal.X/USD"}},
            {"id": "dd" * 32, "attributes": {"symbol": "FX.X/USD"}},
            {
                "id": "ee" * 32,
                "attributes": {"symbol": "Equity.US.AAPL/USD", "tags": ["a"], "lazer_id": 1, "n": None},
            },
            {"id": "ef" * 32, "attributes": {"symbol": "Equity.US.AAPL/USD.PRE"}},
            {"id": "f0" * 32, "attributes": {"symbol": 7}},
            {"id": 5},
            None,
        ]

    def _history(self, route: str, query: dict[str, str]) -> Any:
        if route.startswith("v1/updates"):
            first, seconds = map(int, route.split("/")[-2:])
            assert seconds <= 60
            numbers = range(max(0, first - SECOND), min(self.seconds_published, first + seconds - SECOND + 1))
            return [json.loads(update(price(n))) for n in numbers]
        opens = [SECOND + 60 * n for n in range(self.bars_count)]
        opens = [t for t in opens if int(query["from"]) <= t <= int(query["to"])]
        column = "[" + ",".join(f"{(t - SECOND) // 60}.123456789012345678" for t in opens) + "]"
        zeros = [0.0] * len(opens)
        return f'{{"s":"ok","t":{opens},"o":{column},"h":{column},"l":{column},"c":{column},"v":{zeros}}}'

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/{route:path}")
        async def any_route(route: str, request: Request) -> Response:
            route = route.removeprefix("hermes/")
            self.asked.append((route, list(request.query_params.multi_items())))
            self.keys.append(request.headers.get("authorization"))
            if self.answers:
                status, headers, body = self.answers.pop(0)
                return Response(body, status, headers)
            if route == "v2/price_feeds":
                word = request.query_params.get("query", "").lower()
                return Response(json.dumps([feed for feed in self.feeds if word in json.dumps(feed).lower()]))
            if route == "v2/updates/price/stream":
                return self._stream()
            answer = self._history(route, dict(request.query_params))
            return Response(answer if isinstance(answer, str) else json.dumps(answer))

        return app

    def _stream(self) -> Response:
        events = self.script.pop(0) if self.script else ["hold"]
        if isinstance(events, tuple):
            return Response(events[2] if len(events) > 2 else "not now", events[0], events[1])

        async def body() -> AsyncIterator[str]:
            yield ": welcome\n\n"
            for event in events:
                if event == "hold":
                    await asyncio.sleep(30)
                elif event == "alive":
                    for _ in range(100):
                        yield ":\n\n"
                        await asyncio.sleep(0.1)
                elif event.startswith("event:"):
                    yield event
                elif event:
                    yield f"data:{event}\n\n"

        return StreamingResponse(body(), media_type="text/event-stream")


@pytest.fixture
async def pyth() -> AsyncIterator[LocalPyth]:
    here = LocalPyth()
    async with rest_server(here.app()) as here.base_url:
        yield here


@pytest.fixture
def garbage() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def patience() -> Patience:
    return HURRIED


@pytest.fixture
def source(pyth: LocalPyth, garbage: list[tuple[str, str]], patience: Patience) -> PythSource:
    return PythSource(
        Hosts(f"{pyth.base_url}/hermes", pyth.base_url, api_key="s3cret"),
        lambda *reason_and_text: garbage.append(reason_and_text),
        patience,
        trust=Trust(stale_seconds_max=36_060),
        now_ms=lambda: NOW_MS,
    )


async def first_of(records: AsyncIterator[FeedRecord], count: int) -> list[FeedRecord]:
    assert isinstance(records, AsyncGenerator)
    async with limit(), aclosing(records) as stream:
        return [await anext(stream) for _ in range(count)]


async def whole(records: AsyncIterator[FeedRecord]) -> list[FeedRecord]:
    async with limit():
        return [record async for record in records]


async def test_two_subjects_stream_with_exact_prices_and_never_mix(
    pyth: LocalPyth, source: PythSource, garbage: list[tuple[str, str]]
) -> None:
    pyth.script = [
        [
            update(price(0), price(0, ETH_ID, price="5", conf="0", expo=2)),
            update(price(1, "0x" + BTC_ID.upper())),
            "hold",
        ]
    ]
    records = await first_of(source.stream([BTC, ETH]), 3)
    assert records[0] == FeedRecord(
        "pyth", "BTC/USD", "tick", "1s", SECOND * 1000, SECOND * 1000,
        {"price": "37000.00000000", "conf": "0.00000150"},
    )  # fmt: skip
    assert [(record.subject, record.ts_event) for record in records[1:]] == [
        ("ETH/USD", SECOND * 1000), ("BTC/USD", (SECOND + 1) * 1000)
    ]  # fmt: skip
    assert records[1].values["price"] == "500"
    assert pyth.asked[-1] == (
        "v2/updates/price/stream",
        [("ids[]", BTC_ID), ("ids[]", ETH_ID), ("parsed", "true"), ("benchmarks_only", "true"), ("allow_unordered", "false")],
    )  # fmt: skip
    assert set(pyth.keys) == {"Bearer s3cret"}
    assert garbage == []


async def test_only_the_first_update_of_a_second_is_the_tick_of_that_second(
    pyth: LocalPyth, source: PythSource
) -> None:
    pyth.script = [[update(price(0)), update(price(0, prev=0, price="7")), update(price(1)), "hold"]]
    records = await first_of(source.stream([BTC]), 2)
    assert [record.values["price"] for record in records] == ["37000.00000000", "37000.00000001"]


@pytest.mark.parametrize("subject", [BTC_ID, "0x" + BTC_ID.upper(), "Crypto.BTC/USD", "btc/usd"])
async def test_a_subject_may_be_an_id_or_a_full_name(
    pyth: LocalPyth, source: PythSource, subject: str
) -> None:
    pyth.script = [[update(price(0)), "hold"]]
    (record,) = await first_of(source.stream([Subscription("pyth", subject, "tick", "1s")]), 1)
    assert record.subject == subject
    assert ("ids[]", BTC_ID) in pyth.asked[-1][1]


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        ("DOGE/USD", "pyth knows no price feed 'DOGE/USD'; subjects are written like BTC/USD"),
        ("BTC/EUR", "pyth knows no price feed 'BTC/EUR'; near it are Crypto.BTC/USD, Crypto.TBTC/USD"),
        (
            "AAPL/USD",
            "'AAPL/USD' by this short name; name the one that you mean: Equity.US.AAPL/USD, Equity.US.AAPL/USD.PRE",
        ),
        ("X/USD", "pyth: X/USD may be FX.X/USD, Metal.X/USD; name the one that you mean"),
    ],
)
async def test_an_unknown_subject_is_the_operators_to_change(
    source: PythSource, subject: str, message: str
) -> None:
    with pytest.raises(OperatorError) as error:
        await first_of(source.stream([Subscription("pyth", subject, "tick", "1s")]), 1)
    assert message in str(error.value)


@pytest.mark.parametrize("patience", [msgspec.structs.replace(HURRIED, idle_seconds_min=1.0)])
async def test_a_stream_that_ends_is_busy_or_falls_silent_is_connected_again(
    pyth: LocalPyth, source: PythSource
) -> None:
    pyth.script = [
        (429, {"Retry-After": "1"}),
        (503, {}),
        [],
        [update(price(0))],
        [update(price(1)), "hold"],
        [update(price(2)), "hold"],
    ]
    began = asyncio.get_running_loop().time()
    records = await first_of(source.stream([BTC]), 3)
    assert [record.ts_event // 1000 - SECOND for record in records] == [0, 1, 2]
    assert asyncio.get_running_loop().time() - began >= 2  # the requested pause, and a second of silence
    assert source.health.connections == 3


async def test_hermes_may_be_down_when_the_stream_starts(pyth: LocalPyth, source: PythSource) -> None:
    pyth.answers = [(503, {}, "")] * 7
    pyth.script = [[update(price(0)), "hold"]]
    assert len(await first_of(source.stream([BTC]), 1)) == 1
    assert source.health.state == "connected"


async def test_a_missing_key_is_reported_and_the_key_is_never_shown(
    pyth: LocalPyth, source: PythSource, capsys: pytest.CaptureFixture[str]
) -> None:
    pyth.script = [(401, {})]
    with pytest.raises(OperatorError, match="the key is refused here: check PYTH_API_KEY") as error:
        await first_of(source.stream([BTC]), 1)
    pyth.answers = [(401, {}, "")]
    without = PythSource(Hosts(pyth.base_url, pyth.base_url), patience=HURRIED)
    with pytest.raises(OperatorError, match="a key is wanted here: set PYTH_API_KEY"):
        await first_of(without.stream([BTC]), 1)
    pyth.answers = [(403, {}, "s3cret? no")]
    fresh = PythSource(Hosts(pyth.base_url, pyth.base_url, api_key="s3cret"), patience=HURRIED)
    with pytest.raises(OperatorError, match="check PYTH_API_KEY") as refused:
        await first_of(fresh.stream([BTC]), 1)
    assert "s3cret" not in str(error.value) + str(refused.value) + "".join(capsys.readouterr()) + repr(
        fresh.__dict__.get("health")
    )


async def test_garbage_on_the_stream_is_reported_part_by_part(
    pyth: LocalPyth, source: PythSource, garbage: list[tuple[str, str]]
) -> None:
    pyth.script = [
        [
            "not json",
            '{"binary":{}}',
            update(price(0, price="NaN"), price(0, "ab" * 32), {"id": BTC_ID}, price(0, expo=-99), price(0)),
            update(price(1, publish_time=NOW_MS // 1000 + 3_600)),
            update(price(1)),
            "hold",
        ]
    ]
    records = await first_of(source.stream([BTC]), 2)
    assert [record.ts_event // 1000 - SECOND for record in records] == [0, 1]
    reasons = [reason for reason, _ in garbage]
    starts = [
        "not a price update", "a price update without its par", "price is 'NaN', which is not a",
        "a price of " + "ab" * 9, "not a price", "exponent -99 is beyond 30", f"{NOW_MS + 3_600_000} is 3600 s",
    ]  # fmt: skip
    assert len(reasons) == len(starts)
    assert all(start in reason for start, reason in zip(starts, reasons, strict=True)), reasons
    assert source.health.refused == 7


async def test_the_past_of_ticks_comes_in_parts_with_each_second_once(
    pyth: LocalPyth, source: PythSource
) -> None:
    pyth.seconds_published = 250
    start, end = (SECOND + 10) * 1000, (SECOND + 400) * 1000
    records = await whole(source.history(BTC, start, end))
    assert [record.ts_event // 1000 - SECOND for record in records] == list(range(10, 250))
    stretches = [route for route, _ in pyth.asked if "updates" in route]
    assert stretches[0] == f"v1/updates/price/{SECOND + 10}/59"
    assert len(stretches) == 7
    pyth.script = [[update(price(20)), "hold"]]
    assert await first_of(source.stream([BTC]), 1) == [records[10]]


async def test_candles_are_pyths_own_bars_with_the_very_digits_that_were_sent(
    pyth: LocalPyth, source: PythSource
) -> None:
    pyth.bars_count = 2_345
    source._now_ms = lambda: (SECOND + 60 * 2_345 + 59) * 1000
    records = await whole(source.history(MINUTES, SECOND * 1000, 1 << 62))
    assert [record.ts_event for record in records] == [(SECOND + 60 * n) * 1000 for n in range(2_345)]
    assert records[7].values == dict.fromkeys(("open", "high", "low", "close"), "7.123456789012345678") | {
        "volume": "0.0"
    }
    assert records[7].at == (SECOND + 60 * 8) * 1000
    assert [route for route, _ in pyth.asked if "history" in route] == ["v1/real_time/history"] * 3
    assert set(pyth.keys) == {"Bearer s3cret"}
    assert ("symbol", "Crypto.BTC/USD") in pyth.asked[-1][1]


async def test_a_live_candle_is_requested_until_it_exists(
    pyth: LocalPyth, garbage: list[tuple[str, str]]
) -> None:
    now = (SECOND + 59) * 1000 + 900
    source = PythSource(
        Hosts(pyth.base_url, pyth.base_url),
        lambda *reason_and_text: garbage.append(reason_and_text),
        HURRIED,
        trust=Trust(candle_settle_seconds=0.15),
        now_ms=lambda: now,
    )
    stream = source.stream([MINUTES])
    assert isinstance(stream, AsyncGenerator)
    async with limit(), aclosing(stream):
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.05)
        now = (SECOND + 61) * 1000
        while len([route for route, _ in pyth.asked if "history" in route]) < 2:
            await asyncio.sleep(0.02)
        assert not waiting.done()
        pyth.bars_count = 5
        record = await waiting
    assert record.ts_event == SECOND * 1000
    assert garbage == []


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        ((200, {}, "<html>"), WorldError, "not a page of bars"),
        (
            (200, {}, '{"s":"error","errmsg":"no such symbol"}'),
            WorldError,
            "the history says 'error' no such symbol",
        ),
        ((200, {}, '{"s":"ok","t":[60],"o":[]}'), WorldError, "columns of different lengths"),
        (
            (404, {}, '{"detail":"Not Found"}'),
            NoHistoryError,
            'status 404: {"detail":"Not Found"}; candles come from another',
        ),
        (
            (410, {}, "Gone"),
            NoHistoryError,
            "status 410: Gone; candles come from another address now: give it as PYTH_HISTORY_URL",
        ),
        (
            (401, {}, "Unauthorized"),
            RefusedError,
            "status 401: Unauthorized; the key is refused here: check PYTH_API_KEY",
        ),
        ((403, {}, "no s3cret"), RefusedError, "status 403: no ***; the key is refused here"),
    ],
)
async def test_an_unusable_history_is_reported_with_whose_fault_it_is(
    pyth: LocalPyth,
    source: PythSource,
    answer: tuple[int, dict[str, str], str],
    error: type[Exception],
    message: str,
) -> None:
    pyth.answers = [(200, {}, json.dumps(pyth.feeds)), answer]
    with pytest.raises(error) as raised:
        await whole(source.history(MINUTES, SECOND * 1000, NOW_MS))
    assert message in str(raised.value)


async def test_what_pyth_does_not_offer_is_refused(source: PythSource) -> None:
    for kind, granularity in (("tick", "1m"), ("candle", "1s"), ("depth", "1s"), ("candle", "8h")):
        wanted = Subscription("pyth", "BTC/USD", kind, granularity)
        with pytest.raises(OperatorError, match=f"not {kind} {granularity} for BTC/USD"):
            await whole(source.history(wanted, 0, 1))
        with pytest.raises(OperatorError, match=f"not {kind} {granularity} for BTC/USD"):
            await whole(source.stream([wanted]))


async def test_a_probe_of_hermes_reports_why_it_failed(pyth: LocalPyth, source: PythSource) -> None:
    assert (await source.probe()).ok
    pyth.answers = [(401, {}, "")]
    assert (await source.probe()).reason == f"{pyth.base_url}/hermes: status 401"


def test_pyth_gets_its_options_from_the_environment() -> None:
    environ = {
        "PYTH_API_KEY": "k", "PYTH_HERMES_URL": "http://a/hermes", "FEED_OPT_REQUEST_TIMEOUT_SECONDS": "5",
        "FEED_OPT_BENCHMARKS_URL": "http://b", "PYTH_BENCHMARKS_URL": "http://c", "FEED_SOURCE": "pyth",
    }  # fmt: skip
    options = options_from(environ, "pyth")
    assert options == {
        "api_key": "k", "hermes_url": "http://a/hermes", "request_timeout_seconds": "5", "benchmarks_url": "http://b",
    }  # fmt: skip
    assert source_by_name("pyth", options).name == "pyth"
    assert options_from(environ, "binance") == {"request_timeout_seconds": "5", "benchmarks_url": "http://b"}
    with pytest.raises(
        OperatorError, match="FEED_OPT_HERMES_URL or PYTH_HERMES_URL must be an http or https URL"
    ):
        source_by_name("pyth", {"hermes_url": "ftp://a"})


async def soon(what: Callable[[], bool]) -> None:
    async with limit():
        while not what():
            await asyncio.sleep(0.01)


async def test_an_error_event_is_the_reason_of_a_reconnect_and_no_garbage(
    pyth: LocalPyth, source: PythSource, garbage: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    goodbye = "event: error\ndata: Connection timeout reached (24h)\n\n"
    slow = "event: error\ndata: Error receiving update: Lagged(3)\n\n"
    pyth.script = [[update(price(0)), goodbye], [slow], [update(price(1)), "hold"]]
    records = await first_of(source.stream([BTC]), 2)
    assert [record.ts_event // 1000 - SECOND for record in records] == [0, 1]
    assert "Hermes ends it: Connection timeout reached (24h)" in "".join(capsys.readouterr())
    assert garbage == []


@pytest.mark.parametrize("patience", [msgspec.structs.replace(HURRIED, idle_seconds_min=1.0)])
async def test_comments_do_not_keep_a_dead_stream_alive(pyth: LocalPyth, source: PythSource) -> None:
    pyth.script = [[update(price(0)), "alive"], ["alive"], [update(price(1)), "hold"]]
    records = await first_of(source.stream([BTC]), 2)
    assert [record.ts_event // 1000 - SECOND for record in records] == [0, 1]


@pytest.mark.parametrize("named", [ETH_ID, f"0x{ETH_ID}", "0x" + ETH_ID[:8].upper()])
async def test_one_removed_id_among_many_is_left_out_and_reported(
    pyth: LocalPyth, source: PythSource, named: str
) -> None:
    pyth.script = [(404, {}, f"Price ids not found: {named}"), [update(price(0)), "hold"]]
    (record,) = await first_of(source.stream([BTC, ETH]), 1)
    assert record.subject == "BTC/USD"
    assert "ETH/USD no more: Price ids not found: " in source.health.gone["ETH/USD"]
    last = dict(pyth.asked[-1][1])
    assert (last["ids[]"], last["ignore_invalid_price_ids"]) == (BTC_ID, "true")


async def test_an_id_that_hermes_does_not_list_is_left_out_and_an_unknown_name_is_reported(
    pyth: LocalPyth, source: PythSource
) -> None:
    gone = Subscription("pyth", "ab" * 32, "tick", "1s")
    misspelt = Subscription("pyth", "AAPL/USD", "tick", "1s")
    pyth.script = [[update(price(0)), "hold"]]
    (record,) = await first_of(source.stream([gone, misspelt, BTC]), 1)
    assert record.subject == "BTC/USD"
    assert list(source.health.gone) == ["ab" * 32]
    assert "Equity.US.AAPL/USD" in source.health.unknown["AAPL/USD"]


async def test_a_stream_of_removed_ids_alone_is_the_operators_fault_at_the_start_and_waited_for_later(
    pyth: LocalPyth, source: PythSource
) -> None:
    pyth.script = [(404, {}, f"Price ids not found: {BTC_ID}")]
    with pytest.raises(OperatorError, match="Price ids not found"):
        await first_of(source.stream([BTC]), 1)
    for status, text in (
        (404, f"Price ids not found: {BTC_ID}"),
        (401, "expired"),
        (403, "no"),
        (451, "not here"),
    ):
        pyth.script = [[update(price(0))], (status, {}, text), (status, {}, text), [update(price(1)), "hold"]]
        records = await first_of(source.stream([BTC]), 2)
        assert [record.ts_event // 1000 - SECOND for record in records] == [0, 1]


async def test_two_subjects_that_are_one_price_feed_are_refused(source: PythSource) -> None:
    full = Subscription("pyth", "Crypto.BTC/USD", "tick", "1s")
    with pytest.raises(OperatorError, match=r"BTC/USD and Crypto\.BTC/USD are the same price feed"):
        await first_of(source.stream([BTC, full]), 1)


async def test_a_price_that_is_uncertain_stale_or_backwards_is_refused_and_reported_once(
    pyth: LocalPyth, garbage: list[tuple[str, str]]
) -> None:
    source = PythSource(
        Hosts(pyth.base_url, pyth.base_url),
        lambda *reason_and_text: garbage.append(reason_and_text),
        HURRIED,
        trust=Trust(stale_seconds_max=50, conf_share_max=0.5),
        now_ms=lambda: (SECOND + 100) * 1000,
    )
    pyth.script = [
        [
            update(price(0)), update(price(1)), update(price(49)), update(price(60)),
            update(price(61, prev=65)), update(price(62)),
            update(price(63, price="100", conf="51")), update(price(64, price="100", conf="9999")),
            update(price(65, price="100", conf="50")), "hold",
        ]
    ]  # fmt: skip
    records = await first_of(source.stream([BTC]), 3)
    assert [record.ts_event // 1000 - SECOND for record in records] == [60, 62, 65]
    assert [reason.removeprefix("pyth: BTC/USD: ") for reason, _ in garbage] == [
        "its price is 100 s old; stale_seconds_max is 50",
        f"prev_publish_time {SECOND + 65} is after publish_time {SECOND + 61}",
        "price 0.00000100 is unsure by 0.00000051, 0.51 of it; conf_share_max is 0.5",
    ]
    assert source.health.refused == 6


async def test_odd_bars_do_not_spoil_a_page_and_a_closed_market_is_no_garbage(
    pyth: LocalPyth, source: PythSource, garbage: list[tuple[str, str]]
) -> None:
    times = [SECOND + 60 * n for n in range(7)]
    column = [1.5, None, 1.5, "x", 1.5, 1.5, 1.5]
    page = {
        "s": "ok",
        "t": times,
        "o": column,
        "h": column,
        "l": column,
        "c": [*column[:2], None, *column[3:]],
    }
    page["t"][4] = "soon"
    page["t"][5] = float(times[5])
    pyth.answers = [
        (200, {}, json.dumps(pyth.feeds)),
        (200, {}, json.dumps(page).replace("1.5]", "1e999999]")),
    ]
    records = await whole(source.history(MINUTES, SECOND * 1000, (SECOND + 600) * 1000))
    assert [(record.ts_event // 1000 - SECOND) // 60 for record in records] == [0, 5]
    assert records[0].values["volume"] == "0"
    assert [reason.removeprefix("pyth history: ") for reason, _ in garbage][:3] == [
        "close is b'null', which is not a number",
        "open is b'\"x\"', which is not a number",
        "a bar whose time is b'\"soon\"'",
    ]
    assert "which is out of bounds" in garbage[3][0]


@pytest.mark.parametrize("status", [404, 410])
async def test_live_candles_that_are_no_longer_offered_are_not_requested_again(
    pyth: LocalPyth, status: int
) -> None:
    now = (SECOND + 59) * 1000 + 900
    source = PythSource(
        Hosts(pyth.base_url, pyth.base_url),
        patience=HURRIED,
        trust=Trust(candle_settle_seconds=0.05),
        now_ms=lambda: now,
    )
    pyth.answers = [(200, {}, json.dumps(pyth.feeds)), *[(status, {}, "moved")] * 9]
    stream = source.stream([MINUTES])
    assert isinstance(stream, AsyncGenerator)
    async with aclosing(stream):
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.05)
        now += 3_000
        await soon(lambda: source.health.state == "refused")
        await asyncio.sleep(0.3)
        assert len(pyth.answers) == 8
        assert "PYTH_HISTORY_URL" in source.health.reason
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


@given(integer=st.integers(-(10**30), 10**30), exponent=st.integers(-30, 30))
def test_a_price_is_its_integer_and_exponent_exactly(integer: int, exponent: int) -> None:
    text = decimal_text("price", str(integer), exponent)
    assert "e" not in text.lower()
    assert Fraction(text) == integer * Fraction(10) ** exponent
