"""Arguments on the wire: JSON is passed on unchanged, and a value that many models share is encoded once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_runner_client.grpc.generated.commons_pb2 import VariantType

from coordinator.infra.models.host.variants import decode, decode_arguments, encode
from coordinator.infra.models.shared_values import SHARED_MAX, SharedValues

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


@given(JSON)
def test_a_model_reads_the_same_value_from_json_as_from_the_value(value: Any):
    from_json, from_value = SharedValues().encode_arguments([raw(value), value])
    assert from_json.data.type == from_value.data.type
    assert decode_arguments([from_json]) == decode_arguments([from_value])


def test_json_is_sent_as_it_is_in_the_log():
    payload = b'{"symbol":"BTCUSDT","candles":[{"close":37000.10}]}'
    (argument,) = SharedValues().encode_arguments([msgspec.Raw(payload)])
    assert (argument.data.type, argument.data.value) == (VariantType.JSON, payload)


@pytest.mark.parametrize("value", [{"a": [1]}, [1, 2], raw({"a": 1})], ids=["dict", "list", "json"])
def test_a_shared_value_is_encoded_once_while_it_is_among_the_latest(value: Any):
    shared = SharedValues()
    first = shared._encode(value)
    assert shared._encode(value) is first
    for number in range(SHARED_MAX):
        shared._encode([number])
    again = shared._encode(value)
    assert again is not first
    assert again == first


def test_positions_follow_the_order_of_the_arguments():
    arguments = SharedValues().encode_arguments([raw({"a": 1}), "BTCUSDT", 60])
    assert [argument.position for argument in arguments] == [0, 1, 2]
    assert decode_arguments(reversed(arguments)) == [{"a": 1}, "BTCUSDT", 60]
    assert decode(arguments[0].data) == decode(encode({"a": 1}))
