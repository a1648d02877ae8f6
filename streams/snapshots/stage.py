"""Snapshots: each model's period summed up, when all its scores are there.

Driven by `scores`, emits `snapshots`. A period is [start, end) by resolvable time. ScoredUntil(T) closes
every period that ends at or before T, in one decision. Sums are of integers, so their order does not
matter; `summary` is the contract's own aggregate over the period's scores in the order of resolvable time,
input and scope, called once here. Trailing windows are sums over the stage's own past snapshots.
"""

from __future__ import annotations

from collections import Counter as Count
from collections import deque
from collections.abc import Callable, Iterator
from typing import ClassVar

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import (
    AnyEvent,
    CrunchConfigured,
    FieldSum,
    PeriodClosed,
    PeriodClosedData,
    PointCount,
    RoundScored,
    ScoredUntil,
    SnapshotTaken,
    SnapshotTakenData,
    Terms,
    Unscored,
    units_of,
)
from coordinator.streams.log import ids
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need, Position
from coordinator.streams.log.finite import numbers_of
from coordinator.streams.log.old_stage import OldStage, passing
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.log.stage import EMPTY_DECISION_EVERY, Draft
from coordinator.streams.scores.scorer import validator
from coordinator.streams.scores.units import mean_units, to_float, to_units
from coordinator.streams.snapshots.trailing import Totals, Trail

HOUR_MS = 3_600_000
_FAR = 1 << 62


ScoredRound = tuple[int, str, str, dict[str, list[int | None]]]
"""(resolvable_at, input_id, scope_key, the columns of units)"""


class Tally:
    """One model's period while it is open."""

    __slots__ = (
        "absent_model", "absent_node", "charged", "cruncher_id", "failed", "failed_node", "first_point",
        "missed_by_node", "rehearsal", "scored", "scores", "sums",
    )  # fmt: skip

    def __init__(self) -> None:
        self.sums: dict[str, list[int]] = {}
        self.scores: list[tuple[ScoredRound, int]] = []
        """Its scored rounds, and its index in each."""
        self.scored = self.failed = self.failed_node = self.absent_model = self.absent_node = self.charged = 0
        self.missed_by_node = 0
        self.first_point = _FAR
        self.cruncher_id = ""
        self.rehearsal = False

    def add(self, name: str, units: int) -> None:
        """Add one value to a field's sum."""
        total = self.sums.setdefault(name, [0, 0])
        total[0] += units
        total[1] += 1

    def missed(self, one: Unscored, value_field: str, *, answerable: bool) -> None:
        """Count a round without a score. `answerable`: some model could answer it."""
        by_node = one.fault == "node"
        self.missed_by_node += answerable and by_node
        if one.status == "FAILED":
            self.failed += 1
            self.failed_node += by_node
        elif by_node:
            self.absent_node += 1
        else:
            self.absent_model += 1
        if one.charge_units is not None:
            self.charged += 1
            self.add(value_field, one.charge_units)


class OpenPeriod:
    """A period some scores have come for."""

    __slots__ = ("before", "end", "other_scoring", "points", "tallies")

    def __init__(self, end: int, before: Need) -> None:
        self.end = end
        self.before = before
        self.tallies: dict[str, Tally] = {}
        self.points: list[int] = []
        """Of every round and scope that some model could answer."""
        self.other_scoring = 0

    def tally(self, model_id: str) -> Tally:
        """The model's, a new one at its first round."""
        found = self.tallies.get(model_id)
        if found is None:
            found = self.tallies[model_id] = Tally()
        return found


