"""Who takes part: the models as their topic tells it, and whom a round asks.

Folds `models`; a value without I/O, for the stages and for whoever reads the topic.
"""

from __future__ import annotations

import msgspec

from coordinator.streams.events import (
    AnyEvent,
    ModelBanned,
    ModelLeft,
    ModelReadmitted,
    ModelSeen,
    RosterEntry,
)


class ModelsState(msgspec.Struct):
    """The models that are asked: seen, not left, not banned. Folded from `models`, in order of first sight."""

    seen: dict[str, ModelSeen] = {}
    left: dict[str, None] = {}
    banned: dict[str, None] = {}

    def evolve(self, event: AnyEvent) -> None:
        """Fold one event of `models`."""
        match event:
            case ModelSeen(data=data):
                self.seen[data.model_id] = event
                self.left.pop(data.model_id, None)
            case ModelLeft(data=data):
                seen_before = self.seen.get(data.model_id)
                if seen_before is not None and seen_before.data.deployment_id == data.deployment_id:
                    self.left[data.model_id] = None
            case ModelBanned(data=data):
                self.banned[data.model_id] = None
            case ModelReadmitted(data=data):
                self.banned.pop(data.model_id, None)
            case _:
                pass

    def roster(self) -> list[RosterEntry]:
        """Whom to ask, in order of model_id. A model that recovers stays on it: it cannot dodge a hard minute."""
        return [
            RosterEntry(
                model_id=model_id, deployment_id=seen.data.deployment_id, cruncher_id=seen.data.cruncher_id
            )
            for model_id, seen in sorted(self.seen.items())
            if model_id not in self.left and model_id not in self.banned
        ]
