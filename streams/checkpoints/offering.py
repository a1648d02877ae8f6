"""What forbids offering a checkpoint for payment: rules stricter than all that is known of the chain.

A checkpoint that breaks one is opened WITHHELD with all its reasons, and never listed as PENDING. `emission_faults` are
the rules of the shares; here are those of the ranking that the shares point into, and of the period. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from coordinator.streams.addresses import SAMPLE_PUBKEY
from coordinator.streams.contract import CrunchContract, EmissionCheckpoint
from coordinator.streams.contract.blame import AUTHORS_ERRORS
from coordinator.streams.contract.emission import FRAC64_ONE, emission_faults, emission_of, emission_sha256
from coordinator.streams.contract.payout import pools_paid
from coordinator.streams.contract.payout_amounts import on_chain
from coordinator.streams.events import CheckpointData, PayoutData, RankedEntry
from coordinator.streams.log.finite import plain
from coordinator.streams.log.ids import is_ensemble
from coordinator.streams.log.reasons import as_reason

REASON_CHARS = 500
HOUR_MS = 3_600_000
NAMED_MAX = 3
NOBODYS = (
    "the crunch's address is the placeholder, which belongs to nobody: set crunch_pubkey in the contract"
)


class Built(msgspec.Struct, frozen=True):
    """What a contract makes of a ranking; `fault` says why there is no emission, where the author's code raised."""

    emission: dict[str, Any]
    payout: PayoutData | None = None
    fault: str = ""


def build_emission(
    contract: CrunchContract, ranked: Sequence[RankedEntry], score_decimals: int, period_end: int
) -> Built:
    """The contract's emission for a ranking of a period that ends at `period_end` (ms)."""
    entries = [_entry(one, score_decimals, period_end) for one in ranked]
    try:
        return Built(*emission_for(contract, entries, contract.crunch_pubkey))
    except AUTHORS_ERRORS as error:  # the checkpoint is withheld with its reason
        empty = EmissionCheckpoint(crunch="", cruncher_rewards=[]).model_dump(mode="json")
        field = "build_emission" if contract.payout is None else "payout"
        return Built(empty, fault=as_reason(f"{field}: {type(error).__name__}: {error}", REASON_CHARS))


def emission_for(
    contract: CrunchContract, entries: Sequence[dict[str, Any]], crunch_pubkey: str | None
) -> tuple[dict[str, Any], PayoutData | None]:
    """(the emission as JSON, the payout of a contract that pays by rules), for entries as `Payout` describes them.

    Raises what the author's functions raise, and pydantic's ValidationError for what is no emission.
    """
    payout, who = contract.payout, (crunch_pubkey, contract.compute_provider, contract.data_provider)
    if payout is None:
        built, paid = contract.build_emission(entries, *who), None
    else:
        pools = pools_paid(payout, entries, contract.aggregation.ranking_direction.value)
        shares, paid = on_chain(payout, pools, entries)
        built = emission_of(shares, *who)
    return EmissionCheckpoint.model_validate(plain(built)).model_dump(mode="json"), paid


def _entry(one: RankedEntry, score_decimals: int, period_end: int) -> dict[str, Any]:
    """As `Payout` describes it, and every number of `keys` under its own name too."""
    unit = 10**score_decimals
    keys = {name: units / unit for name, units in one.result_summary_units.items()}
    return keys | {
        "model_id": one.model_id,
        "player": one.cruncher_id or one.model_id,
        "rank": one.rank,
        "key": one.key_units / unit,
        "keys": keys,
        "counts": dict(one.counts),
        "prediction_count": one.prediction_count,
        "failed_count": one.failed_count,
        "absent_count": one.absent_count,
        "rounds_count": one.rounds_count,
        "hours_here": (period_end - one.first_point) / HOUR_MS,
    }


def offer_faults(data: CheckpointData, previous_end: int, at: int) -> list[str]:
    """Every rule that this checkpoint breaks; an empty list means that it may be offered.

    `previous_end` is where the checkpoint before it ended (-1: there is none), `at` the time of the decision, in ms.
    """
    nobodys = data.emission.get("crunch") == SAMPLE_PUBKEY and not data.rehearsal
    retained, fault = retained_frac64(data)
    return [
        *([fault] if fault else []),
        *emission_faults(data.emission, len(data.ranking), FRAC64_ONE - retained),
        *([NOBODYS] if nobodys else []),
        *ranking_faults(data.ranking),
        *period_faults(data.period_start, data.period_end, previous_end, at),
        *([] if data.snapshot_count > 0 else ["the period has no snapshots"]),
        *(
            []
            if data.emission_sha256 == emission_sha256(data.emission)
            else ["emission_sha256 is not over this emission"]
        ),
    ]


def retained_frac64(data: CheckpointData) -> tuple[int, str]:
    """(what the emission lacks of 1,000,000,000 by the contract's rules, why that forbids offering it or "")."""
    payout = data.payout
    if payout is None or not payout.retained_frac64 or payout.retained_is in ("shared_out", "taken"):
        return 0, ""
    if payout.retained_is == "left":
        return payout.retained_frac64, ""
    return payout.retained_frac64, (
        f"{payout.retained_frac64} of {FRAC64_ONE} is retained by the rules of payout, and on chain all must be given "
        "out: the contract does not say who takes it (payout.retained)"
    )


def ranking_faults(ranking: Sequence[RankedEntry]) -> list[str]:
    """What is wrong with a ranking: `cruncher_index` is a position in it, and `model_id` is whom the chain pays."""
    faults: list[str] = []
    ids = [entry.model_id for entry in ranking]
    if not ranking:
        faults.append("nobody is ranked")
    if not all(ids):
        faults.append("a ranked model has no id")
    if len(set(ids)) != len(ids):
        twice = sorted({one for one in ids if ids.count(one) > 1})
        faults.append(f"ranked more than once: {_named(twice)}")
    if ensembles := [one for one in ids if is_ensemble(one)]:
        faults.append(f"an ensemble is no participant: {_named(ensembles)}")
    if silent := [entry.model_id for entry in ranking if entry.prediction_count <= 0]:
        faults.append(f"ranked without a score in the period: {_named(silent)}")
    # Competition ranks: a rank is the place of the first of those that are tied (1, 1, 3).
    place = 0
    for i, entry in enumerate(ranking, start=1):
        tied = i > 1 and entry.rank == ranking[i - 2].rank
        place = place if tied else i
        if entry.rank != place or (tied and entry.key_units != ranking[i - 2].key_units):
            faults.append(f"rank {entry.rank} of {entry.model_id} is not its place in the ranking")
            break
    return faults


def period_faults(start: int, end: int, previous_end: int, at: int) -> list[str]:
    """What is wrong with a period [start, end): periods follow each other, and are over before they are paid."""
    faults: list[str] = []
    if not 0 <= start < end:
        faults.append(f"the period from {start} to {end} ms is none")
    if start < previous_end:
        faults.append(
            f"the period begins at {start} ms, before the end of the one before it ({previous_end})"
        )
    if end > at:
        faults.append(f"the period ends at {end} ms, which is later than now ({at})")
    return faults


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - NAMED_MAX} more" if len(ids) > NAMED_MAX else ""
    return ", ".join(one[:80] for one in ids[:NAMED_MAX]) + more
