"""Checks whom the rounds of one period asked: each roster must be the models that `models` had at that time.

Reads a `Chain`; returns a line of text, or raises ChainBrokenError. Pure. RoundOpened names the last decision of
`models` that it knew, so a model that was left out of a round, or inserted, is found.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.streams.audit.facts import Asked, Chain, broken
from coordinator.streams.events import RosterEntry
from coordinator.streams.models.state import ModelsState


def check_rosters(chain: Chain, rounds: Sequence[Asked]) -> str:
    """Check that each round was opened once, for the scopes of its input, and asked exactly the known models."""
    inputs = {input_data.input_id: input_data for input_data, _, _ in rounds}
    opened = [chain.rosters[input_id] for input_id in inputs if input_id in chain.rosters]
    models, changes = ModelsState(), iter(chain.models)
    change = next(changes, None)
    for event in sorted(opened, key=lambda event: event.data.models_seq):
        data = event.data
        while change is not None and change[0] <= data.models_seq:
            models.evolve(change[1])
            change = next(changes, None)
        place = f"the round of {data.input_id}"
        if data.models_seq > chain.models_seq:
            broken(
                "predictions",
                f"{place} knows decision {data.models_seq} of models, which ends at {chain.models_seq}",
            )
        expected, recorded = models.roster(), list(data.roster)
        if recorded != expected:
            broken("predictions", f"{place}: {_difference(recorded, expected)}")
        if chain.opened_counts[data.input_id] > 1:
            broken("predictions", f"{place} was opened {chain.opened_counts[data.input_id]} times")
        keys = [scope.scope_key for scope in inputs[data.input_id].scopes]
        if list(data.scope_keys) != keys or data.contract_hash != inputs[data.input_id].contract_hash:
            broken(
                "predictions",
                f"{place} asks {data.scope_keys} by another contract or of other scopes than {keys}",
            )
    return f"{len(opened)} rosters equal to what models holds"


def _difference(recorded: list[RosterEntry], expected: list[RosterEntry]) -> str:
    """The first difference between two rosters that are not equal."""
    for entry in recorded:
        if entry not in expected or recorded.count(entry) > 1:
            return f"{_named(entry)} was asked, though it was not there"
    for entry in expected:
        if entry not in recorded:
            return f"{_named(entry)} was there, and was not asked"
    # The same models in another order. The order matters: an answer names its model by its place in the roster.
    place = next(place for place, entry in enumerate(recorded) if entry != expected[place])
    return f"the roster is in another order: place {place} has {_named(recorded[place])}, not {_named(expected[place])}"


def _named(entry: RosterEntry) -> str:
    return f"model {entry.model_id} (deployment {entry.deployment_id})"
