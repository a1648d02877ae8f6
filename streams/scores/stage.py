"""The stage of scores: scores every prediction of a round by the truth of its horizon.

Driven by `inputs`, reads `predictions`, emits `scores`. Each resolved horizon waits, in the order of `inputs`, until
its round is answered. Then one decision has a RoundScored for each of its scopes, with the score or final status,
fault and charge of every model of the roster, in columns; and an EnsemblesScored if the contract has ensembles. When
InputsUntil passes the end of a snapshot period, and everything before it is scored, the stage emits ScoredUntil.

It does not matter in which order `predictions` and `inputs` are read, because the state keeps what waits. `need`
depends on what was decided, and not on how far `predictions` was read, so that a decision that is made again has the
same bytes.
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
    InputResolvedData,
    InputsUntil,
    RoundAnswered,
    RoundOpened,
    RoundScored,
    RoundScoredData,
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
from coordinator.streams.scores.charges import charge_of, charged_again
from coordinator.streams.scores.ensembles import EnsembleScorer, ScoresAnswer, score_alone, score_beside
from coordinator.streams.scores.past_scores import PastPeriod, PastRead, looks_back_hours, take_scores
from coordinator.streams.scores.round_scorer import Carried, RoundScorer, asked_in, holder_of
from coordinator.streams.scores.rounds import Answers, OpenInput, OpenRound, answers_undecoded
from coordinator.streams.scores.scorer import MODEL, NODE, Scorer
from coordinator.streams.scores.whole_rounds import ResolvedScope, whole_round_events

_decode = msgspec.json.Decoder().decode
RecordedRound = Callable[[InputResolvedData, str], RoundScoredData | None]
"""(the truth, scope_key) -> the round's scores, or None where they must be made."""


class OwnScores(msgspec.Struct):
    """What follows from the stage's own events."""

    terms: TermsInForce = msgspec.field(default_factory=TermsInForce)
    scored_until: int = -1
    """The end (ms) of the last period in which everything is scored."""
    carried: dict[str, Carried] = msgspec.field(default_factory=dict)
    """Holder -> the state that rounds which are scored as a whole carry from one to the next."""
    past: dict[str, PastPeriod] = {}
    """The past scores for ensembles; empty unless the terms have an ensemble that uses them."""
    ensembles_carried: dict[str, Carried] = {}
    """Holder -> the states of its ensembles. They are apart, because the rounds of the models must not see them."""


