"""From the scores of one period to its payment, computed again: snapshots, ranking, emission.

Reads a `Chain`; gives one line a step, or raises ChainBrokenError. Pure.
"""

from __future__ import annotations

from collections import Counter as Count
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from coordinator.streams.audit.corrections import check_credits
from coordinator.streams.audit.facts import Asked, Chain, Contracts, broken
from coordinator.streams.audit.newcomers import NONE, Newcomers
from coordinator.streams.audit.windows import covered_again, periods_of, windows_again
from coordinator.streams.checkpoints.offering import build_emission, retained_frac64
from coordinator.streams.checkpoints.period_ranking import PeriodTotals, ranked_entries
from coordinator.streams.contract.emission import FRAC64_ONE, emission_sha256
from coordinator.streams.events import (
    CheckpointData,
    EnsemblesScoredData,
    PeriodClosedData,
    PointCount,
    RoundScoredData,
    ScopeSum,
    ScoreEntry,
    SnapshotTakenData,
)
from coordinator.streams.log.envelope import Need
from coordinator.streams.scores.boards import board_units
from coordinator.streams.snapshots.state import metric_weights
from coordinator.streams.snapshots.summary import NO_SCORES, Scored, Summary, summaries

HOUR_MS = 3_600_000


# --- snapshots ---------------------------------------------------------------------------------------------


class _Sums:
    def __init__(self) -> None:
        self.sums: dict[str, list[int]] = {}
        self.counts: Count[str] = Count()
        self.scopes: dict[str, list[int]] = {}
        self.scores: list[Scored] = []
        self.series: list[tuple[tuple[int, str, str], int, bool]] = []
        """((resolvable_at, input_id, scope_key), units of the value field, is it a score) of each score and charge."""

    def add(self, name: str, units: int) -> None:
        total = self.sums.setdefault(name, [0, 0])
        total[0] += units
        total[1] += 1

    def add_in_scope(self, scope: str, units: int, scored: int) -> None:
        total = self.scopes.setdefault(scope, [0, 0, 0])
        for i, one in enumerate((units, 1, scored)):
            total[i] += one

    def take_in(self, entry: ScoreEntry) -> None:
        name = "scored" if entry.status == "SCORED" else f"{entry.status}_{entry.fault}"
        self.counts[name] += 1
        self.counts["charged"] += entry.charge_units is not None


def check_snapshots(
    chain: Chain,
    rounds: Sequence[Asked],
    checkpoint: CheckpointData,
    contracts: Contracts,
) -> str:
    """The step; see the module."""
    wanted: dict[tuple[int, str], _Sums] = defaultdict(_Sums)
    weights: dict[int, dict[tuple[int, str, str], dict[str, int]]] = defaultdict(dict)
    scored = [chain.closed[one.input_id, scope_key] for one, scope_key, _ in rounds]
    scored += [
        found for one, scope_key, _ in rounds if (found := chain.ensembles.get((one.input_id, scope_key)))
    ]
    for closed in scored:
        if not chain.terms.adds_up(closed.contract_hash, closed.resolvable_at):
            continue
        start, _ = chain.terms.snapshot_period(closed.resolvable_at)
        value_field, boards = chain.terms.at(start).value_field, chain.terms.at(start).boards
        scope = f"{closed.subject}/{closed.scope_key}"
        place = closed.resolvable_at, closed.input_id, closed.scope_key
        if isinstance(closed, EnsemblesScoredData):
            weights[start].update(metric_weights(closed, chain.terms.at(start)))
        for entry in closed.entries():
            sums = wanted[start, entry.model_id]
            sums.take_in(entry)
            if entry.status == "SCORED":
                units = chain.scored[closed.input_id, closed.scope_key, entry.model_id]
                sums.scores.append((*place, units))
                sums.series.append((place, units[value_field], True))
                for name, value in units.items():
                    sums.add(name, value)
                if boards and value_field in units:
                    sums.add_in_scope(scope, units[value_field], 1)
            if entry.charge_units is not None:
                sums.series.append((place, entry.charge_units, False))
                sums.add(value_field, entry.charge_units)
                if boards:
                    sums.add_in_scope(scope, entry.charge_units, 0)
    newcomers = Newcomers(chain, [chain.closed[one.input_id, key] for one, key, _ in rounds])
    mine = _of_period(chain, checkpoint)
    there = {(one.period_start, one.model_id): one for one in mine}
    for key, taken in there.items():
        held = chain.terms.at(taken.period_start)
        for of_round in newcomers.before(taken):
            sums = wanted[key]
            sums.counts["filled"] += 1
            sums.series.append((of_round.place, of_round.units, False))
            sums.add(held.value_field, of_round.units)
            if held.boards:
                sums.add_in_scope(of_round.scope, of_round.units, 0)
    scores: dict[int, dict[str, list[Scored]]] = defaultdict(dict)
    for (start, model_id), sums in wanted.items():
        if sums.scores:
            scores[start][model_id] = sums.scores
    summary_of: dict[int, dict[str, Summary]] = defaultdict(dict)
    for start, by_model in scores.items():
        contract = contracts(chain.terms.at(start).contract_hash)
        summary_of[start] = summaries(contract, by_model, weights[start])
    for (start, model_id), sums in sorted(wanted.items()):
        snapshot = there.get((start, model_id))
        if snapshot is None:
            broken("snapshots", f"model {model_id} has none for the period from {start}")
        _compare(snapshot, sums, summary_of[start].get(model_id, NO_SCORES), chain)
        _compare_joined(snapshot, newcomers)
    for key, taken in there.items():
        if key not in wanted:
            _compare(taken, _Sums(), NO_SCORES, chain)
            _compare_joined(taken, newcomers)
    for period in chain.periods.values():
        if checkpoint.period_start <= period.from_ms < checkpoint.period_end:
            _compare_period(period, chain, newcomers)
    return f"{len(mine)} snapshots summed again and equal"


