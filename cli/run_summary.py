"""What a run came to: the numbers of `--summary`, all of them from the log.

The topics are replayed into a passing directory with the folds that run live, so the summary does not depend on
how far the running projections were.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from coordinator.infra.log.own_log import log_identity
from coordinator.infra.log.positions import PipelineWatch, reading
from coordinator.projections.folding.replay import replay
from coordinator.projections.views.all_views import ReadModels, open_projections
from coordinator.projections.views.board_rows import Board
from coordinator.projections.views.checkpoints import CheckpointRow
from coordinator.projections.views.prediction_rows import COUNTED
from coordinator.streams.scores.units import to_float


async def make_summary(bootstrap: str, crunch_id: str, restarts: Mapping[str, int]) -> dict[str, Any]:
    """The summary as plain JSON data; see the README for its fields.

    `rehearsal` is the state of the clock at the end. Raises WorldError, LogError.
    """
    watch = PipelineWatch(crunch_id)
    async with reading(bootstrap) as consumer:
        await watch.refresh(consumer)
    with tempfile.TemporaryDirectory(prefix="coordinator-summary-") as passing:
        folder = Path(passing)
        result = await replay(bootstrap, crunch_id, target_dir=folder)
        read = ReadModels(*open_projections(folder, await log_identity(bootstrap, crunch_id), crunch_id))  # type: ignore[arg-type]
        try:
            totals = read.predictions.totals()
            checkpoints = sorted(read.checkpoints.newest(), key=lambda row: row.checkpoint.period_start)
            offered = read.checkpoints.latest_offered()
            return {
                "feed_records": read.feeds.counted("feeds", "records"),
                "inputs": {name: totals[name] for name in ("received", "resolved")},
                "predictions": {name: totals[name] for name in COUNTED},
                "snapshots": read.snapshots.counted("snapshots", "taken"),
                "checkpoints": [_checkpoint(row) for row in checkpoints],
                "leaderboard": _board(read.leaderboard.board()),
                "latest_emission": None
                if offered is None
                else msgspec.to_builtins(offered.checkpoint.emission),
                "state_hash": result.state_hash,
                "duplicates_ignored": result.duplicates_ignored,
                "dead_letters": read.dead_letters.total(),
                "restarts": dict(restarts),
                "rehearsal": watch.rehearsal,
                "clock": watch.clock,
            }
        finally:
            read.close()


def _checkpoint(row: CheckpointRow) -> dict[str, Any]:
    data = row.checkpoint
    return {
        "id": data.checkpoint_id,
        "status": row.status,
        "period_start": data.period_start,
        "period_end": data.period_end,
        "sum": sum(reward["reward_pct"] for reward in data.emission["cruncher_rewards"]),
        "rehearsal": data.rehearsal,
    }


def _board(board: Board | None) -> list[dict[str, Any]]:
    if board is None:
        return []
    return [
        {
            "rank": row.rank,
            "model_id": row.model.model_id,
            "model_name": row.model.model_name,
            "scored": row.scored_count,
            **{
                name: None if units is None else to_float(units, board.decimals)
                for name, units in row.windows_units.items()
            },
        }
        for row in board.rows
    ]
