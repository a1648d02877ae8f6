"""Computes the snapshots of a period again from its scores: sums, counts, windows, boards, metrics, newcomers.

Reads a `Chain`; `check_snapshots` returns a line of text, or raises ChainBrokenError with the recorded value and the
one that it should be. `SnapshotsAgain` gives both values of each number, and explanations use it too. Pure. All sums
are of integers (units), so they do not depend on the order of the scores.
"""

from __future__ import annotations

from collections import Counter as Count
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from coordinator.streams.audit.differences import difference
from coordinator.streams.audit.facts import Asked, Chain, broken
from coordinator.streams.audit.newcomers import NONE, Newcomers
from coordinator.streams.audit.participation import Answerable, corrected_in, participation, with_first_scores
from coordinator.streams.audit.restated_periods import RestatedAgain, compare_restated
from coordinator.streams.audit.windows import (
    board_again,
    covered_again,
    periods_of,
    sums_kept_since,
    windows_again,
)
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.events import (
    CheckpointData,
    EnsemblesScoredData,
    FieldSum,
    JoinedAt,
    PeriodClosedData,
    PointCount,
    RoundRescoredData,
    RoundScoredData,
    ScopeSum,
    ScoreEntry,
    SnapshotTakenData,
)
from coordinator.streams.scores.boards import scope_name
from coordinator.streams.snapshots.state import Place, is_answerable, metric_weights
from coordinator.streams.snapshots.summary import NO_SCORES, Scored, Summary, summaries


class CountedRound(NamedTuple):
    """Columns of scores that a period counts: +1 adds them, -1 takes them out again.

    A truth that is corrected in a later period takes the first scores out there, and adds the new ones there.
    """

    data: RoundScoredData
    sign: int


class _Sums:
    """What one snapshot must hold: the sums over the scores and charges of one model in one period."""

    def __init__(self) -> None:
        self.sums: dict[str, list[int]] = {}
        """Field -> [sum of units, number of values]."""
        self.counts: Count[str] = Count()
        self.scopes: dict[str, list[int]] = {}
        """`subject/scope_key` -> [sum of units of the value field, number of values, how many of them are scores]."""
        self.corrected: dict[int, list[int]] = {}
        """Start (ms) of an earlier period -> what corrected truths change in it, as in `scopes`."""
        self.scores: list[Scored] = []
        self.series: list[tuple[Place, int, bool]] = []
        """(place, units of the value field, is it a score) of each score and charge."""

    def add(self, field: str, units: int, sign: int = 1) -> None:
        """Add a value of a field, or take it out."""
        _add(self.sums.setdefault(field, [0, 0]), units, 1, sign=sign)

    def add_in_scope(self, scope: str, units: int, scored: int, sign: int = 1) -> None:
        """Add a value of the value field to its scope; `scored` is 1 for a score, 0 for a charge."""
        _add(self.scopes.setdefault(scope, [0, 0, 0]), units, 1, scored, sign=sign)

    def count(self, entry: ScoreEntry, sign: int) -> None:
        """Count what became of one prediction."""
        outcome = "scored" if entry.status == "SCORED" else f"{entry.status}_{entry.fault}"
        self.counts[outcome] += sign
        self.counts["charged"] += sign * (entry.charge_units is not None)


def _add(total: list[int], *amounts: int, sign: int) -> None:
    for i, amount in enumerate(amounts):
        total[i] += sign * amount


def counted_rounds(chain: Chain, rounds: Sequence[RoundScoredData]) -> Iterator[CountedRound]:
    """The columns that are summed up: those of the rounds, and what truths that were corrected later change."""
    for scored_round in rounds:
        # A score under rules that no longer hold at its time cannot be added to scores under others.
        if chain.terms.adds_up(scored_round.contract_hash, scored_round.resolvable_at):
            yield CountedRound(scored_round, 1)
    for corrected in chain.corrected_later:
        if chain.terms.adds_up(
            corrected.contract_hash, chain.terms.snapshot_period(corrected.resolvable_at)[0]
        ):
            yield CountedRound(with_first_scores(corrected), -1)
            yield CountedRound(corrected, 1)


