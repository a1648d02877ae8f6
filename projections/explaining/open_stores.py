"""Opens the stores of a report worker for reading, while it runs or without it.

For commands on the machine that holds the stores, such as `coordinator explain`. Reads the stores only, so it never
blocks the worker that writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from coordinator.projections.folding.projection import Projection
from coordinator.projections.storage.database import StoreDamagedError
from coordinator.projections.storage.store import Store
from coordinator.projections.views.all_views import identity_of
from coordinator.projections.views.checkpoints import Checkpoints
from coordinator.projections.views.feeds import Feeds
from coordinator.projections.views.leaderboard import Leaderboard
from coordinator.projections.views.models import Models
from coordinator.projections.views.predictions import Predictions
from coordinator.projections.views.rounds import Rounds
from coordinator.projections.views.snapshots import Snapshots
from coordinator.streams.log.errors import OperatorError

Kind = TypeVar("Kind", bound=Projection)


class ReadBeside:
    """A `Readable` that opens each store when it is first used, as the store is at that moment."""

    def __init__(self, data_dir: Path, log_identity: str, crunch_id: str, opened: ExitStack) -> None:
        self._folder, self._opened = data_dir / "projections", opened
        self._whose = log_identity, crunch_id

    def _open(self, kind: type[Kind]) -> Kind:
        path = self._folder / kind.name
        try:
            store = Store.open_secondary(path)
        except StoreDamagedError as error:
            raise OperatorError(
                f"{error}: the report worker writes it; run this on its machine with its --data-dir, or ask its "
                "API: GET /reports/explain/..."
            ) from error
        self._opened.callback(store.close)
        if store.identity != identity_of(kind.name, *self._whose):
            raise OperatorError(
                f"{path} belongs to another log or version than the topics in Kafka: start the report worker "
                "once, and it writes it again"
            )
        return kind(store)

    @cached_property
    def leaderboard(self) -> Leaderboard:
        """Where places and windows are."""
        return self._open(Leaderboard)

    @cached_property
    def models(self) -> Models:
        """The models and players that take part."""
        return self._open(Models)

    @cached_property
    def predictions(self) -> Predictions:
        """Rounds, answers and scores."""
        return self._open(Predictions)

    @cached_property
    def feeds(self) -> Feeds:
        """Feed records."""
        return self._open(Feeds)

    @cached_property
    def snapshots(self) -> Snapshots:
        """Each model's periods."""
        return self._open(Snapshots)

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """What is paid."""
        return self._open(Checkpoints)

    @cached_property
    def rounds(self) -> Rounds:
        """Where posted questions stand."""
        return self._open(Rounds)


@contextmanager
def read_beside(data_dir: Path, log_identity: str, crunch_id: str) -> Iterator[ReadBeside]:
    """The read models under `<data_dir>/projections`, until the end of the block. The first use of a store that is
    missing, or is of another log, raises OperatorError.
    """
    with ExitStack() as opened:
        yield ReadBeside(data_dir, log_identity, crunch_id, opened)
