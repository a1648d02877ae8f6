"""The past that a model gets for the time before it joined, if the contract gives newcomers one.

A value, folded from the stage's own events. Every round has a value for models that had not joined: the worst or the
median of its scores. These values are summed as if they were those of one model, and a model that joins starts with a
copy.

A model joins with the first of its rounds that resolves. Before it joined are: all rounds that resolved before the
snapshot period of that round; and, of that period, the rounds that were asked before it and did not ask the model.
"""

from __future__ import annotations

import msgspec

from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import JoinedAt, NewcomerPast
from coordinator.streams.snapshots.past import ModelPast
from coordinator.streams.snapshots.trailing import Trail, drop_trails

ALWAYS_HERE = JoinedAt(0, 0)
"""For a model that was there before newcomers were given a past."""


class NewcomersPast(msgspec.Struct):
    """The past that a model gets if it joins now, and when each model joined."""

    trail: Trail = msgspec.field(default_factory=Trail)
    scope_trails: dict[str, Trail] = {}
    past: ModelPast = msgspec.field(default_factory=ModelPast)
    joined: dict[str, JoinedAt] = {}

    def copy(self) -> NewcomersPast:
        """A copy that can be changed."""
        return NewcomersPast(*self.beginning(), dict(self.joined))

    def beginning(self) -> tuple[Trail, dict[str, Trail], ModelPast]:
        """(sums, sums by scope, values in order) of the past, as copies for a model that joins now."""
        scopes = {scope: trail.copy() for scope, trail in self.scope_trails.items()}
        return self.trail.copy(), scopes, self.past.copy()

    def take(
        self, told: TermsInForce, start: int, end: int, period: NewcomerPast, *, rehearsal: bool
    ) -> None:
        """Add the period [start, end) (ms), after all periods that were added before."""
        self.trail.add(start, period.total.sum_units, period.total.n, 0, rehearsal=rehearsal)
        for scope, of_period in period.scopes.items():
            trail = self.scope_trails.setdefault(scope, Trail())
            trail.add(start, of_period.sum_units, of_period.n, 0, rehearsal=rehearsal)
        self.past.take(told, start, end, period.series, rehearsal=rehearsal)

    def drop_before(self, told: TermsInForce, end: int, from_ms: int, since: int) -> None:
        """Drop what no window reaches from `end` (ms): sums before `from_ms`, and values before `since`."""
        self.trail.drop_before(from_ms)
        drop_trails(self.scope_trails, from_ms)
        if self.past:
            self.past.drop_before(told, end, since)
