"""Makes the emission of a ranking, and checks whether a checkpoint may be offered for payment.

Pure. A checkpoint that breaks a rule is opened WITHHELD with all reasons, and never listed as PENDING. The rules are
stricter than all that is known of the chain. `emission_faults` has the rules for the shares; here are those for the
ranking, into which the shares point, and for the period.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from coordinator.streams.addresses import SAMPLE_PUBKEY
from coordinator.streams.contract import CrunchContract, EmissionCheckpoint
from coordinator.streams.contract.blame import AUTHORS_ERRORS, in_words
from coordinator.streams.contract.emission import FRAC64_ONE, emission_faults, emission_of, emission_sha256
from coordinator.streams.contract.payout import pools_paid
from coordinator.streams.contract.payout_amounts import on_chain
from coordinator.streams.durations import HOUR_MS
from coordinator.streams.events import CheckpointData, PayoutData, RankedEntry
from coordinator.streams.log.finite import plain
from coordinator.streams.log.ids import is_ensemble
from coordinator.streams.log.reasons import as_reason

REASON_CHARS = 500
NAMED_MAX = 3
NOBODYS = (
    "the crunch's address is the placeholder, which belongs to nobody: set crunch_pubkey in the contract"
)


class Built(msgspec.Struct, frozen=True):
    """The emission and payout that a contract makes from a ranking. `fault`: why there is none, if the author's code
    raised.
    """

    emission: dict[str, Any]
    payout: PayoutData | None = None
    fault: str = ""


def build_emission(
    contract: CrunchContract, ranked: Sequence[RankedEntry], score_decimals: int, period_end: int
) -> Built:
    """The contract's emission for a ranking of a period that ends at `period_end` (ms)."""
    entries = [_entry(ranked_entry, score_decimals, period_end) for ranked_entry in ranked]
    try:
        return Built(*emission_for(contract, entries, contract.crunch_pubkey))
    except AUTHORS_ERRORS as error:  # the checkpoint is withheld with its reason
        empty = EmissionCheckpoint(crunch="", cruncher_rewards=[]).model_dump(mode="json")
        field = "build_emission" if contract.payout is None else "payout"
        return Built(empty, fault=as_reason(f"{field}: {in_words(error)}", REASON_CHARS))


def emission_for(
    contract: CrunchContract, entries: Sequence[dict[str, Any]], crunch_pubkey: str | None
) -> tuple[dict[str, Any], PayoutData | None]:
    """(the emission as JSON, the payout if the contract pays by rules), for entries as `Payout` describes them.

    Raises what the author's functions raise, and pydantic's ValidationError for a result that is no emission.
    """
    payout, addresses = contract.payout, (crunch_pubkey, contract.compute_provider, contract.data_provider)
    if payout is None:
        built, paid = contract.build_emission(entries, *addresses), None
    else:
        pools = pools_paid(payout, entries, contract.aggregation.ranking_direction.value)
        shares, paid = on_chain(payout, pools, entries)
        built = emission_of(shares, *addresses)
    return EmissionCheckpoint.model_validate(plain(built)).model_dump(mode="json"), paid


def _entry(entry: RankedEntry, score_decimals: int, period_end: int) -> dict[str, Any]:
    """As `Payout` describes it, and every number of `keys` under its own name too."""
    unit = 10**score_decimals
    keys = {name: units / unit for name, units in entry.result_summary_units.items()}
    return keys | {
        "model_id": entry.model_id,
        "player": entry.cruncher_id or entry.model_id,
        "rank": entry.rank,
        "key": entry.key_units / unit,
        "keys": keys,
        "counts": dict(entry.counts),
        "prediction_count": entry.prediction_count,
        "failed_count": entry.failed_count,
        "absent_count": entry.absent_count,
        "rounds_count": entry.rounds_count,
        "hours_here": (period_end - entry.first_point) / HOUR_MS,
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
    """(how much the shares are below 1,000,000,000 by the contract's rules; why that forbids offering them, or "")."""
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
    """What is wrong with a ranking. A share names its model by `cruncher_index`, a position in this ranking."""
    faults: list[str] = []
    ids = [entry.model_id for entry in ranking]
    if not ranking:
        faults.append("nobody is ranked")
    if not all(ids):
        faults.append("a ranked model has no id")
    if len(set(ids)) != len(ids):
        twice = sorted({model_id for model_id in ids if ids.count(model_id) > 1})
        faults.append(f"ranked more than once: {_named(twice)}")
    if ensembles := [model_id for model_id in ids if is_ensemble(model_id)]:
        faults.append(f"an ensemble is no participant: {_named(ensembles)}")
    if silent := [entry.model_id for entry in ranking if entry.prediction_count <= 0]:
        faults.append(f"ranked without a score in the period: {_named(silent)}")
    # Competition ranks: tied models have the place of the first of them (1, 1, 3).
    place = 0
    for i, entry in enumerate(ranking, start=1):
        tied = i > 1 and entry.rank == ranking[i - 2].rank
        place = place if tied else i
        if entry.rank != place or (tied and entry.key_units != ranking[i - 2].key_units):
            faults.append(f"rank {entry.rank} of {entry.model_id} is not its place in the ranking")
            break
    return faults


def period_faults(start: int, end: int, previous_end: int, at: int) -> list[str]:
    """What is wrong with a period [start, end) in ms: periods do not overlap, and end before they are paid."""
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
    return ", ".join(model_id[:80] for model_id in ids[:NAMED_MAX]) + more
