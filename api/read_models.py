"""Which read models a question is answered from: the one place where every reading route gets them.

Routes take `read: Reading` and know nothing of how it came to be: the living ones, or a view of a past (`as_of.py`).
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from coordinator.projections.folding.as_of import Cut, Readable, cuts_of
from coordinator.projections.folding.projection import Projection
from coordinator.projections.views.checkpoints import Checkpoints
from coordinator.projections.views.feeds import Feeds
from coordinator.projections.views.leaderboard import Leaderboard
from coordinator.projections.views.models import Models
from coordinator.projections.views.predictions import Predictions
from coordinator.projections.views.rounds import Rounds
from coordinator.projections.views.snapshots import Snapshots

READ = "coordinator.read"
"""The name in a request's scope under which its read models are."""
LIVE = "coordinator.live"
"""The name of the read models as they are now; not set if the request asks about the past."""
HELD_FROM = "coordinator.held_from"
"""The time (ms) from which on the read models hold all rows; 0 if none has left (PAST_DAYS)."""
WINDOW = "coordinator.window"
"""A list of the window that was meant, where it is another than the one that was asked for."""


class TrackedReadModels:
    """The living read models, remembering which of them an answer was made from."""

    __slots__ = ("_read", "_used")

    def __init__(self, read: Readable) -> None:
        self._read = read
        self._used: dict[str, Projection] = {}

    @property
    def leaderboard(self) -> Leaderboard:
        """The living one."""
        self._used["leaderboard"] = self._read.leaderboard
        return self._read.leaderboard

    @property
    def models(self) -> Models:
        """The living one."""
        self._used["models"] = self._read.models
        return self._read.models

    @property
    def predictions(self) -> Predictions:
        """The living one."""
        self._used["predictions"] = self._read.predictions
        return self._read.predictions

    @property
    def feeds(self) -> Feeds:
        """The living one."""
        self._used["feeds"] = self._read.feeds
        return self._read.feeds

    @property
    def snapshots(self) -> Snapshots:
        """The living one."""
        self._used["snapshots"] = self._read.snapshots
        return self._read.snapshots

    @property
    def checkpoints(self) -> Checkpoints:
        """The living one."""
        self._used["checkpoints"] = self._read.checkpoints
        return self._read.checkpoints

    @property
    def rounds(self) -> Rounds:
        """The living one."""
        self._used["rounds"] = self._read.rounds
        return self._read.rounds

    def used(self) -> list[Projection]:
        """Those that were looked at, by name."""
        return [self._used[name] for name in sorted(self._used)]

    def cuts_read(self) -> dict[str, Cut]:
        """How far their topics are folded."""
        return cuts_of(self.used())


async def reading(request: Request) -> Readable:
    """The read models that this request is answered from."""
    read: Readable = request.scope[READ]
    return read


Reading = Annotated[Readable, Depends(reading)]
