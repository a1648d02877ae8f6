"""Scores a round again that the contract scores as a whole, for the explanation of one of its predictions.

Takes the answers of every model on the roster and the state that earlier rounds left, and calls the node's own function
for a round. Where that state is not to be had, the round is scored without any, and `carries` says whether the figure
may rest on one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from coordinator.streams.audit.explain.carried_state import Before
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.stake_payout import StakePayout, watched_stake_payouts
from coordinator.streams.contract.subjects import typed_truth
from coordinator.streams.events import (
    AnyEvent,
    InputReceivedData,
    InputResolved,
    InputScope,
    RosterEntry,
    RoundScored,
    ScopeAnsweredData,
    ScoreEntry,
    StateCarried,
    Terms,
)
from coordinator.streams.log.envelope import Need
from coordinator.streams.scores.carried import Carried, holder_of
from coordinator.streams.scores.open_rounds import open_input
from coordinator.streams.scores.round_scorer import RoundScorer
from coordinator.streams.scores.whole_rounds import ResolvedScope, whole_round_events


class RoundAgain(msgspec.Struct, frozen=True):
    """A round that was scored again: model_id -> its entry, with its charge; its events; and what stakes won."""

    entries: dict[str, ScoreEntry]
    events: list[AnyEvent]
    payouts: list[StakePayout]

    @property
    def carries(self) -> bool:
        """Whether the function keeps a state."""
        return any(isinstance(event, StateCarried) for event in self.events)


class RecordedScope(NamedTuple):
    """One scope of a round as the log has it: the input, the answers by the models of the roster, and the truth."""

    data: InputReceivedData
    scope: InputScope
    parts: Sequence[ScopeAnsweredData]
    roster: Sequence[RosterEntry]
    resolved: InputResolved


def round_again(
    recorded: RecordedScope,
    contract: CrunchContract,
    terms: Terms,
    before: Before,
) -> RoundAgain:
    """The round of one scope, scored with what earlier rounds left. Raises AUTHORS_ERRORS for a truth of another type;
    what the contract's function raises fails the round, as it does in the node.
    """
    data, scope, parts, roster, resolved = recorded
    truth, reason = None, f"no ground truth: {resolved.data.reason}"
    if resolved.data.truth is not None:
        truth, reason = typed_truth(contract, scope.scope_key, resolved.data.truth), ""
    what = ResolvedScope(resolved.at, open_input(data, Need()), scope, truth, reason)
    carried = before.get(holder_of(contract, data.subject, scope.scope_key), Carried())
    with watched_stake_payouts() as payouts:
        events = [*whole_round_events(what, parts, roster, RoundScorer(contract), contract, terms, carried)]
    entries = {
        entry.model_id: entry
        for event in events
        if isinstance(event, RoundScored)
        for entry in event.data.entries()
    }
    return RoundAgain(entries, events, payouts)
