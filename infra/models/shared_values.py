"""The arguments of calls on the wire, where many models are called with the same large values.

Reads values, emits the protocol's `Argument` messages. A value that is JSON already, as the log holds it, is passed on
as it is: an input has 120 candles by default, and to decode and encode them again took a quarter of a millisecond of
every round. A module of its own, because a model's process needs none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from model_runner_client.grpc.generated.commons_pb2 import Argument, Variant, VariantType

from coordinator.infra.models.host.variants import encode

SHARED_MAX = 16


class SharedValues:
    """Encodes arguments, each dict, list or JSON once while it is among the last few: one tick goes to every model, and
    some get a longer one. Nobody may change a value between two calls that are given it.
    """

    def __init__(self) -> None:
        self._encoded: dict[int, tuple[Any, Variant]] = {}
        """id -> the value, which keeps its id while it stands here, and its form on the wire."""

    def encode_arguments(self, values: Sequence[Any]) -> list[Argument]:
        """Positional arguments, in order. Raises VariantError."""
        return [
            Argument(position=position, data=self._encode(value)) for position, value in enumerate(values)
        ]

    def _encode(self, value: Any) -> Variant:
        if not isinstance(value, dict | list | msgspec.Raw):
            return encode(value)
        encoded = self._encoded.get(id(value))
        if encoded is None:
            while len(self._encoded) >= SHARED_MAX:
                del self._encoded[next(iter(self._encoded))]
            encoded = self._encoded[id(value)] = (value, _on_the_wire(value))
        return encoded[1]


def _on_the_wire(value: Any) -> Variant:
    if not isinstance(value, msgspec.Raw):
        return encode(value)
    text = bytes(value)
    if text[:1] in (b"{", b"["):
        return Variant(type=VariantType.JSON, value=text)
    return encode(msgspec.json.decode(text))  # a number or a text has a form of its own on the wire
