"""The checkpoint worker's shell: `snapshots` by Faust, `commands` by a plain reader, one order of its own."""

from __future__ import annotations

from coordinator.infra.contracts.loading import ContractShelf
from coordinator.streams.agents.owning.dead_letters import DeadLetters
from coordinator.streams.agents.owning.log_io import LogIO
from coordinator.streams.agents.owning.tenure import Tenure
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.settings import Settings


def checkpoint_tenure(
    io: LogIO, settings: Settings, shelf: ContractShelf, owner: str, dead_letters: DeadLetters
) -> Tenure:
    """A tenure of the checkpoint stage; what is no command goes to the dead letters."""
    stage = CheckpointStage(settings.crunch_id, shelf, settle_rehearsals=settings.settle_rehearsals)
    return Tenure(io, stage, owner, dead_letters.from_topic)
