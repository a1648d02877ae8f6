"""How many of a trailing span's rounds each model was scored in, from the closed periods of the span.

Kept only of periods whose terms have a coverage; follows from the stage's own events. Exact: counts are differences of
running totals.
"""

from __future__ import annotations

import msgspec

from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import Answered, CoverageTerms
from coordinator.streams.snapshots.trailing import Trail

HOUR_MS = 3_600_000


class CoveragePast(msgspec.Struct):
    """Closed periods as far back as a span reaches."""

    rounds: Trail = msgspec.field(default_factory=Trail)
    """Each period's rounds, as its `n`."""
    models: dict[str, Trail] = {}
    """Model -> of each period the rounds it is excused, as `n`, and those it was scored in."""

    def copy(self) -> CoveragePast:
        """The same, to go on from without changing this one."""
        return CoveragePast(self.rounds.copy(), {name: one.copy() for name, one in self.models.items()})

    def take_model(self, model_id: str, start: int, scored: int, excused: int) -> None:
        """One model's period that begins at `start` (ms); later than all before it."""
        if scored or excused:
            trail = self.models.setdefault(model_id, Trail())
            trail.add(start, 0, excused, scored, rehearsal=False)

    def take_period(self, start: int, rounds: int) -> None:
        """A period's rounds that some model could answer."""
        if rounds:
            self.rounds.add(start, 0, rounds, 0, rehearsal=False)

    def answered(self, model_id: str, terms: CoverageTerms, end: int) -> Answered:
        """Of the span that ends with the period that ends at `end` (ms)."""
        first = self._first(terms, end)
        model = self.models.get(model_id) or Trail()
        own = model.since(first)
        return Answered(own.scored, self.rounds.since(first).n - own.n)

    def drop_before(self, told: TermsInForce, end: int) -> None:
        """Forget what no span of any terms reaches at a period's end (ms)."""
        spans = [terms.coverage for _, _, terms in told.spans() if terms.coverage is not None]
        first = min((self._first(span, end) for span in spans), default=end)
        self.rounds.drop_before(first)
        for model_id in list(self.models):
            self.models[model_id].drop_before(first)
            if not self.models[model_id]:
                del self.models[model_id]

    def _first(self, terms: CoverageTerms, end: int) -> int:
        return end - terms.hours * HOUR_MS if terms.hours else self.rounds.start_of_newest(terms.rounds)
