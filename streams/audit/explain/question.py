"""The life of an answer to a posted question: what was posted, which answers count, the truth, the score.

Takes the recorded events of the question with their positions, and the contract; gives steps of an `Explanation`. A
question may be asked several times, and answers may be handed in: all of its rounds become one score, again with each
corrected truth. So the score is computed again by the stage of scores itself, over the events of this question alone.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from coordinator.streams.audit.differences import outcome_text
from coordinator.streams.audit.explain.carried_state import NOTHING_CARRIED, CarriedFacts, carried_step
from coordinator.streams.audit.explain.rescoring import AnsweredRound, InputHistory, decided_again
from coordinator.streams.audit.explain.staked import payout_steps, stake_step
from coordinator.streams.audit.explain.steps import Placed, Step, Value, fact, time, units
from coordinator.streams.audit.facts import SeenRecord
from coordinator.streams.audit.scores import truth_again
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS, in_words
from coordinator.streams.contract.stake_payout import StakePayout
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import (
    AnswersClosed,
    AnyEvent,
    InputClosed,
    InputReceived,
    InputResolved,
    QuestionPosted,
    QuestionResolved,
    QuestionResolvedData,
    QuestionVoided,
    RoundRescored,
    RoundScored,
    ScoreEntry,
    StakesPosted,
)
from coordinator.streams.inputs.question_asking import shown, truth_of_post
from coordinator.streams.inputs.questions import question_of

Scored = RoundScored | RoundRescored
OUTCOMES = {
    "last": "the last valid answer of each model before the close",
    "mean": "the mean of a model's valid answers, each weighted by the time for which it stood",
    "history": "all valid answers of a model, with their times",
}


class QuestionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the log holds of a posted question. The caller leaves out what is still hidden.

    `first` is the asking that stands for it. `posted` are its posts, `outcomes` what was posted of its truth, in order;
    `resolved` and `scored` come once for each truth that was taken. `rounds` are all of its rounds, in the order of
    opening.
    """

    first: Placed[InputReceived]
    posted: Sequence[Placed[QuestionPosted]]
    told: TermsInForce
    rounds: Sequence[AnsweredRound] = ()
    closed: Placed[InputClosed] | None = None
    answers_closed: Placed[AnswersClosed] | None = None
    outcomes: Sequence[Placed[QuestionResolved] | Placed[QuestionVoided]] = ()
    resolved: Sequence[Placed[InputResolved]] = ()
    scored: Sequence[Placed[RoundScored] | Placed[RoundRescored]] = ()
    window: Sequence[SeenRecord] = ()
    """The feed's records that the truth is made of, where the feed resolves the question."""
    stakes: Placed[StakesPosted] | None = None
    """The table of stakes that was posted last before the question closed."""
    carried: CarriedFacts = NOTHING_CARRIED

    @property
    def carries(self) -> bool:
        """Whether the score may rest on a state of earlier rounds that is not to be had here."""
        return bool(self.carried.fault)


class ScoredAgain(NamedTuple):
    """The newest score of a question, computed again; the events of all its truths, and what stakes won by the
    newest.
    """

    score: Scored
    events: list[AnyEvent]
    payouts: list[StakePayout]


def asked_step(received: Placed[InputReceived], facts: QuestionFacts, contract_fault: str) -> Step:
    """What the model was shown, and the post that says so."""
    data = received.event.data
    asked = data.question
    revision = asked.revision if asked is not None else 0
    post = next((post for post in facts.posted if post.event.data.revision == revision), None)
    agrees, note = None, contract_fault
    if post is not None:
        again = shown(question_of(post.event.data, post.event.at, None))
        agrees = msgspec.json.decode(again) == msgspec.json.decode(data.payload)
        note = "" if agrees else f"the post gives {bytes(again).decode()[:500]}"
    result: list[Value] = [time("asked_at", data.point), fact("payload", bytes(data.payload).decode())]
    if asked is not None:
        result += [
            time("opens_at", asked.opens_at),
            time("closes_at", asked.closes_at),
            fact("asking", asked.asking),
            fact("whom", asked.whom),
            fact("revision", revision),
        ]
    return Step(
        name="input",
        rule="The question as it was posted last before it was asked, with its names and times",
        sources=[received.source, *([post.source] if post is not None else [])],
        result=result,
        agrees=agrees,
        note=note,
    )


