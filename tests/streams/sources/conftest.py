"""Fixtures of the feed tests: a subscription, and a local exchange that speaks Binance's protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from tests.streams.sources.servers import rest_server
from tests.waiting import in_time
from websockets.asyncio.server import ServerConnection, serve

from coordinator.streams.ports import Subscription

MINUTE_MS = 60_000
FIRST_OPEN_MS = 1_700_000_040_000


class LocalExchange:
    """One symbol's minute candles over REST, and a websocket that plays a script.

    `answers` are returned before true ones, one per request: (status, headers, body). `script` has one entry per
    connection: what to send, then `"close"`, `"abort"` (no closing handshake) or `"hold"`; a connection beyond the
    script is held. "ping" waits for the pong, a number of seconds passes, an event is waited for. `refuse_handshakes`
    first connections get that status.
    """

    def __init__(self) -> None:
        self.candles_count = 0
        self.now_ms = 0
        self.answers: list[tuple[int, dict[str, str], str]] = []
        self.rows_instead: dict[int, Any] = {}
        self.withheld: set[int] = set()
        self.trades: list[dict[str, Any]] = []
        self.fundings: list[dict[str, Any]] = []
        self.requests: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.pongs = 0
        self.script: list[list[Any]] = []
        self.handshake_refusals: list[tuple[int, dict[str, str]]] = []
        self.rest_url = ""
        self.websocket_url = ""

    def row(self, number: int) -> list[Any]:
        """The kline of minute `number`, in the exchange's twelve fields."""
        open_ms = FIRST_OPEN_MS + number * MINUTE_MS
        price = f"{20_000 + number}.10000000"
        end_ms = open_ms + MINUTE_MS - 1
        return [open_ms, price, f"{20_001 + number}.0", price, price, "1.5", end_ms, "0", 3, "0", "0", "0"]

    def message(self, number: int, *, closed: bool = True, symbol: str = "BTCUSDT") -> str:
        """The combined stream's message for minute `number`."""
        row = self.row(number)
        kline = dict(zip("tohlcv", row[:6], strict=True)) | {"s": symbol, "i": "1m", "x": closed, "T": row[6]}
        event = {"e": "kline", "E": row[6] + 1, "s": symbol, "k": kline}
        return json.dumps({"stream": f"{symbol.lower()}@kline_1m", "data": event})

    def _page(self, query: dict[str, str]) -> list[Any]:
        first_ms, last_ms, limit = int(query["startTime"]), int(query["endTime"]), int(query["limit"])
        numbers = [
            number
            for number in range(self.candles_count)
            if first_ms <= FIRST_OPEN_MS + number * MINUTE_MS <= last_ms and number not in self.withheld
        ]
        return [self.rows_instead.get(number, self.row(number)) for number in numbers[: min(limit, 1000)]]

    def _trades_page(self, query: dict[str, str]) -> list[Any]:
        first_id, first_ms = int(query.get("fromId", 0)), int(query.get("startTime", 0))
        trades = [trade for trade in self.trades if trade["a"] >= first_id and trade["T"] >= first_ms]
        return trades[: int(query["limit"])]

    def _fundings_page(self, query: dict[str, str]) -> list[Any]:
        first_ms, last_ms = int(query["startTime"]), int(query["endTime"])
        fundings = [funding for funding in self.fundings if first_ms <= funding["fundingTime"] <= last_ms]
        return fundings[: int(query["limit"])]

    def rest_app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/api/v3/{route}")
        @app.get("/fapi/v1/{route}")
        async def any_route(route: str, request: Request) -> Response:
            self.paths.append(route)
            if self.answers:
                status, headers, body = self.answers.pop(0)
                return Response(body, status, headers)
            if route == "ping":
                return Response("{}")
            if route == "time":
                return Response(json.dumps({"serverTime": self.now_ms}))
            self.requests.append(dict(request.query_params))
            pages = {"aggTrades": self._trades_page, "fundingRate": self._fundings_page}
            return Response(json.dumps(pages.get(route, self._page)(self.requests[-1])))

        return app

    async def play(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.paths.append(connection.request.path)
        for message in self.script.pop(0) if self.script else ["hold"]:
            if message == "hold":
                await connection.wait_closed()
            elif message == "abort":
                connection.transport.abort()
            elif message == "close":
                await connection.close(1001)
            elif message == "ping":
                await in_time(await connection.ping("24"))
                self.pongs += 1
            elif isinstance(message, float):
                await asyncio.sleep(message)
            elif isinstance(message, asyncio.Event):
                await in_time(message.wait())
            else:
                await connection.send(message)

    def refuse(self, connection: ServerConnection, _request: Any) -> Any:
        if not self.handshake_refusals:
            return None
        status, headers = self.handshake_refusals.pop(0)
        response = connection.respond(status, headers.pop("body", "not now\n"))
        for name, value in headers.items():
            response.headers[name] = value
        return response


@pytest.fixture
async def exchange() -> AsyncIterator[LocalExchange]:
    here = LocalExchange()
    async with (
        rest_server(here.rest_app()) as here.rest_url,
        serve(here.play, "127.0.0.1", 0, process_request=here.refuse, close_timeout=1) as sockets,
    ):
        here.websocket_url = f"ws://127.0.0.1:{next(iter(sockets.sockets)).getsockname()[1]}"
        yield here


@pytest.fixture
def btc_minutes() -> Subscription:
    return Subscription("binance", "BTCUSDT", "candle", "1m")
