"""Lets the stage of scores decide a round, or all rounds of a posted question, again, over their events alone. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from coordinator.streams.audit.explain.carried_state import Before
from coordinator.streams.audit.explain.steps import Placed
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.stake_payout import StakePayout, watched_stake_payouts
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import (
    AnswerEntry,
    AnswersClosed,
    AnyEvent,
    InputClosed,
    InputReceived,
    InputResolved,
    RoundOpened,
    RoundRescored,
    RoundScored,
    ScopeAnswered,
)
from coordinator.streams.log import ids
from coordinator.streams.log.stage import PlacedEvent
from coordinator.streams.scores.open_rounds import undecoded
from coordinator.streams.scores.stage import ScoreStage


class AnsweredRound(msgspec.Struct, frozen=True):
    """One round of an input: it was asked, or answers were handed in."""

    opened: Placed[RoundOpened]
    answered: Sequence[Placed[ScopeAnswered]]

    @property
    def suffix(self) -> str:
        """What follows the question in its id."""
        return ids.asking_suffix(self.opened.event.data.input_id)

    def answer_of(self, model_id: str) -> tuple[AnswerEntry, Placed[ScopeAnswered]] | None:
        """The model's answer in this round, and the event that has it."""
        roster = self.opened.event.data.roster
        for part in self.answered:
            for entry in part.event.data.entries(roster):
                if entry.model_id == model_id:
                    return entry, part
        return None


class InputHistory(msgspec.Struct, frozen=True):
    """All events of one input, or of all rounds of a posted question, which is closed in two steps."""

    received: InputReceived
    rounds: Sequence[AnsweredRound]
    resolved: Sequence[Placed[InputResolved]]
    closed: Placed[InputClosed] | None = None
    answers_closed: Placed[AnswersClosed] | None = None


class Decided(NamedTuple):
    """The events that the stage computed again, and what stakes won by the last truth."""

    events: list[AnyEvent]
    payouts: list[StakePayout]


def decided_again(
    contract: CrunchContract,
    terms: TermsInForce,
    history: InputHistory,
    past: Iterable[RoundScored] = (),
    before: Sequence[Before] = (),
) -> Decided:
    """What the stage decides for each truth in turn. `past` are earlier rounds, for ensembles that look back; `before`
    is what rounds had left when each truth was scored.
    """
    stage = ScoreStage(lambda _: contract)
    state = stage.state
    state.own.terms = terms
    for earlier in past:
        stage.fold(state, PlacedEvent("scores", earlier))
    stage.fold(state, PlacedEvent("inputs", history.received))
    if history.closed is not None:
        stage.fold(state, PlacedEvent("inputs", history.closed.event))
    for the_round in history.rounds:
        answers = undecoded([part.event for part in the_round.answered])
        for event in (the_round.opened.event, *answers):
            stage.fold(state, PlacedEvent("predictions", event))
    if history.answers_closed is not None:
        stage.fold(state, PlacedEvent("predictions", history.answers_closed.event))
    decided: list[AnyEvent] = []
    won: list[StakePayout] = []
    for number, truth in enumerate(history.resolved):
        if number < len(before):
            state.own.carried = dict(before[number])
        with watched_stake_payouts() as payouts:
            draft = stage.decide(state, PlacedEvent("inputs", truth.event, (number, 0)))
        won = payouts
        events = draft.events if draft is not None else ()
        for scored in events:
            if isinstance(scored, (RoundScored, RoundRescored)):
                stage.fold(state, PlacedEvent("scores", scored))
        decided += events
    return Decided(decided, won)