def counted_step(facts: QuestionFacts, suffix: str, model_id: str, again: ScoredAgain | None) -> Step:
    """Which of the model's answers counts, of all rounds of the question."""
    terms = facts.told.at(facts.first.event.data.point).questions
    inputs: list[Value] = []
    for the_round in facts.rounds:
        answer = the_round.answer_of(model_id)
        if answer is not None:
            entry, part = answer
            text = (
                bytes(entry.output).decode()
                if entry.status == "PENDING"
                else f"{entry.status}: {entry.reason}"
            )
            inputs.append(fact(f"round {the_round.suffix or '~1'}", text, source=part.source))
    result: list[Value] = []
    agrees = None
    if facts.scored:
        data = facts.scored[-1].event.data
        counts = data.rounds[data.models.index(model_id)] if data.rounds else ""
        place = data.models.index(model_id)
        result = [
            fact("counts_in_round", counts or "~1"),
            fact("replaced_in_rounds", [name or "~1" for name, of in data.replaced.items() if place in of]),
            fact("merged_from_rounds", [name or "~1" for name, of in data.merged.items() if place in of]),
        ]
        if again is not None:
            computed = again.score.data
            agrees = (computed.rounds, computed.replaced, computed.merged) == (
                data.rounds,
                data.replaced,
                data.merged,
            )
    closing = [facts.closed.source] if facts.closed is not None else []
    return Step(
        name="answers that count",
        rule=f"Of all rounds of the question counts {OUTCOMES[terms.counts if terms else 'last']}; this prediction is "
        f"of round {suffix or '~1'}",
        sources=[*closing, *([facts.answers_closed.source] if facts.answers_closed is not None else [])],
        inputs=inputs,
        result=result,
        agrees=agrees,
    )


def is_counted(facts: QuestionFacts, suffix: str, model_id: str) -> bool:
    """Whether the model's answer in this round is scored, alone or with others. The question is scored."""
    data = facts.scored[-1].event.data
    place = data.models.index(model_id)
    return suffix == (data.rounds[place] if data.rounds else "") or place in data.merged.get(suffix, ())


def truth_step(facts: QuestionFacts, contract: CrunchContract | None, contract_fault: str) -> Step:
    """The newest truth, and those that it corrects."""
    newest = facts.resolved[-1].event.data
    result = [fact("truth", newest.truth), time("resolvable_at", newest.resolvable_at)]
    if newest.reason:
        result.append(fact("reason", newest.reason))
    if newest.revision:
        result.append(fact("revision", newest.revision))
    asked = facts.first.event.data.question
    by_feed = asked is not None and asked.resolves_by and not facts.outcomes
    agrees, note = None, contract_fault
    inputs: list[Value] = [
        fact(
            f"truth before it, revision {placed.event.data.revision}",
            placed.event.data.truth,
            source=placed.source,
        )
        for placed in facts.resolved[:-1]
    ]
    if by_feed:
        inputs += [fact(seen.event.id, seen.event.data.values) for seen in facts.window]
    elif facts.outcomes:
        last = facts.outcomes[-1]
        posted = last.event.data
        inputs.append(
            fact(
                "posted",
                bytes(posted.truth).decode() if isinstance(posted, QuestionResolvedData) else posted.reason,
                source=last.source,
            )
        )
    if contract is not None and newest.truth is not None:
        agrees, note = _truth_agrees(facts, contract, by_feed=bool(by_feed))
    return Step(
        name="truth",
        rule="resolve_ground_truth of the contract over the feed's records up to when the question resolves"
        if by_feed
        else "What was posted last, as the contract's ground_truth_type",
        sources=[placed.source for placed in facts.resolved[-1:]],
        inputs=inputs,
        result=result,
        agrees=agrees,
        note=note,
    )


