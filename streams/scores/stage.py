"""Scores: every prediction of a round against the truth of its horizon.

Driven by `inputs`, reads `predictions`, emits `scores`. Each resolved horizon waits, in the order of
`inputs`, for its round to be answered; then one decision holds a RoundScored for each of its scopes: every
roster entry's score or final status, fault and charge, in columns; and an EnsemblesScored where the contract has
ensembles, which are scored like a model beside them.
When InputsUntil passes a period boundary, and all before it is closed, ScoredUntil says so.

The order of `predictions` against `inputs` never matters: waiting is state. `need` is a function of what
was decided, not of how far the other topic was read, so that a decision made again has the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, ClassVar

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.subjects import typed_truth
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import (
    AnswerEntry,
    AnyEvent,
    CrunchConfigured,
    EnsemblesScored,
    InputReceived,
    InputResolved,
    InputsUntil,
    RoundAnswered,
    RoundOpened,
    RoundScored,
    ScoredUntil,
    ScoredUntilData,
    ScoreEntry,
    StateCarried,
    Terms,
    in_columns,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.log.stage import Draft, Stage, State, Told
from coordinator.streams.scores.boards import scope_name
from coordinator.streams.scores.charges import charge_of
from coordinator.streams.scores.ensembles import EnsembleScorer, ScoresAnswer, score_alone, score_beside
from coordinator.streams.scores.past_scores import PastPeriod, PastRead, looks_back_hours, take_scores
from coordinator.streams.scores.round_scorer import Carried, RoundScorer, asked_in, holder_of
from coordinator.streams.scores.rounds import Answers, OpenInput, OpenRound, answers_undecoded
from coordinator.streams.scores.scorer import MODEL, NODE, Scorer
from coordinator.streams.scores.whole_rounds import ResolvedScope, whole_round_events

_decode = msgspec.json.Decoder().decode


class OwnScores(msgspec.Struct):
    """What follows from the stage's own events."""

    terms: TermsInForce = msgspec.field(default_factory=TermsInForce)
    scored_until: int = -1
    carried: dict[str, Carried] = msgspec.field(default_factory=dict)
    """By holder: what rounds that are scored as a whole carry from one to the next."""
    past: dict[str, PastPeriod] = {}
    """What ensembles know of past scores, where the terms have one that looks back."""
    ensembles_carried: dict[str, Carried] = {}
    """By holder what its ensembles carry, apart from the models: their rounds have none of it."""


class ScoreState(State):
    """Own events, and the inputs and rounds that are open; both in the order of their topics."""

    own: OwnScores = msgspec.field(default_factory=OwnScores)
    inputs: dict[str, OpenInput] = msgspec.field(default_factory=dict)
    rounds: dict[str, OpenRound] = msgspec.field(default_factory=dict)
    settled: dict[str, None] = msgspec.field(default_factory=dict)
    """The inputs whose last horizon is closed, while they or their rounds are kept."""


