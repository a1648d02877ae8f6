"""The money of a run by plain arithmetic: charges, sums, means, ranks and shares, from the recorded scores alone.

Reads the log of a run, emits nothing. The other rules make the decisions again by the node's own functions, so a fault
of such a function would confirm itself. Here no function of the stages, of the contract or of the audit is called: sums
are loops, means are fractions, and the rules are written down once more.

Rules that are not written down here are passed over: a contract with other pay, boards or a past for newcomers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

import msgspec

from coordinator.streams import events as ev
from coordinator.streams.contract import CrunchContract, defaults
from coordinator.streams.simulation.playing import BY_PLACE, Challenge, Outcome

WHOLE = 1_000_000_000
TIERS_PERCENT = (35, 10, 10, 10, 10, 5, 5, 5, 5, 5)


class Period(msgspec.Struct):
    """What the rounds of one checkpoint period say of one model."""

    units: list[int] = []
    """The units of the value field: the model's scores, and the charges for its absence."""
    scored: int = 0
    failed: int = 0
    absent: int = 0


def plain_arithmetic(outcome: Outcome, challenge: Challenge) -> Iterator[str]:
    """Charges, and the sums, means, counts, ranks and shares of snapshots and checkpoints, are those of the scores."""
    told = [event.data for event in outcome.log.events("feeds") if isinstance(event, ev.CrunchConfigured)]
    rounds = [event.data for event in outcome.log.events("scores") if isinstance(event, ev.RoundScored)]
    for scored_round in rounds:
        yield from _charges(scored_round, _held(told, scored_round.point))
    yield from _snapshots(outcome, rounds, told)
    for event in outcome.log.events("checkpoints"):
        data = getattr(event.data, "checkpoint", event.data)
        if isinstance(data, ev.CheckpointData):
            terms = _held(told, data.period_start)
            yield from _ranking(data, terms, _models(data, terms, rounds, told))
            yield from _shares(data, challenge.shelf(data.emission_contract_hash))


def _held(told: Sequence[ev.Terms], at: int) -> ev.Terms:
    """The terms of a time: of those that had begun the ones that began last, of equal ones those told last."""
    held = told[0]
    for terms in told:
        if terms.effective_from <= at and terms.effective_from >= held.effective_from:
            held = terms
    return held


def _charges(scored_round: ev.RoundScoredData, terms: ev.Terms) -> Iterator[str]:
    """What a missing answer costs, by whose fault it is missing."""
    entries = scored_round.entries()
    values = [entry.units[terms.value_field] for entry in entries if entry.status == "SCORED"]
    worst = max if terms.ranking_direction == "asc" else min
    cost = {"ignore": None, "zero": 0, "worst": worst(values) if values else None}
    if terms.absence_policy not in cost:
        return
    for entry in entries:
        due = cost[terms.absence_policy] if entry.status != "SCORED" and entry.fault == "model" else None
        if entry.charge_units != due:
            yield (
                f"{scored_round.input_id} {scored_round.scope_key}: {entry.model_id} is charged "
                f"{entry.charge_units}, due is {due}"
            )


def _snapshots(
    outcome: Outcome, rounds: Sequence[ev.RoundScoredData], told: Sequence[ev.Terms]
) -> Iterator[str]:
    """Each snapshot has the sums and the counts of the rounds that resolve in it. Such sums make the windows."""
    for event in outcome.log.events("snapshots"):
        if not isinstance(event, ev.SnapshotTaken) or event.data.corrected or event.data.joined is not None:
            continue
        data = event.data
        terms = _held(told, data.period_start)
        of_model = _models(data, terms, rounds, told).get(data.model_id, Period())
        due = (sum(of_model.units), len(of_model.units), of_model.scored, of_model.failed, of_model.absent)
        total = data.sums.get(terms.value_field)
        sum_units, n = (0, 0) if total is None else (total.sum_units, total.n)
        absent = data.absent_model_count + data.absent_node_count
        if (sum_units, n, data.scored_count, data.failed_count, absent) != due:
            yield f"{event.id}: sum, number, scored, failed and absent are {due}, it has {data}"


