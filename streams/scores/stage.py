"""The stage of scores: scores every prediction of a round by the truth of its horizon.

Driven by `inputs`, reads `predictions`, emits `scores`. Each resolved horizon waits, in the order of `inputs`, until
its round is answered. A posted question waits for all rounds in which it was asked, and for answers that were handed
in; they are scored as one round (`questions.py`), and again if its truth is corrected. One decision has a RoundScored
for each scope, with the score or final status, fault and charge of every model of the roster, in columns; and an
EnsemblesScored if the contract has ensembles. When InputsUntil passes the end of a snapshot period, and everything
before it is scored, the stage emits ScoredUntil.

It does not matter in which order `predictions` and `inputs` are read, because the state keeps what waits. `need`
depends on what was decided, and not on how far `predictions` was read, so that a decision that is made again has the
same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import attrgetter
from typing import ClassVar

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.events import (
    AnswersClosed,
    AnyEvent,
    CrunchConfigured,
    EnsemblesScored,
    InputClosed,
    InputReceived,
    InputResolved,
    InputResolvedData,
    InputsUntil,
    RoundAnswered,
    RoundOpened,
    RoundRescored,
    RoundScored,
    RoundScoredData,
    ScopeAnsweredData,
    ScoredUntil,
    ScoredUntilData,
    StateCarried,
    Terms,
    in_columns,
)
from coordinator.streams.log import ids
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.stage import Draft, PlacedEvent, Stage
from coordinator.streams.ports import BlobReader
from coordinator.streams.scores.boards import scope_name
from coordinator.streams.scores.carried import Carried, holder_of
from coordinator.streams.scores.charges import charged_again
from coordinator.streams.scores.ensembles import EnsembleScorer, ScoresAnswer, score_alone, score_beside
from coordinator.streams.scores.open_rounds import (
    Answers,
    OpenInput,
    OpenRound,
    answers_undecoded,
    open_input,
)
from coordinator.streams.scores.past_scores import PastRead, looks_back_hours, take_scores
from coordinator.streams.scores.questions import (
    answers_read,
    columns_alone,
    of_question,
    stopped,
    void_entries,
)
from coordinator.streams.scores.round_columns import asked_in
from coordinator.streams.scores.round_scorer import RoundScorer
from coordinator.streams.scores.scorer import Scorer
from coordinator.streams.scores.single_answers import blamed, charged, score_one, truth_of
from coordinator.streams.scores.state import (
    Closing,
    ScoredQuestion,
    ScoreState,
    drop_passed,
    is_late,
    is_settled,
    keep_answers,
    open_round,
    passed_by,
    resolve,
    settle_questions,
)
from coordinator.streams.scores.whole_rounds import ResolvedScope, whole_round_events

RecordedRound = Callable[[InputResolvedData, str], RoundScoredData | None]
"""(the truth, scope_key) -> the round's scores, or None where they must be made."""


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
        self,
        contracts: Contracts,
        recorded: RecordedRound | None = None,
        blobs: BlobReader | None = None,
    ) -> None:
        """`recorded` gives scores of a round that this stage would give too. `blobs` has the large answers."""
        super().__init__(ScoreState())
        self._blobs = blobs
        self._contracts, self._recorded = contracts, recorded
        self._scorers: dict[tuple[str, bool], Scorer] = {}
        self._round_scorers: dict[tuple[str, bool], RoundScorer] = {}
        self._ensemble_scorers: dict[str, EnsembleScorer] = {}
        self._past = PastRead()

    def folded_kinds(self) -> tuple[str, ...]:
        """Scores, too, if an ensemble uses past scores, or if truths of questions may be corrected."""
        for configured in self.state.own.terms.events:
            if configured.data.questions or looks_back_hours(configured.data):
                return (*self.memory, "RoundScored", "RoundRescored")
        return self.memory

    def unfold(self, decision: Decision) -> Iterator[PlacedEvent]:
        """Leave answers undecoded until they are scored."""
        if decision.topic != "predictions":
            yield from super().unfold(decision)
            return
        for event in answers_undecoded(decision):
            yield PlacedEvent("predictions", event, before=decision.before)

    def blocked(self, state: ScoreState, placed: PlacedEvent) -> bool:
        """Whether a truth must wait, because its round is not answered yet."""
        if not isinstance(placed.event, InputResolved):
            return False
        input_id = placed.event.data.input_id
        if ids.is_question(input_id):
            return input_id not in state.closed and not is_late(state, placed.event.data)
        the_round = state.rounds.get(input_id)
        return the_round is None or not the_round.answered

    def decide(self, state: ScoreState, placed: PlacedEvent) -> Draft | None:
        """Score a resolved horizon, or record that a period is scored. New terms are repeated in this topic."""
        events: list[AnyEvent]
        match placed.event:
            case InputResolved(data=data) as resolved:
                if ids.is_question(data.input_id) and is_late(state, data):
                    return None
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
        return Draft(events, {"inputs": placed.position}, self.needed(state, placed))

    def fold(self, state: ScoreState, placed: PlacedEvent) -> None:
        """Keep inputs and rounds until their last horizon is scored and no owner reads them again. Then drop them."""
        match placed.event:
            # The events of every round come first, because each case that does not fit takes time.
            case InputReceived(data=data):
                state.inputs[data.input_id] = open_input(data, placed.before)
            case InputClosed(data=data) as closed:
                state.closings[data.input_id] = Closing(closed.at, data.stakes)
            case InputResolved(data=data):
                drop_passed(state, state.need["predictions"])
                resolve(state, data)
            case InputsUntil(data=data):
                settle_questions(state, data.until)
            case RoundOpened(data=data):
                open_round(state, data, placed.before)
            case Answers() as answers:
                keep_answers(state, answers)
            case RoundAnswered(data=data):
                if (the_round := state.rounds.get(data.input_id)) is not None:
                    the_round.answered = True
            case AnswersClosed(data=data):
                if any(data.input_id + suffix in state.rounds for suffix in data.rounds):
                    state.closed[data.input_id] = data.rounds
            case CrunchConfigured() as configured:
                state.own.terms.add(configured)
            case ScoredUntil(data=data):
                state.own.close(data.until)
            case StateCarried(data=data):
                state.own.carried.setdefault(data.holder, Carried()).take(data.states, data.shared)
            case EnsemblesScored(data=data) if data.states:
                state.own.ensembles_carried.setdefault(data.holder, Carried()).take(data.states, [])
            case RoundScored(data=data):
                take_scores(state.own.past, data, state.own.terms.at(data.point))
                if ids.is_question(data.input_id):
                    question = ScoredQuestion(data.resolvable_at, 0, columns_alone(data))
                    state.own.questions[data.input_id] = question
            case RoundRescored(data=data):
                question = state.own.questions[data.input_id]
                question.revision, question.columns = data.revision, columns_alone(data)
            case _:
                pass

    def needed(self, state: ScoreState, placed: PlacedEvent) -> dict[str, Need]:
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
        own_round = (
            state.rounds.get(placed.event.data.input_id) if isinstance(placed.event, InputResolved) else None
        )
        if own_round is not None:  # None: a question of an earlier checkpoint period, which is scored no more
            resolved = own_round.before
            unsettled = (
                open_round.before
                for input_id, open_round in state.rounds.items()
                if not is_settled(state, input_id)
            )
            need["predictions"] = oldest = min(next(unsettled, resolved), resolved, key=attrgetter("offset"))
            passed = passed_by(state, oldest)
        remaining = (
            open_input.before for input_id, open_input in state.inputs.items() if input_id not in passed
        )
        need["inputs"] = min(next(remaining, placed.before), placed.before, key=attrgetter("offset"))
        return need

    # --- one round ---------------------------------------------------------------------------------

    def _score(self, state: ScoreState, resolved: InputResolved) -> Iterator[AnyEvent]:
        """The scores of every scope with the resolved horizon."""
        the_input, the_round = state.inputs[resolved.data.input_id], state.rounds[resolved.data.input_id]
        terms = state.own.terms.at(the_input.point)
        contract = self._contracts(the_input.contract_hash)
        truth, reason = truth_of(resolved, the_input, contract)
        scopes = [
            ResolvedScope(resolved.at, the_input, scope, truth, reason)
            for scope in the_input.scopes
            if scope.horizon_seconds == resolved.data.horizon_seconds
        ]
        if the_input.question is not None:
            what, the_round = of_question(state, scopes[0], resolved.data, contract.output_type, self._blobs)
            scopes = [what]
            if resolved.data.void:
                answers = the_round.entries(the_round.answers_of(what.scope.scope_key))
                entries = void_entries(answers, resolved.data.reason or "")
                yield what.scored(in_columns(entries))
                return
        if contract.score_round is not None:
            yield from self._score_whole(state, scopes, the_round, contract, terms)
            return
        for resolved_scope in scopes:
            again = None
            if self._recorded and resolved_scope.corrects is None:
                again = self._recorded(resolved.data, resolved_scope.scope.scope_key)
            if again is not None:
                yield resolved_scope.scored(charged_again(again, contract.aggregation.value_field, terms))
                if not contract.ensembles:
                    continue  # nothing else is made of its answers
            parts, lost = answers_read(resolved_scope, the_round, self._blobs)
            if again is None:
                yield (
                    stopped(resolved_scope, the_round, lost)
                    if lost
                    else self._scored_alone(resolved_scope, parts, the_round, contract, terms)
                )
            if contract.ensembles and not lost and truth is not None and resolved_scope.corrects is None:
                score = partial(score_alone, self._scorer(contract, the_input), truth)
                yield from self._score_ensembles(state, resolved_scope, parts, the_round, contract, score)

    def _scored_alone(
        self,
        what: ResolvedScope,
        parts: Sequence[ScopeAnsweredData],
        the_round: OpenRound,
        contract: CrunchContract,
        terms: Terms,
    ) -> RoundScored | RoundRescored:
        """The scores of one scope where each answer is scored by itself."""
        scorer = self._scorer(contract, what.the_input)
        entries = [
            score_one(answer, what.truth, what.no_truth_reason, scorer, cruncher_id)
            for answer, cruncher_id in the_round.entries(parts)
        ]
        if what.truth is not None:
            entries = blamed(entries, lambda: scorer.can_score(what.truth))
        value_field = contract.aggregation.value_field
        values = [entry.units[value_field] for entry in entries if entry.status == "SCORED"]
        return what.scored(in_columns(charged(entries, values, terms)))

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
            scorer = self._round_scorer(contract, resolved_scope.the_input)
            subject, scope_key = resolved_scope.the_input.subject, resolved_scope.scope.scope_key
            holder = holder_of(contract, subject, scope_key)
            before = carried.get(holder) or state.own.carried.get(holder) or Carried()
            parts, lost = answers_read(resolved_scope, the_round, self._blobs)
            if lost:
                yield stopped(resolved_scope, the_round, lost)
                continue
            for event in whole_round_events(
                resolved_scope, parts, the_round.roster, scorer, contract, terms, before
            ):
                if isinstance(event, StateCarried):
                    if resolved_scope.corrects is not None:
                        continue  # what later rounds began with stays as it was
                    after = carried[holder] = Carried(dict(before.states), before.shared)
                    after.take(event.data.states, event.data.shared)
                yield event
            if contract.ensembles and resolved_scope.truth is not None and resolved_scope.corrects is None:
                own = ensembles_carried.get(holder) or state.own.ensembles_carried.get(holder) or Carried()
                score = score_beside(scorer, contract, resolved_scope, before, own)
                for scored in self._score_ensembles(state, resolved_scope, parts, the_round, contract, score):
                    after = ensembles_carried[holder] = Carried(dict(own.states))
                    after.take(scored.data.states, [])
                    yield scored

    def _score_ensembles(
        self,
        state: ScoreState,
        resolved_scope: ResolvedScope,
        parts: Sequence[ScopeAnsweredData],
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
        asked = asked_in(parts, the_round.roster)
        columns = scorer.columns(asked, past, score)
        if columns is not None:
            yield resolved_scope.ensembles_scored(
                columns | {"holder": holder_of(contract, subject, scope_key)}
            )

    def _scorer(self, contract: CrunchContract, the_input: OpenInput) -> Scorer:
        key = the_input.contract_hash, _of_histories(contract, the_input)
        scorer = self._scorers.get(key)
        if scorer is None:
            scorer = self._scorers[key] = Scorer(contract, histories=key[1])
        return scorer

    def _round_scorer(self, contract: CrunchContract, the_input: OpenInput) -> RoundScorer:
        key = the_input.contract_hash, _of_histories(contract, the_input)
        scorer = self._round_scorers.get(key)
        if scorer is None:
            scorer = self._round_scorers[key] = RoundScorer(contract, histories=key[1])
        return scorer


def _of_histories(contract: CrunchContract, the_input: OpenInput) -> bool:
    """Whether what is scored is all answers of a model with their times."""
    questions = contract.questions
    return the_input.question is not None and questions is not None and questions.counts == "history"