class ScoreStage(Stage[ScoreState]):
    """inputs (and predictions) -> scores."""

    topic: ClassVar[str] = "scores"
    drivers: ClassVar[tuple[str, ...]] = ("inputs",)
    reads: ClassVar[tuple[str, ...]] = ("predictions",)
    memory: ClassVar[tuple[str, ...]] = (
        "CrunchConfigured",
        "StateCarried",
        "EnsemblesScored",
        "ScoredUntil",
    )

    def __init__(self, contracts: Callable[[str], CrunchContract]) -> None:
        super().__init__(ScoreState())
        self._contracts = contracts
        self._scorers: dict[str, Scorer] = {}
        self._round_scorers: dict[str, RoundScorer] = {}
        self._ensemble_scorers: dict[str, EnsembleScorer] = {}
        self._past = PastRead()

    def folded_kinds(self) -> tuple[str, ...]:
        """Scores too, where an ensemble looks back at them."""
        looks_back = any(looks_back_hours(one.data) for one in self.state.own.terms.events)
        return (*self.memory, "RoundScored") if looks_back else self.memory

    def unfold(self, decision: Decision) -> Iterator[Told]:
        """Answers are not decoded before they are scored."""
        if decision.topic != "predictions":
            yield from super().unfold(decision)
            return
        for event in answers_undecoded(decision):
            yield Told("predictions", event, before=decision.before)

    def blocked(self, state: ScoreState, told: Told) -> bool:
        """A truth waits for its round."""
        if not isinstance(told.event, InputResolved):
            return False
        the_round = state.rounds.get(told.event.data.input_id)
        return the_round is None or not the_round.answered

    def decide(self, state: ScoreState, told: Told) -> Draft | None:
        """The scores of a horizon, the end of a period, terms."""
        events: list[AnyEvent]
        match told.event:
            case InputResolved() as resolved:
                events = list(self._score(state, resolved))
            case InputsUntil(data=data) as moved:
                boundary, _ = state.own.terms.snapshot_period(data.until)
                if boundary <= state.own.scored_until:
                    return None
                done = ScoredUntilData(until=boundary, rehearsal=data.rehearsal)
                events = [ScoredUntil(id=f"scored-until/{boundary}", at=moved.at, data=done)]
            case CrunchConfigured() as configured:
                events = [configured]
            case _:
                return None
        return Draft(events, {"inputs": told.position}, self.needed(state, told))

    def fold(self, state: ScoreState, told: Told) -> None:
        """Inputs and rounds are kept until their last horizon is closed, and no owner will read them again."""
        match told.event:
            case CrunchConfigured() as configured:
                state.own.terms.add(configured)
            case ScoredUntil(data=data):
                state.own.scored_until = data.until
            case StateCarried(data=data):
                state.own.carried.setdefault(data.holder, Carried()).take(data.states, data.shared)
            case EnsemblesScored(data=data) if data.states:
                state.own.ensembles_carried.setdefault(data.holder, Carried()).take(data.states, [])
            case RoundScored(data=data):
                take_scores(state.own.past, data, state.own.terms.at(data.point))
            case InputReceived(data=data):
                state.inputs[data.input_id] = OpenInput(
                    data.input_id,
                    data.subject,
                    data.point,
                    data.scopes,
                    data.contract_hash,
                    data.rehearsal,
                    told.before,
                )
            case InputResolved(data=data):
                for input_id in _passed(state, state.need["predictions"]):
                    state.rounds.pop(input_id, None)
                    state.inputs.pop(input_id, None)
                    state.settled.pop(input_id, None)
                if data.last:
                    state.settled[data.input_id] = None
            case RoundOpened(data=data):
                # Mostly the same models as in the round before: thousands of open rounds share one list.
                last = next(reversed(state.rounds.values()), None)
                roster = last.roster if last is not None and last.roster == data.roster else data.roster
                state.rounds[data.input_id] = OpenRound(told.before, roster)
            case Answers() as answers:
                the_round = state.rounds.get(answers.input_id)
                if the_round is not None:  # else it was opened before `need`: its scores are decided
                    the_round.answers.setdefault(answers.scope_key, []).append(answers.raw)
            case RoundAnswered(data=data):
                the_round = state.rounds.get(data.input_id)
                if the_round is not None:
                    the_round.answered = True
            case _:
                pass

    def needed(self, state: ScoreState, told: Told) -> dict[str, Need]:
        """The oldest round that is not settled, and the oldest input of a round that is not older than that.

        Only a release moves the first: the round released is read, so every round before it is too, and the answer
        is the same for every interleaving. Inputs are kept as long as their rounds may be read again, so that a
        new owner can tell a round that is settled from one whose input it has not read yet.
        """
        # Rounds and inputs are kept in the order of their topics, so the oldest is found at the front: with a backlog
        # of thousands, looking at all of them for every round would cost more than scoring them.
        need: dict[str, Need] = {}
        passed: set[str] = set()
        if isinstance(told.event, InputResolved):
            released = state.rounds[told.event.data.input_id].before
            unsettled = (one.before for key, one in state.rounds.items() if key not in state.settled)
            need["predictions"] = oldest = min(next(unsettled, released), released, key=_offset)
            passed = _passed(state, oldest)
        left = (one.before for key, one in state.inputs.items() if key not in passed)
        need["inputs"] = min(next(left, told.before), told.before, key=_offset)
        return need

    # --- one round ---------------------------------------------------------------------------------

    def _score(self, state: ScoreState, resolved: InputResolved) -> Iterator[AnyEvent]:
        the_input, the_round = state.inputs[resolved.data.input_id], state.rounds[resolved.data.input_id]
        terms = state.own.terms.at(the_input.point)
        contract = self._contracts(the_input.contract_hash)
        truth, reason = _truth(resolved, the_input, contract)
        scopes = [
            ResolvedScope(resolved.at, the_input, one, truth, reason)
            for one in the_input.scopes
            if one.horizon_seconds == resolved.data.horizon_seconds
        ]
        if contract.score_round is not None:
            yield from self._score_whole(state, scopes, the_round, contract, terms)
            return
        scorer = self._scorer(the_input.contract_hash, contract)
        for resolved_scope in scopes:
            entries = [
                score_one(answer, truth, reason, scorer, cruncher_id)
                for answer, cruncher_id in the_round.entries(resolved_scope.scope.scope_key)
            ]
            if truth is not None:
                entries = blamed(entries, lambda: scorer.can_score(truth))
            value_field = contract.aggregation.value_field
            values = [entry.units[value_field] for entry in entries if entry.status == "SCORED"]
            yield resolved_scope.scored(in_columns(charged(entries, values, terms)))
            if contract.ensembles and truth is not None:
                score = partial(score_alone, scorer, truth)
                yield from self._score_ensembles(state, resolved_scope, the_round, contract, score)

    def _score_whole(
        self,
        state: ScoreState,
        scopes: Sequence[ResolvedScope],
        the_round: OpenRound,
        contract: CrunchContract,
        terms: Terms,
    ) -> Iterator[AnyEvent]:
        """The scopes of one decision in turn: each begins with the state that the one before left."""
        carried: dict[str, Carried] = {}
        ensembles_carried: dict[str, Carried] = {}
        for one in scopes:
            contract_hash = one.the_input.contract_hash
            scorer = self._round_scorers.get(contract_hash)
            if scorer is None:
                scorer = self._round_scorers[contract_hash] = RoundScorer(contract)
            holder = holder_of(contract, one.the_input.subject, one.scope.scope_key)
            before = carried.get(holder) or state.own.carried.get(holder) or Carried()
            answers = the_round.answers_of(one.scope.scope_key)
            for event in whole_round_events(one, answers, the_round.roster, scorer, contract, terms, before):
                if isinstance(event, StateCarried):
                    after = carried[holder] = Carried(dict(before.states), before.shared)
                    after.take(event.data.states, event.data.shared)
                yield event
            if contract.ensembles and one.truth is not None:
                own = ensembles_carried.get(holder) or state.own.ensembles_carried.get(holder) or Carried()
                score = partial(score_beside, scorer, contract, one, before, own)
                for scored in self._score_ensembles(state, one, the_round, contract, score):
                    after = ensembles_carried[holder] = Carried(dict(own.states))
                    after.take(scored.data.states, [])
                    yield scored

    def _score_ensembles(
        self,
        state: ScoreState,
        what: ResolvedScope,
        the_round: OpenRound,
        contract: CrunchContract,
        score: ScoresAnswer,
    ) -> Iterator[EnsemblesScored]:
        """The ensembles of one scope whose truth is known; by `score`."""
        contract_hash, subject, scope_key = (
            what.the_input.contract_hash,
            what.the_input.subject,
            what.scope.scope_key,
        )
        scorer = self._ensemble_scorers.get(contract_hash)
        if scorer is None:
            scorer = self._ensemble_scorers[contract_hash] = EnsembleScorer(contract)
        past = self._past.of(
            state.own.past, what.the_input.point, scope_name(subject, scope_key), state.own.terms
        )
        asked = asked_in(the_round.answers_of(scope_key), the_round.roster)
        columns = scorer.columns(asked, past, score)
        if columns is not None:
            yield what.ensembles_scored(columns | {"holder": holder_of(contract, subject, scope_key)})

    def _scorer(self, contract_hash: str, contract: CrunchContract) -> Scorer:
        scorer = self._scorers.get(contract_hash)
        if scorer is None:
            scorer = self._scorers[contract_hash] = Scorer(contract)
        return scorer


