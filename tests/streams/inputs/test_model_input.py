"""What a tick is given, put together of pieces, is what the contract's function gives, byte for byte."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.streams.build import DEFAULT, MINUTE, T0

from coordinator.streams.contract import RawInput, defaults
from coordinator.streams.inputs.model_input import RECORDS_SEEN, Pieces, encode_model_input


def raw(number: int, kind: str, **values: float) -> RawInput:
    at = T0 + number * MINUTE
    fields = {"source": "s", "kind": kind, "granularity": "1m", "ts_event": at - MINUTE, "at": at}
    return RawInput(subject='B"TC', values=values, **fields)


@pytest.mark.parametrize("kind", ["candle", "tick"])
def test_the_default_input_of_pieces_is_the_one_that_the_function_builds(kind):
    records = [
        raw(n, kind, close=1 / (n + 3), low=1e-30 * n, big=2.0**60 + n) for n in range(2 * RECORDS_SEEN)
    ]
    pieces: Pieces = {}
    for end in range(1, len(records) + 1):
        window = records[max(0, end - RECORDS_SEEN) : end]
        assert encode_model_input(DEFAULT, window, pieces) == encode_model_input(DEFAULT, window)
    assert len(pieces) == len(records)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_named(bad):
    window = [raw(0, "candle", close=1.0), raw(1, "candle", close=bad)]
    for pieces in (None, {}):
        payload, fault = encode_model_input(DEFAULT, window, pieces)
        assert payload == b""
        assert fault == "build_input gave a value that is not finite: .candles[1].close"


def test_another_function_is_asked_whatever_pieces_there_are():
    other = DEFAULT.model_copy(
        update={"build_input": lambda records: defaults.build_input(records) | {"more": np.float64(0.5)}}
    )
    window, pieces = [raw(0, "candle", close=1.0)], {}
    encode_model_input(DEFAULT, window, pieces)
    payload, fault = encode_model_input(other, window, pieces)
    assert fault == ""
    assert payload.endswith(b'"more":0.5}')
