"""Computes again the steps from the feed to the scores of one period: truths, rounds, answers, scores, charges.

Reads a `Chain`; each step returns a line of text, or raises ChainBrokenError. Pure.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import msgspec

from coordinator.streams.audit.facts import Asked, Chain, Seen, broken
from coordinator.streams.audit.records import FeedRecords
from coordinator.streams.audit.whole_rounds import any_answer_scores, check_carried, round_again
from coordinator.streams.contract import CrunchContract, NoScore
from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.contract.subjects import by_subject, typed_truth
from coordinator.streams.contract.trial_answers import answers_to_try, recorded
from coordinator.streams.events import RoundScoredData, Terms
from coordinator.streams.log.finite import is_number
from coordinator.streams.scores.scorer import ANSWERS_TRIED
from coordinator.streams.scores.units import to_units

PERCENTILES = {"worst": 1e-9, "worst_percentile": 10, "percentile": None}
"""Absence policies that charge a percentile of the round's scores -> that percentile; None: the terms name it."""


# --- feed and inputs ---------------------------------------------------------------------------------------


def check_feed(chain: Chain, rounds: Sequence[Asked], contracts: Contracts) -> str:
    """Check every truth: compute it again with the contract from the records of its window."""
    truths: set[tuple[str, int]] = set()
    used: set[str] = set()
    records = FeedRecords(chain)
    for input_data, _, horizon in rounds:
        if (input_data.input_id, horizon) in truths:
            continue
        truths.add((input_data.input_id, horizon))
        resolution = chain.resolved.get((input_data.input_id, horizon))
        if resolution is None:
            broken(
                "feed",
                f"input {input_data.input_id} has no truth for {horizon} s, though its period is closed",
            )
        event, offset = resolution
        if event.data.truth is None:
            continue
        terms = chain.terms.at(input_data.point)
        contract = contracts(input_data.contract_hash)
        truth_of: dict[str, Any] = {}
        for subject in terms.members(input_data.subject):
            window = records.of(subject, terms).window(input_data.point, event.data.resolvable_at, offset)
            used |= {record.event.id for record in window}
            truth_of[subject] = truth_again(contract, window)
        again = truth_of.get(input_data.subject, truth_of)
        place = f"the truth of {input_data.input_id}, {horizon} s"
        if not chain.roundings.near_json(place, event.data.truth, again):
            broken(
                "feed",
                f"input {input_data.input_id}, {horizon} s: recorded is {event.data.truth}, the records give {again}",
            )
    return f"{len(used)} records, {len(truths)} truths computed again"


def raw_inputs(contract: CrunchContract, seen: Sequence[Seen]) -> list[Any]:
    """The records as the contract's functions get them."""
    return [
        contract.raw_input_type.model_validate(msgspec.structs.asdict(record.event.data) | {"at": record.at})
        for record in seen
    ]


def truth_again(contract: CrunchContract, window: Sequence[Seen]) -> dict[str, Any]:
    """The ground truth of the records of a window, as it is recorded. Raises what the author's functions raise."""
    typed = contract.ground_truth_type.model_validate(
        contract.resolve_ground_truth(raw_inputs(contract, window))
    )
    return typed.model_dump(mode="json", by_alias=True)


def check_inputs(chain: Chain, rounds: Sequence[Asked], contracts: Contracts) -> str:
    """Check that each input is of a subject that its terms ask for, and of the contract's input type."""
    inputs = {input_data.input_id: input_data for input_data, _, _ in rounds}
    for input_data in inputs.values():
        terms = chain.terms.at(input_data.point)
        contract = contracts(input_data.contract_hash)
        if not set(terms.members(input_data.subject)) <= set(terms.subjects):
            broken("input", f"{input_data.input_id} is about {input_data.subject}, which no scope asks for")
        try:
            payload = msgspec.json.decode(input_data.payload)
            by_subject(contract, input_data.scopes[0].scope_key, payload, contract.input_type.model_validate)
        except (ValueError, KeyError, TypeError) as error:
            broken("input", f"{input_data.input_id} is not of the contract's input type: {error}")
    last = max((input_data.point for input_data in inputs.values()), default=0)
    return f"{len(inputs)} inputs, the last at {last} ms"


# --- predictions and scores --------------------------------------------------------------------------------


