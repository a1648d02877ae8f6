"""From the feed to the scores of one period, computed again: truths, rounds, answers, scores, charges.

Reads a `Chain`; gives one line a step, or raises ChainBrokenError. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter as Count
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import msgspec

from coordinator.streams.audit.facts import Asked, Chain, Contracts, Seen, broken
from coordinator.streams.audit.whole_rounds import any_answer_scores, check_carried, round_again
from coordinator.streams.contract import CrunchContract, NoScore
from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.contract.trial_answers import answers_to_try, recorded
from coordinator.streams.events import RoundScoredData, Terms
from coordinator.streams.log.finite import is_number
from coordinator.streams.scores.scorer import ANSWERS_TRIED
from coordinator.streams.scores.units import to_units

PERCENTILES = {"worst": 1e-9, "worst_percentile": 10, "percentile": None}
"""Policies that charge a percentile of the round's scores; None: the one that the terms name."""


# --- feed and inputs ---------------------------------------------------------------------------------------


def _known(chain: Chain, subject: str, terms: Terms, offset: int) -> list[Seen]:
    """The subject's records of the contract's feed as they were known at an offset: of each its latest revision."""
    latest: dict[int, Seen] = {}
    for one in chain.records[subject]:
        data = one.event.data
        if one.offset > offset or (data.source, data.kind, data.granularity) != (
            terms.feed.source,
            terms.feed.kind,
            terms.feed.granularity,
        ):
            continue
        before = latest.get(data.ts_event)
        if before is None or before.event.data.revision < data.revision:
            latest[data.ts_event] = one
    return sorted(latest.values(), key=lambda one: one.at)


def check_feed(chain: Chain, rounds: Sequence[Asked], contracts: Contracts) -> str:
    """Every truth again from the records of its window, by the contract."""
    truths: set[tuple[str, int]] = set()
    used: set[str] = set()
    latest: dict[str, list[Seen]] = {}
    revised = {
        subject
        for subject, seen in chain.records.items()
        if any(one.event.data.revision or one.event.data.backfilled for one in seen)
    }
    for one, _, horizon in rounds:
        if (one.input_id, horizon) in truths:
            continue
        truths.add((one.input_id, horizon))
        found = chain.resolved.get((one.input_id, horizon))
        if found is None:
            broken("feed", f"input {one.input_id} has no truth for {horizon} s, though its period is closed")
        event, offset = found
        if event.data.truth is None:
            continue
        terms = chain.terms.at(one.point)
        if one.subject in revised:
            seen = _known(chain, one.subject, terms, offset)
        else:  # no record has a second form: what is known never changes, so it is laid out once
            seen = latest.setdefault(one.subject, _known(chain, one.subject, terms, 1 << 62))
        window = _window(seen, one.point, event.data.resolvable_at)
        contract = contracts(one.contract_hash)
        typed = [
            contract.raw_input_type.model_validate(
                msgspec.structs.asdict(record.event.data) | {"at": record.at}
            )
            for record in window
        ]
        used |= {record.event.id for record in window}
        truth = contract.ground_truth_type.model_validate(contract.resolve_ground_truth(typed))
        again = truth.model_dump(mode="json", by_alias=True)
        if again != event.data.truth:
            broken(
                "feed",
                f"input {one.input_id}, {horizon} s: recorded is {event.data.truth}, the records give {again}",
            )
    return f"{len(used)} records, {len(truths)} truths computed again"


def _window(seen: Sequence[Seen], point: int, end: int) -> list[Seen]:
    """The last record with at <= point, then all up to `end`."""
    first = bisect_right(seen, point, key=lambda one: one.at) - 1
    last = bisect_right(seen, end, key=lambda one: one.at)
    return list(seen[max(first, 0) : last])


def check_inputs(chain: Chain, rounds: Sequence[Asked], contracts: Contracts) -> str:
    """The step; see the module."""
    inputs = {one.input_id: one for one, _, _ in rounds}
    for one in inputs.values():
        terms = chain.terms.at(one.point)
        contract = contracts(one.contract_hash)
        if one.subject not in terms.subjects:
            broken("input", f"{one.input_id} is about {one.subject}, which no scope asks for")
        try:
            contract.input_type.model_validate(msgspec.json.decode(one.payload))
        except ValueError as error:
            broken("input", f"{one.input_id} is not of the contract's input type: {error}")
    return f"{len(inputs)} inputs, the last at {max(one.point for one in inputs.values())} ms"


# --- predictions and scores --------------------------------------------------------------------------------


def check_predictions(chain: Chain, rounds: Sequence[Asked]) -> str:
    """Each model on the roster has exactly one answer, or a reason for none, in every scope."""
    kinds: Count[str] = Count()
    models: set[str] = set()
    for one, scope_key, _ in rounds:
        opened = chain.rosters.get(one.input_id)
        if opened is None:
            broken("predictions", f"input {one.input_id} was never asked of any model")
        crunchers = {entry.model_id: entry.cruncher_id for entry in opened.data.roster}
        closed = chain.closed.get((one.input_id, scope_key))
        for entry in () if closed is None else closed.entries():
            if entry.cruncher_id != crunchers.get(entry.model_id, entry.cruncher_id):
                broken(
                    "scores",
                    f"input {one.input_id}: model {entry.model_id} is closed as {entry.cruncher_id}'s",
                )
        roster = Count(entry.model_id for entry in opened.data.roster)
        answers = chain.answers_of(one.input_id, scope_key)
        got = Count(answer.model_id for answer in answers)
        if got != roster:
            odd = sorted((got - roster) | (roster - got))
            broken(
                "predictions", f"input {one.input_id}, scope {scope_key}: not one answer of model {odd[0]}"
            )
        kinds.update(answer.status for answer in answers)
        models |= roster.keys()
    absent, failed = kinds["ABSENT"], kinds["FAILED"]
    return f"{kinds['PENDING']} answers of {len(models)} models, {absent} absent, {failed} failed"


