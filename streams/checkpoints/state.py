"""One checkpoint as its own events tell it: what is offered, where it stands, which transactions it has seen."""

from __future__ import annotations

import msgspec

from coordinator.streams.events import CheckpointData
from coordinator.streams.log import lifecycle


class CheckpointState(msgspec.Struct):
    """`tx_hash` is the transaction under way or done; the ones in `refused_hashes` finally failed."""

    period_start: int
    period_end: int
    data: CheckpointData | None
    """None once it is PAID: nothing is decided by its ranking and its emission any more, and there are more of these
    every period.
    """
    rehearsal: bool = False
    status: str = lifecycle.NONE
    tx_hash: str = ""
    payees: dict[str, str] = {}
    """model_id -> wallet, as bound since it was offered; empty once it is PAID."""
    refused_hashes: dict[str, None] = {}
    withheld_reason: str = ""