def check_predictions(chain: Chain, rounds: Sequence[Asked]) -> str:
    """Check that each model of the roster has exactly one answer, or a reason for none, in every scope."""
    kinds: Count[str] = Count()
    models: set[str] = set()
    for input_data, scope_key, _ in rounds:
        opened = chain.rosters.get(input_data.input_id)
        if opened is None:
            broken("predictions", f"input {input_data.input_id}: no model was ever asked")
        crunchers = {entry.model_id: entry.cruncher_id for entry in opened.data.roster}
        closed = chain.closed.get((input_data.input_id, scope_key))
        for entry in () if closed is None else closed.entries():
            if entry.cruncher_id != crunchers.get(entry.model_id, entry.cruncher_id):
                broken(
                    "scores",
                    f"input {input_data.input_id}: model {entry.model_id} is closed as {entry.cruncher_id}'s",
                )
        roster = Count(entry.model_id for entry in opened.data.roster)
        answers = chain.answers_of(input_data.input_id, scope_key)
        answered = Count(answer.model_id for answer in answers)
        if answered != roster:
            odd = sorted((answered - roster) | (roster - answered))
            broken(
                "predictions",
                f"input {input_data.input_id}, scope {scope_key}: not one answer of model {odd[0]}",
            )
        kinds.update(answer.status for answer in answers)
        models |= roster.keys()
    absent, failed = kinds["ABSENT"], kinds["FAILED"]
    return f"{kinds['PENDING']} answers of {len(models)} models, {absent} absent, {failed} failed"


def score_again(contract: CrunchContract, output: Any, truth: Any) -> dict[str, int] | NoScore | None:
    """The units of each numeric field by the contract and a typed truth; None: it refuses the answer; NoScore: no
    score yet.
    """
    score = contract.score_prediction(contract.output_type.model_validate(output), truth)
    if isinstance(score, NoScore):
        return score
    fields = contract.score_type.model_validate(score).__dict__
    if not fields.get("success", True):
        return None
    return {
        name: to_units(value, contract.score_decimals) for name, value in fields.items() if is_number(value)
    }


def check_scores(chain: Chain, rounds: Sequence[Asked], contracts: Contracts) -> str:
    """Check each score, each reason for a missing score, whose fault it is, and the charges."""
    equal = 0
    for input_data, scope_key, horizon in rounds:
        closed = chain.closed.get((input_data.input_id, scope_key))
        if closed is None:
            broken("scores", f"the round {input_data.input_id}, scope {scope_key}, was never closed")
        contract, terms = contracts(input_data.contract_hash), chain.terms.at(input_data.point)
        truth = chain.truth_of(input_data.input_id, scope_key, horizon)
        entries = {entry.model_id: entry for entry in closed.entries()}
        values: list[int] = []
        faults: dict[str, str] = {}
        """Model -> whose fault it is, by the log, that its answer has no score."""
        refused: set[str] = set()
        """The models whose answer the contract refused."""
        no_score: set[str] = set()
        """The models that have no score by nobody's fault, as the contract says."""
        answers = chain.answers_of(input_data.input_id, scope_key)
        whole = None
        if contract.score_round is not None:
            whole = round_again(chain, (input_data, scope_key, horizon), contract, answers, truth)
            refused |= whole.refused
            no_score |= whole.no_score
            check_carried(chain, (input_data, scope_key, horizon), whole)
        for answer in answers:
            place = f"input {input_data.input_id}, scope {scope_key}, model {answer.model_id}"
            entry = entries.pop(answer.model_id, None)
            if entry is None:
                broken("scores", f"{place}: it has no final status")
            key = (input_data.input_id, scope_key, answer.model_id)
            recorded_units = chain.scored.get(key)
            if answer.status != "PENDING":
                if recorded_units is not None or (entry.status, entry.fault) != (answer.status, answer.fault):
                    broken(
                        "scores",
                        f"{place}: closed as {entry.status}, but it is {answer.status} by {answer.fault}",
                    )
                continue
            if entry.status == "FAILED":
                if key not in chain.not_scored or recorded_units is not None:
                    broken("scores", f"{place}: FAILED without a reason")
                faults[answer.model_id] = str(entry.fault)
                if truth is None:
                    continue
            if whole is not None:
                units_again = whole.units.get(answer.model_id)
            else:
                units_again, without_score = _scored(
                    contract, scope_key, msgspec.json.decode(answer.output), truth
                )
                if without_score is not None:
                    (refused if without_score == "refused" else no_score).add(answer.model_id)
            if not chain.roundings.near(
                f"the score of {place}", recorded_units, units_again, answer.model_id
            ) or (recorded_units is not None) != (entry.status == "SCORED"):
                broken("scores", f"{place}: recorded are {recorded_units}, the contract gives {units_again}")
            if recorded_units is not None:
                equal += 1
                values.append(recorded_units[terms.value_field])
        if entries:
            broken(
                "scores",
                f"input {input_data.input_id}, scope {scope_key}: {min(entries)} was closed but never asked",
            )
        scorable = truth is not None and bool(faults) and not (whole is not None and whole.raised)
        if scorable and not values and whole is not None:
            scorable = any_answer_scores(chain, (input_data, scope_key, horizon), contract, answers, truth)
        elif scorable and not values and truth is not None:
            scorable = _scores_any(contract, scope_key, truth)
        for model_id, fault in faults.items():
            # A missing truth is the node's fault. With a truth, it is nobody's fault if the contract says so, and the
            # model's if the contract refused its answer or can score another answer. If it can score none, the author
            # of the contract is at fault, and the node answers for it.
            due = "model" if scorable or model_id in refused else "node"
            if truth is not None and model_id in no_score:
                due = "nobody"
            if fault != due:
                place = f"input {input_data.input_id}, scope {scope_key}, model {model_id}"
                broken("scores", f"{place}: no score by the fault of {fault}, but it is that of {due}")
        _check_charges(chain, closed, values, terms, whole.costs if whole is not None else {})
    return f"{equal} scores computed again and equal, {len(rounds)} rounds closed"


