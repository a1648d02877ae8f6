"""Makes the arguments of the calls of one round: the tick of each model, then one prediction for each scope.

Pure. The predict worker and the engine of a backtest both use it, so that a model gets the same values from both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import InputReceivedData, InputScope
from coordinator.streams.ports import Table

NONE: Mapping[str, Any] = {}
"""The performance of a model that has none yet."""


class FirstTick(msgspec.Struct, frozen=True):
    """The longer first tick, as JSON, and the models that get it because they may lack earlier ticks."""

    payload: bytes
    model_ids: Collection[str]


class Calls:
    """The arguments of each call, in the order in which they are sent. All models share the large objects among
    them.
    """

    def __init__(
        self,
        data: InputReceivedData,
        contract: CrunchContract,
        first: FirstTick | None = None,
        performance: Mapping[str, Mapping[str, Any]] = NONE,
        *,
        raw: bool = False,
        table: Table | None = None,
    ) -> None:
        """`performance`: model_id -> what the model gets about its own performance. `raw` leaves the inputs as JSON.
        `table` goes with each tick.

        Raises KeyError if the contract names an argument that is no param of a scope.
        """
        self._data, self._contract, self._first, self._performance = data, contract, first, performance
        self._raw, self._first_ids = raw, first.model_ids if first else ()
        self.table = table
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
        """The same calls, with the inputs as JSON, as the log has them."""
        raw = self._copy()
        raw._raw = True  # noqa: SLF001 - a copy of its own
        for name in ("_input", "_first_input"):  # those are decoded, if they were looked at
            raw.__dict__.pop(name, None)
        return raw

    def with_table(self, table: Table | None) -> Calls:
        """The same calls, with a table for each tick."""
        calls = self._copy()
        calls.table = table
        return calls

    def _copy(self) -> Calls:
        """As `copy.copy`, which takes ten times as long: it asks the class how to take an object apart."""
        calls = Calls.__new__(Calls)
        calls.__dict__.update(self.__dict__)
        return calls

    def is_usual(self, model_id: str) -> bool:
        """Whether this model gets the same arguments as most models: no first tick, and no performance of its own."""
        return model_id not in self._first_ids and not self._performance.get(model_id)

    def tick(self, model_id: str) -> list[Any]:
        """The arguments of this model's tick."""
        model_input = self._first_input if model_id in self._first_ids else self._input
        own = self._performance.get(model_id, NONE)
        values = self._contract.call_method.tick_values(
            model_input, self._data.subject, self._data.point, own
        )
        return values if self.table is None else [*values, self.table]

    def predicts(self, model_id: str) -> list[tuple[InputScope, list[Any]]]:
        """(scope, arguments of this model's prediction) for each scope."""
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