class SnapshotsAgain:
    """The numbers of snapshots, computed from the rounds that their periods count."""

    def __init__(
        self,
        chain: Chain,
        keys: Sequence[tuple[str, str]],
        snapshots: Sequence[SnapshotTakenData],
        only: str | None = None,
        joined_before: Mapping[str, JoinedAt] | None = None,
    ) -> None:
        """`keys`: (input_id, scope_key) of the rounds in `chain.closed`. `only`: sums of this model. `joined_before`:
        see `Newcomers`.
        """
        self._chain, self._only = chain, only
        self.answerable = Answerable(chain)
        first_scores = [chain.first_scored.get(key) or chain.closed[key] for key in keys]
        self.newcomers = Newcomers(chain, first_scores, joined_before)
        self.sums_of: dict[tuple[int, str], _Sums] = defaultdict(_Sums)
        """(period_start, model_id) -> its sums."""
        self._weights: dict[int, dict[Place, dict[str, int]]] = defaultdict(dict)
        """period_start -> place of an ensemble's score -> the weights of its metrics."""
        ensembles = [chain.ensembles[key] for key in keys if key in chain.ensembles]
        for counted in counted_rounds(chain, [*(chain.closed[key] for key in keys), *ensembles]):
            self._take(*counted)
        for snapshot in snapshots:
            self._fill(snapshot)

    def _take(self, data: RoundScoredData, sign: int) -> None:
        start, _ = self._chain.terms.snapshot_period(data.resolvable_at)
        terms = self._chain.terms.at(start)
        scope = scope_name(data.subject, data.scope_key)
        place = data.resolvable_at, data.input_id, data.scope_key
        corrects = isinstance(data, RoundRescoredData)
        first_at = data.first_resolvable_at if isinstance(data, RoundRescoredData) else data.resolvable_at
        first_start, _ = self._chain.terms.snapshot_period(first_at)
        if isinstance(data, EnsemblesScoredData):
            self._weights[start].update(metric_weights(data, terms))
        own = None if self._only is None else data.entry_of(self._only)
        for entry in data.entries() if self._only is None else [own] if own is not None else []:
            sums = self.sums_of[start, entry.model_id]
            sums.count(entry, sign)
            for field, units in entry.units.items():
                sums.add(field, units, sign)
            value = entry.units.get(terms.value_field)
            if not corrects and entry.status == "SCORED":
                sums.scores.append((*place, entry.units))
            scored = int(value is not None)
            if value is None:
                value = entry.charge_units
                if value is not None:
                    sums.add(terms.value_field, value, sign)
            if value is None:
                continue
            if corrects:  # `restated_periods.py` has what depends on the order of values
                _add(sums.corrected.setdefault(first_start, [0, 0, 0]), value, 1, scored, sign=sign)
            else:
                sums.series.append((place, value, bool(scored)))
            if terms.boards:
                sums.add_in_scope(scope, value, scored, sign)

    def _fill(self, snapshot: SnapshotTakenData) -> None:
        """Add the rounds before a newcomer's first one: they count with a fixed value, so few are no advantage."""
        terms = self._chain.terms.at(snapshot.period_start)
        for filled in self.newcomers.before(snapshot):
            sums = self.sums_of[snapshot.period_start, snapshot.model_id]
            sums.counts["filled"] += 1
            sums.series.append((filled.place, filled.units, False))
            sums.add(terms.value_field, filled.units)
            if terms.boards:
                sums.add_in_scope(filled.scope, filled.units, 0)

    def summaries(self, contracts: Contracts, model_id: str | None = None) -> dict[int, dict[str, Summary]]:
        """period_start -> model_id -> its metrics, which a contract computes from the scores of all models together.

        `model_id`: those of this model alone.
        """
        scores: dict[int, dict[str, list[Scored]]] = defaultdict(dict)
        for (start, name), sums in self.sums_of.items():
            if sums.scores:
                scores[start][name] = sums.scores
        summary_of: dict[int, dict[str, Summary]] = defaultdict(dict)
        for start, by_model in scores.items():
            contract = contracts(self._chain.terms.at(start).contract_hash)
            summary_of[start] = summaries(contract, by_model, self._weights[start], model_id)
        return summary_of

    def restated(self, contracts: Contracts) -> RestatedAgain:
        """What corrected truths make of earlier periods. Needs the rounds of these, too."""
        return RestatedAgain(self._chain, self.sums_of, self._weights, contracts)

    def numbers(self, snapshot: SnapshotTakenData) -> dict[str, tuple[Any, Any]]:
        """Name -> (what is recorded, what the scores give), of all numbers but the summary, windows and boards."""
        sums = self.sums_of.get((snapshot.period_start, snapshot.model_id)) or _Sums()
        counts, chain = sums.counts, self._chain
        windows = chain.terms.at(snapshot.period_start).windows
        # Only windows that depend on the order of the values need the series of single values.
        is_ordered = any(window.last or window.rule in ("ewma", "latest") for window in windows)
        series = [(units, scored) for _, units, scored in sorted(sums.series)] if is_ordered else []
        rounds_count, excused_count = participation(chain, snapshot, self.answerable)
        return {
            "sums": (
                # A correction can leave a field with nothing in it.
                {field: [*_two(total)] for field, total in snapshot.sums.items() if any(_two(total))},
                {field: total for field, total in sums.sums.items() if any(total)},
            ),
            "scored_count": (snapshot.scored_count, counts["scored"]),
            "failed_count": (snapshot.failed_count, counts["FAILED_model"] + counts["FAILED_node"]),
            "failed_node_count": (snapshot.failed_node_count, counts["FAILED_node"]),
            "absent_model_count": (snapshot.absent_model_count, counts["ABSENT_model"]),
            "absent_node_count": (snapshot.absent_node_count, counts["ABSENT_node"]),
            "no_score_count": (snapshot.no_score_count, counts["FAILED_nobody"] + counts["ABSENT_nobody"]),
            "charged_count": (snapshot.charged_count, counts["charged"]),
            "filled_count": (snapshot.filled_count, counts["filled"]),
            "rounds_count": (snapshot.rounds_count, rounds_count),
            "excused_count": (snapshot.excused_count, excused_count),
            # The same of a scope.
            "scopes": (
                {scope: [*_three(total)] for scope, total in snapshot.scopes.items() if any(_three(total))},
                {scope: total for scope, total in sums.scopes.items() if any(total)},
            ),
            "corrected": (
                {
                    change.period_start: [change.sum_units, change.n, change.scored]
                    for change in snapshot.corrected
                },
                {start: total for start, total in sums.corrected.items() if any(total)},
            ),
            "series": ([(value.units, value.scored) for value in snapshot.series], series),
            "joined": (snapshot.joined, self.newcomers.joined(snapshot)),
        }


