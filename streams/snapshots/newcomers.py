"""What a model has for the time before it joined, where the contract says that it has something.

Each round has a value for who had not joined: the worst or the median of its scores. They are added up as if a model of
its own got them, and a model that joins begins with a copy of that past. Follows from the stage's own events.

A model joins with the first of its rounds to resolve. Rounds that were resolved before that one's snapshot period came
before the model, and so did those that were asked before it and in which the model was not.
"""

from __future__ import annotations

import msgspec

from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import JoinedAt, NewcomerPast
from coordinator.streams.snapshots.past import ModelPast
from coordinator.streams.snapshots.trailing import Trail, drop_trails

ALWAYS_HERE = JoinedAt(0, 0)
"""Of a model that was here before newcomers had a past."""


class NewcomersPast(msgspec.Struct):
    """The past that a model which joins now begins with, and when each joined."""

    trail: Trail = msgspec.field(default_factory=Trail)
    scope_trails: dict[str, Trail] = {}
    past: ModelPast = msgspec.field(default_factory=ModelPast)
    joined: dict[str, JoinedAt] = {}

    def copy(self) -> NewcomersPast:
        """The same, to go on from without changing this one."""
        return NewcomersPast(*self.beginning(), dict(self.joined))

    def beginning(self) -> tuple[Trail, dict[str, Trail], ModelPast]:
        """(sums, sums by scope, values in order) of before now, for a model to go on from."""
        scopes = {name: one.copy() for name, one in self.scope_trails.items()}
        return self.trail.copy(), scopes, self.past.copy()

    def take(
        self, told: TermsInForce, start: int, end: int, period: NewcomerPast, *, rehearsal: bool
    ) -> None:
        """Take in the period [start, end) (ms); later than all before it."""
        self.trail.add(start, period.total.sum_units, period.total.n, 0, rehearsal=rehearsal)
        for name, one in period.scopes.items():
            trail = self.scope_trails.setdefault(name, Trail())
            trail.add(start, one.sum_units, one.n, 0, rehearsal=rehearsal)
        self.past.take(told, start, end, period.series, rehearsal=rehearsal)

    def drop_before(self, told: TermsInForce, end: int, from_ms: int, since: int) -> None:
        """Forget what no window reaches at a period's end (ms): sums of before `from_ms`, values of before `since`."""
        self.trail.drop_before(from_ms)
        drop_trails(self.scope_trails, from_ms)
        if self.past:
            self.past.drop_before(told, end, since)
