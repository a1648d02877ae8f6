"""Computes a round again that its contract scores as a whole: scores, charges of missing models, carried state.

This is other code than the stage's: it works value by value, by the model's name. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
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
from coordinator.streams.contract.subjects import typed_truth
from coordinator.streams.contract.trial_answers import answers_to_try
from coordinator.streams.contract.trial_answers import recorded as recorded_answer
from coordinator.streams.events import AnswerEntry
from coordinator.streams.log.finite import not_finite, numbers_of, plain
from coordinator.streams.scores.carried import Carried, holder_of
from coordinator.streams.scores.raised_rounds import scorable_places
from coordinator.streams.scores.scorer import ANSWERS_TRIED
from coordinator.streams.scores.units import NotRecordableError, to_units

_json = msgspec.json.Encoder(order="deterministic").encode


class RoundAgain(msgspec.Struct):
    """What a contract gives for a round, per model."""

    units: dict[str, dict[str, int]] = {}
    """Model that answered and is scored -> field -> units."""
    refused: set[str] = set()
    """The models whose answer the contract's function refused."""
    no_score: set[str] = set()
    """The models that have no score by nobody's fault, as the function says."""
    costs: dict[str, int] = {}
    """Model that did not answer, or whose answer was refused -> units of the value field that it is charged."""
    states: dict[str, msgspec.Raw] = {}
    """Model -> its carried state after the round, if the round changed it."""
    shared: msgspec.Raw = UNCHANGED
    """The shared state after the round; UNCHANGED if the round did not change it."""
    raised: bool = False
    """Whether the contract's function raised."""


def round_again(
    chain: Chain,
    asked_round: Asked,
    contract: CrunchContract,
    answers: Sequence[AnswerEntry],
    truth: dict[str, Any] | None,
) -> RoundAgain:
    """Compute a round again from its answers and from the state that it began with, as the log has it.

    Where the function raises, the answers that it cannot score are left out, if it is clear which ones these are.
    """
    again = _called(chain, asked_round, contract, answers, truth)
    if not again.raised or truth is None or contract.score_round is None:
        return again
    in_order = sorted(answers, key=lambda answer: answer.model_id)
    answered = [place for place, answer in enumerate(in_order) if answer.status == "PENDING"]

    def called_with(places: Collection[int], output: msgspec.Raw | None = None) -> RoundAgain:
        entries, chosen = list(in_order), set(places)
        for place in answered:
            if place not in chosen:
                entries[place] = AnswerEntry(in_order[place].model_id, "", "FAILED", fault="model")
            elif output is not None:
                entries[place] = AnswerEntry(in_order[place].model_id, "", "PENDING", output)
        return _called(chain, asked_round, contract, entries, truth)

    def scores_same(place: int | None) -> bool:
        same = _samples(contract) if place is None else [in_order[place].output]
        return any(not called_with(answered, output).raised for output in same)

    places = scorable_places(
        [answer.output for answer in in_order],
        answered,
        lambda tried: not called_with(tried).raised,
        scores_same,
    )
    if places is None:
        return again
    rest = called_with(places)
    rest.raised = False
    return rest


def _called(
    chain: Chain,
    asked_round: Asked,
    contract: CrunchContract,
    answers: Sequence[AnswerEntry],
    truth: dict[str, Any] | None,
) -> RoundAgain:
    """What the contract's function gives for these answers; `raised` where it raises."""
    input_data, scope_key, _ = asked_round
    if truth is None or contract.score_round is None:
        return RoundAgain(raised=True)
    scope = next(scope for scope in input_data.scopes if scope.scope_key == scope_key)
    holder = holder_of(contract, input_data.subject, scope_key)
    before = chain.carried_before[input_data.input_id, scope_key].get(holder) or Carried()
    context = RoundContext(
        scope_key=scope_key,
        subject=input_data.subject,
        horizon_seconds=scope.horizon_seconds,
        step_seconds=scope.step_seconds,
        point=input_data.point,
        resolvable_at=scope.resolvable_at,
        params=contract.params_of(scope_key),
        **before.given(),
    )
    players = {entry.model_id: entry.cruncher_id for entry in chain.rosters[input_data.input_id].data.roster}
    asked_answers = sorted(answers, key=lambda answer: answer.model_id)
    round_answers = RoundAnswers(
        [answer.model_id for answer in asked_answers],
        [players.get(answer.model_id, "") for answer in asked_answers],
        {
            place: (answer.status, answer.fault or "")
            for place, answer in enumerate(asked_answers)
            if answer.status != "PENDING"
        },
        [answer.output for answer in asked_answers],
        contract.output_type.model_validate,
    )
    try:
        scores = contract.score_round(round_answers, typed_truth(contract, scope_key, truth), context)
        return _read(
            scores if isinstance(scores, RoundScores) else RoundScores(scores),
            asked_answers,
            contract,
            before,
        )
    except AUTHORS_ERRORS:  # then it must have failed in the node, too
        return RoundAgain(raised=True)


def any_answer_scores(
    chain: Chain,
    asked_round: Asked,
    contract: CrunchContract,
    answers: Sequence[AnswerEntry],
    truth: dict[str, Any] | None,
) -> bool:
    """Whether another answer of the contract's type, given by all models that were asked, would have been scored."""
    for output in _samples(contract):
        same_answers = [AnswerEntry(entry.model_id, "", "PENDING", output) for entry in answers]
        if _called(chain, asked_round, contract, same_answers, truth).units:
            return True
    return False