class SnapshotStage(OldStage):
    """scores -> snapshots."""

    topic: ClassVar[str] = "snapshots"
    drivers: ClassVar[tuple[str, ...]] = ("scores",)
    memory: ClassVar[tuple[str, ...]] = ("CrunchConfigured", "SnapshotTaken", "PeriodClosed")

    def __init__(self, contracts: Callable[[str], CrunchContract]) -> None:
        super().__init__()
        self._contracts = contracts
        self._waiting: deque[Decision] = deque()
        self._periods: dict[int, OpenPeriod] = {}
        # own memory
        self._terms = TermsInForce()
        self._closed_until = -1
        self._trails: dict[str, Trail] = {}
        self._joined: dict[str, int] = {}
        """Player -> the point of the first round that any of its models was asked in."""
        self._crunchers: dict[str, str] = {}

    def absorb(self, decision: Decision) -> None:
        """Fold what is decided, queue the rest: tallies depend on terms that an earlier event may change."""
        if self.decided("scores", (decision.offset, len(decision.events) - 1)):
            self._tally(decision)
        else:
            self._waiting.append(decision)

    def evolve(self, event: AnyEvent) -> None:
        """Own events: terms, closed periods, the buckets of the windows."""
        match event:
            case CrunchConfigured():
                self._terms.add(event)
            case SnapshotTaken(data=data):
                known = self._joined.get(data.player, data.first_point)
                self._joined[data.player] = min(data.first_point, known)
                self._crunchers[data.model_id] = data.cruncher_id
                total = data.sums.get(self._terms.at(data.period_start).value_field)
                if total is not None:
                    self._trails.setdefault(data.model_id, Trail()).add(
                        data.period_start,
                        total.sum_units,
                        total.n,
                        data.scored_count,
                        rehearsal=data.rehearsal,
                    )
            case PeriodClosed(data=data):
                self._closed_until = max(self._closed_until, data.until_ms)
                self._periods = {
                    start: one for start, one in self._periods.items() if one.end > data.until_ms
                }
                longest = max(window.hours for terms in self._terms.spans() for window in terms[2].windows)
                _drop(self._trails, self._closed_until - longest * HOUR_MS)
            case _:
                pass

    def decide(self, *_unused: object) -> Draft | None:
        """What the oldest waiting decision of `scores` closes, if anything."""
        if not self._waiting:
            return None
        decision = self._waiting[0]
        for index, event in enumerate(decision.events):
            if not isinstance(event, (ScoredUntil, CrunchConfigured)):
                continue
            draft = self._draft(event, (decision.offset, index), decision)
            if draft is not None:
                return draft
        last = (decision.offset, len(decision.events) - 1)
        if decision.offset - self.upto["scores"][0] >= EMPTY_DECISION_EVERY:
            # Its own rounds are tallied with it: a period that they open is needed from here on.
            need = self._needed(decision)
            if any(isinstance(event, RoundScored) and self._counts(event) for event in decision.events):
                need = min(need, decision.before, key=lambda one: one.offset)
            return Draft([], {"scores": last}, {"scores": need})
        return passing("scores", last)

    def fold_decided(self, draft: Draft) -> None:
        """A decision of `scores` is tallied once the last of its events is decided."""
        decision = self._waiting[0]
        if draft.upto["scores"] >= (decision.offset, len(decision.events) - 1):
            self._tally(decision)
            self._waiting.popleft()

    def _counts(self, event: RoundScored) -> bool:
        """Is its period still open? Else it is folded again on resume."""
        return event.data.resolvable_at >= self._closed_until

    def _draft(self, event: AnyEvent, position: Position, decision: Decision) -> Draft | None:
        if self.decided("scores", position):
            return None
        if isinstance(event, CrunchConfigured):
            return Draft([event], {"scores": position}, {"scores": self._needed(decision)})
        if isinstance(event, ScoredUntil) and event.data.until > self._closed_until:
            events = list(self._close(event))
            return Draft(events, {"scores": position}, {"scores": self._needed(decision, event.data.until)})
        return None

    def _needed(self, decision: Decision, closing_until: int = -1) -> Need:
        still_open = [one.before for one in self._periods.values() if one.end > closing_until]
        return min([*still_open, decision.after()], key=lambda need: need.offset)

    # --- tallying ----------------------------------------------------------------------------------

    def _tally(self, decision: Decision) -> None:
        for event in decision.events:
            if isinstance(event, RoundScored):
                self._tally_round(event, decision)

    def _tally_round(self, event: RoundScored, decision: Decision) -> None:
        data = event.data
        if not self._counts(event):
            return
        start, end = self._terms.snapshot_period(data.resolvable_at)
        period = self._periods.get(start)
        if period is None:
            period = self._periods[start] = OpenPeriod(end, decision.before)
        if not self._terms.adds_up(data.contract_hash, start):
            period.other_scoring += 1
            return
        # Where nobody could answer (no ground truth, a restart of the node) nobody took part and nobody missed it.
        answerable = len(data.unscored) < len(data.models) or any(
            one.fault == "model" for one in data.unscored
        )
        if answerable:
            period.points.append(data.point)
        the_round = (data.resolvable_at, data.input_id, data.scope_key, data.units)
        tallies = [period.tally(model_id) for model_id in data.models]
        whose = data.crunchers or [""] * len(tallies)
        unscored = {one.model for one in data.unscored}
        rehearsal, point = data.rehearsal, data.point
        # The hot loops: one pass for the models, then one for each score field.
        for i, (tally, cruncher_id) in enumerate(zip(tallies, whose, strict=True)):
            tally.cruncher_id = cruncher_id
            if rehearsal:
                tally.rehearsal = True
            tally.first_point = min(tally.first_point, point)
            if i not in unscored:
                tally.scored += 1
                tally.scores.append((the_round, i))
        for name, column in data.units.items():
            for tally, units in zip(tallies, column, strict=True):
                if units is not None:
                    tally.add(name, units)
        value_field = self._terms.at(start).value_field
        for one in data.unscored:
            tallies[one.model].missed(one, value_field, answerable=answerable)

    # --- closing -----------------------------------------------------------------------------------

    def _close(self, event: ScoredUntil) -> Iterator[AnyEvent]:
        until = event.data.until
        first = min(self._periods, default=until)
        start = self._closed_until if self._closed_until >= 0 else self._terms.snapshot_period(first)[0]
        if start >= until:  # the first boundary seen, before any score: time begins here
            yield self._period_closed(until, until, 0, event)
            return
        trails = {model_id: one.copy() for model_id, one in self._trails.items()}
        # One decision may close many periods: the later ones build on the earlier.
        joined, crunchers = dict(self._joined), dict(self._crunchers)
        empty_from = start
        while start < until:
            _, end = self._terms.snapshot_period(start)
            snapshots = list(self._snapshots(start, end, trails, joined, crunchers, event.at))
            if snapshots:
                if empty_from < start:
                    yield self._period_closed(empty_from, start, 0, event)
                yield from snapshots
                yield self._period_closed(start, end, len(snapshots), event)
                empty_from = end
            elif not trails:
                # Nothing until the next period with scores: a run of empty periods is one event.
                end = min([until, *(one for one in self._periods if one > start)])
            start = end
        if empty_from < until:
            yield self._period_closed(empty_from, until, 0, event)

    def _period_closed(self, from_ms: int, until_ms: int, count: int, event: ScoredUntil) -> PeriodClosed:
        period = self._periods.get(from_ms)
        began, _ = self._terms.checkpoint_period(from_ms)
        points = Count(period.points) if period is not None else Count[int]()
        rehearsal = period is not None and any(tally.rehearsal for tally in period.tallies.values())
        return PeriodClosed(
            id=f"period-closed/{from_ms}-{until_ms}",
            at=event.at,
            data=PeriodClosedData(
                from_ms=from_ms,
                until_ms=until_ms,
                snapshot_count=count,
                rehearsal=rehearsal,
                rounds_count=points.total(),
                other_scoring_count=sum(
                    one.other_scoring for at, one in self._periods.items() if from_ms <= at < until_ms
                ),
                asked_before=[PointCount(point, n) for point, n in sorted(points.items()) if point < began],
            ),
        )

    def _snapshots(
        self,
        start: int,
        end: int,
        trails: dict[str, Trail],
        joined: dict[str, int],
        crunchers: dict[str, str],
        at: int,
    ) -> Iterator[SnapshotTaken]:
        terms = self._terms.at(start)
        period = self._periods.get(start)
        tallies = period.tallies if period is not None else {}
        longest = max(window.hours for window in terms.windows) * HOUR_MS
        since = self._terms.comparable_since(start)
        _drop(trails, max(end - longest, since))
        rounds_count = len(period.points) if period is not None else 0
        for model_id, tally in tallies.items():
            crunchers[model_id] = tally.cruncher_id
            player = tally.cruncher_id or model_id
            joined[player] = min(tally.first_point, joined.get(player, _FAR))
        for model_id in sorted(tallies.keys() | trails.keys()):
            tally = tallies.get(model_id) or Tally()
            trail = trails.get(model_id) or Trail()
            cruncher_id = crunchers.get(model_id, "")
            total = tally.sums.get(terms.value_field)
            if total is not None:
                trails[model_id] = trail
                trail.add(start, total[0], total[1], tally.scored, rehearsal=tally.rehearsal)
            windows = {
                window.name: trail.since(max(end - window.hours * HOUR_MS, since)) for window in terms.windows
            }
            summary, error = self._summary(tally, terms)
            yield SnapshotTaken(
                id=f"{ids.snapshot_id(model_id, start, end)}:taken",
                at=at,
                data=SnapshotTakenData(
                    snapshot_id=ids.snapshot_id(model_id, start, end),
                    model_id=model_id,
                    period_start=start,
                    period_end=end,
                    sums={name: FieldSum(*one) for name, one in sorted(tally.sums.items())},
                    summary_units=summary,
                    summary_error=error,
                    windows_units={name: _mean(totals) for name, totals in windows.items()},
                    rehearsal_windows=[name for name, totals in windows.items() if totals.rehearsals],
                    scored_count=tally.scored,
                    failed_count=tally.failed,
                    failed_node_count=tally.failed_node,
                    cruncher_id=cruncher_id,
                    first_point=joined[cruncher_id or model_id],
                    rounds_count=rounds_count - tally.missed_by_node,
                    absent_model_count=tally.absent_model,
                    absent_node_count=tally.absent_node,
                    charged_count=tally.charged,
                    rehearsal=tally.rehearsal,
                    contract_hash=terms.contract_hash,
                ),
            )

    def _summary(self, tally: Tally, terms: Terms) -> tuple[dict[str, int], str]:
        """The contract's own aggregate over the period's scores, rounded; or why there is none."""
        if not tally.scores:
            return {}, ""
        contract = self._contracts(terms.contract_hash)
        as_result = validator(contract.score_type)
        decimals = terms.score_decimals
        try:
            results = [
                as_result({name: to_float(one, decimals) for name, one in units_of(the_round[3], i).items()})
                for the_round, i in sorted(tally.scores, key=lambda score: score[0][:3])
            ]
            summary = numbers_of(contract.aggregate_snapshot(results))
            return {name: to_units(value, decimals) for name, value in sorted(summary.items())}, ""
        except AUTHORS_ERRORS as error:  # the period's sums do not depend on it
            return {}, as_reason(f"aggregate_snapshot: {type(error).__name__}: {error}")


def _mean(totals: Totals) -> int | None:
    """The mean over a window, or None when no score is in it.

    Charges alone make no mean: with `absence_policy="zero"` silence would rank above every losing model.
    """
    return mean_units(totals.sum_units, totals.n) if totals.scored else None


def _drop(trails: dict[str, Trail], from_ms: int) -> None:
    """Forget the periods that start before `from_ms`, and models with none left."""
    for model_id in list(trails):
        trails[model_id].drop_before(from_ms)
        if not trails[model_id]:
            del trails[model_id]
