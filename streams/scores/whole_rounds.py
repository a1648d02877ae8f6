"""Makes the events of one scope of a resolved round, for contracts that score rounds as a whole.

Pure. RoundScored comes first, then StateCarried with the states that the round changed, in as many events as they need.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from coordinator.streams.contract import CrunchContract, RoundContext
from coordinator.streams.contract.rounds import Question
from coordinator.streams.events import (
    AnyEvent,
    EnsemblesScored,
    EnsemblesScoredData,
    InputScope,
    RosterEntry,
    RoundRescored,
    RoundRescoredData,
    RoundScored,
    RoundScoredData,
    ScopeAnsweredData,
    StateCarried,
    StateCarriedData,
    Terms,
)
from coordinator.streams.log.envelope import PART_BYTES_MAX
from coordinator.streams.scores.carried import Carried, holder_of
from coordinator.streams.scores.charges import charge_of
from coordinator.streams.scores.open_rounds import OpenInput
from coordinator.streams.scores.round_columns import RoundOutcome, asked_in, columns_of
from coordinator.streams.scores.round_scorer import RoundScorer

STATES_BYTES = PART_BYTES_MAX // 2
"""The largest size of the states in one event."""


class ResolvedScope(msgspec.Struct, frozen=True):
    """One scope of a resolved round: its truth, or the reason why it has none."""

    at: int
    """When that became known, in ms."""
    the_input: OpenInput
    scope: InputScope
    truth: Any
    no_truth_reason: str
    counted: dict[str, Any] = {}
    """For a question: the places of the answers that count, as columns of RoundScoredData."""
    corrects: dict[str, Any] | None = None
    """Where a corrected truth scores it again: what RoundRescoredData has beside the columns."""
    stakes: dict[str, str] = {}
    """For a question, at its close: model id -> decimal as text."""
    lost: str = ""
    """Why nobody is scored in it: an answer that goes into the scores is lost."""

    def scored(self, columns: dict[str, Any]) -> RoundScored | RoundRescored:
        """RoundScored, from the columns of its scores; RoundRescored where the truth is corrected."""
        about = self._about | columns | self.counted
        if self.corrects is None:
            return RoundScored(id=f"{self._name}:scored", at=self.at, data=RoundScoredData(**about))
        data = RoundRescoredData(**about, **self.corrects)
        return RoundRescored(id=f"{self._name}:rescored/r{data.revision}", at=self.at, data=data)

    def ensembles_scored(self, columns: dict[str, Any]) -> EnsemblesScored:
        """EnsemblesScored, from the columns of their scores."""
        data = EnsemblesScoredData(**self._about, **columns)
        return EnsemblesScored(id=f"{self._name}:ensembles", at=self.at, data=data)

    @property
    def _name(self) -> str:
        return f"{self.the_input.input_id}/{self.scope.scope_key}"

    @property
    def _about(self) -> dict[str, Any]:
        """The fields that say which round and scope it is."""
        return {
            "input_id": self.the_input.input_id,
            "scope_key": self.scope.scope_key,
            "subject": self.the_input.subject,
            "point": self.the_input.point,
            "resolvable_at": self.scope.resolvable_at,
            "horizon_seconds": self.scope.horizon_seconds,
            "rehearsal": self.the_input.rehearsal,
            "contract_hash": self.the_input.contract_hash,
        }

    def context(self, contract: CrunchContract, before: Carried) -> RoundContext:
        """The context that `score_round` gets."""
        return RoundContext(
            scope_key=self.scope.scope_key,
            subject=self.the_input.subject,
            horizon_seconds=self.scope.horizon_seconds,
            step_seconds=self.scope.step_seconds,
            point=self.the_input.point,
            resolvable_at=self.scope.resolvable_at,
            params=contract.params_of(self.scope.scope_key),
            question=self._question(),
            stakes={model_id: float(stake) for model_id, stake in self.stakes.items()},
            **before.given(),
        )

    def _question(self) -> Question | None:
        asked = self.the_input.question
        if asked is None:
            return None
        return Question(
            round_id=asked.round_id,
            question_id=asked.question_id,
            tags=list(asked.tags),
            opens_at=asked.opens_at,
            closes_at=asked.closes_at,
            recorded=self.the_input.payload,
        )


def whole_round_events(
    what: ResolvedScope,
    answers: Iterable[ScopeAnsweredData],
    roster: Sequence[RosterEntry],
    scorer: RoundScorer,
    contract: CrunchContract,
    terms: Terms,
    before: Carried,
) -> Iterator[AnyEvent]:
    """RoundScored, then StateCarried if the state changed. `before` is not changed."""
    the_input, scope = what.the_input, what.scope
    asked = asked_in(answers, roster)
    if what.truth is None:
        outcome = scorer.failed(asked, what.no_truth_reason)
    else:
        outcome = scorer.score(asked, what.truth, what.context(contract, before), before)
    name = f"{the_input.input_id}/{scope.scope_key}"
    yield what.scored(columns_of(asked, outcome, _charges(outcome, contract, terms)))
    holder = holder_of(contract, the_input.subject, scope.scope_key)
    for number, (states, shared) in enumerate(_in_records(outcome)):
        yield StateCarried(
            id=f"{name}:state" + (f":{number}" if number else ""),
            at=what.at,
            data=StateCarriedData(
                input_id=the_input.input_id,
                scope_key=scope.scope_key,
                subject=the_input.subject,
                holder=holder,
                states=states,
                shared=shared,
            ),
        )


def _charges(outcome: RoundOutcome, contract: CrunchContract, terms: Terms) -> dict[int, int]:
    """Place in the round -> charge of a missing answer, by `score_round` itself or by the contract's policy."""
    if terms.absence_policy == "scored":
        return outcome.charges
    column = outcome.units.get(contract.aggregation.value_field, [])
    charge = charge_of([units for units in column if units is not None], terms)
    if charge is None:
        return {}
    return {place: charge for place, (_, fault, _) in outcome.unscored.items() if fault == "model"}


def _in_records(outcome: RoundOutcome) -> Iterator[tuple[dict[str, msgspec.Raw], list[msgspec.Raw]]]:
    """(states by model, shared state) in parts that fit into a record. The first part has the shared state."""
    if not outcome.states and not outcome.shared:
        return
    part: dict[str, msgspec.Raw] = {}
    shared, size = outcome.shared, 0
    for model_id, state in outcome.states.items():
        state_bytes = len(bytes(state)) + len(model_id)
        if part and size + state_bytes > STATES_BYTES:
            yield part, shared
            part, shared, size = {}, [], 0
        part[model_id] = state
        size += state_bytes
    yield part, shared