class ScoreState(State):
    """What follows from own events, and the open inputs and rounds, each in the order of its topic."""

    own: OwnScores = msgspec.field(default_factory=OwnScores)
    inputs: dict[str, OpenInput] = msgspec.field(default_factory=dict)
    rounds: dict[str, OpenRound] = msgspec.field(default_factory=dict)
    settled: dict[str, None] = msgspec.field(default_factory=dict)
    """The inputs whose last horizon is resolved, as long as they or their rounds are kept."""


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

    def __init__(
        self, contracts: Callable[[str], CrunchContract], recorded: RecordedRound | None = None
    ) -> None:
        """`recorded` gives the scores of a round that are known to be what this stage would give."""
        super().__init__(ScoreState())
        self._contracts, self._recorded = contracts, recorded
        self._scorers: dict[str, Scorer] = {}
        self._round_scorers: dict[str, RoundScorer] = {}
        self._ensemble_scorers: dict[str, EnsembleScorer] = {}
        self._past = PastRead()

    def folded_kinds(self) -> tuple[str, ...]:
        """Scores, too, if an ensemble uses past scores."""
        looks_back = any(looks_back_hours(configured.data) for configured in self.state.own.terms.events)
        return (*self.memory, "RoundScored") if looks_back else self.memory

    def unfold(self, decision: Decision) -> Iterator[Told]:
        """Leave answers undecoded until they are scored."""
        if decision.topic != "predictions":
            yield from super().unfold(decision)
            return
        for event in answers_undecoded(decision):
            yield Told("predictions", event, before=decision.before)

    def blocked(self, state: ScoreState, told: Told) -> bool:
        """Whether a truth must wait, because its round is not answered yet."""
        if not isinstance(told.event, InputResolved):
            return False
        the_round = state.rounds.get(told.event.data.input_id)
        return the_round is None or not the_round.answered

    def decide(self, state: ScoreState, told: Told) -> Draft | None:
        """Score a resolved horizon, or record that a period is scored. New terms are repeated in this topic."""
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
        """Keep inputs and rounds until their last horizon is scored and no owner reads them again. Then drop them."""
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
                # The roster is usually that of the round before: thousands of open rounds then share one list.
                last = next(reversed(state.rounds.values()), None)
                roster = last.roster if last is not None and last.roster == data.roster else data.roster
                state.rounds[data.input_id] = OpenRound(told.before, roster)
            case Answers() as answers:
                the_round = state.rounds.get(answers.input_id)
                if (
                    the_round is not None
                ):  # if None, the round opened before `need`, and its scores are decided
                    the_round.answers.setdefault(answers.scope_key, []).append(answers.raw)
            case RoundAnswered(data=data):
                the_round = state.rounds.get(data.input_id)
                if the_round is not None:
                    the_round.answered = True
            case _:
                pass

    def needed(self, state: ScoreState, told: Told) -> dict[str, Need]:
        """The position of the oldest round that is not settled, and of the oldest input whose round is not older than
        that.

        Only an InputResolved moves the first. Its round is read, and so is every round before it, so the position does
        not depend on how far `predictions` was read. Inputs are kept as long as their rounds may be read again: a new
        owner must be able to tell a settled round from one whose input it has not read yet.
        """
        # Rounds and inputs are in the order of their topics, so the oldest is at the front. With a backlog of
        # thousands, a look at all of them for every round would take longer than scoring.
        need: dict[str, Need] = {}
        passed: set[str] = set()
        if isinstance(told.event, InputResolved):
            resolved = state.rounds[told.event.data.input_id].before
            unsettled = (
                open_round.before
                for input_id, open_round in state.rounds.items()
                if input_id not in state.settled
            )
            need["predictions"] = oldest = min(next(unsettled, resolved), resolved, key=_offset)
            passed = _passed(state, oldest)
        remaining = (
            open_input.before for input_id, open_input in state.inputs.items() if input_id not in passed
        )
        need["inputs"] = min(next(remaining, told.before), told.before, key=_offset)
        return need

    # --- one round ---------------------------------------------------------------------------------

    def _score(self, state: ScoreState, resolved: InputResolved) -> Iterator[AnyEvent]:
        """The scores of every scope with the resolved horizon."""
        the_input, the_round = state.inputs[resolved.data.input_id], state.rounds[resolved.data.input_id]
        terms = state.own.terms.at(the_input.point)
        contract = self._contracts(the_input.contract_hash)
        truth, reason = _truth(resolved, the_input, contract)
        scopes = [
            ResolvedScope(resolved.at, the_input, scope, truth, reason)
            for scope in the_input.scopes
            if scope.horizon_seconds == resolved.data.horizon_seconds
        ]
        if contract.score_round is not None:
            yield from self._score_whole(state, scopes, the_round, contract, terms)
            return
        scorer = self._scorer(the_input.contract_hash, contract)
        for resolved_scope in scopes:
            again = self._recorded and self._recorded(resolved.data, resolved_scope.scope.scope_key)
            if again:
                yield resolved_scope.scored(charged_again(again, contract.aggregation.value_field, terms))
                yield from self._ensembles_alone(state, resolved_scope, the_round, contract, truth)
                continue
            entries = [
                score_one(answer, truth, reason, scorer, cruncher_id)
                for answer, cruncher_id in the_round.entries(resolved_scope.scope.scope_key)
            ]
            if truth is not None:
                entries = blamed(entries, lambda: scorer.can_score(truth))
            value_field = contract.aggregation.value_field
            values = [entry.units[value_field] for entry in entries if entry.status == "SCORED"]
            yield resolved_scope.scored(in_columns(charged(entries, values, terms)))
            yield from self._ensembles_alone(state, resolved_scope, the_round, contract, truth)

    def _ensembles_alone(
        self,
        state: ScoreState,
        what: ResolvedScope,
        the_round: OpenRound,
        contract: CrunchContract,
        truth: Any,
    ) -> Iterator[EnsemblesScored]:
        """Ensembles where each answer is scored by itself."""
        if contract.ensembles and truth is not None:
            scorer = self._scorer(what.the_input.contract_hash, contract)
            score = partial(score_alone, scorer, truth)
            yield from self._score_ensembles(state, what, the_round, contract, score)

    def _score_whole(
        self,
        state: ScoreState,
        scopes: Sequence[ResolvedScope],
        the_round: OpenRound,
        contract: CrunchContract,
        terms: Terms,
    ) -> Iterator[AnyEvent]:
        """The scores of these scopes, one after another: each begins with the state that the one before left.

        The state of the stage does not change here, so the states that the scopes of this decision leave are kept
        apart.
        """
        carried: dict[str, Carried] = {}
        ensembles_carried: dict[str, Carried] = {}
        for resolved_scope in scopes:
            contract_hash = resolved_scope.the_input.contract_hash
            scorer = self._round_scorers.get(contract_hash)
            if scorer is None:
                scorer = self._round_scorers[contract_hash] = RoundScorer(contract)
            subject, scope_key = resolved_scope.the_input.subject, resolved_scope.scope.scope_key
            holder = holder_of(contract, subject, scope_key)
            before = carried.get(holder) or state.own.carried.get(holder) or Carried()
            answers = the_round.answers_of(scope_key)
            for event in whole_round_events(
                resolved_scope, answers, the_round.roster, scorer, contract, terms, before
            ):
                if isinstance(event, StateCarried):
                    after = carried[holder] = Carried(dict(before.states), before.shared)
                    after.take(event.data.states, event.data.shared)
                yield event
            if contract.ensembles and resolved_scope.truth is not None:
                own = ensembles_carried.get(holder) or state.own.ensembles_carried.get(holder) or Carried()
                score = partial(score_beside, scorer, contract, resolved_scope, before, own)
                for scored in self._score_ensembles(state, resolved_scope, the_round, contract, score):
                    after = ensembles_carried[holder] = Carried(dict(own.states))
                    after.take(scored.data.states, [])
                    yield scored

    def _score_ensembles(
        self,
        state: ScoreState,
        resolved_scope: ResolvedScope,
        the_round: OpenRound,
        contract: CrunchContract,
        score: ScoresAnswer,
    ) -> Iterator[EnsemblesScored]:
        """The ensembles of one scope whose truth is known; `score` scores their answers."""
        the_input, scope_key = resolved_scope.the_input, resolved_scope.scope.scope_key
        contract_hash, subject = the_input.contract_hash, the_input.subject
        scorer = self._ensemble_scorers.get(contract_hash)
        if scorer is None:
            scorer = self._ensemble_scorers[contract_hash] = EnsembleScorer(contract)
        past = self._past.of(state.own.past, the_input.point, scope_name(subject, scope_key), state.own.terms)
        asked = asked_in(the_round.answers_of(scope_key), the_round.roster)
        columns = scorer.columns(asked, past, score)
        if columns is not None:
            yield resolved_scope.ensembles_scored(
                columns | {"holder": holder_of(contract, subject, scope_key)}
            )

    def _scorer(self, contract_hash: str, contract: CrunchContract) -> Scorer:
        scorer = self._scorers.get(contract_hash)
        if scorer is None:
            scorer = self._scorers[contract_hash] = Scorer(contract)
        return scorer


