"""Gathers the recorded events of one answer of an ensemble, for `streams/audit/explain`.

Reads the rows of `predictions` and `feeds`, and the decisions that they name. An ensemble is made when its round is
scored, so nothing is gathered while its members' answers are hidden.
"""

from __future__ import annotations

import msgspec

from coordinator.projections.explaining.log_reading import (
    ReadAppends,
    of_input,
    of_scope,
    only_of,
    read_placed,
    terms_source,
    terms_told,
    truth_window,
)
from coordinator.projections.explaining.question import places_of, question_facts
from coordinator.projections.explaining.snapshot import ROUNDS_MAX
from coordinator.projections.explaining.typed_ids import UnknownFigureError, shown
from coordinator.projections.folding.as_of import Readable
from coordinator.projections.folding.past_held import check_rows_held, missing_before
from coordinator.projections.views.prediction_places import scored_at, told_at
from coordinator.streams.audit.explain.ensemble import EnsembleFacts
from coordinator.streams.audit.explain.rescoring import AnsweredRound
from coordinator.streams.audit.explain.steps import Placed, of_kind
from coordinator.streams.contract.terms import TermsInForce, in_force
from coordinator.streams.durations import HOUR_MS
from coordinator.streams.events import (
    EnsemblesScored,
    InputReceived,
    InputResolved,
    RoundOpened,
    RoundScored,
    ScopeAnswered,
    StateCarried,
)
from coordinator.streams.log.ids import ensemble_name, is_question, question_of


def ensemble_facts(
    read: Readable, input_id: str, scope_key: str, ensemble_id: str, appends: ReadAppends
) -> EnsembleFacts:
    """The facts of an ensemble's answer. Raises UnknownFigureError, WorldError, LogError."""
    input_id = question_of(input_id)
    row, told = read.predictions.input(input_id), in_force(read.predictions.terms.in_order)
    places = (
        places_of(read, input_id, scope_key, hidden=False)
        if is_question(input_id)
        else told_at(read.predictions, input_id, scope_key)
    )
    unscored = UnknownFigureError(
        f"ensemble {shown(ensemble_id)} has no answer to {shown(input_id)} yet: it is made of its members' once its "
        "round is scored"
    )
    if row is not None and not places["scores"]:
        check_rows_held(read.predictions, row.point, "this round")
    if row is None or not places["scores"] or not told or read.predictions.is_closed(row, scope_key):
        raise unscored
    contract_hash = row.contract_hash
    places["scores"] = [*terms_told(read.predictions.terms, contract_hash), *places["scores"]]
    placed = read_placed(appends, places)
    scored = next(
        (
            candidate
            for candidate in of_scope(of_kind(placed, EnsemblesScored), input_id, scope_key)
            if ensemble_id in candidate.event.data.models
        ),
        None,
    )
    if scored is None:
        raise UnknownFigureError(
            f"the round {shown(input_id)} has no ensemble {shown(ensemble_id)}: its contract had none of that name, or "
            "there is no truth; /reports/ensembles names them"
        )
    data = scored.event.data
    received = only_of(of_kind(placed, InputReceived), input_id)
    terms = told.at(data.point)
    resolved = [
        item
        for item in of_input(of_kind(placed, InputResolved), input_id)
        if item.event.data.horizon_seconds == data.horizon_seconds
        and item.event.data.resolvable_at == data.resolvable_at
        and item.event.data.truth is not None
    ][:1]
    question = (
        question_facts(read, appends, placed, input_id, scope_key, ensemble_id, hidden=False)
        if is_question(input_id)
        else None
    )
    opened = of_input(of_kind(placed, RoundOpened), input_id)
    if not resolved or not opened:  # a position that never was: scores of later than the truth or the answers
        raise unscored
    answered = of_kind(placed, ScopeAnswered)
    facts = EnsembleFacts(
        ensemble_id=ensemble_id,
        scope_key=scope_key,
        received=received,
        rounds=question.rounds
        if question is not None
        else [AnsweredRound(item, of_scope(answered, input_id, scope_key)) for item in opened],
        resolved=resolved,
        window=truth_window(read, terms, data.subject, data.point, resolved[0]) if question is None else {},
        scored=scored,
        question=question,
        carried=bool(data.states)
        or any(item.event.data.input_id == input_id for item in of_kind(placed, StateCarried)),
        told=told,
        terms=terms,
        configured=terms_source(placed, contract_hash),
        contract_hash=contract_hash,
    )
    return _with_past(read, appends, facts, told)


def _with_past(
    read: Readable, appends: ReadAppends, facts: EnsembleFacts, told: TermsInForce
) -> EnsembleFacts:
    """The facts with the rounds that the ensemble looks back on: of its scope, and scored before it."""
    name, data, terms = ensemble_name(facts.ensemble_id), facts.data, facts.terms
    hours = next((ensemble.hours for ensemble in terms.ensembles if ensemble.name == name), 0)
    if not hours:
        return facts
    width = terms.snapshot_interval_ms
    until = data.point // width * width
    since = -(-told.comparable_since(data.point) // width) * width
    first = max(until - hours * HOUR_MS, since)
    offsets = scored_at(read.predictions, first, until, ROUNDS_MAX)
    facts = msgspec.structs.replace(facts, past_from=first, past_until=until)
    if fault := missing_before(read.predictions, first):
        return msgspec.structs.replace(facts, past_fault=fault)
    if len(offsets) >= ROUNDS_MAX:
        fault = f"not computed again: its weights and filter look back on {ROUNDS_MAX:,} rounds or more"
        return msgspec.structs.replace(facts, past_fault=fault)
    before = sorted({offset for offset in offsets if offset < facts.scored.offset})
    past: list[Placed[RoundScored]] = [
        item
        for item in of_kind(read_placed(appends, {"scores": before}), RoundScored)
        if (item.event.data.subject, item.event.data.scope_key) == (data.subject, data.scope_key)
        and first <= item.event.data.resolvable_at < until
    ]
    return msgspec.structs.replace(facts, past=past)
