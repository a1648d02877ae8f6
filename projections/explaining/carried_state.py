"""Gathers what earlier rounds left for a round that is scored as a whole, for `streams/audit/explain`.

Every row has its versions (`storage/versions.py`). So the rows of states, read as they were before the decision that
scored the round, are what the round began with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from coordinator.projections.explaining.log_reading import ReadAppends, of_scope, read_placed
from coordinator.projections.folding.as_of import PastStore, Readable
from coordinator.projections.folding.projection import key
from coordinator.projections.storage.past_cut import read_horizon
from coordinator.projections.views.prediction_rows import StateRow
from coordinator.projections.views.predictions import Predictions
from coordinator.streams.audit.explain.carried_state import CarriedFacts
from coordinator.streams.audit.explain.steps import Placed, of_kind
from coordinator.streams.events import Event, StateCarried
from coordinator.streams.log.ids import is_ensemble
from coordinator.streams.scores.carried import Carried

STATES_MAX = 5_000
"""The largest number of states with which the round is computed again. With more the request would take seconds."""


def carried_facts(
    read: Readable,
    appends: ReadAppends,
    placed: Sequence[Placed[Event]],
    scored: Sequence[Placed[Any]],
    model_id: str,
) -> CarriedFacts:
    """The facts for a round and scope whose scores are in `scored`. `placed` has the decisions that hold them."""
    if not scored:
        return CarriedFacts()
    own = scored[0].event.data
    holders = ["", f"{own.subject}/{own.scope_key}"]
    before: list[dict[str, Carried]] = []
    for score in scored:
        states = _states_before(read, score.offset, holders)
        if states is None:
            fault = f"not computed again: rounds carry {STATES_MAX:,} states or more"
            return CarriedFacts(fault=fault, left=_left_by(placed, own.input_id, own.scope_key))
        horizon = read_horizon(read.predictions.store.database)
        if horizon is not None and score.offset < horizon.cuts.get("scores", 0):
            # Looked at after the reading: a horizon is written before anything is deleted.
            fault = "not computed again: the node does not hold what earlier rounds had left then (PAST_DAYS)"
            return CarriedFacts(fault=fault, left=_left_by(placed, own.input_id, own.scope_key))
        _take_in_decision(states, placed, score)
        before.append(states)
    return CarriedFacts(
        before=before,
        left_by=_left_before(read, appends, scored[0], holders, model_id),
        left=_left_by(placed, own.input_id, own.scope_key),
    )


def _store_before(read: Readable, offset: int) -> PastStore:
    return PastStore(read.predictions.store, Predictions, {"scores": offset})


def _states_before(read: Readable, offset: int, holders: Sequence[str]) -> dict[str, Carried] | None:
    """Holder -> what the decisions of `scores` before `offset` left; None if these are too many to read."""
    store = _store_before(read, offset)
    carried = {holder: Carried(states={}) for holder in holders}
    for number, (name, row) in enumerate(store.scan(b"D")):
        if number >= STATES_MAX:
            return None
        model_id = name[1 : name.index(b"\x00")].decode()
        state = msgspec.json.decode(row, type=StateRow)
        if state.holder in carried and not is_ensemble(model_id):
            carried[state.holder].states[model_id] = state.state
    for holder in holders:
        if (shared := store.get(b"E" + key(holder))) is not None:
            carried[holder].shared = msgspec.Raw(shared)
    return carried


def _take_in_decision(
    states: dict[str, Carried], placed: Sequence[Placed[Event]], scored: Placed[Any]
) -> None:
    """Take in what other scopes of the same decision left, which were scored before this one."""
    for item in placed:
        if (item.topic, item.offset) != ("scores", scored.offset):
            continue
        if item.event is scored.event:
            return
        if isinstance(item.event, StateCarried) and item.event.data.holder in states:
            states[item.event.data.holder].take(item.event.data.states, item.event.data.shared)


def _left_by(placed: Sequence[Placed[Event]], input_id: str, scope_key: str) -> list[Placed[StateCarried]]:
    return of_scope(of_kind(placed, StateCarried), input_id, scope_key)


def _left_before(
    read: Readable, appends: ReadAppends, scored: Placed[Any], holders: Sequence[str], model_id: str
) -> Placed[StateCarried] | None:
    """The event that left the model's own state which the round began with; None if an earlier scope of the same
    decision left it, or none did.
    """
    store = _store_before(read, scored.offset)
    offsets = [
        offset
        for holder in holders
        if (offset := store.written_last_at(b"D" + key(model_id, holder))) is not None
    ]
    told = of_kind(read_placed(appends, {"scores": offsets}), StateCarried) if offsets else []
    return next((item for item in reversed(told) if model_id in item.event.data.states), None)
