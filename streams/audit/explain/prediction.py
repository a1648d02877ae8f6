"""The life of one prediction: the rules, what the model was shown, the round, its answer, the truth, the score.

Takes the recorded events of the prediction with their positions, and the contract; gives an `Explanation`. Each number
is computed again by the function that the node uses (`encode_model_input`, `Scorer`, `charge_of`, and the audit's
`truth_again`), so that a step can say whether it agrees with the record. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from coordinator.streams.audit.explain.steps import (
    Explanation,
    Placed,
    Source,
    Step,
    Value,
    explanation,
    fact,
    moment,
    record_values,
    time,
    units,
)
from coordinator.streams.audit.facts import Seen
from coordinator.streams.audit.scores import raw_inputs, truth_again
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.contract.subjects import typed_truth
from coordinator.streams.events import (
    AnswerEntry,
    InputReceived,
    InputReceivedData,
    InputResolved,
    InputScope,
    RoundOpened,
    RoundScored,
    RoundScoredData,
    ScopeAnswered,
    ScoreEntry,
    Terms,
)
from coordinator.streams.inputs.model_input import encode_model_input
from coordinator.streams.log.ids import prediction_id, snapshot_id
from coordinator.streams.scores.charges import charge_of
from coordinator.streams.scores.scorer import Scorer
from coordinator.streams.scores.stage import score_one


class PredictionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the log holds of one prediction. The caller leaves out what is still hidden.

    `hidden_until_ms` is set while the answer is hidden; `answer` then has no output. `shown` and `window` are the feed
    records of the input and of the truth, by subject and in the order of `at`.
    """

    scope_key: str
    model_id: str
    received: Placed[InputReceived]
    opened: Placed[RoundOpened]
    answered: Placed[ScopeAnswered]
    answer: AnswerEntry
    shown: Mapping[str, Sequence[Seen]]
    terms: Terms | None = None
    configured: Source | None = None
    resolved: Placed[InputResolved] | None = None
    window: Mapping[str, Sequence[Seen]] = {}
    scored: Placed[RoundScored] | None = None
    snapshot_period: tuple[int, int] | None = None
    hidden_until_ms: int | None = None
    contract: CrunchContract | None = None
    contract_fault: str = ""

    @property
    def input(self) -> InputReceivedData:
        """What was asked."""
        return self.received.event.data

    @property
    def scope(self) -> InputScope:
        """The scope that the model answered."""
        return next(scope for scope in self.input.scopes if scope.scope_key == self.scope_key)

    @property
    def decimals(self) -> int:
        """How many decimals its score has."""
        return self.terms.score_decimals if self.terms else 9


def explain_prediction(facts: PredictionFacts) -> Explanation:
    """The explanation of one prediction, up to its newest recorded step."""
    data, scope = facts.input, facts.scope
    the_id = prediction_id(data.input_id, facts.scope_key, facts.model_id)
    title = (
        f"What model {facts.model_id} predicted at {moment(data.point)} for {data.subject}, "
        f"{scope.horizon_seconds} s ahead, and what it was worth"
    )
    return explanation("prediction", the_id, title, _steps(facts), hidden_until_ms=facts.hidden_until_ms)


def _steps(facts: PredictionFacts) -> Iterator[Step]:
    yield rules_step(facts.input.contract_hash, facts.terms, facts.configured)
    yield _shown(facts)
    yield _round(facts)
    yield _answer(facts)
    if facts.hidden_until_ms is not None:
        return
    if facts.resolved is not None:
        yield _truth(facts)
    if facts.scored is not None:
        yield _score(facts)
        if facts.snapshot_period is not None:
            yield _goes_into(facts, *facts.snapshot_period)


