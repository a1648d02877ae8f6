"""One checkpoint followed back to the feed it was made of: all computed again, and the first difference named.

Reads a `Chain`; gives what was checked, step by step, or raises ChainBrokenError with the step, the place and both
values. Pure. The stages' own state is not used: truths are taken again from feed records by the contract, scores from
truths and answers, sums from scores, the ranking from snapshots, shares from the ranking. So whoever holds the topics
can check what is paid.
"""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.streams.chain import Chain, Contracts, broken
from coordinator.streams.chain_scores import check_feed, check_inputs, check_predictions, check_scores
from coordinator.streams.chain_sums import check_checkpoint, check_emission, check_snapshots
from coordinator.streams.events import CheckpointData


def check_chain(chain: Chain, checkpoint: CheckpointData, contracts: Contracts) -> Iterator[tuple[str, str]]:
    """(step, what was checked) for each step from the feed to the emission. Raises ChainBrokenError."""
    rounds = chain.rounds(checkpoint.period_start, checkpoint.period_end)
    if not rounds:
        broken("input", f"no input is resolvable in the period of {checkpoint.checkpoint_id}")
    yield "feed", check_feed(chain, rounds, contracts)
    yield "input", check_inputs(chain, rounds, contracts)
    yield "predictions", check_predictions(chain, rounds)
    yield "scores", check_scores(chain, rounds, contracts)
    yield "snapshots", check_snapshots(chain, rounds, checkpoint, contracts)
    yield "checkpoint", check_checkpoint(chain, checkpoint)
    yield "emission", check_emission(chain, checkpoint, contracts)