def _truth_agrees(
    facts: QuestionFacts, contract: CrunchContract, *, by_feed: bool
) -> tuple[bool | None, str]:
    """(whether the recorded truth is what the post, or the feed's records, give; the note of the step)."""
    recorded = facts.resolved[-1].event.data.truth
    try:
        if by_feed:
            again = truth_again(contract, facts.window)
        else:
            posted = [
                placed.event.data for placed in facts.outcomes if isinstance(placed.event, QuestionResolved)
            ]
            if not posted:
                return None, "not computed again: the log does not tell who resolved it"
            computed, fault = truth_of_post(contract, posted[-1].truth)
            if computed is None:
                return False, f"the post gives none: {fault}"
            again = computed
    except AUTHORS_ERRORS as error:
        return False, f"cannot be computed again: {in_words(error)}"
    return (
        again == recorded,
        "" if again == recorded else f"it gives {msgspec.json.encode(again).decode()[:500]}",
    )


def score_step(
    facts: QuestionFacts, model_id: str, decimals: int, again: ScoredAgain | None, fault: str
) -> Step:
    """The newest score, computed again by the stage of scores, and the ones by the truths that were corrected."""
    newest = facts.scored[-1]
    entry = _entry(newest.event, model_id)
    result: list[Value] = [fact("status", entry.status)]
    result += [units(name, number, decimals) for name, number in sorted(entry.units.items())]
    if entry.reason or entry.fault:
        result += [fact("reason", entry.reason), fact("fault", entry.fault or "")]
    if entry.charge_units is not None:
        result.append(units("charge", entry.charge_units, decimals))
    inputs = [
        fact("truth", placed.event.data.truth, source=placed.source)
        for placed in facts.resolved
        if placed.event.data.resolvable_at == newest.event.data.resolvable_at
    ]
    for earlier in facts.scored[:-1]:
        before = _entry(earlier.event, model_id)
        inputs.append(fact(f"by the truth before it, {before.status}", before.units, source=earlier.source))
    agrees, note = None, fault
    if again is not None:
        computed = _entry(again.score, model_id)
        agrees = (computed.status, computed.units, computed.charge_units, computed.fault) == (
            entry.status,
            entry.units,
            entry.charge_units,
            entry.fault,
        )
        note = "" if agrees else f"computed again: {outcome_text(computed)}"
        if not agrees and facts.carries:
            agrees, note = (
                None,
                f"it may rest on what earlier rounds carried; without that it is {computed.units}",
            )
    return Step(
        name="score",
        rule="The answers that count are scored by the truth, as one round; each number becomes a whole number of "
        f"units of 10**-{decimals}, rounded half-even from its shortest decimal form; a corrected truth scores again",
        sources=[newest.source],
        inputs=inputs,
        result=result,
        agrees=agrees,
        note=note,
    )


def stakes_and_state(facts: QuestionFacts, model_id: str, again: ScoredAgain | None) -> Iterator[Step]:
    """The model's stake, what it won or burned, and the state that the question began with and left."""
    if (stake := stake_step(facts.closed, facts.stakes, model_id)) is not None:
        yield stake
    state = carried_step(facts.carried, model_id, again.events if again is not None else None)
    if again is not None:
        entry, computed = _entry(facts.scored[-1].event, model_id), _entry(again.score, model_id)
        agrees = None if facts.carries else entry == computed and (state is None or state.agrees is not False)
        yield from payout_steps(again.payouts, model_id, agrees=agrees)
    if state is not None:
        yield state


def _entry(event: Scored, model_id: str) -> ScoreEntry:
    return next(entry for entry in event.data.entries() if entry.model_id == model_id)


def scored_again(facts: QuestionFacts, contract: CrunchContract) -> ScoredAgain | None:
    """The newest score of the question, as the stage of scores makes it of the question's events alone; None if it
    makes none.
    """
    decided = decided_again(
        contract,
        facts.told,
        InputHistory(facts.first.event, facts.rounds, facts.resolved, facts.closed, facts.answers_closed),
        before=facts.carried.before,
    )
    scores = [event for event in decided.events if isinstance(event, (RoundScored, RoundRescored))]
    return ScoredAgain(scores[-1], decided.events, decided.payouts) if scores else None
