"""Scores: every prediction of a round against the truth of its horizon.

Driven by `inputs`, reads `predictions`, emits `scores`. Each resolved horizon waits, in the order of
`inputs`, for its round to be answered; then one decision holds a RoundScored for each of its scopes: every
roster entry's score or final status, fault and charge, in columns.
When InputsUntil passes a period boundary, and all before it is closed, ScoredUntil says so.

The order of `predictions` against `inputs` never matters: waiting is state. `need` is a function of what
was decided, not of how far the other topic was read, so that a decision made again has the same bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import Any, ClassVar

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import (
    AnswerEntry,
    AnyEvent,
    CrunchConfigured,
    InputReceived,
    InputReceivedData,
    InputResolved,
    InputsUntil,
    RosterEntry,
    RoundAnswered,
    RoundOpened,
    RoundScored,
    RoundScoredData,
    ScopeAnswered,
    ScopeAnsweredData,
    ScoredUntil,
    ScoredUntilData,
    ScoreEntry,
    Terms,
    in_columns,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need, Position
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.log.stage import EMPTY_DECISION_EVERY, Draft, Stage, passing
from coordinator.streams.scores.scorer import MODEL, NODE, Scorer

WORST_PERCENTILE = 10
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Round:
    """A round as far as `predictions` tells it."""

    __slots__ = ("answered", "answers", "before", "roster")

    def __init__(self, before: Need, roster: Sequence[RosterEntry]) -> None:
        self.before = before
        self.roster = roster
        self.answers: dict[str, list[ScopeAnsweredData]] = {}
        self.answered = False

    def entries(self, scope_key: str) -> Iterator[tuple[AnswerEntry, str]]:
        """(answer, whose model gave it) of each model in a scope, in the order of recording."""
        for data in self.answers.get(scope_key, ()):
            for index, entry in zip(data.models, data.entries(self.roster), strict=True):
                yield entry, self.roster[index].cruncher_id


class ScoreStage(Stage):
    """inputs (and predictions) -> scores."""

    topic: ClassVar[str] = "scores"
    drivers: ClassVar[tuple[str, ...]] = ("inputs",)
    reads: ClassVar[tuple[str, ...]] = ("predictions",)
    memory: ClassVar[tuple[str, ...]] = ("CrunchConfigured", "ScoredUntil")

    def __init__(self, contracts: Callable[[str], CrunchContract]) -> None:
        super().__init__()
        self._contracts = contracts
        self._queue: deque[tuple[Position, AnyEvent, Decision]] = deque()
        self._inputs: dict[str, tuple[InputReceivedData, Need]] = {}
        self._rounds: dict[str, Round] = {}
        self._settled: set[str] = set()
        self._scorers: dict[str, Scorer] = {}
        # own memory
        self._terms = TermsInForce()
        self._scored_until = -1

    def absorb(self, decision: Decision) -> None:
        """Fold what is decided, queue the rest; keep inputs and rounds until their last horizon is closed."""
        if decision.topic == "predictions":
            self._absorb_round(decision)
            return
        for index, event in enumerate(decision.events):
            if isinstance(event, InputReceived):
                self._inputs[event.data.input_id] = (event.data, decision.before)
            position = (decision.offset, index)
            if self.decided("inputs", position):
                self._settle(event)
            else:
                self._queue.append((position, event, decision))

    def _absorb_round(self, decision: Decision) -> None:
        for event in decision.events:
            if isinstance(event, ScopeAnswered):
                the_round = self._rounds.get(event.data.input_id)
                if the_round is not None:  # else it was opened before `need`: its scores are decided
                    the_round.answers.setdefault(event.data.scope_key, []).append(event.data)
            elif isinstance(event, RoundOpened):
                self._rounds[event.data.input_id] = Round(decision.before, event.data.roster)
            elif isinstance(event, RoundAnswered):
                the_round = self._rounds.get(event.data.input_id)
                if the_round is not None:
                    the_round.answered = True

    def evolve(self, event: AnyEvent) -> None:
        """Own events: terms and how far all is scored."""
        match event:
            case CrunchConfigured():
                self._terms.add(event)
            case ScoredUntil(data=data):
                self._scored_until = data.until
            case _:
                pass

    def decide(self) -> Draft | None:
        """The decision of the oldest driving event that makes one; None while its round is not there."""
        passed: Position | None = None
        for position, event, decision in self._queue:
            match event:
                case InputResolved():
                    the_round = self._rounds.get(event.data.input_id)
                    if the_round is None or not the_round.answered:
                        break
                    return Draft(
                        list(self._score(event, the_round)),
                        {"inputs": position},
                        self._needed(decision, the_round),
                    )
                case CrunchConfigured():
                    return Draft([event], {"inputs": position}, self._needed(decision))
                case InputsUntil(data=data):
                    boundary, _ = self._terms.snapshot_period(data.until)
                    if boundary > self._scored_until:
                        done = ScoredUntil(
                            id=f"scored-until/{boundary}",
                            at=event.at,
                            data=ScoredUntilData(until=boundary, rehearsal=data.rehearsal),
                        )
                        return Draft([done], {"inputs": position}, self._needed(decision))
                case _:
                    pass
            if decision.offset - self.upto["inputs"][0] >= EMPTY_DECISION_EVERY:
                return Draft([], {"inputs": position}, self._needed(decision))
            passed = position
        return None if passed is None else passing("inputs", passed)

    def fold_decided(self, draft: Draft) -> None:
        """What is decided leaves the queue, and the rounds that no owner will read again are dropped."""
        if "predictions" in draft.need:
            self._forget(self._passed(draft.need["predictions"]))
        while self._queue and self._queue[0][0] <= draft.upto["inputs"]:
            _, event, _ = self._queue.popleft()
            self._settle(event)

    def waits(self) -> bool:
        """Whatever is still queued waits for its round."""
        return bool(self._queue)

    def _settle(self, event: AnyEvent) -> None:
        """Note that an input's last horizon is closed."""
        if isinstance(event, InputResolved) and event.data.last:
            self._settled.add(event.data.input_id)

    def _needed(self, decision: Decision, released: Round | None = None) -> dict[str, Need]:
        """The oldest round that is not settled, and the oldest input of a round that is not older than that.

        Only a release moves the first: the round released is read, so every round before it is too, and the answer
        is the same for every interleaving. Inputs are kept as long as their rounds may be read again, so that a
        new owner can tell a round that is settled from one whose input it has not read yet.
        """
        # Rounds and inputs are kept in the order of their topics, so the oldest is found at the front: with a backlog
        # of thousands, looking at all of them for every round would cost more than scoring them.
        need: dict[str, Need] = {}
        passed: set[str] = set()
        if released is not None:
            unsettled = (one.before for key, one in self._rounds.items() if key not in self._settled)
            need["predictions"] = oldest = min(next(unsettled, released.before), released.before, key=_offset)
            passed = self._passed(oldest)
        left = (first for key, (_, first) in self._inputs.items() if key not in passed)
        need["inputs"] = min(next(left, decision.before), decision.before, key=_offset)
        return need

    def _passed(self, oldest: Need) -> set[str]:
        """The inputs whose rounds no owner will read again, when the first that is needed stands at `oldest`."""
        rounds = takewhile(lambda item: item[1].before.offset < oldest.offset, self._rounds.items())
        passed = {key for key, _ in rounds}
        latest = max((self._inputs[key][1].offset for key in passed if key in self._inputs), default=-1)
        # Settled by an earlier owner, and its round before our first: it went with an input beside or behind it.
        beside = takewhile(lambda item: item[1][1].offset <= latest, self._inputs.items())
        return passed | {key for key, _ in beside if key in self._settled and key not in self._rounds}

    def _forget(self, passed: set[str]) -> None:
        for key in passed:
            self._rounds.pop(key, None)
            self._inputs.pop(key, None)
            self._settled.discard(key)

    # --- one round ---------------------------------------------------------------------------------

    def _score(self, resolved: InputResolved, the_round: Round) -> Iterator[AnyEvent]:
        the_input, _ = self._inputs[resolved.data.input_id]
        terms = self._terms.at(the_input.point)
        contract = self._contracts(the_input.contract_hash)
        scorer = self._scorer(the_input.contract_hash, contract)
        truth, reason = _truth(resolved, contract)
        for scope in the_input.scopes:
            if scope.horizon_seconds != resolved.data.horizon_seconds:
                continue
            entries = [
                score_one(answer, truth, reason, scorer, cruncher_id)
                for answer, cruncher_id in the_round.entries(scope.scope_key)
            ]
            if truth is not None:
                entries = blamed(entries, lambda: scorer.can_score(truth))
            value_field = contract.aggregation.value_field
            values = [entry.units[value_field] for entry in entries if entry.status == "SCORED"]
            yield RoundScored(
                id=f"{the_input.input_id}/{scope.scope_key}:scored",
                at=resolved.at,
                data=RoundScoredData(
                    input_id=the_input.input_id,
                    scope_key=scope.scope_key,
                    subject=the_input.subject,
                    point=the_input.point,
                    resolvable_at=scope.resolvable_at,
                    horizon_seconds=scope.horizon_seconds,
                    rehearsal=the_input.rehearsal,
                    contract_hash=the_input.contract_hash,
                    **in_columns(charged(entries, values, terms)),
                ),
            )

    def _scorer(self, contract_hash: str, contract: CrunchContract) -> Scorer:
        scorer = self._scorers.get(contract_hash)
        if scorer is None:
            scorer = self._scorers[contract_hash] = Scorer(contract)
        return scorer


def _offset(need: Need) -> int:
    return need.offset


def _truth(resolved: InputResolved, contract: CrunchContract) -> tuple[Any, str]:
    if resolved.data.truth is None:
        return None, f"no ground truth: {resolved.data.reason}"
    return contract.ground_truth_type.model_validate(resolved.data.truth), ""


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
    """The entries with what absence and failure cost by the declared policy; only where `fault = model`.

    `zero` costs a score of 0; `worst_percentile` the 10th percentile (nearest rank, from the worse end) of the
    round's scores, nothing when nobody scored.
    """
    if terms.absence_policy == "ignore":
        return list(entries)
    charge: int | None = 0
    if terms.absence_policy == "worst_percentile":
        worst_first = sorted(values, reverse=terms.ranking_direction == "asc")
        rank = -(-len(worst_first) * WORST_PERCENTILE // 100)
        charge = worst_first[rank - 1] if worst_first else None
    return [
        msgspec.structs.replace(entry, charge_units=charge) if entry.fault == "model" else entry
        for entry in entries
    ]
