"""Events of `snapshots`: each model's period summed up."""

from __future__ import annotations

import msgspec

from coordinator.streams.events.base import Data, Event


class FieldSum(msgspec.Struct, frozen=True, array_like=True):
    """[sum in units, n]: a mean is one division."""

    sum_units: int
    n: int


class ScopeSum(msgspec.Struct, frozen=True, array_like=True):
    """[sum of the value field in units, n, how many of the n are scores]: the others are charges."""

    sum_units: int
    n: int
    scored: int


class PeriodCorrection(msgspec.Struct, frozen=True, array_like=True):
    """[start (ms) of an earlier period, what corrected truths change in it: sum of the value field in units, n, how
    many are scores; scope -> the same, where the contract has boards].
    """

    period_start: int
    sum_units: int
    n: int
    scored: int
    scopes: dict[str, ScopeSum] = {}


class SeriesValue(msgspec.Struct, frozen=True, array_like=True):
    """[units of the value field, whether it is a score (else a charge)]"""

    units: int
    scored: bool


class PeriodRestated(Data, frozen=True):
    """The values of an earlier period of the same checkpoint period, with the truths that were corrected in this
    one.
    """

    period_start: int
    scored_before: int
    """How many scores of the model the summary covered before these truths (or before the last ones that changed
    it).
    """
    scored_count: int
    """The same with these truths."""
    summary_before: dict[str, int]
    summary_units: dict[str, int]
    summary_error: str = ""
    series: list[SeriesValue] = []
    """The earlier period's values with these truths, in the same order as `series` of its own snapshot."""


class Answered(msgspec.Struct, frozen=True, array_like=True):
    """[rounds in which a model was scored, of how many]. The total counts (round, scope) pairs that some model could
    answer, without those that this model missed by no fault of its own.
    """

    scored: int
    asked: int


class JoinedAt(msgspec.Struct, frozen=True, array_like=True):
    """[the first point (ms) of a model's rounds in the first snapshot period that has any, the start (ms) of that].

    [0, 0] of a model that was here before newcomers had a past.
    """

    point: int
    period_start: int


class SnapshotTakenData(Data, frozen=True):
    """One model in one period [period_start, period_end). Counts are of (round, scope) pairs.

    `failed_node_count` of the `failed_count` are the node's fault (no ground truth, a scoring function that raised).
    """

    snapshot_id: str
    model_id: str
    period_start: int
    period_end: int
    sums: dict[str, FieldSum]
    summary_units: dict[str, int]
    windows_units: dict[str, int | None]
    scored_count: int
    failed_count: int
    absent_model_count: int
    absent_node_count: int
    charged_count: int
    rehearsal: bool
    contract_hash: str
    summary_error: str = ""
    rehearsal_windows: list[str] = []
    failed_node_count: int = 0
    no_score_count: int = 0
    """Answers for which the contract had no score yet, by nobody's fault. They are in no other count."""
    cruncher_id: str = ""
    """The cruncher that the model belongs to, by the latest round; empty if the orchestrator does not say."""
    first_point: int = 0
    """The point (ms) of the first round that any model of the same cruncher was ever asked in."""
    rounds_count: int = 0
    """The period's (round, scope) pairs that some model could answer, without those that this one missed by no fault
    of its own; a model that joined late or has left misses rounds too."""
    excused_count: int = 0
    """Those that it missed by no fault of its own; `rounds_count` is without them."""
    coverage: Answered | None = None
    """The answered rounds of the span that the terms' coverage names, at the period's end; null if the terms have no
    coverage.
    """
    joined: JoinedAt | None = None
    """When it joined, if newcomers have a past; otherwise null."""
    filled_count: int = 0
    """Rounds of the period from before it joined, whose values for newcomers are in its sums, as charges are."""
    scopes: dict[str, ScopeSum] = {}
    """`subject/scope_key` -> the value field's sum, where the contract has boards."""
    boards_units: dict[str, int | None] = {}
    """The boards over a window, as of the period's end."""

    corrected: list[PeriodCorrection] = []
    """The changes by corrected truths of posted questions in earlier periods. They are in the sums and counts of this
    period. Windows, and boards over a window, have them in the period to which they belong."""
    restated: list[PeriodRestated] = []
    """Earlier periods whose ordered values, or whose summary, changed by the truths that were corrected in this one.
    Windows and the checkpoint use the new values from here on."""
    series: list[SeriesValue] = []
    """The period's values in the order of resolvable time, input and scope; only where a window needs an order."""
    windows_counts: dict[str, int] = {}
    """How many scores are in each window that is not a plain mean."""

    @property
    def ranking_units(self) -> dict[str, int | None]:
        """Each number that a board may rank by -> its units: windows and boards over a window as of the period's end,
        and the summary of the period.
        """
        return {**self.summary_units, **self.boards_units, **self.windows_units}

    @property
    def player(self) -> str:
        """The owner of this history: the cruncher, or the model itself if no cruncher is known."""
        return self.cruncher_id or self.model_id


class SnapshotTaken(Event, frozen=True):
    """A model's period was summed up."""

    data: SnapshotTakenData


class PointCount(msgspec.Struct, frozen=True, array_like=True):
    """[point in ms, how many (round, scope) pairs were asked at it]."""

    point: int
    n: int


class NewcomerPast(Data, frozen=True):
    """The values of the period's rounds for a model that had not joined, by `CrunchContract.newcomer_past`."""

    total: FieldSum
    scopes: dict[str, ScopeSum] = {}
    """Where the contract has boards; `scored` is 0."""
    series: list[SeriesValue] = []
    """In the order of resolvable time, input and scope, where a window needs an order."""


class PeriodClosedData(Data, frozen=True):
    """Periods in [from_ms, until_ms) are closed; a run of empty ones is one event (snapshot_count 0)."""

    from_ms: int
    until_ms: int
    snapshot_count: int
    rehearsal: bool
    rounds_count: int = 0
    """(round, scope) pairs of the period that some model could answer."""
    asked_before: list[PointCount] = []
    """Those of them that were asked before the checkpoint period began, by point. A newcomer may be excused from
    them.
    """
    newcomer_past: NewcomerPast | None = None
    """Null where the terms give newcomers none."""
    other_scoring_count: int = 0
    """(round, scope) pairs that were asked and scored by another scoring than that of the period. They are in no
    sum.
    """


class PeriodClosed(Event, frozen=True):
    """No snapshot will come for these periods any more."""

    data: PeriodClosedData
