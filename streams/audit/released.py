"""Checks that a checkpoint which was withheld was released as it was withheld, or with an emission computed again.

The stage's decision to withhold is computed again (`redo.py`), and the one to release is not: a command made it, at a
time that no topic but its own tells. So what may differ between the two is checked here. Pure.
"""

from __future__ import annotations

import msgspec

from coordinator.streams.audit.differences import difference
from coordinator.streams.audit.facts import Chain, broken
from coordinator.streams.checkpoints.offering import offer_faults
from coordinator.streams.contract.periods import unpaid_reason
from coordinator.streams.events import CheckpointData


def check_release(chain: Chain, checkpoint: CheckpointData) -> None:
    """Compares a released checkpoint with the withheld one. Raises ChainBrokenError.

    Only an emission that might not be offered may be another one, and only by a contract that the log knows.
    """
    withheld, name = chain.withheld.get(checkpoint.checkpoint_id), checkpoint.checkpoint_id
    if withheld is None or withheld is checkpoint:
        return
    expected = msgspec.structs.replace(withheld, credits=checkpoint.credits)
    if offer_faults(withheld, -1, withheld.period_end):
        expected = msgspec.structs.replace(
            expected,
            emission=checkpoint.emission,
            emission_sha256=checkpoint.emission_sha256,
            emission_contract_hash=checkpoint.emission_contract_hash,
            payout=checkpoint.payout,
        )
        known_hashes = {terms.data.contract_hash for terms in chain.terms.events}
        if checkpoint.emission_contract_hash not in {withheld.emission_contract_hash, *known_hashes}:
            broken(
                "emission",
                f"{name} was released by contract {checkpoint.emission_contract_hash[:12]}, which never held",
            )
    if checkpoint != expected:
        broken(
            "emission",
            f"{name} was released as another: {difference(checkpoint, expected, 'it was withheld with')}",
        )
    unpaid = unpaid_reason(chain.terms.at(checkpoint.period_start).calendar, checkpoint.period_start)
    if faults := [*([unpaid] if unpaid else []), *offer_faults(checkpoint, -1, checkpoint.period_end)]:
        broken("emission", f"{name} was released, though it may not be offered: {'; '.join(faults)}")
