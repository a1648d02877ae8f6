"""Who was asked in one period: each round's roster is the models that its topic told by then.

Reads a `Chain`; gives a line, or raises ChainBrokenError. Pure. RoundOpened names the last decision of `models` that
it knew, so a model that was left out of a round, or slipped into one, is found.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.streams.audit.facts import Asked, Chain, broken
from coordinator.streams.models.state import ModelsState


def check_rosters(chain: Chain, rounds: Sequence[Asked]) -> str:
    """Each round of the period was opened once, for its input's scopes, and asked whom it had to ask."""
    inputs = {one.input_id: one for one, _, _ in rounds}
    opened = [chain.rosters[input_id] for input_id in inputs if input_id in chain.rosters]
    models, known = ModelsState(), iter(chain.models)
    upcoming = next(known, None)
    for event in sorted(opened, key=lambda one: one.data.models_seq):
        data = event.data
        while upcoming is not None and upcoming[0] <= data.models_seq:
            models.evolve(upcoming[1])
            upcoming = next(known, None)
        place = f"the round of {data.input_id}"
        if data.models_seq > chain.models_seq:
            broken(
                "predictions",
                f"{place} knows decision {data.models_seq} of models, which ends at {chain.models_seq}",
            )
        should, said = models.roster(), list(data.roster)
        if said != should:
            odd = next(
                one for one in (*said, *should) if (one in said) != (one in should) or said.count(one) > 1
            )
            was = "was asked, though it was not there" if odd in said else "was there, and was not asked"
            broken("predictions", f"{place}: model {odd.model_id} (deployment {odd.deployment_id}) {was}")
        if chain.opened_counts[data.input_id] > 1:
            broken("predictions", f"{place} was opened {chain.opened_counts[data.input_id]} times")
        keys = [scope.scope_key for scope in inputs[data.input_id].scopes]
        if list(data.scope_keys) != keys or data.contract_hash != inputs[data.input_id].contract_hash:
            broken(
                "predictions",
                f"{place} asks {data.scope_keys} by another contract or of other scopes than {keys}",
            )
    return f"{len(opened)} rosters as models tells them"
