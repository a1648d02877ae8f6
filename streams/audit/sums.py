"""Computes one period again from its scores to its payment: snapshots, ranking, emission.

Reads a `Chain`; each check returns a line of text, or raises ChainBrokenError with the recorded value and the one that
it should be. Pure. All sums are of integers (units), so they do not depend on the order of the scores.
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
    """What one snapshot must hold: the sums over the scores and charges of one model in one period."""

    def __init__(self) -> None:
        self.sums: dict[str, list[int]] = {}
        """Field -> [sum of units, number of values]."""
        self.counts: Count[str] = Count()
        self.scopes: dict[str, list[int]] = {}
        """`subject/scope_key` -> [sum of units of the value field, number of values, how many of them are scores]."""
        self.scores: list[Scored] = []
        self.series: list[tuple[tuple[int, str, str], int, bool]] = []
        """((resolvable_at, input_id, scope_key), units of the value field, is it a score) of each score and charge."""

    def add(self, field: str, units: int) -> None:
        """Add a value of a field."""
        total = self.sums.setdefault(field, [0, 0])
        total[0] += units
        total[1] += 1

    def add_in_scope(self, scope: str, units: int, scored: int) -> None:
        """Add a value of the value field to its scope; `scored` is 1 for a score, 0 for a charge."""
        total = self.scopes.setdefault(scope, [0, 0, 0])
        for i, amount in enumerate((units, 1, scored)):
            total[i] += amount

    def count(self, entry: ScoreEntry) -> None:
        """Count what became of one prediction."""
        outcome = "scored" if entry.status == "SCORED" else f"{entry.status}_{entry.fault}"
        self.counts[outcome] += 1
        self.counts["charged"] += entry.charge_units is not None


_SumsOf = dict[tuple[int, str], _Sums]
"""(period_start, model_id) -> its sums."""
_Place = tuple[int, str, str]
_Weights = dict[int, dict[_Place, dict[str, int]]]
"""period_start -> place of an ensemble's score -> the weights of its metrics."""


def check_snapshots(
    chain: Chain,
    rounds: Sequence[Asked],
    checkpoint: CheckpointData,
    contracts: Contracts,
) -> str:
    """Compare every snapshot of the checkpoint's period with the sums over the recorded scores."""
    newcomers = Newcomers(
        chain, [chain.closed[input_data.input_id, scope_key] for input_data, scope_key, _ in rounds]
    )
    sums_of, weights = _sums_of_rounds(chain, rounds)
    snapshots = _of_period(chain, checkpoint)
    recorded = {(snapshot.period_start, snapshot.model_id): snapshot for snapshot in snapshots}
    for key, snapshot in recorded.items():
        # The rounds before a newcomer's first one count with a fixed value, so that few rounds are no advantage.
        terms = chain.terms.at(snapshot.period_start)
        for filled in newcomers.before(snapshot):
            sums = sums_of[key]
            sums.counts["filled"] += 1
            sums.series.append((filled.place, filled.units, False))
            sums.add(terms.value_field, filled.units)
            if terms.boards:
                sums.add_in_scope(filled.scope, filled.units, 0)
    summary_of = _summaries(chain, sums_of, weights, contracts)
    for (start, model_id), sums in sorted(sums_of.items()):
        scored_snapshot = recorded.get((start, model_id))
        if scored_snapshot is None:
            broken("snapshots", f"model {model_id} has none for the period from {start}")
        _compare(scored_snapshot, sums, summary_of[start].get(model_id, NO_SCORES), chain)
        _compare_joined(scored_snapshot, newcomers)
    for key, snapshot in recorded.items():
        if key not in sums_of:  # a model without any score or charge: its snapshot must say so
            _compare(snapshot, _Sums(), NO_SCORES, chain)
            _compare_joined(snapshot, newcomers)
    for period in chain.periods.values():
        if checkpoint.period_start <= period.from_ms < checkpoint.period_end:
            _compare_period(period, chain, newcomers)
    return f"{len(snapshots)} snapshots summed again and equal"


