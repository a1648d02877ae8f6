"""Counts how many rounds of a trailing span each model answered, from the closed periods of the span.

A value, folded from the stage's own events. Only periods whose terms have a coverage are kept. The counts are
differences of running totals, and exact.
"""

from __future__ import annotations

import msgspec

from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.durations import HOUR_MS
from coordinator.streams.events import Answered, CoverageTerms
from coordinator.streams.snapshots.trailing import Trail


class CoveragePast(msgspec.Struct):
    """The closed periods that a span may reach."""

    rounds: Trail = msgspec.field(default_factory=Trail)
    """`n` of a period: its rounds."""
    models: dict[str, Trail] = {}
    """Model -> its trail. `n` of a period: the rounds from which it is excused; `scored`: those with a score."""

    def copy(self) -> CoveragePast:
        """A copy that can be changed."""
        return CoveragePast(
            self.rounds.copy(), {model_id: trail.copy() for model_id, trail in self.models.items()}
        )

    def take_model(self, model_id: str, start: int, scored: int, excused: int) -> None:
        """Add a model's period that begins at `start` (ms), after all periods that were added before."""
        if scored or excused:
            trail = self.models.setdefault(model_id, Trail())
            trail.add(start, 0, excused, scored, rehearsal=False)

    def take_period(self, start: int, rounds: int) -> None:
        """Add the number of rounds of a period that at least one model could answer."""
        if rounds:
            self.rounds.add(start, 0, rounds, 0, rehearsal=False)

    def answered(self, model_id: str, terms: CoverageTerms, end: int) -> Answered:
        """How many rounds the model answered, and could answer, in the span that ends at `end` (ms)."""
        first = self._first(terms, end)
        model = self.models.get(model_id) or Trail()
        own = model.since(first)
        return Answered(own.scored, self.rounds.since(first).n - own.n)

    def drop_before(self, told: TermsInForce, start: int, end: int) -> None:
        """Drop what the spans of the terms in force do not reach at the end of the period, or periods, [start, end).

        A span that is made longer begins with what was kept until then, whenever its terms became known.
        """
        first = max(
            (
                self._first(terms.coverage, min(until, end))
                for begin, until, terms in told.spans()
                if terms.coverage is not None and start < until and begin < min(until, end)
            ),
            default=0,
        )
        self.rounds.drop_before(first)
        for model_id in list(self.models):
            self.models[model_id].drop_before(first)
            if not self.models[model_id]:
                del self.models[model_id]

    def _first(self, terms: CoverageTerms, end: int) -> int:
        return end - terms.hours * HOUR_MS if terms.hours else self.rounds.start_of_newest(terms.rounds)
