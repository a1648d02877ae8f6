"""The generated market: the same everywhere, in any parts, and worth predicting."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from decimal import Decimal
from itertools import pairwise
from statistics import correlation, fmean

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cpu import loops

from coordinator.streams.log.errors import OperatorError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.simulation import loop
from coordinator.streams.sources.generated import GeneratedSource, generated_candles

T0 = 1_677_628_800_000
MINUTE = 60_000
DAY = 86_400_000
BTC = Subscription("generated", "BTCUSDT", "candle", "1m")
# Changes only with the market itself. Such a change gives every recorded demo another past.
FIRST_DAY_SHA256 = "c2d9a4d90ee141c674e7276b8472e2038987a601066c80c1f9192613ed291290"


def stretch(start_ms: int, end_ms: int, subscription: Subscription = BTC, seed: int = 1) -> list[FeedRecord]:
    return list(generated_candles(subscription, start_ms, end_ms, seed))


def digest(records: list[FeedRecord]) -> str:
    return hashlib.sha256(msgspec.json.encode(records)).hexdigest()


def test_the_first_day_is_the_recorded_one() -> None:
    day = stretch(T0 + MINUTE, T0 + DAY)
    assert len(day) == 1440
    assert digest(day) == FIRST_DAY_SHA256


def test_another_process_with_another_hash_seed_makes_the_same_day() -> None:
    code = (
        "import hashlib, msgspec\n"
        "from coordinator.streams.ports import Subscription\n"
        "from coordinator.streams.sources.generated import generated_candles\n"
        "btc = Subscription('generated', 'BTCUSDT', 'candle', '1m')\n"
        f"day = generated_candles(btc, {T0 + MINUTE}, {T0 + DAY}, 1)\n"
        "print(hashlib.sha256(msgspec.json.encode(list(day))).hexdigest())\n"
    )
    environment = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert child.stdout.strip() == FIRST_DAY_SHA256


@settings(max_examples=25, deadline=None)
@given(
    start=st.integers(-5_000, 5_000),
    first=st.integers(0, 400),
    second=st.integers(0, 400),
    granularity=st.sampled_from(["1m", "5m", "1h"]),
)
def test_a_span_in_two_parts_is_the_span(start: int, first: int, second: int, granularity: str) -> None:
    wanted = Subscription("generated", "ETHUSDT", "candle", granularity)
    start_ms = T0 + start * MINUTE + 17
    cut_ms, end_ms = start_ms + first * MINUTE, start_ms + (first + second) * MINUTE
    whole = stretch(start_ms, end_ms, wanted)
    assert stretch(start_ms, cut_ms, wanted) + stretch(cut_ms + 1, end_ms, wanted) == whole
    assert all(start_ms <= record.at <= end_ms for record in whole)


def test_every_candle_is_valid_and_opens_where_the_last_closed() -> None:
    records = stretch(T0 + MINUTE, T0 + 5 * DAY)
    assert [record.at for record in records] == list(range(T0 + MINUTE, T0 + 5 * DAY + 1, MINUTE))
    for before, record in zip([None, *records], records, strict=False):
        opened, high, low, close, volume = map(Decimal, record.values.values())
        assert 0 < low <= min(opened, close) <= max(opened, close) <= high
        assert volume > 0
        assert all(len(record.values[name].split(".")[1]) == 2 for name in ("open", "high", "low", "close"))
        assert before is None or record.values["open"] == before.values["close"]


def test_longer_candles_are_made_of_the_minutes() -> None:
    minutes = stretch(T0 + MINUTE, T0 + 3_600_000)
    (hour,) = stretch(T0 + MINUTE, T0 + 3_600_000, Subscription("generated", "BTCUSDT", "candle", "1h"))
    assert hour.values == {
        "open": minutes[0].values["open"],
        "high": str(max(Decimal(record.values["high"]) for record in minutes)),
        "low": str(min(Decimal(record.values["low"]) for record in minutes)),
        "close": minutes[-1].values["close"],
        "volume": str(sum(Decimal(record.values["volume"]) for record in minutes)),
    }


def test_seeds_and_subjects_are_different_markets() -> None:
    others = [Subscription("generated", subject, "candle", "1m") for subject in ("BTCUSDT", "ETHUSDT", "XYZ")]
    digests = {
        digest(stretch(T0, T0 + DAY, subscription, seed)) for subscription in others for seed in (1, 2)
    }
    closes = {
        tuple(record.values["close"] for record in stretch(T0, T0 + DAY, subscription))
        for subscription in others
    }
    assert (len(digests), len(closes)) == (6, 3)


def test_the_market_has_trends_returns_and_persistent_volatility() -> None:
    closes = [float(record.values["close"]) for record in stretch(T0 + MINUTE, T0 + 20 * DAY)]
    moves = [after / before - 1 for before, after in pairwise(closes)]
    sizes = [abs(move) for move in moves]
    assert correlation(sizes[:-1], sizes[1:]) > 0.15
    spells = [moves[at : at + 119] for at in range(0, len(moves) - 120, 120)]
    links = sorted(correlation(spell[:-1], spell[1:]) for spell in spells)
    assert fmean(links[: len(links) // 5]) < -0.1 < 0.15 < fmean(links[-len(links) // 5 :])
    assert 0.0002 < fmean(sizes) < 0.002


def test_three_days_of_minutes_are_made_at_once() -> None:
    assert len(stretch(T0 + MINUTE, T0 + 3 * DAY, seed=12345)) == 4320
    assert loops(lambda: stretch(T0 + MINUTE, T0 + 3 * DAY, seed=12345)) < 3


def test_requests_for_other_kinds_are_refused() -> None:
    for kind, granularity in (("tick", "1m"), ("candle", "1s")):
        with pytest.raises(OperatorError, match="makes candles of 1m and longer, not"):
            stretch(T0, T0 + DAY, Subscription("generated", "BTCUSDT", kind, granularity))


def test_the_source_continues_live_where_history_ended() -> None:
    def clock() -> int:
        return T0 + 10 * MINUTE - 40 + int(asyncio.get_running_loop().time() * 1000)

    async def live_after_history() -> None:
        source = GeneratedSource(seed=1, now_ms=clock)
        past = [record async for record in source.history(BTC, T0 + MINUTE, T0 + DAY)]
        live = source.stream([BTC, Subscription("generated", "ETHUSDT", "candle", "1m")])
        first = [await anext(live), await anext(live)]
        assert T0 + 10 * MINUTE <= clock() < T0 + 11 * MINUTE
        assert [record.subject for record in first] == ["BTCUSDT", "ETHUSDT"]
        assert [*past, first[0]] == stretch(T0 + MINUTE, T0 + 10 * MINUTE)

    loop.run(live_after_history())
