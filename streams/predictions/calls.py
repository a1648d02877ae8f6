"""What one input asks of every model: the call of its tick, then a call for each of its scopes.

Pure. The predict worker and an engine make their calls by it, so that a model is given the same values by both.
"""

from __future__ import annotations

from typing import Any

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import InputReceivedData, InputScope


class Calls(msgspec.Struct, frozen=True):
    """Plain JSON values, in the order in which they are sent. `predicts` are (scope, arguments)."""

    tick: list[Any]
    predicts: list[tuple[InputScope, list[Any]]]


def calls_of(data: InputReceivedData, contract: CrunchContract, payload: Any = msgspec.UNSET) -> Calls:
    """The calls of one input; `payload` stands for its data, decoded unless it is given.

    Raises KeyError for an argument that no param of the scope is.
    """
    method = contract.call_method
    return Calls(
        method.tick_values(
            msgspec.json.decode(data.payload) if payload is msgspec.UNSET else payload,
            *(data.subject, data.point),
        ),
        [
            (
                scope,
                method.predict_values(
                    *(data.subject, data.point, scope.scope_key),
                    horizon_seconds=scope.horizon_seconds,
                    step_seconds=scope.step_seconds,
                    params=contract.params_of(scope.scope_key),
                ),
            )
            for scope in data.scopes
        ],
    )
