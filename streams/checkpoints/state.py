"""One checkpoint as its own events tell it: what is offered, where it stands, which transactions it has seen."""

from __future__ import annotations

from coordinator.streams.events import CheckpointData
from coordinator.streams.log import lifecycle


class CheckpointState:
    """`tx_hash` is the transaction under way or done; the ones in `refused_hashes` finally failed."""

    __slots__ = ("data", "payees", "refused_hashes", "status", "tx_hash", "withheld_reason")

    def __init__(self, data: CheckpointData) -> None:
        self.data = data
        self.status = lifecycle.NONE
        self.tx_hash = ""
        self.payees: dict[str, str] = {}
        """model_id -> wallet, as bound since it was offered."""
        self.refused_hashes: set[str] = set()
        self.withheld_reason = ""
