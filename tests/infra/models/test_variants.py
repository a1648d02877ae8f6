"""The codec: tables of cases, a round trip for any JSON, and agreement with the client's own codec."""

from __future__ import annotations

import json
import math
import tracemalloc
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_runner_client.grpc.generated.commons_pb2 import KwArgument, Variant, VariantType
from model_runner_client.utils import datatype_transformer as theirs

from coordinator.infra.models.host import variants
from coordinator.infra.models.host.variants import (
    AnswerTooBigError,
    VariantError,
    decode,
    decode_answer,
    encode,
)
from coordinator.streams.log.finite import not_finite

MAX_BYTES = 65_536
MEMORY_BYTES_MAX = 16 * 1024 * 1024

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Float64(float):
    """Like numpy's float64, a subclass of float."""


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
        print,
        1 << 63,
        -(1 << 63) - 1,
        {"a": print},
        {"a": {1}},
        {(1,): 2},
        "\ud800",
    ],
    ids=repr,
)
def test_a_value_that_cannot_be_encoded_is_refused(value: Any):
    with pytest.raises(VariantError):
        encode(value)


def test_a_structure_that_contains_itself_is_refused():
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
def test_bytes_that_do_not_match_their_type_are_refused(kind: int, data: bytes):
    with pytest.raises(VariantError):
        decode(Variant(type=kind, value=data))


def as_json(text: str | bytes) -> Variant:
    return Variant(type=VariantType.JSON, value=text.encode() if isinstance(text, str) else text)


BOMBS = {
    "one long key over many elements": as_json(
        '{"value": 0.1, "' + "k" * 400_000 + '": [' + "0," * 800_000 + "0]}"
    ),
    "as many lists as fit": as_json('{"value": 0.1, "x": [' + "[]," * 80_000 + "[]]}"),
    "as many objects as fit": as_json('{"value": 0.1, "x": [' + "{}," * 80_000 + "{}]}"),
    "lists in lists": as_json("[" * 200_000),
    "a list of a million": as_json("[" + "0," * 1_000_000 + "0]"),
    "text": as_json('"' + "x" * 3_000_000 + '"'),
    "an integer of a megabyte": Variant(type=VariantType.INT, value=b"\x01" * 1_000_000),
    "an integer of nine bytes": Variant(type=VariantType.INT, value=b"\x01" * 9),
    "a number of 5,000 digits": as_json('{"value": ' + "9" * 5000 + "}"),
    "the same key twice": as_json('{"value": 0.1, "value": 0.9}'),
    "the same key twice, deeper": as_json('{"value": 0.1, "x": [{"a": 1, "a": 1}]}'),
    "no UTF-8": as_json(b'{"value": 0.1, "x": "\xff"}'),
    "UTF-16": as_json('{"value": 0.1}'.encode("utf-16")),
    "a table": Variant(type=VariantType.PARQUET, value=b"PAR1" * 1000),
    "an Arrow table": Variant(type=VariantType.ARROW, value=b"ARROW1" * 1000),
    "a type of tomorrow": Variant(type=77, value=b"1"),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_an_answer_that_would_expand_too_much_is_refused_before_it_does(bomb: Variant):
    tracemalloc.start()
    try:
        with pytest.raises(VariantError):
            decode_answer(bomb, MAX_BYTES)
        assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES_MAX
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("filler", ["[],", "{},", '"ab",', "300,", "1.5,"])
def test_the_largest_answer_that_is_decoded_costs_some_megabytes(filler: str):
    many = min(MAX_BYTES // (1 if filler[0] in '"3' else 2), 200_000 // len(filler)) - 10
    answer = as_json('{"value": 0.1, "x": [' + filler * many + "0]}")
    tracemalloc.start()
    try:
        output = decode_answer(answer, MAX_BYTES)
        assert not_finite(output) is None
        assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES_MAX
    finally:
        tracemalloc.stop()


def test_every_answer_that_could_be_recorded_is_below_the_bound():
    """However it is written: with spaces, with escapes, as text full of commas."""
    note = "\U0001f600," * 13_000
    assert len(json.dumps({"note": note}, ensure_ascii=False).encode()) < MAX_BYTES
    for text in (json.dumps({"note": note}), json.dumps({"note": note}, ensure_ascii=False)):
        assert decode_answer(as_json(text), MAX_BYTES) == {"note": note}
    numbers = {"x": [0] * 32_000}
    assert decode_answer(as_json(json.dumps(numbers)), MAX_BYTES) == numbers
    with pytest.raises(AnswerTooBigError):
        decode_answer(as_json(json.dumps(numbers)), 1000)


def test_not_a_number_passes_also_inside_a_dict():
    assert math.isnan(decode(encode(math.nan)))
    assert math.isnan(decode(encode({"value": math.nan}))["value"])
    assert decode(encode({"value": -math.inf})) == {"value": -math.inf}


@given(st.dictionaries(st.text(), JSON, max_size=4) | st.lists(JSON, max_size=4))
def test_json_comes_back_unchanged(value: Any):
    assert decode(encode(value)) == value


@given(st.integers(min_value=-(1 << 63), max_value=(1 << 63) - 1) | st.floats(allow_nan=False))
def test_numbers_come_back_unchanged(value: float):
    assert decode(encode(value)) == value


@given(JSON)
def test_the_client_library_reads_what_we_write_and_the_other_way_round(value: Any):
    try:
        variant = encode(value)
    except VariantError:
        return  # wider than 64 bit, or no valid Unicode: theirs fails as well
    assert theirs.decode_data(variant.value, variant.type) == value
    kind = theirs.detect_data_type(value)
    assert decode(Variant(type=kind, value=theirs.encode_data(kind, value))) == value


def test_a_model_receives_a_table_as_a_keyword_and_a_damaged_table_is_refused():
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": ["a", "b"], "f": [0.5, None]}), sink)
    argument = variants.table_argument(sink.getvalue().to_pybytes())
    frame = variants.decode_keywords([argument])["table"]
    assert frame["id"].tolist() == ["a", "b"]
    assert frame["f"].isna().tolist() == [False, True]
    assert theirs.decode_data(argument.data.value, argument.data.type).equals(frame)
    with pytest.raises(VariantError, match="the table cannot be read"):
        variants.decode_keywords([variants.table_argument(argument.data.value[:-9])])


def test_arguments_are_ordered_by_position_and_keywords_by_name():
    arguments = variants.encode_arguments(["BTC", 60, 1.5])
    assert variants.decode_arguments(reversed(arguments)) == ["BTC", 60, 1.5]
    assert variants.decode_keywords([KwArgument(keyword="step", data=encode(15))]) == {"step": 15}