def _samples(contract: CrunchContract) -> Iterator[msgspec.Raw]:
    for answer in answers_to_try(contract.output_type)[:ANSWERS_TRIED]:
        yield msgspec.Raw(msgspec.json.encode(recorded_answer(answer)))


def _read(
    scores: RoundScores, answers: Sequence[AnswerEntry], contract: CrunchContract, before: Carried
) -> RoundAgain:
    """What would be recorded of a contract's scores, value by value. Raises for scores that cannot be of the round."""
    names = {answer.model_id for answer in answers}
    if not names.issuperset([*scores.failed, *scores.no_score]) or not (
        names | before.states.keys()
    ).issuperset(scores.states):
        message = "names a model that was not asked"
        raise ValueError(message)
    again = RoundAgain(refused=set(scores.failed), no_score=set(scores.no_score) - set(scores.failed))
    unrecordable: set[str] = set()
    for model_id, state in scores.states.items():
        try:
            recorded = _recorded(state, contract)
        except (ValueError, TypeError, RecursionError):
            if model_id not in names:
                raise
            unrecordable.add(model_id)
            continue
        if bytes(recorded) != bytes(before.states.get(model_id, b"null")):
            again.states[model_id] = recorded
    if scores.shared is not msgspec.UNSET:
        shared = _recorded(scores.shared, contract)
        again.shared = UNCHANGED if bytes(shared) == bytes(before.shared) else shared
    value_field = contract.aggregation.value_field
    for answer, row in zip(answers, _rows(scores.scores, len(answers), contract), strict=True):
        model_id = answer.model_id
        if isinstance(row, NoScore) and model_id not in again.refused:
            again.no_score.add(model_id)
        if model_id in again.no_score:
            continue
        fields = row if isinstance(row, dict) else {}
        if not fields.get("success", True):
            again.refused.add(model_id)
        if (model_id in again.refused and model_id not in scores.failed) or model_id in unrecordable:
            continue
        try:
            units = {
                name: to_units(value, contract.score_decimals) for name, value in numbers_of(fields).items()
            }
        except NotRecordableError:
            continue
        if value_field not in units:
            continue
        answered, failed = answer.status == "PENDING", model_id in scores.failed
        if answered and not failed:
            again.units[model_id] = units
        elif answered or not failed:
            again.costs[model_id] = units[value_field]
    return again


def _rows(scores: Any, n: int, contract: CrunchContract) -> list[dict[str, Any] | NoScore | None]:
    """The fields of each of the n models' scores, in order; None or NoScore for a model without a score."""
    if not isinstance(scores, Mapping):
        return [_row(plain(row), contract) for row in scores]
    columns = {name: list(plain(column)) for name, column in scores.items()}
    fields = contract.score_type.model_fields
    required = {name for name, field in fields.items() if field.is_required()} | {
        contract.aggregation.value_field
    }
    unknown = (
        columns.keys() - fields.keys() if contract.score_type.model_config.get("extra") != "allow" else set()
    )
    if required - columns.keys() or unknown or any(len(column) != n for column in columns.values()):
        message = "columns that do not make scores of the models asked"
        raise ValueError(message)
    return [
        {
            name: None if column[i] is None or math.isnan(column[i]) else float(column[i])
            for name, column in columns.items()
        }
        for i in range(n)
    ]


def _row(row: Any, contract: CrunchContract) -> dict[str, Any] | NoScore | None:
    if row is None or isinstance(row, NoScore):
        return row
    if isinstance(row, Failed):
        return {"success": False}
    number = isinstance(row, (int, float)) and not isinstance(row, bool)
    typed = contract.score_type.model_validate({contract.aggregation.value_field: row} if number else row)
    return dict(typed.__dict__)


def _recorded(state: Any, contract: CrunchContract) -> msgspec.Raw:
    """A state as JSON. Raises ValueError for a state that is not finite, or larger than the contract allows."""
    body = _json(plain(state))
    if not_finite(plain(state)) or len(body) > contract.state_max_bytes:
        message = "a state that is not finite, or too large"
        raise ValueError(message)
    return msgspec.Raw(body)


def check_carried(chain: Chain, asked_round: Asked, again: RoundAgain) -> None:
    """Check that the state that the log says a round left is the one that the contract gives."""
    input_data, scope_key, _ = asked_round
    recorded = chain.carried_by.get((input_data.input_id, scope_key)) or Carried(shared=UNCHANGED)
    place = f"input {input_data.input_id}, scope {scope_key}"
    for model_id in sorted(recorded.states.keys() | again.states.keys()):
        was, due = (bytes(carried.states.get(model_id, UNCHANGED)).decode() for carried in (recorded, again))
        if not _near(chain, f"the state of {place}, model {model_id}", was, due):
            broken(
                "scores",
                f"{place}, model {model_id}: the state carried is {was or 'as before'}, the contract gives "
                f"{due or 'as before'}",
            )
    was, due = (bytes(carried.shared).decode() for carried in (recorded, again))
    if not _near(chain, f"the shared state of {place}", was, due):
        broken(
            "scores",
            f"{place}: the shared state carried is {was or 'as before'}, the contract gives {due or 'as before'}",
        )


def _near(chain: Chain, place: str, recorded: str, computed: str) -> bool:
    """Whether two states as JSON are equal, or their floats one unit of rounding apart."""
    if recorded == computed or not (recorded and computed):
        return recorded == computed
    apart = chain.roundings.near_json(place, msgspec.json.decode(recorded), msgspec.json.decode(computed))
    return apart and place in chain.roundings.places  # the same JSON written otherwise is another state
