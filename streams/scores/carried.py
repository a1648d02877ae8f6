"""The state that rounds which are scored as a whole carry from one to the next. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from coordinator.streams.contract import CrunchContract

FORGOTTEN = msgspec.Raw(b"null")


class Carried(msgspec.Struct):
    """The state that the rounds of one holder (`holder_of`) left, as JSON."""

    states: dict[str, msgspec.Raw] = {}
    shared: msgspec.Raw = FORGOTTEN

    def take(self, states: Mapping[str, msgspec.Raw], shared: Sequence[msgspec.Raw]) -> None:
        """Apply the changes of one round. The state `null` removes that of a model."""
        for model_id, state in states.items():
            if bytes(state) == b"null":
                self.states.pop(model_id, None)
            else:
                self.states[model_id] = state
        if shared:
            self.shared = shared[0]

    def given(self) -> dict[str, Any]:
        """The state as arguments of `RoundContext`. The objects are new each time: the function may change them."""
        return {
            "states": {
                model_id: msgspec.json.decode(state) for model_id, state in sorted(self.states.items())
            },
            "shared": msgspec.json.decode(self.shared),
        }


def holder_of(contract: CrunchContract, subject: str, scope_key: str) -> str:
    """The holder of the state that a scope's rounds share (`StateCarriedData.holder`): "" if all scopes share one."""
    return "" if contract.state_scope == "all" else f"{subject}/{scope_key}"