def _scored(
    contract: CrunchContract, scope_key: str, output: Any, truth: dict[str, Any] | None
) -> tuple[dict[str, int] | None, Literal["refused", "no score"] | None]:
    """(units, None) of a score; (None, why) without a score, where why is None if the contract's function failed."""
    if truth is None:
        return None, None
    try:
        units = score_again(contract, output, typed_truth(contract, scope_key, truth))
    except AUTHORS_ERRORS:  # then it must have failed in the node, too
        return None, None
    if isinstance(units, NoScore):
        return None, "no score"
    if units is not None and contract.aggregation.value_field not in units:
        return None, None
    return units, "refused" if units is None else None


def _scores_any(contract: CrunchContract, scope_key: str, truth: dict[str, Any]) -> bool:
    """Whether the contract can score any of the sample answers with this truth."""
    answers = answers_to_try(contract.output_type)[:ANSWERS_TRIED]
    return any(_scored(contract, scope_key, recorded(answer), truth)[0] is not None for answer in answers)


def _check_charges(
    chain: Chain, closed: RoundScoredData, values: Sequence[int], terms: Terms, costs: Mapping[str, int]
) -> None:
    """Check what each model without a score is charged.

    By the absence policy this is nothing, a constant, the score at a percentile from the worst (nearest rank), or what
    the contract gives for models that did not answer or whose answer it refused.
    """
    charge: int | None = None
    if terms.absence_policy in ("zero", "constant"):
        charge = terms.absence_units if terms.absence_policy == "constant" else 0
    elif terms.absence_policy in PERCENTILES and values:
        percent = Decimal(repr(PERCENTILES[terms.absence_policy] or terms.absence_percent))
        from_worst = sorted(values, reverse=terms.ranking_direction == "asc")
        reached = [i for i in range(len(values)) if (i + 1) * 100 >= percent * len(values)]
        charge = from_worst[reached[0]]
    for entry in closed.entries():
        due = charge if entry.fault == "model" else None
        if terms.absence_policy == "scored" and entry.status != "SCORED":
            due = costs.get(entry.model_id)
        place = f"the charge of {closed.input_id}, scope {closed.scope_key}, model {entry.model_id}"
        # What a contract gives may be a unit off; all other charges are of recorded scores, and exact.
        is_given = terms.absence_policy == "scored"
        if entry.charge_units != due and not (
            is_given and chain.roundings.near(place, entry.charge_units, due, entry.model_id)
        ):
            broken(
                "scores",
                f"input {closed.input_id}, model {entry.model_id}: charged {entry.charge_units}, due is {due}",
            )