def _two(total: FieldSum) -> tuple[int, int]:
    return total.sum_units, total.n


def _three(total: ScopeSum) -> tuple[int, int, int]:
    return total.sum_units, total.n, total.scored


def boards_again(snapshot: SnapshotTakenData, chain: Chain) -> dict[str, int | None]:
    """Board over a window -> its units, from the scopes of the model's snapshots that begin inside the window."""
    terms = chain.terms.at(snapshot.period_start)
    since = chain.terms.comparable_since(snapshot.period_start)
    since = max(since, sums_kept_since(snapshot.period_start, chain))
    if not any(board.window for board in terms.boards):
        return {}
    periods = [period for period in periods_of(snapshot, chain) if period.period_start >= since]
    return {  # one over the checkpoint period is computed from `scopes` when that ends
        board.name: board_again(board, terms, periods, snapshot.period_end)
        for board in terms.boards
        if board.window
    }


# --- the check of a checkpoint's period --------------------------------------------------------------------


def check_snapshots(
    chain: Chain,
    rounds: Sequence[Asked],
    checkpoint: CheckpointData,
    contracts: Contracts,
) -> str:
    """Compare every snapshot of the checkpoint's period with the sums over the recorded scores."""
    snapshots = snapshots_of(chain, checkpoint)
    keys = [(input_data.input_id, scope_key) for input_data, scope_key, _ in rounds] + chain.posted
    again = SnapshotsAgain(chain, keys, snapshots)
    restated = again.restated(contracts)
    recorded = {(snapshot.period_start, snapshot.model_id): snapshot for snapshot in snapshots}
    summary_of = again.summaries(contracts)
    for start, model_id in sorted(again.sums_of):
        if (start, model_id) not in recorded:
            broken("snapshots", f"model {model_id} has none for the period from {start}")
    for (start, model_id), snapshot in sorted(recorded.items()):
        compare_restated(snapshot, restated.of(snapshot), chain)
        _compare(snapshot, again, summary_of[start].get(model_id, NO_SCORES), chain)
    for period in chain.periods.values():
        if checkpoint.period_start <= period.from_ms < checkpoint.period_end:
            _compare_period(period, chain, again)
    return f"{len(snapshots)} snapshots summed again and equal"


