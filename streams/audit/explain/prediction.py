"""The life of one prediction: the rules, what the model was shown, the round, its answer, the truth, the score.

Takes the recorded events of the prediction with their positions, and the contract; gives an `Explanation`. Each number
is computed again by the function that the node uses (`encode_model_input`, `Scorer`, `charge_of`, and the audit's
`truth_again`), so that a step can say whether it agrees with the record. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from coordinator.streams.audit.differences import outcome_text
from coordinator.streams.audit.explain.carried_state import carried_step
from coordinator.streams.audit.explain.figure_facts import PredictionFacts
from coordinator.streams.audit.explain.question import (
    QuestionFacts,
    asked_step,
    counted_step,
    is_counted,
    score_step,
    scored_again,
    stakes_and_state,
    truth_step,
)
from coordinator.streams.audit.explain.staked import payout_steps
from coordinator.streams.audit.explain.steps import (
    Explanation,
    Step,
    Value,
    explanation,
    fact,
    moment,
    record_values,
    rules_step,
    time,
    units,
)
from coordinator.streams.audit.explain.truth import counted_in, truth_of_window
from coordinator.streams.audit.explain.whole_round import RecordedScope, RoundAgain, round_again
from coordinator.streams.audit.scores import raw_inputs
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS, in_words
from coordinator.streams.contract.subjects import typed_truth
from coordinator.streams.events import (
    RoundScoredData,
    ScoreEntry,
)
from coordinator.streams.inputs.model_input import encode_model_input
from coordinator.streams.log.ids import asking_suffix, prediction_id
from coordinator.streams.scores.charges import charge_of
from coordinator.streams.scores.scorer import Scorer
from coordinator.streams.scores.single_answers import score_one


def explain_prediction(facts: PredictionFacts) -> Explanation:
    """The explanation of one prediction, up to its newest recorded step."""
    data, scope = facts.input, facts.scope
    the_id = prediction_id(facts.opened.event.data.input_id, facts.scope_key, facts.model_id)
    title = (
        f"What model {facts.model_id} predicted at {moment(data.point)} for {data.subject}, "
        f"{scope.horizon_seconds} s ahead, and what it was worth"
    )
    if data.question is not None:
        title = (
            f"What model {facts.model_id} answered to question {data.question.question_id} of round "
            f"{data.question.round_id}, and what it was worth"
        )
    return explanation("prediction", the_id, title, _steps(facts), hidden_until_ms=facts.hidden_until_ms)


def _steps(facts: PredictionFacts) -> Iterator[Step]:
    yield rules_step(facts.input.contract_hash, facts.terms, facts.configured)
    if facts.question is not None:
        yield asked_step(facts.received, facts.question, facts.contract_fault)
    else:
        yield _shown(facts)
    yield _round(facts)
    yield _answer(facts)
    if facts.hidden_until_ms is not None:
        return
    if facts.question is not None:
        yield from _of_question(facts, facts.question)
        return
    if facts.resolved is not None:
        yield truth_of_window(
            facts.resolved, facts.input.subject, facts.window, facts.contract, facts.contract_fault
        )
    if facts.scored is not None:
        yield from _scored(facts)
        if facts.snapshot_period is not None:
            yield counted_in(facts.model_id, *facts.snapshot_period, facts.scope.resolvable_at)


def _of_question(facts: PredictionFacts, question: QuestionFacts) -> Iterator[Step]:
    """From the answers of all rounds to the score that counts."""
    again, fault = None, facts.contract_fault
    if facts.contract is not None and question.scored:
        try:
            again = scored_again(question, facts.contract)
        except AUTHORS_ERRORS as error:
            fault = f"cannot be computed again: {in_words(error)}"
    suffix = asking_suffix(facts.opened.event.data.input_id)
    yield counted_step(question, suffix, facts.model_id, again)
    if question.resolved:
        yield truth_step(question, facts.contract, facts.contract_fault)
    if not question.scored or not is_counted(question, suffix, facts.model_id):
        return  # another answer of the model took its place, and has the score
    yield score_step(question, facts.model_id, facts.decimals, again, fault)
    yield from stakes_and_state(question, facts.model_id, again)
    at = question.scored[-1].event.data.resolvable_at
    yield counted_in(facts.model_id, *question.told.snapshot_period(at), at)


def _shown(facts: PredictionFacts) -> Step:
    data = facts.input
    inputs: list[Value] = []
    left_out = 0
    for seen in facts.shown.values():
        values, more = record_values(seen)
        inputs += values
        left_out += more
    agrees, note = None, facts.contract_fault
    if facts.contract is not None:
        agrees, note = _payload_agrees(facts, facts.contract)
    return Step(
        name="input",
        rule="build_input of the contract, over the subject's newest records with at <= point that were known then",
        sources=[facts.received.source],
        inputs=inputs,
        left_out=left_out,
        result=[time("point", data.point), fact("payload", bytes(data.payload).decode())],
        agrees=agrees,
        note=note,
    )


def _payload_agrees(facts: PredictionFacts, contract: CrunchContract) -> tuple[bool | None, str]:
    payloads: dict[str, Any] = {}
    for subject, seen in facts.shown.items():
        try:
            payload, fault = encode_model_input(contract, raw_inputs(contract, seen))
        except AUTHORS_ERRORS as error:
            payload, fault = b"", in_words(error)
        if fault:
            return None, f"not computed again: {fault}"
        payloads[subject] = msgspec.json.decode(payload)
    # An input that is asked together is about several subjects, and has the payload of each.
    again = payloads.get(facts.input.subject, payloads)
    agrees = again == msgspec.json.decode(facts.input.payload)
    return agrees, "" if agrees else f"the records give {msgspec.json.encode(again).decode()[:500]}"


def _round(facts: PredictionFacts) -> Step:
    data = facts.opened.event.data
    place = next(i for i, asked in enumerate(data.roster) if asked.model_id == facts.model_id)
    asked = data.roster[place]
    longer = data.history is not None and place in data.history.models
    return Step(
        name="round",
        rule="Every model on the roster is given the same input, then asked for every scope; the roster is what "
        "`models` told up to `models_seq`",
        sources=[facts.opened.source],
        result=[
            time("opened_at", facts.opened.event.at),
            time("deadline_at", facts.input.deadline_at),
            fact("models_asked", len(data.roster)),
            fact("deployment_id", asked.deployment_id),
            fact("cruncher_id", asked.cruncher_id),
            fact("models_seq", data.models_seq),
        ],
        note="it was given the longer first tick of a model that is new" if longer else "",
    )


def _answer(facts: PredictionFacts) -> Step:
    answer, hidden = facts.answer, facts.hidden_until_ms
    result = [fact("status", answer.status), time("recorded_at", facts.answered.event.at)]
    if hidden is None and answer.status == "PENDING":
        result.append(fact("output", answer.text))
    if answer.status != "PENDING":
        result += [fact("reason", answer.reason), fact("fault", answer.fault or "")]
    result += [fact("exec_time_us", answer.exec_time_us), fact("deployment_id", answer.deployment_id)]
    return Step(
        name="answer",
        rule="What the model answered in time, as it is recorded; or why there is no answer, and by whose fault",
        sources=[facts.answered.source],
        result=result,
        note="" if hidden is None else f"hidden, at least until {moment(hidden)}: others could still copy it",
    )


def _scored(facts: PredictionFacts) -> Iterator[Step]:
    """The score, and the state that the round began with and left where it is scored as a whole."""
    if facts.contract is None or facts.contract.score_round is None:
        yield _score(facts)
        if (state := carried_step(facts.carried, facts.model_id, None)) is not None:
            yield state
        return
    again, fault = None, "not computed again: the log tells no truth or no terms of it"
    if facts.resolved is not None and facts.terms is not None:
        try:
            again = round_again(
                RecordedScope(
                    facts.input,
                    facts.scope,
                    facts.parts,
                    facts.opened.event.data.roster,
                    facts.resolved.event,
                ),
                facts.contract,
                facts.terms,
                facts.carried.before[0] if facts.carried.before else {},
            )
        except AUTHORS_ERRORS as error:
            fault = f"cannot be computed again: {in_words(error)}"
    score = _whole_score(facts, again, fault)
    yield score
    if again is not None:
        yield from payout_steps(again.payouts, facts.model_id, agrees=score.agrees)
    state = carried_step(facts.carried, facts.model_id, again.events if again is not None else None)
    if state is not None:
        yield state


def _score(facts: PredictionFacts) -> Step:
    assert facts.scored is not None  # noqa: S101 - the caller has looked
    data = facts.scored.event.data
    entries = {entry.model_id: entry for entry in data.entries()}
    entry, decimals = entries[facts.model_id], facts.decimals
    truth = facts.resolved.event.data.truth if facts.resolved else None
    result = _recorded_score(facts, entry)
    again: ScoreEntry | None = None
    note = facts.contract_fault
    if facts.contract is not None:
        again = _score_again(facts, facts.contract, truth)
    inputs = [] if truth is None else [fact("truth", truth)]
    if facts.answer.status == "PENDING":
        inputs.insert(0, fact("output", facts.answer.text))
    agrees = None if again is None else (again.status, again.units) == (entry.status, entry.units)
    charge, charge_agrees = _charge(facts, data, entry, whole=False)
    if charge_agrees is not None:
        agrees = charge_agrees if agrees is None else agrees and charge_agrees
    if again is not None and not agrees:
        note = f"computed again: {outcome_text(again)}"
    return Step(
        name="score",
        rule=f"score_prediction of the contract gives numbers; each becomes a whole number of units of "
        f"10**-{decimals}, rounded half-even from its shortest decimal form",
        sources=[facts.scored.source],
        inputs=inputs,
        result=[*result, *charge],
        agrees=agrees,
        note=note,
    )


def _whole_score(facts: PredictionFacts, again: RoundAgain | None, fault: str) -> Step:
    """The score of a round that is scored as a whole: all its answers go in, and the charge comes out with it."""
    assert facts.scored is not None  # noqa: S101 - the caller has looked
    data = facts.scored.event.data
    entry = next(entry for entry in data.entries() if entry.model_id == facts.model_id)
    charge, _ = _charge(facts, data, entry, whole=True)
    agrees, note = _whole_agrees(facts, again, entry) if again is not None else (None, fault)
    inputs = [fact("answers_of_the_round", sum(len(part.models) for part in facts.parts))]
    truth = facts.resolved.event.data.truth if facts.resolved else None
    if truth is not None:
        inputs.append(fact("truth", truth))
    if facts.answer.status == "PENDING":
        inputs.insert(0, fact("output", facts.answer.text))
    return Step(
        name="score",
        rule="score_round of the contract scores all answers of the round together; each number becomes a whole "
        f"number of units of 10**-{facts.decimals}, rounded half-even from its shortest decimal form",
        sources=[facts.scored.source],
        inputs=inputs,
        result=[*_recorded_score(facts, entry), *charge],
        agrees=agrees,
        note=note,
    )


def _recorded_score(facts: PredictionFacts, entry: ScoreEntry) -> list[Value]:
    result = [fact("status", entry.status)]
    result += [units(name, number, facts.decimals) for name, number in sorted(entry.units.items())]
    if entry.reason or entry.fault:
        result += [fact("reason", entry.reason or facts.answer.reason), fact("fault", entry.fault or "")]
    return result


def _whole_agrees(facts: PredictionFacts, again: RoundAgain, entry: ScoreEntry) -> tuple[bool | None, str]:
    redone = again.entries.get(facts.model_id, entry)
    if (redone.status, redone.units, redone.charge_units) == (
        entry.status,
        entry.units,
        entry.charge_units,
    ):
        return True, ""
    result = outcome_text(redone)
    if facts.carried.fault:
        return None, (
            f"it may rest on what earlier rounds carried, without which it is {result}; `coordinator verify-e2e` makes "
            "it again with that"
        )
    return False, f"computed again: {result}"


def _score_again(
    facts: PredictionFacts, contract: CrunchContract, truth: dict[str, Any] | None
) -> ScoreEntry:
    reason = ""
    typed = None
    if truth is None:
        reason = (
            f"no ground truth: {facts.resolved.event.data.reason}" if facts.resolved else "no ground truth"
        )
    else:
        typed = typed_truth(contract, facts.scope_key, truth)
    return score_one(facts.read_answer or facts.answer, typed, reason, Scorer(contract))


def _charge(
    facts: PredictionFacts, data: RoundScoredData, entry: ScoreEntry, *, whole: bool
) -> tuple[list[Value], bool | None]:
    """(the charge for a missing score; whether the policy gives the same charge, None if that is not computed)."""
    if entry.status == "SCORED" or facts.terms is None:
        return [], None
    policy = facts.terms.absence_policy
    values = [
        scored.units[facts.terms.value_field]
        for scored in data.entries()
        if scored.status == "SCORED" and facts.terms.value_field in scored.units
    ]
    recorded = [fact("absence_policy", policy), units("charge", entry.charge_units, facts.decimals)]
    if whole or policy == "scored":
        return recorded, None
    # Only a model that is at fault itself is charged.
    due = charge_of(values, facts.terms) if entry.fault == "model" else None
    return recorded, entry.charge_units == due