def score_again(
    contract: CrunchContract, output: Any, truth: dict[str, Any]
) -> dict[str, int] | NoScore | None:
    """Units per numeric field, by the contract; None where it says that the answer deserves no score."""
    given = contract.score_prediction(
        contract.output_type.model_validate(output), contract.ground_truth_type.model_validate(truth)
    )
    if isinstance(given, NoScore):
        return given
    fields = contract.score_type.model_validate(given).__dict__
    if not fields.get("success", True):
        return None
    return {
        name: to_units(value, contract.score_decimals) for name, value in fields.items() if is_number(value)
    }


def check_scores(chain: Chain, rounds: Sequence[Asked], contracts: Contracts) -> str:
    """The step; see the module."""
    equal = 0
    for one, scope_key, horizon in rounds:
        closed = chain.closed.get((one.input_id, scope_key))
        if closed is None:
            broken("scores", f"the round {one.input_id}, scope {scope_key}, was never closed")
        contract, terms = contracts(one.contract_hash), chain.terms.at(one.point)
        truth = chain.resolved[one.input_id, horizon][0].data.truth
        entries = {entry.model_id: entry for entry in closed.entries()}
        values: list[int] = []
        faults: dict[str, str] = {}
        """Model -> whose fault it is said to be that its answer has no score."""
        refused: set[str] = set()
        """The models whose answer the contract itself turned down."""
        no_score: set[str] = set()
        """The models that have no score by nobody's fault, as the contract says."""
        answers = chain.answers_of(one.input_id, scope_key)
        whole = None
        if contract.score_round is not None:
            whole = round_again(chain, (one, scope_key, horizon), contract, answers, truth)
            refused |= whole.refused
            no_score |= whole.no_score
            check_carried(chain, (one, scope_key, horizon), whole)
        for answer in answers:
            place = f"input {one.input_id}, scope {scope_key}, model {answer.model_id}"
            entry = entries.pop(answer.model_id, None)
            if entry is None:
                broken("scores", f"{place}: it has no final status")
            key = (one.input_id, scope_key, answer.model_id)
            said = chain.scored.get(key)
            if answer.status != "PENDING":
                if said is not None or (entry.status, entry.fault) != (answer.status, answer.fault):
                    broken(
                        "scores",
                        f"{place}: closed as {entry.status}, but it is {answer.status} by {answer.fault}",
                    )
                continue
            if entry.status == "FAILED":
                if key not in chain.not_scored or said is not None:
                    broken("scores", f"{place}: FAILED without a reason")
                faults[answer.model_id] = str(entry.fault)
                if truth is None:
                    continue
            if whole is not None:
                again = whole.units.get(answer.model_id)
            else:
                again, without = _scored(contract, msgspec.json.decode(answer.output), truth)
                if without is not None:
                    (refused if without == "refused" else no_score).add(answer.model_id)
            if again != said or (said is not None) != (entry.status == "SCORED"):
                broken("scores", f"{place}: recorded are {said}, the contract gives {again}")
            if said is not None:
                equal += 1
                values.append(said[terms.value_field])
        if entries:
            broken(
                "scores",
                f"input {one.input_id}, scope {scope_key}: {min(entries)} was closed but never asked",
            )
        could = truth is not None and bool(faults) and not (whole is not None and whole.raised)
        if could and not values and whole is not None:
            could = any_answer_scores(chain, (one, scope_key, horizon), contract, answers, truth)
        elif could and not values and truth is not None:
            could = _scores_any(contract, truth)
        for model_id, fault in faults.items():
            # No truth is the node's fault. With one it is nobody's where the contract says so; the model's where the
            # contract turned its answer down, or could score another by that truth. Where it can score none, it is the
            # author's: the node answers for it.
            due = "model" if could or model_id in refused else "node"
            if truth is not None and model_id in no_score:
                due = "nobody"
            if fault != due:
                place = f"input {one.input_id}, scope {scope_key}, model {model_id}"
                broken("scores", f"{place}: no score by the fault of {fault}, but it is that of {due}")
        _check_charges(closed, values, terms, whole.costs if whole is not None else {})
    return f"{equal} scores computed again and equal, {len(rounds)} rounds closed"


def _scored(
    contract: CrunchContract, output: Any, truth: dict[str, Any] | None
) -> tuple[dict[str, int] | None, Literal["refused", "no score"] | None]:
    """(units, what the contract itself says of an answer without a score); no units where there is no score."""
    if truth is None:
        return None, None
    try:
        units = score_again(contract, output, truth)
    except AUTHORS_ERRORS:  # it must then have failed in the node as well
        return None, None
    if isinstance(units, NoScore):
        return None, "no score"
    if units is not None and contract.aggregation.value_field not in units:
        return None, None
    return units, "refused" if units is None else None


def _scores_any(contract: CrunchContract, truth: dict[str, Any]) -> bool:
    """Can the contract score any of the answers that are tried, by this truth?"""
    tried = answers_to_try(contract.output_type)[:ANSWERS_TRIED]
    return any(_scored(contract, recorded(answer), truth)[0] is not None for answer in tried)


def _check_charges(
    closed: RoundScoredData, values: Sequence[int], terms: Terms, costs: Mapping[str, int]
) -> None:
    """What silence costs: nothing, one score for all, the score at a percentile from the worse end (nearest rank), or
    what the contract gave for who was missing, or for whom it failed.
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
        if entry.charge_units != due:
            broken(
                "scores",
                f"input {closed.input_id}, model {entry.model_id}: charged {entry.charge_units}, due is {due}",
            )