def snapshots_of(chain: Chain, checkpoint: CheckpointData) -> list[SnapshotTakenData]:
    """The snapshots of the checkpoint's period."""
    return [
        snapshot
        for snapshot in chain.snapshots.values()
        if checkpoint.period_start <= snapshot.period_start < checkpoint.period_end
    ]


def _compare_period(period: PeriodClosedData, chain: Chain, again: SnapshotsAgain) -> None:
    """Compare what a closed period records of all models together: the past that newcomers are given, and its
    rounds.
    """
    past = again.newcomers.past(period)
    if (period.newcomer_past or NONE) != (past or NONE) or (
        past is None and period.newcomer_past is not None
    ):
        broken(
            "snapshots",
            f"the period from {period.from_ms}, what newcomers are given: "
            + difference(period.newcomer_past, past, "the scores give"),
        )
    checkpoint_start, _ = chain.terms.checkpoint_period(period.from_ms)
    points = Count(scored.point for scored in again.answerable.between(period.from_ms, period.until_ms))
    points.update(
        corrected.point
        for corrected in corrected_in(chain, period.from_ms)
        if is_answerable(corrected) and not is_answerable(corrected.before)
    )
    early = [PointCount(point, n) for point, n in sorted(points.items()) if point < checkpoint_start]
    rounds_count, early_count = sum(points.values()), sum(at_point.n for at_point in early)
    if (period.rounds_count, period.asked_before) != (rounds_count, early):
        recorded_early_count = sum(at_point.n for at_point in period.asked_before)
        broken(
            "snapshots",
            f"the period from {period.from_ms}: it counts {period.rounds_count} rounds, {recorded_early_count} of them "
            f"asked before the checkpoint period; the scores give {rounds_count} and {early_count}",
        )


def _compare(snapshot: SnapshotTakenData, again: SnapshotsAgain, summary: Summary, chain: Chain) -> None:
    """Compare each field of a snapshot with what the scores give."""
    pairs = again.numbers(snapshot) | {
        "windows": (snapshot.windows_units, windows_again(snapshot, chain)),
        "boards": (snapshot.boards_units, boards_again(snapshot, chain)),
        "first_point": (snapshot.first_point, chain.first_point(snapshot.player, snapshot.period_end)),
        "coverage": (snapshot.coverage, covered_again(snapshot, chain)),
        "summary": (snapshot.summary_units, summary.units),
        # The text of an error may hold a memory address of the process that wrote it, so only its presence is compared.
        "summary_error": (bool(snapshot.summary_error), bool(summary.error)),
    }
    for name, (recorded, computed) in pairs.items():
        place = f"the metrics of {snapshot.snapshot_id}"
        if recorded != computed and not (
            name == "summary" and chain.roundings.near(place, recorded, computed)
        ):
            broken(
                "snapshots",
                f"{snapshot.snapshot_id}, {name}: {difference(recorded, computed, 'the scores give')}",
            )
