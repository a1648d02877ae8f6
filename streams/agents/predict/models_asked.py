"""The models, and what a process keeps of them from one tenure to the next."""

from __future__ import annotations

import msgspec

from coordinator.infra.models.crash_notes import CrashNotes
from coordinator.streams.ports import ModelGateway, ModelNotice
from coordinator.streams.predictions.strikes import Strikes


class ModelsAsked(msgspec.Struct, frozen=True):
    """`noticed` are the gateway's notices that no tenure has recorded yet: it hands out each one once. `strikes` counts
    each model's bad answers in a row, and `in_hand` names the model whose answer is being judged.
    """

    gateway: ModelGateway
    noticed: list[ModelNotice] = []
    strikes: Strikes = msgspec.field(default_factory=Strikes)
    in_hand: CrashNotes | None = None
