"""Gathers the recorded events of one prediction, for `streams/audit/explain`.

Reads the rows of `predictions` and `feeds`, and the decisions that they name. While the answer is hidden, neither the
answer nor what follows from it is gathered, so that it cannot leave by an explanation.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from coordinator.projections.explaining.carried_state import carried_facts
from coordinator.projections.explaining.ensemble import ensemble_facts
from coordinator.projections.explaining.log_reading import (
    EVERYTHING,
    WINDOW_RECORDS_MAX,
    ReadAppends,
    members_of,
    of_input,
    of_scope,
    only_of,
    read_placed,
    records_between,
    terms_source,
    terms_told,
    truth_window,
)
from coordinator.projections.explaining.question import ROUNDS_MAX, places_of, question_facts
from coordinator.projections.explaining.typed_ids import UnknownFigureError, shown
from coordinator.projections.folding.as_of import Readable
from coordinator.projections.folding.past_held import check_rows_held
from coordinator.projections.views.prediction_places import told_at
from coordinator.streams.audit.explain.ensemble import EnsembleFacts
from coordinator.streams.audit.explain.figure_facts import PredictionFacts
from coordinator.streams.audit.explain.steps import Placed, of_kind
from coordinator.streams.audit.facts import SeenRecord
from coordinator.streams.contract.terms import in_force
from coordinator.streams.events import (
    NO_OUTPUT,
    AnswerEntry,
    Event,
    InputReceived,
    InputResolved,
    InputScope,
    RoundOpened,
    RoundScored,
    ScopeAnswered,
)
from coordinator.streams.log.errors import LogError
from coordinator.streams.log.ids import is_ensemble, is_question, question_of


def prediction_facts(
    read: Readable, input_id: str, scope_key: str, model_id: str, appends: ReadAppends
) -> PredictionFacts | EnsembleFacts:
    """The facts of one prediction, or of an ensemble's answer. Raises UnknownFigureError, WorldError, LogError."""
    rows = read.predictions.round(input_id, scope_key, {model_id})
    if is_ensemble(model_id) and not rows:
        return ensemble_facts(read, input_id, scope_key, model_id, appends)
    asked_by = input_id if read.predictions.input(input_id) else question_of(input_id)  # or it was handed in
    input_row = read.predictions.input(asked_by)
    if not rows or input_row is None:
        if input_row is not None and not told_at(read.predictions, input_id, scope_key)["predictions"]:
            check_rows_held(read.predictions, input_row.point, "this round")
        raise UnknownFigureError(
            f"input {shown(input_id)} has no answer of model {shown(model_id)} in scope {scope_key}: it was not asked, "
            "or its answer is not recorded yet"
        )
    row, terms_rows, contract_hash = rows[0], read.predictions.terms, input_row.contract_hash
    hidden = row.hidden or row.question_open  # another round of the question may have an answer
    told = (
        places_of(read, input_id, scope_key, hidden=hidden)
        if is_question(input_id)
        else told_at(read.predictions, input_id, scope_key)
    )
    told["scores"] = [*terms_told(terms_rows, contract_hash), *told["scores"]]
    placed = read_placed(appends, told)
    received = only_of(of_kind(placed, InputReceived), asked_by)
    opened = only_of(of_kind(placed, RoundOpened), input_id)
    answered, answer = _answer(of_kind(placed, ScopeAnswered), opened.event, scope_key, model_id)
    scope = next(scope for scope in received.event.data.scopes if scope.scope_key == scope_key)
    terms = terms_rows.by_hash.get(contract_hash)
    # As many as a model may be shown; the contract says how many of them an input is made of (`again.py`).
    shown_max = terms.input_records_max if terms else 0
    point, feeds_read = received.event.data.point, received.upto.get("feeds", (EVERYTHING, 0))[0]
    facts = PredictionFacts(
        scope_key=scope_key,
        model_id=model_id,
        received=received,
        opened=opened,
        answered=answered,
        answer=msgspec.structs.replace(answer, output=NO_OUTPUT, reason=row.reason) if hidden else answer,
        shown={
            subject: records_between(read, terms, subject, 0, point, feeds_read, shown_max)
            for subject in members_of(terms, received.event.data.subject)
        },
        question=question_facts(read, appends, placed, input_id, scope_key, model_id, hidden=hidden)
        if is_question(input_id)
        else None,
        terms=terms,
        configured=terms_source(placed, contract_hash),
        hidden_until_ms=scope.resolvable_at if hidden else None,
        contract_hash=contract_hash,
    )
    if facts.question is not None and len(facts.question.rounds) >= ROUNDS_MAX:
        return _without_contract(facts, f"the question has {ROUNDS_MAX:,} rounds or more")
    if hidden or facts.question is not None:
        return facts
    return _with_score(read, appends, facts, placed, scope)


def _with_score(
    read: Readable,
    appends: ReadAppends,
    facts: PredictionFacts,
    placed: Sequence[Placed[Event]],
    scope: InputScope,
) -> PredictionFacts:
    """The facts with the truth of a round of the market, and its score, as far as there are any."""
    received = facts.received.event.data
    input_id, scope_key = facts.opened.event.data.input_id, facts.scope_key
    resolved = next(
        (
            item
            for item in of_input(of_kind(placed, InputResolved), input_id)
            if item.event.data.horizon_seconds == scope.horizon_seconds
        ),
        None,
    )
    scored = of_scope(of_kind(placed, RoundScored), input_id, scope_key)[:1]
    window: dict[str, list[SeenRecord]] = {}
    if resolved is not None and resolved.event.data.truth is not None:
        window = truth_window(read, facts.terms, received.subject, received.point, resolved)
    told = in_force(read.predictions.terms.in_order)
    facts = msgspec.structs.replace(
        facts,
        resolved=resolved,
        window=window,
        scored=next(iter(scored), None),
        parts=[part.event.data for part in of_scope(of_kind(placed, ScopeAnswered), input_id, scope_key)],
        carried=carried_facts(read, appends, placed, scored, facts.model_id),
        snapshot_period=told.snapshot_period(scope.resolvable_at) if facts.terms else None,
    )
    if any(len(records) >= WINDOW_RECORDS_MAX for records in window.values()):
        return _without_contract(facts, f"its truth is made of {WINDOW_RECORDS_MAX:,} records or more")
    return facts


def _without_contract(facts: PredictionFacts, why: str) -> PredictionFacts:
    """The facts for an explanation in which nothing is computed again by the contract: it would take too long."""
    return msgspec.structs.replace(facts, contract_hash="", contract_fault=f"not computed again: {why}")


def _answer(
    placed: Sequence[Placed[ScopeAnswered]], opened: RoundOpened, scope_key: str, model_id: str
) -> tuple[Placed[ScopeAnswered], AnswerEntry]:
    for answered in of_scope(placed, opened.data.input_id, scope_key):
        for entry in answered.event.data.entries(opened.data.roster):
            if entry.model_id == model_id:
                return answered, entry
    raise LogError(f"the log has no answer of model {model_id} where the read model has read one")
