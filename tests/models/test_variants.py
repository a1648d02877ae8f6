"""The codec: tables of cases, a round trip for whatever JSON can say, and agreement with the client's own."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_runner_client.grpc.generated.commons_pb2 import KwArgument, Variant, VariantType

from coordinator.infra.model_host import variants
from coordinator.infra.model_host.variants import VariantError, decode, encode

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Float64(float):
    """As numpy's float64: a subclass of float."""


@pytest.mark.parametrize(
    ("value", "kind", "data"),
    [
        (None, VariantType.NONE, b""),
        (1.5, VariantType.DOUBLE, b"\x00\x00\x00\x00\x00\x00\xf8?"),
        (Float64(1.5), VariantType.DOUBLE, b"\x00\x00\x00\x00\x00\x00\xf8?"),
        (-2, VariantType.INT, b"\xfe\xff\xff\xff\xff\xff\xff\xff"),
        (True, VariantType.INT, b"\x01\x00\x00\x00\x00\x00\x00\x00"),
        ("é", VariantType.STRING, b"\xc3\xa9"),
        ({"a": [1]}, VariantType.JSON, b'{"a": [1]}'),
        ([], VariantType.JSON, b"[]"),
    ],
)
def test_a_value_has_one_form_on_the_wire(value: Any, kind: int, data: bytes):
    variant = encode(value)
    assert (variant.type, variant.value) == (kind, data)
    assert decode(variant) == value


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        {1, 2},
        b"x",
        object(),
        1 << 63,
        -(1 << 63) - 1,
        {"a": object()},
        {"a": {1}},
        {(1,): 2},
        "\ud800",
    ],
    ids=repr,
)
def test_what_cannot_travel_is_refused(value: Any):
    with pytest.raises(VariantError):
        encode(value)


def test_a_structure_that_holds_itself_is_refused():
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(VariantError):
        encode(loop)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (VariantType.DOUBLE, b"123"),
        (VariantType.JSON, b"{"),
        (VariantType.JSON, b"\xff\xff"),
        (VariantType.STRING, b"\xff"),
        (VariantType.PARQUET, b"PAR1"),
        (VariantType.ARROW, b""),
        (99, b""),
    ],
)
def test_bytes_that_are_not_what_their_type_says_are_refused(kind: int, data: bytes):
    with pytest.raises(VariantError):
        decode(Variant(type=kind, value=data))


def test_not_a_number_passes_also_inside_a_dict():
    assert math.isnan(decode(encode(math.nan)))
    assert math.isnan(decode(encode({"value": math.nan}))["value"])
    assert decode(encode({"value": -math.inf})) == {"value": -math.inf}


@given(st.dictionaries(st.text(), JSON, max_size=4) | st.lists(JSON, max_size=4))
def test_json_comes_back_as_it_went(value: Any):
    assert decode(encode(value)) == value


@given(st.integers(min_value=-(1 << 63), max_value=(1 << 63) - 1) | st.floats(allow_nan=False))
def test_numbers_come_back_as_they_went(value: float):
    assert decode(encode(value)) == value


@given(JSON)
def test_the_client_library_reads_what_we_write_and_we_read_what_it_writes(value: Any):
    from model_runner_client.utils import datatype_transformer as theirs

    try:
        variant = encode(value)
    except VariantError:
        return  # wider than 64 bit, or no valid Unicode: theirs fails as well
    assert theirs.decode_data(variant.value, variant.type) == value
    kind = theirs.detect_data_type(value)
    assert decode(Variant(type=kind, value=theirs.encode_data(kind, value))) == value


def test_arguments_are_ordered_by_position_and_keywords_by_name():
    arguments = variants.encode_arguments(["BTC", 60, 1.5])
    assert variants.decode_arguments(reversed(arguments)) == ["BTC", 60, 1.5]
    assert variants.decode_keywords([KwArgument(keyword="step", data=encode(15))]) == {"step": 15}
