"""One checkpoint followed back to the feed it was made of: all computed again, and the first difference named.

Reads the topics; gives what was checked, step by step, or raises ChainBrokenError with the step, the place and both
values. Pure. Each step is looked at twice:
- The stage decides again what it recorded (`redo.py`). That finds what was left out or slipped in as well as what
  was altered: grid, inputs, truths and their absence, scores, charges, snapshots, ranking.
- Other code, without a stage's state, takes truths from records, scores from answers, sums from scores and shares from
  the ranking (`scores.py`, `sums.py`), so that a fault of a stage does not prove itself.
So whoever holds the topics can check what is paid.

What cannot be found: what came from outside and was forged before anybody saw it (a feed's record, a model's answer,
that a model was there at all), where every topic was then made from it honestly.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

from coordinator.streams.audit.facts import Chain, ChainBrokenError, Contracts, broken
from coordinator.streams.audit.feed import check_records
from coordinator.streams.audit.redo import Scope, Topics, redo
from coordinator.streams.audit.rosters import check_rosters
from coordinator.streams.audit.scores import check_feed, check_inputs, check_predictions, check_scores
from coordinator.streams.audit.sums import check_checkpoint, check_emission, check_snapshots
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.events import CheckpointData
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log import ids
from coordinator.streams.log.stage import AnyStage
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.snapshots.stage import SnapshotStage


async def check_log(
    topics: Topics, chain: Chain, checkpoint: CheckpointData, contracts: Contracts, crunch_id: str
) -> AsyncIterator[tuple[str, str]]:
    """(step, what was checked) for each step from the feed to the emission.

    Raises ChainBrokenError; OperatorError for a contract that cannot be had.
    """
    start, end = checkpoint.period_start, checkpoint.period_end
    again: dict[str, tuple[AnyStage, Scope]] = {
        "input": (
            InputStage(contracts),
            Scope(
                ("InputReceived", "InputsUntil"),
                lambda event: any(one.resolvable_at >= start for one in getattr(event.data, "scopes", ())),
                lambda event: getattr(event.data, "until", -1) >= end,
            ),
        ),
        "scores": (
            ScoreStage(contracts),
            Scope(
                ("RoundScored", "ScoredUntil"),
                lambda event: getattr(event.data, "resolvable_at", -1) >= start,
                lambda event: getattr(event.data, "until", -1) >= end,
            ),
        ),
        "snapshots": (
            SnapshotStage(contracts),
            Scope(
                ("SnapshotTaken", "PeriodClosed"),
                lambda event: getattr(event.data, "period_end", -1) > start,
                lambda event: getattr(event.data, "until_ms", -1) >= end,
            ),
        ),
        "checkpoint": (
            CheckpointStage(_opened_by(crunch_id, chain.copy_of, checkpoint), contracts),
            Scope(
                ("CheckpointOpened", "CheckpointWithheld"),
                partial(_builds, checkpoint.checkpoint_id),
                partial(_builds, checkpoint.checkpoint_id),
            ),
        ),
    }
    for terms in chain.terms.events:
        contracts(terms.data.contract_hash)  # one that is not at hand is no fault of the log
    steps = check_chain(chain, checkpoint, contracts)
    for step in STEPS:
        try:
            said = ""
            if step in again:
                stage, scope = again[step]
                count = await redo(stage, topics, scope, step)
                said = f"; {count} decisions made again and equal"
            found, checked = next(steps)
        except ChainBrokenError:
            raise
        except Exception as error:  # noqa: BLE001 - a log that was tampered with may break any fold: that is the finding
            broken(step, f"what stands there cannot be computed again: {type(error).__name__}: {error}")
        yield found, checked + said


STEPS = ("feed", "input", "predictions", "scores", "snapshots", "checkpoint", "emission")


def check_chain(chain: Chain, checkpoint: CheckpointData, contracts: Contracts) -> Iterator[tuple[str, str]]:
    """The second look of each step, without any stage's state. Raises ChainBrokenError."""
    rounds = chain.rounds(checkpoint.period_start, checkpoint.period_end)
    if not rounds:
        broken("input", f"no input is resolvable in the period of {checkpoint.checkpoint_id}")
    records = check_records(chain, rounds)
    yield "feed", f"{records}; {check_feed(chain, rounds, contracts)}"
    yield "input", check_inputs(chain, rounds, contracts)
    yield "predictions", f"{check_rosters(chain, rounds)}; {check_predictions(chain, rounds)}"
    yield "scores", check_scores(chain, rounds, contracts)
    yield "snapshots", check_snapshots(chain, rounds, checkpoint, contracts)
    yield "checkpoint", check_checkpoint(chain, checkpoint)
    yield "emission", check_emission(chain, checkpoint, contracts)


def _opened_by(crunch_id: str, copy_of: str, checkpoint: CheckpointData) -> str:
    """The crunch whose checkpoint it is: in a copy under another crunch id those of the original stand too."""
    of_original = ids.checkpoint_id(copy_of, checkpoint.period_start, checkpoint.period_end)
    return copy_of if copy_of and checkpoint.checkpoint_id == of_original else crunch_id


def _builds(checkpoint_id: str, event: Any) -> bool:
    data = getattr(event.data, "checkpoint", event.data)
    return bool(data.checkpoint_id == checkpoint_id)
