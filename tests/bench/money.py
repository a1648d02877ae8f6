"""What money costs: opening a checkpoint over a million scores, and sharing out among ten thousand models.

    .venv/bin/python -I tests/bench/money.py

The real stages, without a broker: 1,000 rounds of 1,000 models become snapshots, and those a checkpoint. "Opening" is
from the decision that closes the period to the encoded record; the same over a hundredth of the scores stands beside it.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

from tests.given import decision  # noqa: E402
from tests.streams.build import HOUR, PUBKEY, T0, configured, round_scores, scored_until, shelf  # noqa: E402

from coordinator.streams.checkpoints.stage import CheckpointStage  # noqa: E402
from coordinator.streams.contract import CrunchContract  # noqa: E402
from coordinator.streams.contract.emission import allocate, tier_shares  # noqa: E402
from coordinator.streams.contract.strategies import proportional, softmax  # noqa: E402
from coordinator.streams.events import CheckpointOpened  # noqa: E402
from coordinator.streams.log.envelope import encode_decision  # noqa: E402
from coordinator.streams.snapshots.stage import SnapshotStage  # noqa: E402

MODELS = 1_000
MANY = 10_000
BEST_OF = 5


def opened(rounds: int, contract: CrunchContract) -> tuple[float, float, CheckpointOpened]:
    """(seconds to open, seconds to take in the snapshots, the checkpoint) over `rounds` rounds of all models."""
    aggregate, checkpoint = SnapshotStage(shelf(contract)), CheckpointStage("bench", shelf(contract))
    snapshots: list[Any] = []
    offset = 0

    def score(*events: Any) -> None:
        nonlocal offset
        aggregate.absorb(decision("scores", offset, list(events)))
        offset += 1
        while (draft := aggregate.step()) is not None:
            snapshots.append(list(draft.events))

    score(configured())
    step = 6 * HOUR // rounds
    for n in range(rounds):
        hour = n * step // HOUR
        if n and hour != (n - 1) * step // HOUR:
            score(scored_until(T0 + hour * HOUR))
        values = {f"model-{i:04}": (i * 7919 + n * 104_729) % 1_000_003 for i in range(MODELS)}
        score(*round_scores(T0 + n * step, values, resolvable_at=T0 + n * step))
    score(scored_until(T0 + 6 * HOUR))

    *before, last = [decision("snapshots", i, events) for i, events in enumerate(snapshots)]
    began = time.perf_counter()
    for earlier in before:
        checkpoint.absorb(earlier)
        while checkpoint.step() is not None:
            pass
    taken_in = time.perf_counter() - began
    gc.collect()
    began = time.perf_counter()
    checkpoint.absorb(last)  # the last hour's snapshots, and the end of the period
    draft = checkpoint.decide()
    assert draft is not None
    encode_decision(list(draft.events), epoch=1, seq=1, upto=dict(draft.upto), need=dict(draft.need))
    spent = time.perf_counter() - began
    (event,) = draft.events
    assert isinstance(event, CheckpointOpened), event
    assert len(event.data.ranking) == MODELS
    assert sum(entry.prediction_count for entry in event.data.ranking) == rounds * MODELS
    return spent, taken_in, event


def best(run: Callable[[], Any]) -> float:
    """Milliseconds of the fastest of a few runs."""
    spent = []
    for _ in range(BEST_OF):
        began = time.perf_counter()
        run()
        spent.append(time.perf_counter() - began)
    return 1000 * min(spent)


def main() -> None:
    contract = CrunchContract(crunch_pubkey=PUBKEY)
    few = min(opened(10, contract)[0] for _ in range(3))
    many, taken_in, _ = opened(1_000, contract)
    ranks, weights = list(range(1, MANY + 1)), [i * 104_729 % 1_000_003 for i in range(MANY)]
    entries = [{"model_id": f"m{i}", "rank": i + 1, "key": (MANY - i) / 1000} for i in range(MANY)]
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    print(f"open a checkpoint, {MODELS:,} models, {10 * MODELS:,} scores: {1000 * few:.0f} ms")
    print(
        f"open a checkpoint, {MODELS:,} models, {1000 * MODELS:,} scores: {1000 * many:.0f} ms (aim 1000 ms)"
    )
    print(f"  ratio {many / few:.2f}; the period's other snapshots, as they came: {1000 * taken_in:.0f} ms")
    print(f"allocator, {MANY:,} models: {best(lambda: allocate(weights)):.1f} ms (aim 50 ms)")
    print(f"  with the weights of tiers: {best(lambda: tier_shares(ranks)):.1f} ms")
    print(f"  of proportional: {best(lambda: proportional()(entries, PUBKEY)):.1f} ms")
    print(f"  of softmax: {best(lambda: softmax(4)(entries, PUBKEY)):.1f} ms")


if __name__ == "__main__":
    main()