def _models(
    data: ev.CheckpointData | ev.SnapshotTakenData,
    terms: ev.Terms,
    rounds: Sequence[ev.RoundScoredData],
    told: Sequence[ev.Terms],
) -> dict[str, Period]:
    """model_id -> what the rounds that resolve in the period say of it. Scores of another meaning are in no sum."""
    meaning = {of.contract_hash: of.scoring_hash for of in told}
    models: dict[str, Period] = {}
    for scored_round in rounds:
        is_within = data.period_start <= scored_round.resolvable_at < data.period_end
        if not is_within or meaning[scored_round.contract_hash] != terms.scoring_hash:
            continue
        for entry in scored_round.entries():
            period = models.setdefault(entry.model_id, Period())
            if entry.status == "SCORED":
                period.scored += 1
                period.units.append(entry.units[terms.value_field])
                continue
            if entry.fault != "nobody":
                period.failed += entry.status == "FAILED"
                period.absent += entry.status == "ABSENT"
            if entry.charge_units is not None:
                period.units.append(entry.charge_units)
    return models


def _ranking(data: ev.CheckpointData, terms: ev.Terms, models: Mapping[str, Period]) -> Iterator[str]:
    """The mean of the period, half to even, and how many are better."""
    if terms.checkpoint_key != "period" or terms.newcomer_past != "nothing":
        return
    sign = 1 if terms.ranking_direction == "asc" else -1
    for entry in data.ranking:
        period = models.get(entry.model_id, Period())
        counts = (period.scored, period.failed, period.absent)
        if (entry.prediction_count, entry.failed_count, entry.absent_count) != counts:
            yield f"{data.checkpoint_id}: of {entry.model_id} {counts} are scored, failed, absent; it has {entry}"
        mean = round(Fraction(sum(period.units), len(period.units))) if period.units else None
        if entry.key_units != mean:
            yield f"{data.checkpoint_id}: the mean of {entry.model_id} is {mean}, its key {entry.key_units}"
        better_count = sum(sign * other.key_units < sign * entry.key_units for other in data.ranking)
        if entry.rank != 1 + better_count:
            yield f"{data.checkpoint_id}: {better_count} are better than {entry.model_id}, its rank is {entry.rank}"


def _shares(data: ev.CheckpointData, contract: CrunchContract) -> Iterator[str]:
    """Hamilton's method over 1, 1/2, 1/3, .. of the places, or over the tiers."""
    if contract.payout is not None or not data.ranking:
        return
    ranks = [entry.rank for entry in data.ranking]
    if contract.build_emission is BY_PLACE:
        weights = [Fraction(1, place) for place in ranks]
    elif contract.build_emission is defaults.build_emission:
        weights = _tiers(ranks)
    else:
        return
    quotas = [weight * WHOLE / sum(weights) for weight in weights]
    shares = [int(quota) for quota in quotas]
    by_rest = sorted(range(len(quotas)), key=lambda i: (shares[i] - quotas[i], i))
    for i in by_rest[: WHOLE - sum(shares)]:
        shares[i] += 1
    paid = {reward["cruncher_index"]: reward["reward_pct"] for reward in data.emission["cruncher_rewards"]}
    due = {i: share for i, share in enumerate(shares) if share}
    if paid != due:
        yield f"{data.checkpoint_id} pays {paid}, due is {due}"


def _tiers(ranks: Sequence[int]) -> list[Fraction]:
    """Each place's percent; tied models share those of their places, and all share what no place has."""
    places = [*TIERS_PERCENT, *([0] * len(ranks))][: len(ranks)]
    spare = Fraction(100 - sum(places), len(ranks))
    return [
        spare
        + Fraction(
            sum(place for place, other in zip(places, ranks, strict=True) if other == of), ranks.count(of)
        )
        for of in ranks
    ]
