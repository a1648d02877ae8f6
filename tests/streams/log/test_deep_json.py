"""JSON from outside that nests too deep for msgspec is refused as any other garbage, by each reader of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.infra.models.host.host_messages import reports_in
from coordinator.infra.models.orchestrator import take_over
from coordinator.streams.ports import Subscription
from coordinator.streams.sources.binance import messages as binance
from coordinator.streams.sources.binance.live_messages import LiveReader
from coordinator.streams.sources.pyth import messages as pyth

DEEP = b"[" * 100_000 + b"]" * 100_000
DEEP_OBJECT = b'{"event":"init","x":' + DEEP + b"}"


def test_pages_and_messages_of_the_exchanges():
    live = LiveReader([Subscription("binance", "BTCUSDT", "candle", "1m")])
    readers: list[Any] = [
        binance.rows_of_page,
        binance.kline_of,
        binance.trade_of,
        binance.funding_of,
        live.record,
    ]
    readers += [pyth.updates_of, pyth.updates_of_page, pyth.update_of, pyth.feeds_of, pyth.bars_of]
    for read in readers:
        for body in (DEEP, DEEP_OBJECT):
            with pytest.raises(ValueError, match=r"\w"):
                read(body)
    assert binance.refusal_text(DEEP_OBJECT).startswith("{")


def test_the_orchestrator_and_the_coordinator_of_a_model_host():
    heard: list[Any] = []

    async def hear(event: str, data: list[dict[str, Any]]) -> None:
        heard.append((event, data))

    socket = SimpleNamespace(host="localhost", port=1)
    take_over(socket, "crunch", hear, 0.0, "")
    asyncio.run(socket.handle_event(DEEP_OBJECT.decode()))
    asyncio.run(socket.handle_event('{"event":"init","data":[]}'))
    assert heard == [("init", [])]
    assert reports_in(DEEP_OBJECT) == []
