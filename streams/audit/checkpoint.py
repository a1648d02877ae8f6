"""Follows one checkpoint back to the feed it was made from: computes everything again, and names the first difference.

Reads the topics; yields what was checked, step by step, or raises ChainBrokenError with the step, the place and both
values. Pure. Each step is checked twice:

- The stage decides again what it recorded (`redo.py`). This finds everything that was altered, left out or inserted:
  grid, inputs, truths and missing truths, scores, charges, snapshots, ranking.
- Other code, without the state of a stage, computes truths from records, scores from answers, sums from scores and
  shares from the ranking (`scores.py`, `sums.py`). So a fault of a stage does not confirm itself.

Whoever holds the topics can thus check what is paid. It does not find a fact from outside that was forged before it was
recorded (a feed record, a model's answer, the presence of a model), if every topic was then made from it honestly.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

from coordinator.streams.audit.ensembles import check_ensembles
from coordinator.streams.audit.facts import Chain, ChainBrokenError, Contracts, broken
from coordinator.streams.audit.feed import check_records
from coordinator.streams.audit.redo import Scope, Topics, redo
from coordinator.streams.audit.rosters import check_rosters
from coordinator.streams.audit.scores import check_feed, check_inputs, check_predictions, check_scores
from coordinator.streams.audit.sums import check_checkpoint, check_emission, check_snapshots
from coordinator.streams.audit.told import check_told
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

    Raises ChainBrokenError; OperatorError for a contract that is not available.
    """
    start, end = checkpoint.period_start, checkpoint.period_end
    again: dict[str, tuple[AnyStage, Scope]] = {
        "input": (
            InputStage(contracts),
            Scope(
                ("InputReceived", "InputsUntil"),
                lambda event: any(
                    scope.resolvable_at >= start for scope in getattr(event.data, "scopes", ())
                ),
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
        contracts(terms.data.contract_hash)  # raises here: a missing contract is not a fault of the log
    steps = check_chain(chain, checkpoint, contracts)
    for step in STEPS:
        try:
            redone = ""
            if step in again:
                stage, scope = again[step]
                count = await redo(stage, topics, scope, step)
                redone = f"; {count} decisions made again and equal"
            name, checked = next(steps)
        except ChainBrokenError:
            raise
        except Exception as error:  # noqa: BLE001 - a log that was tampered with may make any fold raise: that is a finding
            broken(step, f"what is recorded cannot be computed again: {type(error).__name__}: {error}")
        yield name, checked + redone


STEPS = ("feed", "input", "predictions", "scores", "snapshots", "checkpoint", "emission")


def check_chain(chain: Chain, checkpoint: CheckpointData, contracts: Contracts) -> Iterator[tuple[str, str]]:
    """The second check of each step, without the state of any stage. Raises ChainBrokenError."""
    rounds = chain.rounds(checkpoint.period_start, checkpoint.period_end)
    if not rounds:
        broken("input", f"no input is resolvable in the period of {checkpoint.checkpoint_id}")
    records = check_records(chain, rounds)
    yield "feed", f"{records}; {check_feed(chain, rounds, contracts)}"
    yield "input", check_inputs(chain, rounds, contracts)
    asked = f"{check_rosters(chain, rounds)}; {check_predictions(chain, rounds)}"
    yield "predictions", asked + check_told(chain, rounds, contracts)
    yield "scores", check_scores(chain, rounds, contracts) + check_ensembles(chain, rounds, contracts)
    yield "snapshots", check_snapshots(chain, rounds, checkpoint, contracts)
    yield "checkpoint", check_checkpoint(chain, checkpoint)
    yield "emission", check_emission(chain, checkpoint, contracts)


def _opened_by(crunch_id: str, copy_of: str, checkpoint: CheckpointData) -> str:
    """The crunch id of a checkpoint.

    A copy under another crunch id also holds the checkpoints of the original crunch.
    """
    of_original = ids.checkpoint_id(copy_of, checkpoint.period_start, checkpoint.period_end)
    return copy_of if copy_of and checkpoint.checkpoint_id == of_original else crunch_id


def _builds(checkpoint_id: str, event: Any) -> bool:
    data = getattr(event.data, "checkpoint", event.data)
    return bool(data.checkpoint_id == checkpoint_id)