def _sums_of_rounds(chain: Chain, rounds: Sequence[Asked]) -> tuple[_SumsOf, _Weights]:
    """Sum the scores and charges of these rounds, those of ensembles with them."""
    sums_of: _SumsOf = defaultdict(_Sums)
    weights: _Weights = defaultdict(dict)
    keys = [(input_data.input_id, scope_key) for input_data, scope_key, _ in rounds]
    scored_rounds = [chain.closed[key] for key in keys] + [
        ensembles for key in keys if (ensembles := chain.ensembles.get(key))
    ]
    for scored_round in scored_rounds:
        # A score under rules that no longer hold at its time cannot be added to scores under others.
        if not chain.terms.adds_up(scored_round.contract_hash, scored_round.resolvable_at):
            continue
        start, _ = chain.terms.snapshot_period(scored_round.resolvable_at)
        terms = chain.terms.at(start)
        scope = f"{scored_round.subject}/{scored_round.scope_key}"
        place = scored_round.resolvable_at, scored_round.input_id, scored_round.scope_key
        if isinstance(scored_round, EnsemblesScoredData):
            weights[start].update(metric_weights(scored_round, terms))
        for entry in scored_round.entries():
            sums = sums_of[start, entry.model_id]
            sums.count(entry)
            if entry.status == "SCORED":
                units = chain.scored[scored_round.input_id, scored_round.scope_key, entry.model_id]
                sums.scores.append((*place, units))
                sums.series.append((place, units[terms.value_field], True))
                for field, value in units.items():
                    sums.add(field, value)
                if terms.boards and terms.value_field in units:
                    sums.add_in_scope(scope, units[terms.value_field], 1)
            if entry.charge_units is not None:
                sums.series.append((place, entry.charge_units, False))
                sums.add(terms.value_field, entry.charge_units)
                if terms.boards:
                    sums.add_in_scope(scope, entry.charge_units, 0)
    return sums_of, weights


def _summaries(
    chain: Chain, sums_of: _SumsOf, weights: _Weights, contracts: Contracts
) -> dict[int, dict[str, Summary]]:
    """period_start -> model_id -> its metrics, which a contract computes from the scores of all models together."""
    scores: dict[int, dict[str, list[Scored]]] = defaultdict(dict)
    for (start, model_id), sums in sums_of.items():
        if sums.scores:
            scores[start][model_id] = sums.scores
    summary_of: dict[int, dict[str, Summary]] = defaultdict(dict)
    for start, by_model in scores.items():
        contract = contracts(chain.terms.at(start).contract_hash)
        summary_of[start] = summaries(contract, by_model, weights[start])
    return summary_of


def _compare_joined(snapshot: SnapshotTakenData, newcomers: Newcomers) -> None:
    joined = newcomers.joined(snapshot)
    if snapshot.joined != joined:
        broken("snapshots", f"{snapshot.snapshot_id}: joined is {snapshot.joined}, the scores give {joined}")


def _compare_period(period: PeriodClosedData, chain: Chain, newcomers: Newcomers) -> None:
    """Compare what a closed period records of all models together: the past that newcomers are given, and its
    rounds.
    """
    past = newcomers.past(period)
    if (period.newcomer_past or NONE) != (past or NONE) or (
        past is None and period.newcomer_past is not None
    ):
        broken(
            "snapshots",
            f"the period from {period.from_ms}: newcomers have {period.newcomer_past}, the scores give {past}",
        )
    checkpoint_start, _ = chain.terms.checkpoint_period(period.from_ms)
    points = Count(scored.point for scored in _answerable(chain, period.from_ms, period.until_ms))
    early = [PointCount(point, n) for point, n in sorted(points.items()) if point < checkpoint_start]
    rounds_count, early_count = sum(points.values()), sum(at_point.n for at_point in early)
    if (period.rounds_count, period.asked_before) != (rounds_count, early):
        recorded_early_count = sum(at_point.n for at_point in period.asked_before)
        broken(
            "snapshots",
            f"the period from {period.from_ms}: it counts {period.rounds_count} rounds, {recorded_early_count} of them "
            f"asked before the checkpoint period; the scores give {rounds_count} and {early_count}",
        )


