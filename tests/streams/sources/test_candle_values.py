"""One rule for valid candles and prices, on every way into the node."""

from __future__ import annotations

import pytest

from coordinator.streams.ports import Subscription
from coordinator.streams.sources.binance.messages import TradeFold, TradeRow, candle_of_row, depth_values
from coordinator.streams.sources.candle_values import VALUE_NAMES, candle_fault
from coordinator.streams.sources.pyth.messages import bars_of, candle_of

T0 = 1_677_628_800_000
BTC = Subscription("binance", "BTCUSDT", "candle", "1m")

IMPOSSIBLE = [
    (("141.28", "143", "141", "165.6", "1"), "close 165.6 is above high 143"),
    (("9853", "9860", "9854", "9855", "1"), "open 9853 is below low 9854"),
    (("1", "0.9", "0.5", "0.7", "1"), "open 1 is above high 0.9"),
    (("1", "2", "0.5", "0.4", "1"), "close 0.4 is below low 0.5"),
    (("1", "1", "2", "1", "1"), "high 1 is below low 2"),
    (("1.00000000000000000002", "1.00000000000000000001", "1", "1", "1"), "open .* is above high"),
    (("1", "2", "0", "1", "1"), "low is 0, and a price is above zero"),
    (("0", "0", "0", "0", "0"), "open is 0, and a price is above zero"),
    (("-37.63", "-37.63", "-40.32", "-37.63", "5"), "open is -37.63, and a price is above zero"),
    (("1", "2", "1", "1", "-5"), "volume is -5, and none is below zero"),
]


@pytest.mark.parametrize(("values", "complaint"), IMPOSSIBLE)
def test_an_impossible_candle_is_refused_from_every_source(values, complaint):
    with pytest.raises(ValueError, match=complaint):
        candle_of_row([T0, *values], BTC)
    columns = ",".join(f'"{name}":[{value}]' for name, value in zip("ohlcv", values, strict=True))
    bars = bars_of(f'{{"s":"ok","t":[{T0 // 1000}],{columns}}}'.encode())
    with pytest.raises(ValueError, match=complaint):
        candle_of(bars, 0, Subscription("pyth", "BTC/USD", "candle", "1m"))


@pytest.mark.parametrize(
    "values", [("1", "1", "1", "1", "0"), ("1.0", "1.00", "1", "1", "0"), ("1e-400", "2", "1e-400", "1", "1")]
)
def test_a_flat_or_tiny_candle_is_valid(values):
    assert candle_fault(dict(zip(VALUE_NAMES, values, strict=True))) is None


def test_an_operator_may_declare_that_prices_have_no_floor():
    values = dict(zip(VALUE_NAMES, ("-1.43", "0.01", "-2.5", "0", "100"), strict=True))
    assert candle_fault(values, any_price=True) is None


def test_a_trade_at_price_zero_and_a_book_at_zero_are_refused():
    fold = TradeFold(Subscription("binance", "BTCUSDT", "tick", "1s"))
    with pytest.raises(ValueError, match="price is 0, and a price is above zero"):
        fold.add(TradeRow(1, "0", "1", T0))
    with pytest.raises(ValueError, match="quantity is -1, and none is below zero"):
        fold.add(TradeRow(1, "5", "-1", T0))
    with pytest.raises(ValueError, match="bid_price_1 is 0"):
        depth_values([("0", "1")], [("5", "1")])
