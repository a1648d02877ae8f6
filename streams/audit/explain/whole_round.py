"""Scores a round again that the contract scores as a whole, for the explanation of one of its predictions.

Takes the answers of every model on the roster, and calls the node's own function for a round. The state that earlier
rounds may have carried is in other events of the log, and no explanation reads all of them. So the round is scored
without any, and `carries` says whether the figure may rest on such a state.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.subjects import typed_truth
from coordinator.streams.events import (
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
from coordinator.streams.scores.open_rounds import open_input
from coordinator.streams.scores.round_scorer import Carried, RoundScorer
from coordinator.streams.scores.whole_rounds import ResolvedScope, whole_round_events


class RoundAgain(msgspec.Struct, frozen=True):
    """A round that was scored again: model_id -> its entry, with its charge. `carries`: the function keeps a state."""

    entries: dict[str, ScoreEntry]
    carries: bool


def round_again(
    data: InputReceivedData,
    scope: InputScope,
    parts: Sequence[ScopeAnsweredData],
    roster: Sequence[RosterEntry],
    resolved: InputResolved,
    contract: CrunchContract,
    terms: Terms,
) -> RoundAgain:
    """The round of one scope, scored as if no earlier round had carried a state. Raises AUTHORS_ERRORS for a truth of
    another type; what the contract's function raises fails the round, as it does in the node.
    """
    truth, reason = None, f"no ground truth: {resolved.data.reason}"
    if resolved.data.truth is not None:
        truth, reason = typed_truth(contract, scope.scope_key, resolved.data.truth), ""
    what = ResolvedScope(resolved.at, open_input(data, Need()), scope, truth, reason)
    entries: dict[str, ScoreEntry] = {}
    carries = False
    for event in whole_round_events(what, parts, roster, RoundScorer(contract), contract, terms, Carried()):
        match event:
            case RoundScored(data=scored):
                entries = {entry.model_id: entry for entry in scored.entries()}
            case StateCarried():
                carries = True
            case _:
                pass
    return RoundAgain(entries, carries)
