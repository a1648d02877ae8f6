"""The checks of the states that stages have recorded: one `StateCheck` per topic.

A check folds only the stage's own events, so it needs no contract.
"""

from __future__ import annotations

from typing import NoReturn

from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.feeds.stage import FeedStage
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.recorded_state import StateCheck
from coordinator.streams.log.stage import AnyStage
from coordinator.streams.models.stage import ModelStage
from coordinator.streams.predictions.stage import PredictionStage
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.snapshots.stage import SnapshotStage


def state_checks(crunch_id: str) -> dict[str, StateCheck]:
    """Topic -> the check of its recorded states, which reads the topic from its first record."""
    return {topic: StateCheck(stage) for topic, stage in folding_stages(crunch_id).items()}


def folding_stages(crunch_id: str = "") -> dict[str, AnyStage]:
    """Topic -> a new stage that only folds its own events; it decides nothing, so it needs no contract."""
    stages: tuple[AnyStage, ...] = (
        FeedStage(),
        InputStage(_no_contract),
        PredictionStage(),
        ModelStage(),
        ScoreStage(_no_contract),
        SnapshotStage(_no_contract),
        CheckpointStage(crunch_id, _no_contract),
    )
    return {stage.topic: stage for stage in stages}


def _no_contract(contract_hash: str) -> NoReturn:
    message = f"a fold asked for contract {contract_hash[:12]}"
    raise RuntimeError(message)