def _passed(state: ScoreState, oldest: Need) -> set[str]:
    """The inputs whose rounds no owner will read again, when the first that is needed stands at `oldest`."""
    rounds = takewhile(lambda item: item[1].before.offset < oldest.offset, state.rounds.items())
    passed = {key for key, _ in rounds}
    latest = max((state.inputs[key].before.offset for key in passed if key in state.inputs), default=-1)
    # Settled by an earlier owner, and its round before our first: it went with an input beside or behind it.
    beside = takewhile(lambda item: item[1].before.offset <= latest, state.inputs.items())
    return passed | {key for key, _ in beside if key in state.settled and key not in state.rounds}


def _offset(need: Need) -> int:
    return need.offset


def _truth(resolved: InputResolved, the_input: OpenInput, contract: CrunchContract) -> tuple[Any, str]:
    if resolved.data.truth is None:
        return None, f"no ground truth: {resolved.data.reason}"
    return typed_truth(contract, the_input.scopes[0].scope_key, resolved.data.truth), ""


def score_one(
    answer: AnswerEntry, truth: Any, no_truth_reason: str, scorer: Scorer, cruncher_id: str = ""
) -> ScoreEntry:
    """One prediction by itself; whose fault a failure is, `blamed` decides by what became of the others."""
    if answer.status != "PENDING":
        return ScoreEntry(answer.model_id, answer.status, answer.fault, cruncher_id=cruncher_id)
    units, reason, fault = (
        ({}, no_truth_reason, NODE) if truth is None else scorer.score(_decode(answer.output), truth)
    )
    if reason:
        return ScoreEntry(answer.model_id, "FAILED", fault, cruncher_id=cruncher_id, reason=as_reason(reason))
    return ScoreEntry(answer.model_id, "SCORED", cruncher_id=cruncher_id, units=units)


def blamed(entries: list[ScoreEntry], can_score: Callable[[], bool]) -> list[ScoreEntry]:
    """The entries of one scope, with the fault of each answer that could not be scored.

    Where the function scores another answer by the same truth, the answer is what it failed at: its model could have
    given another, and an absurd one must not be a way out of a round. Where it scores none, it is the author's.
    """
    failed = any(entry.reason and entry.fault == NODE for entry in entries)
    scored = any(entry.status == "SCORED" for entry in entries)
    if not failed or not (scored or can_score()):
        return entries
    return [msgspec.structs.replace(entry, fault=MODEL) if entry.reason else entry for entry in entries]


def charged(entries: Sequence[ScoreEntry], values: Sequence[int], terms: Terms) -> list[ScoreEntry]:
    """The entries with what absence and failure cost by the declared policy; only where `fault = model`."""
    charge = charge_of(values, terms)
    if charge is None:
        return list(entries)
    return [
        msgspec.structs.replace(entry, charge_units=charge) if entry.fault == "model" else entry
        for entry in entries
    ]