def _passed(state: ScoreState, oldest: Need) -> set[str]:
    """The inputs whose rounds no owner reads again, if `oldest` is the position of the first round that is needed."""
    rounds = takewhile(lambda item: item[1].before.offset < oldest.offset, state.rounds.items())
    passed = {input_id for input_id, _ in rounds}
    latest = max(
        (state.inputs[input_id].before.offset for input_id in passed if input_id in state.inputs), default=-1
    )
    # An input may have no round here: an earlier owner settled it, and its round is before the first one that we read.
    # It is passed together with an input at or after it.
    beside = takewhile(lambda item: item[1].before.offset <= latest, state.inputs.items())
    return passed | {
        input_id for input_id, _ in beside if input_id in state.settled and input_id not in state.rounds
    }


def _offset(need: Need) -> int:
    return need.offset


def _truth(resolved: InputResolved, the_input: OpenInput, contract: CrunchContract) -> tuple[Any, str]:
    if resolved.data.truth is None:
        return None, f"no ground truth: {resolved.data.reason}"
    return typed_truth(contract, the_input.scopes[0].scope_key, resolved.data.truth), ""


def score_one(
    answer: AnswerEntry, truth: Any, no_truth_reason: str, scorer: Scorer, cruncher_id: str = ""
) -> ScoreEntry:
    """Score one prediction alone. If it fails, `blamed` decides by the other predictions whose fault that is."""
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

    If the contract's function scores another answer by the same truth, it failed because of this answer, and its model
    is at fault: an absurd answer must not be a way out of a round. If it scores no answer, its author is at fault.
    """
    failed = any(entry.reason and entry.fault == NODE for entry in entries)
    scored = any(entry.status == "SCORED" for entry in entries)
    if not failed or not (scored or can_score()):
        return entries
    return [msgspec.structs.replace(entry, fault=MODEL) if entry.reason else entry for entry in entries]


def charged(entries: Sequence[ScoreEntry], values: Sequence[int], terms: Terms) -> list[ScoreEntry]:
    """The entries with the charge of the contract's policy, for those with `fault = model`."""
    charge = charge_of(values, terms)
    if charge is None:
        return list(entries)
    return [
        msgspec.structs.replace(entry, charge_units=charge) if entry.fault == "model" else entry
        for entry in entries
    ]
