"""A round that its contract scores as a whole, computed again: scores, charges of who is missing, carried state.

Other code than the stage's: value by value, by the model's name. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from coordinator.streams.audit.facts import UNCHANGED, Asked, Chain, broken
from coordinator.streams.contract import (
    CrunchContract,
    Failed,
    NoScore,
    RoundAnswers,
    RoundContext,
    RoundScores,
)
from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.contract.trial_answers import answers_to_try
from coordinator.streams.contract.trial_answers import recorded as recorded_answer
from coordinator.streams.events import AnswerEntry
from coordinator.streams.log.finite import not_finite, numbers_of, plain
from coordinator.streams.scores.round_scorer import Carried, holder_of
from coordinator.streams.scores.scorer import ANSWERS_TRIED
from coordinator.streams.scores.units import NotRecordableError, to_units

_json = msgspec.json.Encoder(order="deterministic").encode


class RoundAgain(msgspec.Struct):
    """What a contract gives for a round, by model."""

    units: dict[str, dict[str, int]] = {}
    """Of who answered and is scored."""
    refused: set[str] = set()
    """Whose answer the function itself turned down."""
    no_score: set[str] = set()
    """Who has no score by nobody's fault, as the function says."""
    costs: dict[str, int] = {}
    """What it gives, in units of the value field, for who did not answer, or whom it failed."""
    states: dict[str, msgspec.Raw] = {}
    shared: msgspec.Raw = UNCHANGED
    raised: bool = False


def round_again(
    chain: Chain,
    one: Asked,
    contract: CrunchContract,
    answers: Sequence[AnswerEntry],
    truth: dict[str, Any] | None,
) -> RoundAgain:
    """The round computed again from its answers and from the state that the log says it began with."""
    the_input, scope_key, _ = one
    if truth is None or contract.score_round is None:
        return RoundAgain(raised=True)
    scope = next(scope for scope in the_input.scopes if scope.scope_key == scope_key)
    holder = holder_of(contract, the_input.subject, scope_key)
    before = chain.carried_before[the_input.input_id, scope_key].get(holder) or Carried()
    context = RoundContext(
        scope_key=scope_key,
        subject=the_input.subject,
        horizon_seconds=scope.horizon_seconds,
        step_seconds=scope.step_seconds,
        point=the_input.point,
        resolvable_at=scope.resolvable_at,
        params=contract.params_of(scope_key),
        **before.given(),
    )
    players = {entry.model_id: entry.cruncher_id for entry in chain.rosters[the_input.input_id].data.roster}
    asked = sorted(answers, key=lambda answer: answer.model_id)
    given = RoundAnswers(
        [answer.model_id for answer in asked],
        [players.get(answer.model_id, "") for answer in asked],
        {
            place: (answer.status, answer.fault or "")
            for place, answer in enumerate(asked)
            if answer.status != "PENDING"
        },
        [answer.output for answer in asked],
        contract.output_type.model_validate,
    )
    try:
        said = contract.score_round(given, contract.ground_truth_type.model_validate(truth), context)
        return _read(said if isinstance(said, RoundScores) else RoundScores(said), asked, contract, before)
    except AUTHORS_ERRORS:  # it must then have failed in the node as well
        return RoundAgain(raised=True)


def any_answer_scores(
    chain: Chain,
    one: Asked,
    contract: CrunchContract,
    answers: Sequence[AnswerEntry],
    truth: dict[str, Any] | None,
) -> bool:
    """Would another answer of the contract's type, given by everybody who was asked, have been scored?"""
    for answer in answers_to_try(contract.output_type)[:ANSWERS_TRIED]:
        output = msgspec.Raw(msgspec.json.encode(recorded_answer(answer)))
        others = [AnswerEntry(entry.model_id, "", "PENDING", output) for entry in answers]
        if round_again(chain, one, contract, others, truth).units:
            return True
    return False


