"""A simulated chain for the demo and for tests: it accepts settlements, makes blocks, and fails on purpose.

It pays nobody, and `CHAIN=fake` settles rehearsals only (`coordinator.api.chain_loop` ensures that). Time is an
argument, so that a test sets it. A settlement is seen at once and final after `final_seconds`; then its prizes are
loaded, then all are claimed. With a `path` its state is kept in a file and outlives the process, as a chain does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from coordinator.infra.whole_file import write_whole
from coordinator.streams.ports import ChainCheckpoint, ChainState, TxState, TxStatus

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class Settlement(msgspec.Struct):
    """One accepted transaction. `fails`: its block becomes final with an error."""

    crunch: str
    checkpoint_id: str
    at: float
    fails: bool = False


def transaction_hash(*content: str) -> str:
    """64 bytes in base58, of content: what a signature looks like."""
    digest = hashlib.sha512("\n".join(content).encode()).digest()
    number, text = int.from_bytes(digest, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    return "1" * (len(digest) - len(digest.lstrip(b"\0"))) + text


class FakeChain:
    """A `ChainPort` that can also be settled on. Times are seconds of `now`."""

    name = "fake"

    def __init__(
        self,
        now: Callable[[], float],
        *,
        final_seconds: float = 3.0,
        claimable_seconds: float = 6.0,
        paid_seconds: float = 12.0,
        path: Path | None = None,
    ) -> None:
        self._now = now
        self._final, self._claimable, self._paid = final_seconds, claimable_seconds, paid_seconds
        self._path = path
        self.settlements: dict[str, Settlement] = {}
        if path is not None and path.is_file():
            self.settlements = msgspec.json.decode(path.read_bytes(), type=dict[str, Settlement])

    def send(self, tx_hash: str, crunch: str, checkpoint_id: str, *, fails: bool = False) -> None:
        """Accept a signed transaction. Sending it again changes nothing: a chain knows a transaction by its
        signature.
        """
        if tx_hash in self.settlements:
            return
        self.settlements[tx_hash] = Settlement(crunch, checkpoint_id, self._now(), fails)
        if self._path is not None:
            write_whole(self._path, msgspec.json.encode(self.settlements))

    async def status_of(self, tx_hashes: Sequence[str]) -> dict[str, TxStatus]:
        """See `ChainPort`."""
        return {tx_hash: self._status(self.settlements.get(tx_hash)) for tx_hash in tx_hashes}

    def _status(self, settlement: Settlement | None) -> TxStatus:
        if settlement is None:
            return TxStatus(TxState.UNKNOWN)
        error = "made to fail" if settlement.fails else ""
        if self._now() - settlement.at < self._final:
            return TxStatus(TxState.SEEN, error)
        return TxStatus(TxState.FAILED if settlement.fails else TxState.FINALIZED, error)

    async def checkpoints_of(self, crunch: str, since_ms: int) -> list[ChainCheckpoint]:  # noqa: ARG002 - more is harmless
        """See `ChainPort`. It tells which checkpoint each one settles."""
        return [
            ChainCheckpoint(
                tx_hash, self._state(settlement), settlement.checkpoint_id, int(settlement.at * 1000)
            )
            for tx_hash, settlement in self.settlements.items()
            if settlement.crunch == crunch
        ]

    def _state(self, settlement: Settlement) -> ChainState:
        age = self._now() - settlement.at
        if settlement.fails:
            return ChainState.FAILED if age >= self._final else ChainState.SUBMITTED
        if age >= self._paid:
            return ChainState.PAID
        return ChainState.CLAIMABLE if age >= self._claimable else ChainState.SUBMITTED

    async def close(self) -> None:
        """Nothing is held."""
