"""A model's share of a checkpoint: its snapshots, its key, the ranking, the weights, and the allocator's remainders.

Takes the recorded checkpoint, the model's snapshots and the contract; gives an `Explanation`. Each number is computed
again by the function that the node uses (`PeriodTotals`, `ranked_entries`, `rank`, `build_emission`, `allocation`), so
that a step can say whether it agrees with the record. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from coordinator.streams.audit.differences import difference
from coordinator.streams.audit.explain.figure_facts import ShareFacts
from coordinator.streams.audit.explain.steps import (
    LISTED_MAX,
    Explanation,
    Placed,
    Step,
    Value,
    explanation,
    fact,
    moment,
    of_kind,
    rules_step,
    time,
    units,
)
from coordinator.streams.checkpoints.offering import build_emission
from coordinator.streams.checkpoints.period_ranking import PERIOD_KEY, PeriodTotals, ranked_entries
from coordinator.streams.checkpoints.prizes import prize_amounts
from coordinator.streams.checkpoints.ranking import rank
from coordinator.streams.contract.emission import FRAC64_ONE, Allocation, allocation, watched_allocations
from coordinator.streams.contract.payout_amounts import frac64_shares
from coordinator.streams.events import (
    CheckpointCorrected,
    CheckpointWithheld,
    PoolPaid,
    RankedEntry,
    SnapshotTakenData,
    Terms,
)
from coordinator.streams.log.envelope import Need

OF_BILLION = "of 1,000,000,000"
ALLOCATED = (
    "floor(weight * total / sum of weights); the units that the floors leave go one by one to the largest remainders, "
    "on a tie to the earlier entry"
)


def explain_share(facts: ShareFacts) -> Explanation:
    """The explanation of a model's share. The model is ranked or unranked in the checkpoint."""
    data = facts.checkpoint
    period = f"{moment(data.period_start)} to {moment(data.period_end)}"
    title = f"Model {facts.model_id} has {facts.share:,} {OF_BILLION} of checkpoint {data.checkpoint_id} ({period})"
    return explanation("share", f"{data.checkpoint_id}/{facts.model_id}", title, _steps(facts))


def _steps(facts: ShareFacts) -> Iterator[Step]:
    yield _checkpoint(facts)
    yield rules_step(facts.terms.contract_hash, facts.terms, facts.configured)
    yield _key(facts)
    if facts.place is not None:
        yield _ranking(facts)
        yield from _shares(facts)
    if corrections := of_kind(facts.moves, CheckpointCorrected):
        yield _corrected(facts, corrections[-1])
    yield from _credits(facts)


def _checkpoint(facts: ShareFacts) -> Step:
    data = facts.checkpoint
    return Step(
        name="checkpoint",
        rule="A checkpoint pays one period; its newest opening is what is offered",
        sources=[move.source for move in facts.moves][-LISTED_MAX:],
        result=[
            fact("status", facts.status),
            time("period_start", data.period_start),
            time("period_end", data.period_end),
            fact("contract_hash", data.contract_hash),
            fact("emission_sha256", data.emission_sha256),
            fact("ranked", len(data.ranking)),
            fact("unranked", len(data.unranked)),
        ],
    )


