"""Variant <-> Python: how values travel between the coordinator and a model.

Reads and emits the protocol's `Variant` messages. It exists beside the client library's own codec
because that one imports pandas, and every model's process would carry its 50 MB.
A table (PARQUET) goes one way, to a model, and becomes a pandas DataFrame as with the hosted runner; pandas is loaded
with the first one. Among answers tables are refused.

What a model answers is bounded before it is decoded (`decode_answer`): a few bytes can expand to gigabytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from typing import Any

from model_runner_client.grpc.generated.commons_pb2 import Argument, KwArgument, Variant, VariantType

from coordinator.streams.predictions.answer_size import answer_size_fault
from coordinator.streams.predictions.frames import TABLE, BadTableError, frame_of
from coordinator.streams.predictions.sendable import INT_BITS, VariantError, as_json, sendable, utf8

KEY_CHARS_SHOWN = 50
MESSAGE_BYTES_MAX = 2 * 4_000_000 + 1024
"""What a channel to a model takes in one message: the largest answer that a contract may record, 4 MB, with a blank for
each of its bytes. gRPC's own limit, 4 MiB, would refuse answers that are smaller once their blanks are gone."""
MESSAGE_OPTION = ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)


class AnswerTooBigError(VariantError):
    """An answer above the contract's bound; it was not decoded."""


def encode(value: Any) -> Variant:
    """Pack a value: None, float, int (64 bit signed; a bool travels as 0 or 1), str, dict or list.

    NaN and infinity pass, also inside a dict, as they do with the hosted runner: the reader checks.
    Raises VariantError for anything else (tuple, set, bytes, objects, wider integers).
    """
    value = sendable(value)
    if value is None:
        return Variant(type=VariantType.NONE, value=b"")
    if isinstance(value, float):
        return Variant(type=VariantType.DOUBLE, value=struct.pack("=d", value))
    if isinstance(value, int):
        packed = value.to_bytes(INT_BITS // 8, byteorder="little", signed=True)
        return Variant(type=VariantType.INT, value=packed)
    if isinstance(value, str):
        return Variant(type=VariantType.STRING, value=utf8(value))
    return Variant(type=VariantType.JSON, value=as_json(value).encode())


def decode(variant: Variant, *, each_key_once: bool = True) -> Any:
    """Unpack a Variant. Raises VariantError for tables, unknown types and bytes that do not fit the type.

    `each_key_once`: an object with a key twice is refused too, which takes a third of the time.
    """
    data: bytes = variant.value
    try:
        match variant.type:
            case VariantType.NONE:
                return None
            case VariantType.DOUBLE:
                return struct.unpack("=d", data)[0]
            case VariantType.INT:
                if len(data) > INT_BITS // 8:  # any length would be read: a number of millions of digits
                    raise VariantError(f"an integer of {len(data)} bytes, more than {INT_BITS // 8}")
                return int.from_bytes(data, byteorder="little", signed=True)
            case VariantType.STRING:
                return data.decode()
            case VariantType.JSON:
                return json.loads(data.decode(), object_pairs_hook=_each_key_once if each_key_once else None)
    except VariantError:
        raise
    except RecursionError:
        raise VariantError("JSON that nests without end") from None
    except (struct.error, ValueError) as error:
        raise VariantError(f"bytes that are not a {VariantType.Name(variant.type)}: {error}") from error
    raise VariantError(f"type {variant.type} is not supported here: send JSON")


def decode_answer(variant: Variant, output_max_bytes: int) -> Any:
    """What a model answered, decoded only if its bytes and the number of its elements are within the contract's bound.

    Raises AnswerTooBigError, and VariantError as `decode` does.
    """
    if fault := answer_size_fault(variant.value, output_max_bytes):
        raise AnswerTooBigError(fault)
    return decode(variant)


def encode_arguments(values: Sequence[Any]) -> list[Argument]:
    """Positional arguments, in order. Raises VariantError."""
    return [Argument(position=position, data=encode(value)) for position, value in enumerate(values)]


def decode_arguments(arguments: Iterable[Argument]) -> list[Any]:
    """Values ordered by their position on the wire: a coordinator's, which names no key twice. Raises VariantError."""
    ordered = sorted(arguments, key=lambda argument: int(argument.position))
    return [decode(argument.data, each_key_once=False) for argument in ordered]


def decode_keywords(arguments: Iterable[KwArgument]) -> dict[str, Any]:
    """Keyword arguments by name, a coordinator's: they may be tables. Raises VariantError."""
    return {argument.keyword: _decode_keyword(argument.data) for argument in arguments}


def table_argument(parquet: bytes) -> KwArgument:
    """The keyword `table`, on the wire."""
    return KwArgument(keyword=TABLE, data=Variant(type=VariantType.PARQUET, value=parquet))


def _decode_keyword(variant: Variant) -> Any:
    if variant.type != VariantType.PARQUET:
        return decode(variant)
    try:
        return frame_of(variant.value)
    except BadTableError as error:
        raise VariantError(str(error)) from error


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs as a dict. Raises VariantError if a key occurs twice: nobody could say which value was meant."""
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise VariantError(f"the key {twice[:KEY_CHARS_SHOWN]!r} occurs twice in one object")
    return values
