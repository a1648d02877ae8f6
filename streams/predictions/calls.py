"""What one input asks of every model: the call of its tick, then a call for each of its scopes.

Pure. The predict worker and an engine make their calls by it, so that a model is given the same values by both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import InputReceivedData, InputScope

NONE: Mapping[str, Any] = {}
"""What a model without any performance is told."""


class FirstTick(msgspec.Struct, frozen=True):
    """The tick, as JSON, of those models that may lack what came before."""

    payload: bytes
    model_ids: Collection[str]


class Calls:
    """The values of each call, in the order in which they are sent. All models share the same large ones."""

    def __init__(
        self,
        data: InputReceivedData,
        contract: CrunchContract,
        first: FirstTick | None = None,
        performance: Mapping[str, Mapping[str, Any]] = NONE,
        *,
        raw: bool = False,
    ) -> None:
        """`performance` is what each model is told of its own, by model_id. Raises KeyError for an argument that is no
        param of a scope. `raw` leaves the inputs the JSON that they are.
        """
        self._data, self._contract, self._first, self._performance = data, contract, first, performance
        self._raw, self._first_ids = raw, first.model_ids if first else ()
        self._predicts = self._predicts_of(NONE)

    @cached_property
    def _input(self) -> Any:
        """Decoded at the first call: most inputs are large, and a caller may want the JSON alone."""
        return self._data.payload if self._raw else msgspec.json.decode(self._data.payload)

    @cached_property
    def _first_input(self) -> Any:
        payload = self._first.payload if self._first else b"null"
        return msgspec.Raw(payload) if self._raw else msgspec.json.decode(payload)

    def raw(self) -> Calls:
        """The same, whose inputs are JSON as the log holds it."""
        return Calls(self._data, self._contract, self._first, self._performance, raw=True)

    def is_usual(self, model_id: str) -> bool:
        """Is this model given what all are given that are usual?"""
        return model_id not in self._first_ids and not self._performance.get(model_id)

    def tick(self, model_id: str) -> list[Any]:
        """What this model's tick is called with."""
        given = self._first_input if model_id in self._first_ids else self._input
        own = self._performance.get(model_id, NONE)
        return self._contract.call_method.tick_values(given, self._data.subject, self._data.point, own)

    def predicts(self, model_id: str) -> list[tuple[InputScope, list[Any]]]:
        """(scope, what this model's prediction is called with) for each scope."""
        own = self._performance.get(model_id)
        return self._predicts_of(own) if own else self._predicts

    def _predicts_of(self, performance: Mapping[str, Any]) -> list[tuple[InputScope, list[Any]]]:
        return [
            (
                scope,
                self._contract.call_method.predict_values(
                    *(self._data.subject, self._data.point, scope.scope_key),
                    horizon_seconds=scope.horizon_seconds,
                    step_seconds=scope.step_seconds,
                    params=self._contract.params_of(scope.scope_key),
                    performance=performance,
                ),
            )
            for scope in self._data.scopes
        ]