def _of_period(chain: Chain, checkpoint: CheckpointData) -> list[SnapshotTakenData]:
    return [
        snapshot
        for snapshot in chain.snapshots.values()
        if checkpoint.period_start <= snapshot.period_start < checkpoint.period_end
    ]


def _compare(snapshot: SnapshotTakenData, sums: _Sums, summary: Summary, chain: Chain) -> None:
    """Compare each field of a snapshot with what the scores give."""
    counts = sums.counts
    pairs: dict[str, tuple[Any, Any]] = {
        "sums": (
            {field: [field_sum.sum_units, field_sum.n] for field, field_sum in snapshot.sums.items()},
            sums.sums,
        ),
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
    scopes = {
        scope: [scope_sum.sum_units, scope_sum.n, scope_sum.scored]
        for scope, scope_sum in snapshot.scopes.items()
    }
    pairs["scopes"] = (scopes, sums.scopes)
    pairs["boards"] = (snapshot.boards_units, _boards(snapshot, chain))
    pairs["first_point"] = (
        snapshot.first_point,
        chain.first_point(snapshot.player, snapshot.period_end),
    )
    windows = chain.terms.at(snapshot.period_start).windows
    # Only windows that depend on the order of the values need them one by one; else a snapshot has no series.
    is_ordered = any(window.last or window.rule in ("ewma", "latest") for window in windows)
    series = [(units, scored) for _, units, scored in sorted(sums.series)] if is_ordered else []
    pairs["series"] = ([(value.units, value.scored) for value in snapshot.series], series)
    answerable = _answerable(chain, snapshot.period_start, snapshot.period_end)
    excused = sum(_is_excused(snapshot.model_id, scored_round) for scored_round in answerable)
    pairs["rounds_count"] = (snapshot.rounds_count, len(answerable) - excused)
    pairs["excused_count"] = (snapshot.excused_count, excused)
    pairs["coverage"] = (snapshot.coverage, covered_again(snapshot, chain))
    pairs["summary"] = (snapshot.summary_units, summary.units)
    # The text of an error may hold a memory address of the process that wrote it, so only its presence is compared.
    pairs["summary_error"] = (bool(snapshot.summary_error), bool(summary.error))
    for name, (recorded, computed) in pairs.items():
        if recorded != computed:
            broken("snapshots", f"{snapshot.snapshot_id}: {name} is {recorded}, the scores give {computed}")


def _answerable(chain: Chain, start: int, end: int) -> list[RoundScoredData]:
    """The rounds of a period [start, end) in ms that at least one model could answer.

    A round without any score in which no model is at fault is the node's fault, or has no truth: nobody could answer
    it.
    """
    return [
        scored_round
        for scored_round in chain.closed.values()
        if start <= scored_round.resolvable_at < end
        and chain.terms.adds_up(scored_round.contract_hash, scored_round.resolvable_at)
        and any(entry.status == "SCORED" or entry.fault == "model" for entry in scored_round.entries())
    ]


def _is_excused(model_id: str, scored_round: RoundScoredData) -> bool:
    """Whether a model missed this round by no fault of its own."""
    return any(
        entry.model_id == model_id and entry.fault in ("node", "nobody") for entry in scored_round.entries()
    )


def _boards(snapshot: SnapshotTakenData, chain: Chain) -> dict[str, int | None]:
    """Board -> its units, from the scopes of the model's snapshots that begin inside the board's window."""
    terms = chain.terms.at(snapshot.period_start)
    since = chain.terms.comparable_since(snapshot.period_start)
    hours = {window.name: window.hours for window in terms.windows}
    units: dict[str, int | None] = {}
    for board in terms.boards:
        if not board.window:
            continue  # over the checkpoint period: computed from `scopes` when the period ends
        first = max(snapshot.period_end - hours[board.window] * HOUR_MS, since)
        sums: dict[str, ScopeSum] = {}
        for period in periods_of(snapshot, chain):
            if first <= period.period_start:
                for scope, of_period in period.scopes.items():
                    before = sums.get(scope, ScopeSum(0, 0, 0))
                    sums[scope] = ScopeSum(
                        before.sum_units + of_period.sum_units,
                        before.n + of_period.n,
                        before.scored + of_period.scored,
                    )
        units[board.name] = board_units(board, sums)
    return units


# --- checkpoint and emission -------------------------------------------------------------------------------


def check_checkpoint(chain: Chain, checkpoint: CheckpointData) -> str:
    """Compare the ranking of a checkpoint, and the models without a rank, with what the snapshots give."""
    totals = PeriodTotals(checkpoint.period_start, checkpoint.period_end, Need())
    snapshots = _of_period(chain, checkpoint)
    for snapshot in sorted(snapshots, key=lambda snapshot: (snapshot.period_start, snapshot.model_id)):
        totals.add(snapshot)
    for period in chain.periods.values():
        totals.closed(period)
    ranking, why_unranked = ranked_entries(totals, chain.terms.at(checkpoint.period_start))
    unranked = list(why_unranked)
    for recorded, computed in zip(checkpoint.ranking, ranking, strict=False):
        if recorded != computed:
            broken(
                "checkpoint",
                f"{checkpoint.checkpoint_id}: the ranking has {recorded}, the snapshots give {computed}",
            )
    if len(checkpoint.ranking) != len(ranking) or checkpoint.unranked != unranked:
        broken(
            "checkpoint",
            f"{checkpoint.checkpoint_id}: {len(checkpoint.ranking)} ranked and {checkpoint.unranked} unranked, "
            f"the snapshots give {len(ranking)} and {unranked}",
        )
    return f"{checkpoint.checkpoint_id}: {len(ranking)} ranked, {len(unranked)} unranked"


def check_emission(chain: Chain, checkpoint: CheckpointData, contracts: Contracts) -> str:
    """Compare the payment of a checkpoint with what the contract makes of its ranking.

    The shares must sum to exactly FRAC64_ONE, less what the payout retains.
    """
    emission, name = checkpoint.emission, checkpoint.checkpoint_id
    rewards = emission["cruncher_rewards"]
    total_frac64 = sum(reward["reward_pct"] for reward in rewards)
    retained, _ = retained_frac64(checkpoint)
    if total_frac64 != FRAC64_ONE - retained:
        broken("emission", f"{name}: the shares sum to {total_frac64}, not to {FRAC64_ONE - retained}")
    decimals = chain.terms.at(checkpoint.period_start).score_decimals
    # A withheld checkpoint may be released with a mended contract; its hash is then recorded beside the first one's.
    contract_hash = checkpoint.emission_contract_hash or checkpoint.contract_hash
    computed = build_emission(contracts(contract_hash), checkpoint.ranking, decimals, checkpoint.period_end)
    if computed.fault:
        broken("emission", f"{name}: {computed.fault}")
    if checkpoint.payout != computed.payout:
        broken("emission", f"{name}: the payout is {checkpoint.payout}, the ranking gives {computed.payout}")
    for field, value in computed.emission.items():
        if emission.get(field) != value:
            broken("emission", f"{name}: {field} is {emission.get(field)}, the ranking gives {value}")
    if emission_sha256(emission) != checkpoint.emission_sha256:
        broken("emission", f"{name}: its hash is {checkpoint.emission_sha256}, that of its bytes is another")
    shares = f"{len(rewards)} shares, exactly {total_frac64:,}, as the ranking gives them"
    return shares + check_credits(chain, checkpoint)
