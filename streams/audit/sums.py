"""Computes the payment of one period again from its snapshots: ranking and emission.

Reads a `Chain`; each check returns a line of text, or raises ChainBrokenError with the recorded value and the one that
it should be. Pure. All sums are of integers (units), so they do not depend on the order of the scores.
"""

from __future__ import annotations

from typing import Any

from coordinator.streams.audit.corrections import check_credits
from coordinator.streams.audit.differences import difference, differences, short
from coordinator.streams.audit.facts import Chain, broken
from coordinator.streams.audit.released import check_release
from coordinator.streams.audit.snapshots import snapshots_of
from coordinator.streams.checkpoints.offering import build_emission, retained_frac64
from coordinator.streams.checkpoints.period_ranking import PeriodTotals, ranked_entries
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.contract.emission import FRAC64_ONE, emission_sha256
from coordinator.streams.events import CheckpointData
from coordinator.streams.log.envelope import Need


def check_checkpoint(chain: Chain, checkpoint: CheckpointData) -> str:
    """Compare the ranking of a checkpoint, and the models without a rank, with what the snapshots give. Check that it
    is built once, and moved as its lifecycle allows.
    """
    if illegal := chain.statuses.illegal.get(checkpoint.checkpoint_id):
        broken("checkpoint", f"{checkpoint.checkpoint_id}: {illegal}")
    totals = PeriodTotals(checkpoint.period_start, checkpoint.period_end, Need())
    snapshots = snapshots_of(chain, checkpoint)
    for snapshot in sorted(snapshots, key=lambda snapshot: (snapshot.period_start, snapshot.model_id)):
        totals.add(snapshot)
    for period in chain.periods.values():
        totals.closed(period)
    ranking, why_unranked = ranked_entries(totals, chain.terms.at(checkpoint.period_start))
    unranked = list(why_unranked)
    for place, (recorded, computed) in enumerate(zip(checkpoint.ranking, ranking, strict=False)):
        if recorded != computed:
            broken(
                "checkpoint",
                f"{checkpoint.checkpoint_id}: place {place} ({recorded.model_id}): "
                + difference(recorded, computed, "the snapshots give"),
            )
    if len(checkpoint.ranking) != len(ranking) or checkpoint.unranked != unranked:
        broken(
            "checkpoint",
            f"{checkpoint.checkpoint_id}: {len(checkpoint.ranking)} ranked and {short(checkpoint.unranked)} unranked, "
            f"the snapshots give {len(ranking)} and {short(unranked)}",
        )
    return f"{checkpoint.checkpoint_id}: {len(ranking)} ranked, {len(unranked)} unranked"


def _shares_near(chain: Chain, name: str, recorded: Any, computed: Any) -> bool:
    """Whether the shares differ by one unit each and by nothing else. That they sum to the whole is seen apart."""
    paid, again = ([reward["reward_pct"] for reward in rewards] for rewards in (recorded, computed))
    if not chain.roundings.near(f"the shares of {name}", paid, again):
        return False
    as_paid = [reward | {"reward_pct": share} for reward, share in zip(computed, paid, strict=True)]
    return not any(differences(recorded, as_paid))


def check_emission(chain: Chain, checkpoint: CheckpointData, contracts: Contracts) -> str:
    """Compare the payment of a checkpoint with what the contract makes of its ranking.

    The shares must sum to exactly FRAC64_ONE, less what the payout retains.
    """
    check_release(chain, checkpoint)
    emission, name = checkpoint.emission, checkpoint.checkpoint_id
    rewards = emission["cruncher_rewards"]
    total_frac64 = sum(reward["reward_pct"] for reward in rewards)
    retained, _ = retained_frac64(checkpoint)
    if total_frac64 != FRAC64_ONE - retained:
        broken("emission", f"{name}: the shares sum to {total_frac64}, not to {FRAC64_ONE - retained}")
    decimals = chain.terms.at(checkpoint.period_start).score_decimals
    # A withheld checkpoint may be released with a corrected contract. Its hash is then recorded beside the first one's.
    contract_hash = checkpoint.emission_contract_hash or checkpoint.contract_hash
    computed = build_emission(contracts(contract_hash), checkpoint.ranking, decimals, checkpoint.period_end)
    if computed.fault:
        broken("emission", f"{name}: {computed.fault}")
    if checkpoint.payout != computed.payout:
        broken(
            "emission",
            f"{name}, payout: {difference(checkpoint.payout, computed.payout, 'the ranking gives')}",
        )
    for field in dict.fromkeys((*computed.emission, *emission)):
        recorded, value = emission.get(field), computed.emission.get(field)
        is_other = field not in computed.emission or any(differences(recorded, value))
        if is_other and not (field == "cruncher_rewards" and _shares_near(chain, name, recorded, value)):
            broken("emission", f"{name}, {field}: {difference(recorded, value, 'the ranking gives')}")
    if emission_sha256(emission) != checkpoint.emission_sha256:
        broken("emission", f"{name}: its hash is {checkpoint.emission_sha256}, that of its bytes is another")
    shares = f"{len(rewards)} shares, exactly {total_frac64:,}, as the ranking gives them"
    return shares + check_credits(chain, checkpoint)