def _key(facts: ShareFacts) -> Step:
    """The number that the model is ranked by, or why it has none. It is computed again from the model's snapshots."""
    terms, decimals = facts.terms, facts.terms.score_decimals
    totals = PeriodTotals(facts.checkpoint.period_start, facts.checkpoint.period_end, Need())
    for snapshot, _ in facts.snapshots:
        totals.add(snapshot)
    for closing, _ in facts.closings:
        totals.closed(closing)
    ranked, unranked = ranked_entries(totals, terms)
    again = next((entry for entry in ranked if entry.model_id == facts.model_id), None)
    place = facts.place
    result: list[Value] = []
    if place is None:
        reason = facts.checkpoint.unranked_reasons.get(facts.model_id, "no reason is told")
        result = [fact("unranked", reason)]
        agrees = facts.model_id not in totals.models or unranked.get(facts.model_id) == reason
    else:
        entry = facts.checkpoint.ranking[place]
        result = [units(terms.checkpoint_key, entry.key_units, decimals), *_counts(entry)]
        agrees = again is not None and _comparable(again, facts) == _comparable(entry, facts)
    if terms.checkpoint_key == PERIOD_KEY:  # any other key is made of its own numbers, not of this sum
        model = totals.with_past(terms).get(facts.model_id)
        total = model.sums.get(terms.value_field, [0, 0]) if model else [0, 0]
        result = [units("sum", total[0], decimals), fact("n", total[1]), *result]
    joined = max((data.joined.period_start for data, _ in facts.snapshots if data.joined), default=0)
    inputs = [
        units(f"before it joined: {moment(closing.from_ms)}", past.total.sum_units, decimals, source)
        for closing, source in facts.closings
        if terms.checkpoint_key == PERIOD_KEY
        and (past := closing.newcomer_past) is not None
        and closing.from_ms < joined
    ]
    inputs += [
        units(snapshot.snapshot_id, _of_snapshot(snapshot, terms), decimals, source)
        for snapshot, source in facts.snapshots
    ]
    return Step(
        name="key",
        rule=_key_rule(terms),
        inputs=inputs[-LISTED_MAX:],
        left_out=max(0, len(inputs) - LISTED_MAX),
        result=result,
        agrees=agrees,
        note="" if agrees else _key_again(facts, again, unranked),
    )


def _key_again(facts: ShareFacts, again: RankedEntry | None, unranked: Mapping[str, str]) -> str:
    """What the snapshots give in place of what is recorded."""
    if again is None:
        return f"by the snapshots it is unranked: {unranked.get(facts.model_id, 'they hold nothing of it')}"
    terms, place = facts.terms, facts.place
    if place is None:
        key = units("", again.key_units, terms.score_decimals).shown
        return f"by the snapshots it is ranked, by {terms.checkpoint_key} {key}"
    recorded, computed = (_comparable(entry, facts) for entry in (facts.checkpoint.ranking[place], again))
    return difference(recorded, computed, "the snapshots give")


def _comparable(entry: RankedEntry, facts: ShareFacts) -> RankedEntry:
    """The entry without its rank, which depends on the other models; without its rounds if no closings are there."""
    return msgspec.structs.replace(entry, rank=0, rounds_count=entry.rounds_count if facts.closings else 0)


def _of_snapshot(snapshot: SnapshotTakenData, terms: Terms) -> int | None:
    key = terms.checkpoint_key
    if key == PERIOD_KEY:
        total = snapshot.sums.get(terms.value_field)
        return total.sum_units if total else None
    return (snapshot.summary_units | snapshot.boards_units | snapshot.windows_units).get(key)


def _key_rule(terms: Terms) -> str:
    key = terms.checkpoint_key
    if key == PERIOD_KEY:
        return (
            f"The sum of {terms.value_field} (scores and charges) over the period's snapshots, divided once by how "
            "many they are, rounded half-even"
        )
    if any(window.name == key for window in terms.windows):
        return f"The window {key} of the snapshot that ends with the period"
    if any(board.name == key for board in terms.boards):
        return f"The board {key} over the period, or at its end where it has a window"
    return f"The mean of {key} over the snapshots, each weighted by its scored predictions, rounded half-even"


def _counts(entry: RankedEntry) -> list[Value]:
    return [
        fact("prediction_count", entry.prediction_count),
        fact("failed_count", entry.failed_count),
        fact("absent_count", entry.absent_count),
        fact("rounds_count", entry.rounds_count),
        fact("snapshot_count", entry.snapshot_count),
    ]


