"""Recorded scores for a run under other rules, so that a round is not scored again where its scores would be the same.

Reads `scores` of a log; emits nothing. The score stage of the run asks for each round. A recorded score is used only if
its contract scores as the new one does, and if the round's truth is the recorded one. Charges are not used: the new
rules say what absence costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from coordinator.streams.contract import CrunchContract
from coordinator.streams.engine.memory_log import MemoryLog
from coordinator.streams.events import InputResolvedData, RoundScored, RoundScoredData, Terms
from coordinator.streams.log.envelope import Need

Truths = Mapping[tuple[str, int], bytes]
"""(input id, horizon in s) -> `truth_of` of the recorded truth."""


class RecordedScores:
    """Gives each round once. The stage asks in the order of the log, so rounds are read when they are needed and
    dropped once they are given: memory stays flat.
    """

    def __init__(
        self,
        log: MemoryLog,
        truths: Truths,
        truth_of: Callable[[InputResolvedData], bytes],
        means_the_same: Callable[[str], bool],
        start: Need | None = None,
    ) -> None:
        """`means_the_same` says of a contract's hash whether its scores mean the same as those of the new rules.
        `start`: where to read on, the `need` of an earlier run; None: at the first record.
        """
        self._ahead = log.walk("scores", start)
        self._truths, self._truth_of, self._means_the_same = truths, truth_of, means_the_same
        self._found: dict[tuple[str, str], tuple[RoundScoredData, Need]] = {}
        self._after = start or Need()
        self.count = 0
        """How many rounds were not scored again."""

    @property
    def need(self) -> Need:
        """The position of the first round that was not returned yet."""
        return min((before for _, before in self._found.values()), default=self._after, key=_offset)

    def of(self, resolved: InputResolvedData, scope_key: str) -> RoundScoredData | None:
        """The recorded scores of a round with this truth; None if there are none, or if they mean something else."""
        key = (resolved.input_id, scope_key)
        while key not in self._found:
            decision = next(self._ahead, None)
            if decision is None:
                return None
            self._after = decision.after()
            for event in decision.events:
                if isinstance(event, RoundScored):
                    self._found[event.data.input_id, event.data.scope_key] = event.data, decision.before
        data, _ = self._found.pop(key)
        truth = self._truths.get((resolved.input_id, resolved.horizon_seconds))
        if truth != self._truth_of(resolved) or not self._means_the_same(data.contract_hash):
            return None
        self.count += 1
        return data


def _offset(need: Need) -> int:
    return need.offset


def scored_alike(old: CrunchContract, old_terms: Terms, new: CrunchContract, new_terms: Terms) -> bool:
    """Whether a score of the old contract means the same as one of the new contract.

    Only a contract that scores each answer by itself can be alike: `score_round` carries state to the next round, and
    that state is not taken over. The output type must be the same object, since its validators run before each score.
    """
    return (
        old.score_round is None
        and new.score_round is None
        and old_terms.scoring_hash == new_terms.scoring_hash != ""
        and old_terms.score_decimals == new_terms.score_decimals
        and old.output_type is new.output_type
    )