def rules_step(contract_hash: str, terms: Terms | None, source: Source | None) -> Step:
    """The step that names the rules of a figure."""
    if terms is None:
        return Step(
            name="rules",
            rule="The contract that the input names",
            result=[fact("contract_hash", contract_hash)],
            note="its terms are not told in this topic yet",
        )
    return Step(
        name="rules",
        rule="The terms of this contract hold for rounds asked from `effective_from` on",
        sources=[source] if source else [],
        result=[
            fact("contract_hash", contract_hash),
            time("effective_from", terms.effective_from),
            fact("feed", f"{terms.feed.source} {terms.feed.kind} {terms.feed.granularity}"),
            fact("score_decimals", terms.score_decimals),
            fact("value_field", terms.value_field),
            fact("deadline_ms", terms.deadline_ms),
            fact("absence_policy", terms.absence_policy),
            fact("ranking_key", terms.ranking_key),
            fact("checkpoint_key", terms.checkpoint_key),
            fact("ranking_direction", terms.ranking_direction),
        ],
    )


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
            payload, fault = b"", f"{type(error).__name__}: {error}"
        if fault:
            return None, f"not made again: {fault}"
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
        result.append(fact("output", bytes(answer.output).decode()))
    if answer.status != "PENDING":
        result += [fact("reason", answer.reason), fact("fault", answer.fault or "")]
    result += [fact("exec_time_us", answer.exec_time_us), fact("deployment_id", answer.deployment_id)]
    return Step(
        name="answer",
        rule="What the model answered in time, as it is recorded; or why there is no answer, and by whose fault",
        sources=[facts.answered.source],
        result=result,
        note=""
        if hidden is None
        else f"hidden until the horizon has passed ({moment(hidden)}): others could still copy it",
    )


def _truth(facts: PredictionFacts) -> Step:
    assert facts.resolved is not None  # noqa: S101 - the caller has looked
    data = facts.resolved.event.data
    inputs: list[Value] = []
    left_out = 0
    for seen in facts.window.values():
        values, more = record_values(seen)
        inputs += values
        left_out += more
    result = [fact("truth", data.truth), time("resolvable_at", data.resolvable_at)]
    if data.reason:
        result.append(fact("reason", data.reason))
    agrees, note = None, facts.contract_fault
    if facts.contract is not None and data.truth is not None:
        try:
            truths = {subject: truth_again(facts.contract, seen) for subject, seen in facts.window.items()}
            again = truths.get(facts.input.subject, truths)
            agrees = again == data.truth
            note = "" if agrees else f"the records give {msgspec.json.encode(again).decode()[:500]}"
        except AUTHORS_ERRORS as error:
            agrees, note = False, f"cannot be made again: {type(error).__name__}: {error}"
    return Step(
        name="truth",
        rule="resolve_ground_truth of the contract, over the last record with at <= point and all with "
        "point < at <= point + horizon, as they were known then",
        sources=[facts.resolved.source],
        inputs=inputs,
        left_out=left_out,
        result=result,
        agrees=agrees,
        note=note,
    )


def _score(facts: PredictionFacts) -> Step:
    assert facts.scored is not None  # noqa: S101 - the caller has looked
    data = facts.scored.event.data
    entries = {entry.model_id: entry for entry in data.entries()}
    entry, decimals = entries[facts.model_id], facts.decimals
    truth = facts.resolved.event.data.truth if facts.resolved else None
    result = [fact("status", entry.status)]
    result += [units(name, number, decimals) for name, number in sorted(entry.units.items())]
    if entry.reason or entry.fault:
        result += [fact("reason", entry.reason or facts.answer.reason), fact("fault", entry.fault or "")]
    again: ScoreEntry | None = None
    note = facts.contract_fault
    whole = facts.contract is not None and facts.contract.score_round is not None
    if whole:
        note = "the contract scores the round as a whole, with what it carries; `coordinator verify-e2e` makes it again"
    elif facts.contract is not None:
        again = _score_again(facts, facts.contract, truth)
    inputs = [] if truth is None else [fact("truth", truth)]
    if facts.answer.status == "PENDING":
        inputs.insert(0, fact("output", bytes(facts.answer.output).decode()))
    agrees = None if again is None else (again.status, again.units) == (entry.status, entry.units)
    charge, charge_agrees = _charge(facts, data, entry, whole=whole)
    if charge_agrees is not None:
        agrees = charge_agrees if agrees is None else agrees and charge_agrees
    if again is not None and not agrees:
        note = f"made again: {again.status} {again.units} {again.reason}".strip()
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
    return score_one(facts.answer, typed, reason, Scorer(contract))


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


def _goes_into(facts: PredictionFacts, start: int, end: int) -> Step:
    return Step(
        name="counted in",
        rule="A score and a charge are added up in the snapshot period that its horizon ends in",
        inputs=[time("resolvable_at", facts.scope.resolvable_at)],
        result=[fact("snapshot_id", snapshot_id(facts.model_id, start, end)), time("period_start", start)],
    )