def _ranking(facts: ShareFacts) -> Step:
    recorded, terms = facts.checkpoint.ranking, facts.terms
    place = facts.place or 0
    again, _ = rank([(entry.model_id, entry.key_units) for entry in recorded], terms.ranking_direction)
    agrees = again == [(entry.rank, entry.model_id, entry.key_units) for entry in recorded]
    first = max(0, min(place - LISTED_MAX // 2, len(recorded) - LISTED_MAX))
    listed = recorded[first : first + LISTED_MAX]
    more = "more" if terms.ranking_direction == "desc" else "less"
    return Step(
        name="ranking",
        rule=f"By the key, {more} is better; equal keys share a rank (1, 1, 3), and stand in the order of model_id",
        inputs=[
            Value(
                name=entry.model_id,
                exact=str(entry.key_units),
                shown=f"{entry.rank}. {units('', entry.key_units, terms.score_decimals).shown}",
            )
            for entry in listed
        ],
        left_out=len(recorded) - len(listed),
        result=[fact("rank", recorded[place].rank), fact("cruncher_index", place)],
        agrees=agrees,
    )


def _shares(facts: ShareFacts) -> Iterator[Step]:
    """How the shares follow from the ranking, computed again by the contract that built the emission."""
    data, place = facts.checkpoint, facts.place or 0
    if facts.contract is None:
        yield _share(facts, facts.contract_fault, agrees=None)
        return
    with watched_allocations() as allocations:
        again = build_emission(facts.contract, data.ranking, facts.terms.score_decimals, data.period_end)
    if again.fault:
        # The checkpoint is withheld for the same fault, and its emission is empty: that is what the record says.
        withheld = of_kind(facts.moves, CheckpointWithheld)
        agrees = data.emission == again.emission and any(
            again.fault in move.event.data.reason for move in withheld
        )
        yield _share(facts, again.fault, agrees=agrees)
        return
    if data.payout is not None:
        whole = allocation([pool.weight for pool in data.payout.pools], FRAC64_ONE)
        for i, pool in enumerate(data.payout.pools):
            yield from _pool(facts, pool, i, whole)
        yield from _shared_out(facts)
    else:
        rewards = again.emission["cruncher_rewards"]
        shares = {reward["cruncher_index"]: reward["reward_pct"] for reward in rewards}
        column = [shares.get(i, 0) for i in range(len(data.ranking))]
        # A contract may allocate more than once, or not by `allocation` at all. Only an allocation that gave exactly
        # these shares explains them.
        fitting = [allocated for allocated in allocations if allocated.shares == column]
        if fitting:
            yield _allocated(
                "allocation", f"The contract weighs each of the ranked, then {ALLOCATED}", fitting[-1], place
            )
    agrees = all(data.emission.get(name) == value for name, value in again.emission.items())
    note = "" if agrees else _emission_again(data.emission, again.emission)
    if agrees and again.payout != data.payout:
        agrees, note = False, "the pools of the payout are others"
    yield _share(facts, note, agrees=agrees)


def _emission_again(recorded: Mapping[str, Any], again: Mapping[str, Any]) -> str:
    same = {name: recorded.get(name) for name in again}
    return difference(same, dict(again), "the ranking gives")


def _allocated(name: str, rule: str, allocated: Allocation, place: int) -> Step:
    """The step of one allocation, with what it gives to the entry at `place`."""
    share, floor = allocated.shares[place], allocated.floors[place]
    return Step(
        name=name,
        rule=rule,
        inputs=[
            fact("weight", allocated.numbers[place]),
            fact("sum_of_weights", allocated.whole),
            fact("total", allocated.total),
        ],
        result=[
            fact("floor", floor),
            fact(
                "remainder",
                f"{allocated.rests[place]}/{allocated.whole}",
                f"{allocated.rests[place] / allocated.whole:.9f}",
            ),
            fact("units_left_by_the_floors", allocated.left),
            fact("one_more", share - floor, "yes" if share > floor else "no"),
            fact("allocated", share),
        ],
        agrees=None,
    )


def _pool(facts: ShareFacts, pool: PoolPaid, i: int, whole: Allocation) -> Iterator[Step]:
    yield _allocated(
        f"pool {pool.name}",
        f"The pool's part {OF_BILLION}, by its weight among the pools: {ALLOCATED}",
        whole,
        i,
    )
    paid = [index for index, _, _ in pool.paid]
    reason = next((why for why, places in pool.unpaid.items() if facts.place in places), "")
    if facts.place not in paid:
        yield Step(
            name=f"in pool {pool.name}",
            rule="A pool pays by its own key and rule",
            result=[fact("unpaid", reason or "its rule gives this place nothing")],
        )
        return
    place = paid.index(facts.place)
    in_pool = allocation([*(parts for _, _, parts in pool.paid), pool.retained_parts], whole.shares[i])
    step = _allocated(
        f"in pool {pool.name}",
        f"The parts (of 10**18) that the pool's rule gives, and the retained one, of the pool's part: {ALLOCATED}",
        in_pool,
        place,
    )
    yield msgspec.structs.replace(step, inputs=[*step.inputs, fact("rank_in_pool", pool.paid[place][1])])


def _shared_out(facts: ShareFacts) -> Iterator[Step]:
    """What the share of the pools becomes where the paid models share out what is retained."""
    payout = facts.checkpoint.payout
    if payout is None or payout.retained_is != "shared_out":
        return
    of_pools, _ = frac64_shares(payout.pools)
    if facts.place in of_pools:
        yield _allocated(
            "shared out",
            f"All {OF_BILLION}, with what is retained, go to the paid by what the pools give them: {ALLOCATED}",
            allocation(list(of_pools.values()), FRAC64_ONE),
            list(of_pools).index(facts.place),
        )


def _share(facts: ShareFacts, note: str, *, agrees: bool | None) -> Step:
    data = facts.checkpoint
    result = [fact("reward_pct", facts.share, f"{facts.share:,} {OF_BILLION}")]
    inputs = [fact("emission_contract_hash", data.emission_contract_hash or data.contract_hash)]
    if data.payout is not None:
        of_pools = frac64_shares(data.payout.pools)[0].get(facts.place or 0, 0)
        inputs.append(fact("of_the_pools", of_pools))
        if data.payout.retained_is == "taken" and facts.share != of_pools:
            inputs.append(fact("takes_retained", data.payout.retained_frac64))
        result += [
            fact("retained_frac64", data.payout.retained_frac64),
            fact("retained_is", data.payout.retained_is),
        ]
    return Step(
        name="share",
        rule="The emission's entry of this cruncher_index; all shares sum to exactly what is given out",
        inputs=inputs,
        result=result,
        agrees=agrees,
        note=note,
    )


def _corrected(facts: ShareFacts, newest: Placed[CheckpointCorrected]) -> Step:
    """What the model should have been paid, by the newest correction, and what is still owed because of it."""
    data = newest.event.data
    paid = dict(prize_amounts(facts.checkpoint, data.total_prize)[0]).get(facts.model_id, 0)
    correction = next((model for model in data.models if model.model_id == facts.model_id), None)
    due = paid if correction is None else correction.due
    owed = due - paid - sum(facts.made_good.values())
    agrees = (correction is None or correction.paid == paid) and owed == facts.owed
    return Step(
        name="correction",
        rule="What was due by the newest correction, minus the model's part of the pool that was paid, minus what "
        "later checkpoints carry for it; `coordinator checkpoint correct` computes what was due. Below 0 it was paid "
        "too much, and keeps it",
        sources=[newest.source],
        inputs=[
            fact("total_prize", data.total_prize),
            fact("due", due),
            *(fact(f"carried by {later}", amount) for later, amount in facts.made_good.items()),
        ],
        result=[fact("paid", paid), fact("owed", facts.owed), fact("reason", data.reason)],
        agrees=agrees,
        note="" if agrees else f"computed again: paid {paid}, owed {owed}",
    )


def _credits(facts: ShareFacts) -> Iterator[Step]:
    """What this checkpoint pays the model on top, for earlier ones that paid too little."""
    for credit in facts.checkpoint.credits:
        if facts.model_id in credit.prizes:
            yield Step(
                name=f"on top, for {credit.checkpoint_id}",
                rule="A prize of its own, in whole micro-USDC: what the earlier checkpoint paid too little",
                result=[fact("amount", credit.prizes[facts.model_id]), fact("reason", credit.reason)],
                note=f"coordinator explain {credit.checkpoint_id} {facts.model_id} has its arithmetic",
            )
