"""The state of one checkpoint, folded from its events: what is offered, its status, and its transactions."""

from __future__ import annotations

import msgspec

from coordinator.streams.events import CheckpointData
from coordinator.streams.log import lifecycle


class CheckpointState(msgspec.Struct):
    """`tx_hash`: the transaction that pays it, under way or done. `refused_hashes`: those that the chain finally
    failed.
    """

    period_start: int
    period_end: int
    data: CheckpointData | None
    """Its ranking and emission; None once it is PAID, because nothing is decided by them any more, and every period
    adds one.
    """
    rehearsal: bool = False
    status: str = lifecycle.NONE
    tx_hash: str = ""
    shares_sha256: str = ""
    """Over what it paid out (`prizes.py`), once it is PAID: a correction is still compared with it. "" before."""
    payees: dict[str, str] = {}
    """model_id -> wallet, as bound while it was offered; empty once it is PAID."""
    refused_hashes: dict[str, None] = {}
    withheld_reason: str = ""
