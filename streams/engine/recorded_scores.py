"""The scores of a log taken again, where they mean what the rules would make them mean: then nobody scores twice.

Reads `scores` of the log; what absence costs is not taken over, it follows from the rules. A score is taken only where
its contract scores as the new one does, and the truth of its round is the recorded one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from coordinator.streams.contract import CrunchContract
from coordinator.streams.engine.log import MemoryLog
from coordinator.streams.events import InputResolvedData, RoundScored, RoundScoredData, Terms

Truths = Mapping[tuple[str, int], bytes]
"""(input id, horizon in s) -> `truth_of` what was recorded."""


class RecordedScores:
    """Rounds are read as they are asked for, and forgotten with that: they are asked for in the log's order."""

    def __init__(
        self,
        log: MemoryLog,
        truths: Truths,
        truth_of: Callable[[InputResolvedData], bytes],
        means_the_same: Callable[[str], bool],
    ) -> None:
        """`means_the_same` is asked about the contract (its hash) by which a round was scored."""
        self._ahead = log.walk("scores")
        self._truths, self._truth_of, self._means_the_same = truths, truth_of, means_the_same
        self._found: dict[tuple[str, str], RoundScoredData] = {}
        self.count = 0
        """How many rounds were taken again."""

    def of(self, resolved: InputResolvedData, scope_key: str) -> RoundScoredData | None:
        """The recorded scores of a round whose truth is this; None where they are not there or mean something else."""
        key = (resolved.input_id, scope_key)
        while key not in self._found:
            decision = next(self._ahead, None)
            if decision is None:
                return None
            for event in decision.events:
                if isinstance(event, RoundScored):
                    self._found[event.data.input_id, event.data.scope_key] = event.data
        data = self._found.pop(key)
        truth = self._truths.get((resolved.input_id, resolved.horizon_seconds))
        if truth != self._truth_of(resolved) or not self._means_the_same(data.contract_hash):
            return None
        self.count += 1
        return data


def scored_alike(old: CrunchContract, old_terms: Terms, new: CrunchContract, new_terms: Terms) -> bool:
    """Does a score of the old contract mean what one of the new would? Only where each answer is scored by itself: what
    a whole round leaves behind for the next is not taken over. The answer's type is looked at as it is, since its own
    validators are run before each score.
    """
    return (
        old.score_round is None
        and new.score_round is None
        and old_terms.scoring_hash == new_terms.scoring_hash != ""
        and old_terms.score_decimals == new_terms.score_decimals
        and old.output_type is new.output_type
    )
