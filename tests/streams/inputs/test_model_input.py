"""A tick's input put together from pieces equals the input of the contract's function, byte for byte."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.streams.build import DEFAULT, MINUTE, T0

from coordinator.streams.contract import RawInput, defaults
from coordinator.streams.inputs.model_input import DefaultInputs, encode_model_input, is_default

SEEN = 120


def raw(number: int, kind: str, **values: float) -> RawInput:
    at = T0 + number * MINUTE
    fields = {"source": "s", "kind": kind, "granularity": "1m", "ts_event": at - MINUTE, "at": at}
    return RawInput(subject='B"TC', values=values, **fields)


@pytest.mark.parametrize("kind", ["candle", "tick"])
def test_the_default_input_put_together_from_pieces_is_the_functions(kind):
    """Windows that grow, move on, skip, and a window with a corrected record."""
    records = [raw(n, kind, close=1 / (n + 3), low=1e-30 * n, big=2.0**60 + n) for n in range(2 * SEEN)]
    pieces = DefaultInputs()
    ends = [*range(1, 200), 205, 206, 150, 151, 240]
    for end in ends:
        window = records[max(0, end - SEEN) : end]
        assert pieces.encoded("s", window, list) == encode_model_input(DEFAULT, window)[0]
        if end == 160:
            records[end - 5] = raw(end - 5, kind, close=7.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_left_to_the_function_which_names_it(bad):
    records = [raw(0, "candle", close=1.0), raw(1, "candle", close=bad), raw(2, "candle", close=2.0)]
    pieces = DefaultInputs()
    assert [bool(pieces.encoded("s", records[:end], list)) for end in (1, 2, 3)] == [True, False, False]
    payload, fault = encode_model_input(DEFAULT, records)
    assert (payload, fault) == (b"", "build_input gave a value that is not finite: .candles[1].close")


def test_any_other_function_is_called_and_may_return_numpy_numbers():
    other = DEFAULT.model_copy(
        update={"build_input": lambda records: defaults.build_input(records) | {"more": np.float64(0.5)}}
    )
    assert is_default(DEFAULT)
    assert not is_default(other)
    payload, fault = encode_model_input(other, [raw(0, "candle", close=1.0)])
    assert fault == ""
    assert payload.endswith(b'"more":0.5}')
