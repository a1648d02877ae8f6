"""Gathers the recorded events of one prediction, for `streams/audit/explain`.

Reads the rows of `predictions` and `feeds`, and the decisions that they name. While the answer is hidden, neither the
answer nor what follows from it is gathered, so that it cannot leave by an explanation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from coordinator.projections.explaining.finding import UnknownFigureError, shown
from coordinator.projections.explaining.reading import (
    Contracts,
    ReadAppends,
    contract_of,
    read_placed,
    seen_records,
    terms_source,
    terms_told,
)
from coordinator.projections.folding.past import Readable
from coordinator.projections.views.prediction_places import told_at
from coordinator.streams.audit.explain.prediction import PredictionFacts
from coordinator.streams.audit.explain.steps import Placed, of_kind
from coordinator.streams.audit.facts import Seen
from coordinator.streams.contract.terms import in_force
from coordinator.streams.events import (
    NO_OUTPUT,
    AnswerEntry,
    InputReceived,
    InputResolved,
    RoundOpened,
    RoundScored,
    ScopeAnswered,
    Terms,
)
from coordinator.streams.log.errors import LogError
from coordinator.streams.log.ids import is_ensemble

WINDOW_RECORDS_MAX = 5_000
"""A truth of more records is not computed again, since the request would take seconds."""
EVERYTHING = 1 << 62
OfKind = TypeVar("OfKind", InputReceived, RoundOpened)


def prediction_facts(
    read: Readable, input_id: str, scope_key: str, model_id: str, appends: ReadAppends, contracts: Contracts
) -> PredictionFacts:
    """The facts of one prediction. Raises UnknownFigureError, WorldError, LogError."""
    if is_ensemble(model_id):
        raise UnknownFigureError(
            f"{shown(model_id)} is an ensemble: its answers are made of its members' and not asked for, see "
            "/reports/ensembles"
        )
    rows = read.predictions.round(input_id, scope_key, {model_id})
    input_row = read.predictions.input(input_id)
    if not rows or input_row is None:
        raise UnknownFigureError(
            f"input {shown(input_id)} has no answer of model {shown(model_id)} in scope {scope_key}: it was not asked, "
            "or its answer is not recorded yet"
        )
    row, terms_rows, contract_hash = rows[0], read.predictions.terms, input_row.contract_hash
    told = told_at(read.predictions, input_id, scope_key)
    told["scores"] = [*terms_told(terms_rows, contract_hash), *told["scores"]]
    placed = read_placed(appends, told)
    received = _only(of_kind(placed, InputReceived), input_id)
    opened = _only(of_kind(placed, RoundOpened), input_id)
    answered, answer = _answer(of_kind(placed, ScopeAnswered), opened.event, scope_key, model_id)
    scope = next(scope for scope in received.event.data.scopes if scope.scope_key == scope_key)
    terms = terms_rows.by_hash.get(contract_hash)
    contract, fault = contract_of(contracts, contract_hash)
    shown_max = contract.input_records if contract else terms.input_records_max if terms else 0
    point, feeds_read = received.event.data.point, received.upto.get("feeds", (EVERYTHING, 0))[0]
    facts = PredictionFacts(
        scope_key=scope_key,
        model_id=model_id,
        received=received,
        opened=opened,
        answered=answered,
        answer=msgspec.structs.replace(answer, output=NO_OUTPUT) if row.hidden else answer,
        shown={
            subject: _records(read, terms, subject, 0, point, feeds_read, shown_max)
            for subject in _members(terms, received.event.data.subject)
        },
        terms=terms,
        configured=terms_source(placed, contract_hash),
        hidden_until_ms=scope.resolvable_at if row.hidden else None,
        contract=contract,
        contract_fault=fault,
    )
    if row.hidden:
        return facts
    asked = input_id, scope.horizon_seconds
    resolved = next(
        (
            candidate
            for candidate in of_kind(placed, InputResolved)
            if (candidate.event.data.input_id, candidate.event.data.horizon_seconds) == asked
        ),
        None,
    )
    scored = next(
        (
            candidate
            for candidate in of_kind(placed, RoundScored)
            if (candidate.event.data.input_id, candidate.event.data.scope_key) == (input_id, scope_key)
        ),
        None,
    )
    window: dict[str, list[Seen]] = {}
    if resolved is not None and resolved.event.data.truth is not None:
        feeds_read = resolved.upto.get("feeds", (EVERYTHING, 0))[0]
        window = {
            subject: _records(
                read, terms, subject, point, scope.resolvable_at, feeds_read, WINDOW_RECORDS_MAX
            )
            for subject in _members(terms, received.event.data.subject)
        }
        if any(len(records) >= WINDOW_RECORDS_MAX for records in window.values()):
            contract, fault = (
                None,
                f"not made again: its truth is made of {WINDOW_RECORDS_MAX:,} records or more",
            )
    return msgspec.structs.replace(
        facts,
        resolved=resolved,
        window=window,
        scored=scored,
        snapshot_period=in_force(terms_rows.in_order).snapshot_period(scope.resolvable_at) if terms else None,
        contract=contract,
        contract_fault=fault,
    )


def _only(placed: Sequence[Placed[OfKind]], input_id: str) -> Placed[OfKind]:
    """The event of this input, as a decision may hold events of several inputs. Raises LogError if it is missing."""
    for candidate in placed:
        if candidate.event.data.input_id == input_id:
            return candidate
    raise LogError(
        f"the log tells less of input {input_id} than the read model has read: coordinator replay --verify"
    )


def _answer(
    placed: Sequence[Placed[ScopeAnswered]], opened: RoundOpened, scope_key: str, model_id: str
) -> tuple[Placed[ScopeAnswered], AnswerEntry]:
    for answered in placed:
        data = answered.event.data
        if (data.input_id, data.scope_key) == (opened.data.input_id, scope_key):
            for entry in data.entries(opened.data.roster):
                if entry.model_id == model_id:
                    return answered, entry
    raise LogError(f"the log has no answer of model {model_id} where the read model has read one")


def _members(terms: Terms | None, subject: str) -> list[str]:
    return terms.members(subject) if terms else [subject]


def _records(
    read: Readable, terms: Terms | None, subject: str, since: int, until: int, offset: int, most: int
) -> list[Seen]:
    """At most `most` records of a subject that were in `feeds` up to `offset`, in the order of `at`: the newest with
    at <= `until` (ms), back to the first with at <= `since`.
    """
    if terms is None:
        return []
    subscription = terms.feed.source, subject, terms.feed.kind, terms.feed.granularity
    records: list[Seen] = []
    told = read.feeds.told(subscription, until, offset)
    for seen in seen_records(subscription, told):
        if seen.at > until:
            continue
        records.append(seen)
        if len(records) >= most or seen.at <= since:
            break
    return sorted(records, key=_at)


def _at(seen: Seen) -> int:
    return seen.at