def _compare_joined(snapshot: SnapshotTakenData, newcomers: Newcomers) -> None:
    due = newcomers.joined(snapshot)
    if snapshot.joined != due:
        broken("snapshots", f"{snapshot.snapshot_id}: joined is {snapshot.joined}, the scores give {due}")


def _compare_period(said: PeriodClosedData, chain: Chain, newcomers: Newcomers) -> None:
    past = newcomers.past(said)
    if (said.newcomer_past or NONE) != (past or NONE) or (past is None and said.newcomer_past is not None):
        broken(
            "snapshots",
            f"the period from {said.from_ms}: newcomers have {said.newcomer_past}, the scores give {past}",
        )
    began, _ = chain.terms.checkpoint_period(said.from_ms)
    points = Count(closed.point for closed in _answerable(chain, said.from_ms, said.until_ms))
    early = [PointCount(point, n) for point, n in sorted(points.items()) if point < began]
    counted, before = sum(points.values()), sum(one.n for one in early)
    if (said.rounds_count, said.asked_before) != (counted, early):
        said_before = sum(one.n for one in said.asked_before)
        broken(
            "snapshots",
            f"the period from {said.from_ms}: it counts {said.rounds_count} rounds, {said_before} of them asked before "
            f"the checkpoint period; the scores give {counted} and {before}",
        )


def _of_period(chain: Chain, checkpoint: CheckpointData) -> list[SnapshotTakenData]:
    return [
        one
        for one in chain.snapshots.values()
        if checkpoint.period_start <= one.period_start < checkpoint.period_end
    ]


def _compare(snapshot: SnapshotTakenData, sums: _Sums, summary: Summary, chain: Chain) -> None:
    counts = sums.counts
    pairs: dict[str, tuple[Any, Any]] = {
        "sums": ({name: [one.sum_units, one.n] for name, one in snapshot.sums.items()}, sums.sums),
        "scored_count": (snapshot.scored_count, counts["scored"]),
        "failed_count": (snapshot.failed_count, counts["FAILED_model"] + counts["FAILED_node"]),
        "failed_node_count": (snapshot.failed_node_count, counts["FAILED_node"]),
        "absent_model_count": (snapshot.absent_model_count, counts["ABSENT_model"]),
        "absent_node_count": (snapshot.absent_node_count, counts["ABSENT_node"]),
        "no_score_count": (snapshot.no_score_count, counts["FAILED_nobody"]),
        "charged_count": (snapshot.charged_count, counts["charged"]),
        "filled_count": (snapshot.filled_count, counts["filled"]),
        "windows": (snapshot.windows_units, windows_again(snapshot, chain)),
    }
    said_scopes = {name: [one.sum_units, one.n, one.scored] for name, one in snapshot.scopes.items()}
    pairs["scopes"] = (said_scopes, sums.scopes)
    pairs["boards"] = (snapshot.boards_units, _boards(snapshot, chain))
    pairs["first_point"] = (
        snapshot.first_point,
        chain.first_point(snapshot.player, snapshot.period_end),
    )
    windows = chain.terms.at(snapshot.period_start).windows
    ordered = any(one.last or one.rule in ("ewma", "latest") for one in windows)
    series = [(units, scored) for _, units, scored in sorted(sums.series)] if ordered else []
    pairs["series"] = ([(one.units, one.scored) for one in snapshot.series], series)
    answerable = _answerable(chain, snapshot.period_start, snapshot.period_end)
    excused = sum(_is_excused(snapshot.model_id, closed) for closed in answerable)
    pairs["rounds_count"] = (snapshot.rounds_count, len(answerable) - excused)
    pairs["excused_count"] = (snapshot.excused_count, excused)
    pairs["coverage"] = (snapshot.coverage, covered_again(snapshot, chain))
    pairs["summary"] = (snapshot.summary_units, summary.units)
    # An error's text may name an address of that process's memory: that there is one must agree.
    pairs["summary_error"] = (bool(snapshot.summary_error), bool(summary.error))
    for name, (said, again) in pairs.items():
        if said != again:
            broken("snapshots", f"{snapshot.snapshot_id}: {name} is {said}, the scores give {again}")


