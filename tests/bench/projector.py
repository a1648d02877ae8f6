"""The projector with the leaderboard alone, in a process of its own; says at each commit what is folded.

A line per commit that changed it: `{"event":"folded","wall":s,"mono":s,"scores":n,"resolvable_at":ms or null}`.
The fold, the slices and the commits are those of the report worker.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from coordinator.infra.log.own_log import log_identity
from coordinator.projections.folding.projector import Projector
from coordinator.projections.storage.batch import Batch
from coordinator.projections.views.all_views import open_projections
from coordinator.projections.views.leaderboard import Leaderboard
from coordinator.streams.events import RoundScored
from coordinator.streams.log.counting import Decision
from coordinator.streams.settings import read_settings


class OneProjection:
    """`ReadModels` of the leaderboard alone."""

    def __init__(self, board: Leaderboard) -> None:
        self._board = board

    def all(self) -> list[Any]:
        return [self._board]


class SayingProjector(Projector):
    """Counts scores as they are folded, and says so once they are committed."""

    scores = 0
    said = 0
    resolvable_at: int | None = None

    def listen(self, board: Leaderboard) -> None:
        fold = board.apply

        def apply(decision: Decision, batch: Batch) -> None:
            fold(decision, batch)
            if decision.topic == "scores":
                for event in decision.events:
                    if type(event) is RoundScored:
                        self.scores += len(event.data.models) - len(event.data.unscored)
                        self.resolvable_at = event.data.resolvable_at

        board.apply = apply  # type: ignore[method-assign]

    def _commit(self) -> None:
        super()._commit()
        if self.scores != self.said:
            self.said = self.scores
            line = {
                "event": "folded", "wall": time.time(), "mono": time.monotonic(), "scores": self.scores,
                "resolvable_at": self.resolvable_at,
            }  # fmt: skip
            sys.stdout.write(json.dumps(line) + "\n")


async def main() -> None:
    settings = read_settings(os.environ)
    cluster_id = await log_identity(settings.kafka_bootstrap, settings.crunch_id)
    (board,) = open_projections(
        settings.data_dir / "bench-board", cluster_id, settings.crunch_id, ["leaderboard"]
    )
    projector = SayingProjector(settings, OneProjection(board))
    projector.listen(board)
    sys.stdout.write(json.dumps({"event": "projector_starts"}) + "\n")
    await projector.run()


asyncio.run(main())
