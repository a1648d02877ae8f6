"""Computes again the steps from the feed to the scores of one period: truths, rounds, answers, scores, charges.

Reads a `Chain`; each step returns a line of text, or raises ChainBrokenError. Pure.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import msgspec

from coordinator.streams.audit.differences import difference
from coordinator.streams.audit.facts import Asked, Chain, SeenRecord, broken
from coordinator.streams.audit.records import FeedRecords
from coordinator.streams.audit.whole_rounds import RoundAgain, any_answer_scores, check_carried, round_again
from coordinator.streams.contract import CrunchContract, NoScore
from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.contract.subjects import by_subject, typed_truth
from coordinator.streams.contract.trial_answers import answers_to_try, recorded
from coordinator.streams.events import AnswerEntry, RoundScoredData, ScoreEntry, Terms
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
                f"input {input_data.input_id}, {horizon} s: "
                + difference(event.data.truth, again, "the records give"),
            )
    return f"{len(used)} records, {len(truths)} truths computed again"


def raw_inputs(contract: CrunchContract, seen: Sequence[SeenRecord]) -> list[Any]:
    """The records as the contract's functions get them."""
    return [
        contract.raw_input_type.model_validate(msgspec.structs.asdict(record.event.data) | {"at": record.at})
        for record in seen
    ]


def truth_again(contract: CrunchContract, window: Sequence[SeenRecord]) -> dict[str, Any]:
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
    equal = sum(_ClosedRound(chain, asked, contracts).check() for asked in rounds)
    return f"{equal} scores computed again and equal, {len(rounds)} rounds closed"


class _ClosedRound:
    """A round of one scope: what is recorded of its answers beside what the contract makes of them again."""

    def __init__(self, chain: Chain, asked: Asked, contracts: Contracts) -> None:
        self.chain, self.asked = chain, asked
        self.input_data, self.scope_key, horizon = asked
        closed = chain.closed.get((self.input_data.input_id, self.scope_key))
        if closed is None:
            broken(
                "scores", f"the round {self.input_data.input_id}, scope {self.scope_key}, was never closed"
            )
        self.closed = closed
        self.contract = contracts(self.input_data.contract_hash)
        self.terms = chain.terms.at(self.input_data.point)
        self.truth = chain.truth_of(self.input_data.input_id, self.scope_key, horizon)
        self.answers = chain.answers_of(self.input_data.input_id, self.scope_key)
        self.whole: RoundAgain | None = None
        """What the contract makes of the round, if it scores rounds as a whole."""
        self.values: list[int] = []
        """The recorded scores, in units of the field that ranks."""
        self.faults: dict[str, str] = {}
        """Model -> whose fault it is, by the log, that its answer has no score."""
        self.refused: set[str] = set()
        """The models whose answer the contract refused."""
        self.no_score: set[str] = set()
        """The models that have no score by nobody's fault, as the contract says."""

    def check(self) -> int:
        """How many scores were computed again and are equal. Raises ChainBrokenError."""
        if self.contract.score_round is not None:
            self.whole = round_again(self.chain, self.asked, self.contract, self.answers, self.truth)
            self.refused |= self.whole.refused
            self.no_score |= self.whole.no_score
            check_carried(self.chain, self.asked, self.whole)
        entries = {entry.model_id: entry for entry in self.closed.entries()}
        for answer in self.answers:
            entry = entries.pop(answer.model_id, None)
            if entry is None:
                broken("scores", f"{self._place(answer.model_id)}: it has no final status")
            self._check_answer(answer, entry)
        if entries:
            broken(
                "scores",
                f"input {self.input_data.input_id}, scope {self.scope_key}: {min(entries)} was closed but never asked",
            )
        self._check_faults()
        costs = self.whole.costs if self.whole is not None else {}
        _check_charges(self.chain, self.closed, self.values, self.terms, costs)
        return len(self.values)

    def _place(self, model_id: str) -> str:
        return f"input {self.input_data.input_id}, scope {self.scope_key}, model {model_id}"

    def _check_answer(self, answer: AnswerEntry, entry: ScoreEntry) -> None:
        """Check how one answer ended: its status, and its score."""
        place = self._place(answer.model_id)
        key = (self.input_data.input_id, self.scope_key, answer.model_id)
        recorded_units = self.chain.scored.get(key)
        if answer.status != "PENDING":
            if recorded_units is not None or (entry.status, entry.fault) != (answer.status, answer.fault):
                broken(
                    "scores",
                    f"{place}: closed as {entry.status}, but it is {answer.status} by {answer.fault}",
                )
            return
        if entry.status == "FAILED":
            if key not in self.chain.not_scored or recorded_units is not None:
                broken("scores", f"{place}: FAILED without a reason")
            self.faults[answer.model_id] = str(entry.fault)
            if self.truth is None:
                return
        units_again = self._units_again(answer)
        if not self.chain.roundings.near(
            f"the score of {place}", recorded_units, units_again, answer.model_id
        ) or (recorded_units is not None) != (entry.status == "SCORED"):
            broken("scores", f"{place}: {difference(recorded_units, units_again, 'the contract gives')}")
        if recorded_units is not None:
            self.values.append(recorded_units[self.terms.value_field])

    def _units_again(self, answer: AnswerEntry) -> dict[str, int] | None:
        """What the contract gives for an answer. Notes an answer that it refuses, or has no score for yet."""
        if self.whole is not None:
            return self.whole.units.get(answer.model_id)
        units, without_score = _scored(
            self.contract, self.scope_key, msgspec.json.decode(answer.output), self.truth
        )
        if without_score is not None:
            (self.refused if without_score == "refused" else self.no_score).add(answer.model_id)
        return units

    def _check_faults(self) -> None:
        """Check whose fault each missing score is.

        A missing truth is the node's fault. With a truth, it is nobody's fault if the contract says so, and the model's
        if the contract refused its answer or can score another answer. If it can score none, the author of the contract
        is at fault, and the node answers for it.
        """
        if not self.faults:
            return
        can_score = self._can_score()
        for model_id, fault in self.faults.items():
            due = "model" if can_score or model_id in self.refused else "node"
            if self.truth is not None and model_id in self.no_score:
                due = "nobody"
            if fault != due:
                broken(
                    "scores",
                    f"{self._place(model_id)}: no score by the fault of {fault}, but it is that of {due}",
                )

    def _can_score(self) -> bool:
        """Whether the contract can score an answer with this truth: one of the round, or a sample of its type."""
        if self.truth is None or (self.whole is not None and self.whole.raised):
            return False
        if self.values:
            return True
        if self.whole is not None:
            return any_answer_scores(self.chain, self.asked, self.contract, self.answers, self.truth)
        return _scores_any(self.contract, self.scope_key, self.truth)


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