def _answerable(chain: Chain, start: int, end: int) -> list[RoundScoredData]:
    """The rounds of a period that some model could answer."""
    return [
        closed
        for closed in chain.closed.values()
        if start <= closed.resolvable_at < end
        and chain.terms.adds_up(closed.contract_hash, closed.resolvable_at)
        and any(entry.status == "SCORED" or entry.fault == "model" for entry in closed.entries())
    ]


def _is_excused(model_id: str, closed: RoundScoredData) -> bool:
    """Did a model miss this round by no fault of its own?"""
    return any(entry.model_id == model_id and entry.fault in ("node", "nobody") for entry in closed.entries())


def _boards(snapshot: SnapshotTakenData, chain: Chain) -> dict[str, int | None]:
    """Each board over a window: of the scopes of the model's snapshots that begin inside it."""
    terms = chain.terms.at(snapshot.period_start)
    since = chain.terms.comparable_since(snapshot.period_start)
    hours = {window.name: window.hours for window in terms.windows}
    out: dict[str, int | None] = {}
    for board in terms.boards:
        if not board.window:
            continue
        first = max(snapshot.period_end - hours[board.window] * HOUR_MS, since)
        sums: dict[str, ScopeSum] = {}
        for one in periods_of(snapshot, chain):
            if first <= one.period_start:
                for name, scope in one.scopes.items():
                    before = sums.get(name, ScopeSum(0, 0, 0))
                    sums[name] = ScopeSum(
                        before.sum_units + scope.sum_units, before.n + scope.n, before.scored + scope.scored
                    )
        out[board.name] = board_units(board, sums)
    return out


# --- checkpoint and emission -------------------------------------------------------------------------------


def check_checkpoint(chain: Chain, checkpoint: CheckpointData) -> str:
    """The step; see the module."""
    totals = PeriodTotals(checkpoint.period_start, checkpoint.period_end, Need())
    for one in sorted(_of_period(chain, checkpoint), key=lambda one: (one.period_start, one.model_id)):
        totals.add(one)
    for closed in chain.periods.values():
        totals.closed(closed)
    ranking, why_unranked = ranked_entries(totals, chain.terms.at(checkpoint.period_start))
    unranked = list(why_unranked)
    for said, again in zip(checkpoint.ranking, ranking, strict=False):
        if said != again:
            broken(
                "checkpoint",
                f"{checkpoint.checkpoint_id}: the ranking has {said}, the snapshots give {again}",
            )
    if len(checkpoint.ranking) != len(ranking) or checkpoint.unranked != unranked:
        broken(
            "checkpoint",
            f"{checkpoint.checkpoint_id}: {len(checkpoint.ranking)} ranked and {checkpoint.unranked} unranked, "
            f"the snapshots give {len(ranking)} and {unranked}",
        )
    return f"{checkpoint.checkpoint_id}: {len(ranking)} ranked, {len(unranked)} unranked"


def check_emission(chain: Chain, checkpoint: CheckpointData, contracts: Contracts) -> str:
    """The step; see the module."""
    said, name = checkpoint.emission, checkpoint.checkpoint_id
    rewards = said["cruncher_rewards"]
    total = sum(one["reward_pct"] for one in rewards)
    left, _ = retained_frac64(checkpoint)
    if total != FRAC64_ONE - left:
        broken("emission", f"{name}: the shares sum to {total}, not to {FRAC64_ONE - left}")
    decimals = chain.terms.at(checkpoint.period_start).score_decimals
    # A release may have needed a mended contract; which one is told.
    made_by = checkpoint.emission_contract_hash or checkpoint.contract_hash
    again = build_emission(contracts(made_by), checkpoint.ranking, decimals, checkpoint.period_end)
    if again.fault:
        broken("emission", f"{name}: {again.fault}")
    if checkpoint.payout != again.payout:
        broken("emission", f"{name}: the payout is {checkpoint.payout}, the ranking gives {again.payout}")
    for field, value in again.emission.items():
        if said.get(field) != value:
            broken("emission", f"{name}: {field} is {said.get(field)}, the ranking gives {value}")
    if emission_sha256(said) != checkpoint.emission_sha256:
        broken("emission", f"{name}: its hash is {checkpoint.emission_sha256}, that of its bytes is another")
    return f"{len(rewards)} shares, exactly {total:,}, as the ranking gives them{check_credits(chain, checkpoint)}"
