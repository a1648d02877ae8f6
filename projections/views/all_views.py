"""All projections by name, and how they are opened together.

The report worker opens them to fold the log; the API and the commands open them to read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from coordinator.projections.folding.projection import Projection
from coordinator.projections.storage.store import Identity, Store
from coordinator.projections.views.checkpoints import Checkpoints
from coordinator.projections.views.checks import Checks
from coordinator.projections.views.dead_letters import DeadLetters
from coordinator.projections.views.evidence import Evidence
from coordinator.projections.views.feeds import Feeds
from coordinator.projections.views.leaderboard import Leaderboard
from coordinator.projections.views.models import Models
from coordinator.projections.views.predictions import Predictions
from coordinator.projections.views.rounds import Rounds
from coordinator.projections.views.snapshots import Snapshots
from coordinator.streams.log.errors import OperatorError

PROJECTIONS: dict[str, type[Projection]] = {
    projection.name: projection
    for projection in (
        *(Leaderboard, Models, Predictions, Feeds, Snapshots, Checkpoints),
        *(DeadLetters, Checks, Evidence, Rounds),
    )
}
SCHEMA = 3
"""Raise it when something changes that all stores share. `Projection.schema` is raised when the rows of one change."""


class ReadModels(msgspec.Struct, frozen=True):
    """The ten projections of one crunch."""

    leaderboard: Leaderboard
    models: Models
    predictions: Predictions
    feeds: Feeds
    snapshots: Snapshots
    checkpoints: Checkpoints
    dead_letters: DeadLetters
    checks: Checks
    evidence: Evidence
    rounds: Rounds

    def all(self) -> list[Projection]:
        """All of them, in the order of PROJECTIONS."""
        return [getattr(self, name) for name in PROJECTIONS]

    def close(self) -> None:
        """Close every store."""
        for projection in self.all():
            projection.store.close()


def identity_of(name: str, cluster_id: str, crunch_id: str) -> Identity:
    """The identity of a store that this version would write for the projection `name`."""
    return Identity(cluster_id, crunch_id, SCHEMA * 1000 + PROJECTIONS[name].schema)


def check_names(names: Iterable[str] | None) -> list[str]:
    """The given names, or all if none are given. Raises OperatorError for an unknown name."""
    names_wanted = list(names or PROJECTIONS)
    for name in names_wanted:
        if name not in PROJECTIONS:
            raise OperatorError(f"there is no projection {name!r}; choose from {', '.join(PROJECTIONS)}")
    return names_wanted


def open_projections(
    folder: Path, cluster_id: str, crunch_id: str, names: Iterable[str] | None = None
) -> list[Projection]:
    """The projections under `folder`, one store each. A store of another cluster, crunch or schema is rebuilt."""
    return [
        PROJECTIONS[name](Store.open(folder / name, identity_of(name, cluster_id, crunch_id)))
        for name in check_names(names)
    ]


def open_read_models(data_dir: Path, cluster_id: str, crunch_id: str) -> ReadModels:
    """All projections under `<data_dir>/projections`. Raises OperatorError if another process has them open."""
    by_name: dict[str, Any] = {
        projection.name: projection
        for projection in open_projections(data_dir / "projections", cluster_id, crunch_id)
    }
    return ReadModels(**by_name)