def _read(
    said: RoundScores, asked: Sequence[AnswerEntry], contract: CrunchContract, before: Carried
) -> RoundAgain:
    """What is recorded of it, value by value. Raises what makes no round of it."""
    names = {answer.model_id for answer in asked}
    if not names.issuperset([*said.failed, *said.no_score]) or not (names | before.states.keys()).issuperset(
        said.states
    ):
        message = "names a model that was not asked"
        raise ValueError(message)
    again = RoundAgain(refused=set(said.failed), no_score=set(said.no_score) - set(said.failed))
    unrecordable: set[str] = set()
    for model_id, state in said.states.items():
        try:
            recorded = _recorded(state, contract)
        except (ValueError, TypeError, RecursionError):
            if model_id not in names:
                raise
            unrecordable.add(model_id)
            continue
        if bytes(recorded) != bytes(before.states.get(model_id, b"null")):
            again.states[model_id] = recorded
    if said.shared is not msgspec.UNSET:
        shared = _recorded(said.shared, contract)
        again.shared = UNCHANGED if bytes(shared) == bytes(before.shared) else shared
    value_field = contract.aggregation.value_field
    for answer, row in zip(asked, _rows(said.scores, len(asked), contract), strict=True):
        model_id = answer.model_id
        if isinstance(row, NoScore) and model_id not in again.refused:
            again.no_score.add(model_id)
        if model_id in again.no_score:
            continue
        fields = row if isinstance(row, dict) else {}
        if not fields.get("success", True):
            again.refused.add(model_id)
        if (model_id in again.refused and model_id not in said.failed) or model_id in unrecordable:
            continue
        try:
            units = {
                name: to_units(value, contract.score_decimals) for name, value in numbers_of(fields).items()
            }
        except NotRecordableError:
            continue
        if value_field not in units:
            continue
        answered, failed = answer.status == "PENDING", model_id in said.failed
        if answered and not failed:
            again.units[model_id] = units
        elif answered or not failed:
            again.costs[model_id] = units[value_field]
    return again


def _rows(scores: Any, n: int, contract: CrunchContract) -> list[dict[str, Any] | NoScore | None]:
    """What was said of each of the n models: its fields, None where it has no score."""
    if not isinstance(scores, Mapping):
        return [_row(plain(one), contract) for one in scores]
    columns = {name: list(plain(column)) for name, column in scores.items()}
    fields = contract.score_type.model_fields
    lacking = {name for name, one in fields.items() if one.is_required()} | {contract.aggregation.value_field}
    unknown = (
        columns.keys() - fields.keys() if contract.score_type.model_config.get("extra") != "allow" else set()
    )
    if lacking - columns.keys() or unknown or any(len(column) != n for column in columns.values()):
        message = "columns that do not make scores of the models asked"
        raise ValueError(message)
    return [
        {
            name: None if column[i] is None or math.isnan(column[i]) else float(column[i])
            for name, column in columns.items()
        }
        for i in range(n)
    ]


def _row(one: Any, contract: CrunchContract) -> dict[str, Any] | NoScore | None:
    if one is None or isinstance(one, NoScore):
        return one
    if isinstance(one, Failed):
        return {"success": False}
    number = isinstance(one, (int, float)) and not isinstance(one, bool)
    typed = contract.score_type.model_validate({contract.aggregation.value_field: one} if number else one)
    return dict(typed.__dict__)


def _recorded(state: Any, contract: CrunchContract) -> msgspec.Raw:
    """As JSON, within what the contract allows. Raises ValueError for what is not."""
    body = _json(plain(state))
    if not_finite(plain(state)) or len(body) > contract.state_max_bytes:
        message = "a state that is not finite, or too large"
        raise ValueError(message)
    return msgspec.Raw(body)


def check_carried(chain: Chain, one: Asked, again: RoundAgain) -> None:
    """The state that the round is said to leave is what the contract gives."""
    the_input, scope_key, _ = one
    said = chain.carried_by.get((the_input.input_id, scope_key)) or Carried(shared=UNCHANGED)
    place = f"input {the_input.input_id}, scope {scope_key}"
    for model_id in sorted(said.states.keys() | again.states.keys()):
        was, due = (bytes(one.states.get(model_id, UNCHANGED)).decode() for one in (said, again))
        if was != due:
            broken(
                "scores",
                f"{place}, model {model_id}: the state carried is {was or 'as before'}, the contract gives "
                f"{due or 'as before'}",
            )
    if bytes(said.shared) != bytes(again.shared):
        was, due = (bytes(one.shared).decode() or "as before" for one in (said, again))
        broken("scores", f"{place}: the shared state carried is {was}, the contract gives {due}")
