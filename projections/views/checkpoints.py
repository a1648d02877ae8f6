"""Checkpoints on their way to payment: the read model behind `/reports/checkpoints`. Folds `checkpoints`,
`models`.

Moves follow the lifecycle's table; one that is not in it is recorded and changes nothing. What the stage has
decided of `commands`, and where the newest changes stood, is kept beside the rows, not in them: these are positions,
and a mirrored log has others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import msgspec

from coordinator.projections.folding.projection import Projection, TermsRows, eight, encode_row, key
from coordinator.projections.storage.batch import Batch
from coordinator.projections.storage.store import Store
from coordinator.projections.views.model_rows import ModelRows
from coordinator.streams.events import (
    AnyEvent,
    CheckpointClaimable,
    CheckpointCorrected,
    CheckpointCorrectedData,
    CheckpointData,
    CheckpointOpened,
    CheckpointPaid,
    CheckpointSubmissionFailed,
    CheckpointSubmitted,
    CheckpointWithheld,
    CommandRefused,
    CommandRefusedData,
    CrunchConfigured,
    PayeesBound,
    PayeesBoundData,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Position
from coordinator.streams.log.errors import IllegalTransitionError
from coordinator.streams.log.lifecycle import CHECKPOINT, NONE, advance
from coordinator.streams.log.stage import NOTHING_DECIDED

DECIDED = "commands_decided"
SNAPSHOTS_DECIDED = "snapshots_decided"
CHANGES = "changes"
CHANGES_KEPT = 256
"""The number of changes kept for live listeners. One that was away longer gets everything again."""
PENDING = "PENDING"
WITHHELD = "WITHHELD"
UNSETTLED = ("WITHHELD", "PENDING", "SUBMITTED")
"""The statuses in which somebody still has to act."""


class CheckpointRow(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint as it stands. Times are ms; `reason` is why it was withheld or why a submission failed."""

    checkpoint: CheckpointData
    status: str
    created_at: int
    changed_at: int
    tx_hash: str | None = None
    submitted_at: int | None = None
    reason: str = ""
    moves: list[tuple[str, int]] = []
    payees: dict[str, str] = {}
    """model_id -> wallet, as bound since it was offered."""
    corrections: list[tuple[int, CheckpointCorrectedData]] = []
    """(when it was recorded, what it says), oldest first: the last one counts."""
    made_good: dict[str, dict[str, int]] = {}
    """The later checkpoint that carries it -> model_id -> whole micro-USDC."""

    def owed(self) -> dict[str, int]:
        """model_id -> what the checkpoints after it still have to carry, in whole micro-USDC; below 0: it has too much.

        Only amounts that are not 0.
        """
        if not self.corrections:
            return {}
        _, newest = self.corrections[-1]
        left = {model.model_id: model.due - model.paid for model in newest.models}
        for prizes in self.made_good.values():
            for model_id, amount in prizes.items():
                left[model_id] = left.get(model_id, 0) - amount
        return {model_id: amount for model_id, amount in sorted(left.items()) if amount}


_row_decoder = msgspec.msgpack.Decoder(CheckpointRow)
_done_decoder = msgspec.msgpack.Decoder(tuple[str, str])
_refused_decoder = msgspec.msgpack.Decoder(CommandRefusedData)


class Checkpoints(Projection):
    """Rows `C` by id, an index `E` by period end, commands by id: `K` what they did, `R` why they were refused."""

    name = "checkpoints"
    topics = ("checkpoints", "models")
    explained = frozenset((b"C", b"T"))
    owners: ClassVar[Mapping[bytes, str]] = {
        **dict.fromkeys((b"C", b"E", b"K", b"N", b"R", b"T"), "checkpoints"),
        b"M": "models",
    }
    schema = 8

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.models = ModelRows(store)
        self.terms = TermsRows(store)
        offset, index = store.notes.get(DECIDED, (-1, -1))
        self.commands_decided: Position = (offset, index)
        self.snapshots_decided: int = store.notes.get(SNAPSHOTS_DECIDED, -1)
        """The offset in `snapshots` up to which the stage has decided, as it says."""
        self._newest_end = int.from_bytes(store.get(b"N") or b"", "big")
        known_from, changes = store.notes.get(
            CHANGES, (store.positions["checkpoints"].offset if "checkpoints" in store.positions else 0, [])
        )
        self._changes_known_from: int = known_from
        self._changes: list[tuple[int, str]] = [(offset, checkpoint_id) for offset, checkpoint_id in changes]
        self._offset = 0

    def apply(self, decision: Decision, batch: Batch) -> None:
        if decision.topic == "models":
            self.models.apply(decision, batch)
            return
        decided = decision.upto.get("commands")
        if decided is not None and tuple(decided) > self.commands_decided:
            self.commands_decided = (decided[0], decided[1])
        self.snapshots_decided = max(
            self.snapshots_decided, decision.upto.get("snapshots", NOTHING_DECIDED)[0]
        )
        self._offset = decision.offset
        for event in decision.events:
            match event:
                case CheckpointOpened(data=data):
                    self._open(event, data, "", batch)
                case CheckpointWithheld(data=data):
                    self._open(event, data.checkpoint, data.reason, batch)
                case PayeesBound(data=data):
                    self._bind(data, batch)
                case CheckpointSubmitted(at=at, data=data):
                    self._move(event, data.checkpoint_id, batch, tx_hash=data.tx_hash, submitted_at=at)
                case CheckpointSubmissionFailed(data=data):
                    self._move(
                        event, data.checkpoint_id, batch, tx_hash=None, submitted_at=None, reason=data.reason
                    )
                case CheckpointClaimable(data=data) | CheckpointPaid(data=data):
                    self._move(event, data.checkpoint_id, batch)
                case CheckpointCorrected(at=at, data=data):
                    self._correct(at, data, batch)
                case CommandRefused(data=data):
                    batch.put(b"R" + key(data.command_id), encode_row(data))
                case CrunchConfigured(data=data):
                    self.terms.add(data, batch)
                case _:
                    pass

    def _open(self, event: AnyEvent, data: CheckpointData, reason: str, batch: Batch) -> None:
        before = self._read(batch, data.checkpoint_id)
        status = self._advance(event, before, batch)
        if status is None:
            return
        batch.put(b"E" + key(data.period_end, data.checkpoint_id), data.checkpoint_id.encode())
        if data.period_end > self._newest_end:
            self._newest_end = data.period_end
            batch.put(b"N", eight(data.period_end))
        if before is None:
            row = CheckpointRow(
                checkpoint=data, status=status, created_at=event.at, changed_at=event.at, reason=reason
            )
        else:
            # A released checkpoint was computed again, so the shares to pay are those of this event.
            row = msgspec.structs.replace(
                before, checkpoint=data, status=status, changed_at=event.at, reason=reason
            )
        self._write(row, event, batch)
        for credit in data.credits:
            parent = self._read(batch, credit.checkpoint_id)
            if parent is not None:
                made_good = parent.made_good | {data.checkpoint_id: credit.prizes}
                self._put(msgspec.structs.replace(parent, made_good=made_good), batch)

    def _correct(self, at: int, data: CheckpointCorrectedData, batch: Batch) -> None:
        before = self._read(batch, data.checkpoint_id)
        if before is None:
            return  # cannot happen in a log of ours: the stage corrects checkpoints that it has opened
        batch.put(b"K" + key(data.command_id), encode_row((data.checkpoint_id, before.status)))
        row = msgspec.structs.replace(before, corrections=[*before.corrections, (at, data)], changed_at=at)
        self._put(row, batch)

    def _bind(self, data: PayeesBoundData, batch: Batch) -> None:
        before = self._read(batch, data.checkpoint_id)
        if before is None:
            return  # cannot happen in a log of ours: the stage binds payees of checkpoints that it has opened
        # The first wallet that was bound for a model stays: the stage sends only models that were not bound yet.
        batch.put(b"K" + key(data.command_id), encode_row((data.checkpoint_id, before.status)))
        row = msgspec.structs.replace(before, payees=before.payees | data.payees)
        batch.put(b"C" + key(data.checkpoint_id), encode_row(row))

    def _move(self, event: AnyEvent, checkpoint_id: str, batch: Batch, **fields: Any) -> None:
        before = self._read(batch, checkpoint_id)
        status = self._advance(event, before, batch)
        if status is None or before is None:
            return
        data: Any = event.data
        batch.put(b"K" + key(data.command_id), encode_row((checkpoint_id, status)))
        row = msgspec.structs.replace(before, status=status, changed_at=event.at, **fields)
        self._write(row, event, batch)

    def _advance(self, event: AnyEvent, before: CheckpointRow | None, batch: Batch) -> str | None:
        status = before.status if before else NONE
        try:
            return advance(CHECKPOINT, status, type(event).__name__)
        except IllegalTransitionError:
            self.refuse(batch, "checkpoints", event, status)
            return None

    def _write(self, row: CheckpointRow, event: AnyEvent, batch: Batch) -> None:
        self._put(msgspec.structs.replace(row, moves=[*row.moves, (row.status, event.at)]), batch)

    def _put(self, row: CheckpointRow, batch: Batch) -> None:
        batch.put(b"C" + key(row.checkpoint.checkpoint_id), encode_row(row))
        self._changes.append((self._offset, row.checkpoint.checkpoint_id))
        while len(self._changes) > CHANGES_KEPT:
            self._changes_known_from = self._changes.pop(0)[0] + 1

    def _read(self, batch: Batch, checkpoint_id: str) -> CheckpointRow | None:
        raw = batch.get(b"C" + key(checkpoint_id))
        return _row_decoder.decode(raw) if raw else None

    def notes(self) -> dict[str, Any]:
        return {
            SNAPSHOTS_DECIDED: self.snapshots_decided,
            DECIDED: self.commands_decided,
            CHANGES: (self._changes_known_from, self._changes),
        }

    def get(self, checkpoint_id: str) -> CheckpointRow | None:
        """The checkpoint, or None."""
        raw = self.store.get(b"C" + key(checkpoint_id))
        return _row_decoder.decode(raw) if raw else None

    def told_at(self, checkpoint_id: str) -> list[int]:
        """The offsets of the decisions that changed it, oldest first."""
        return self.store.written_at(b"C" + key(checkpoint_id))

    def changed_since(self, offset: int) -> list[str] | None:
        """The checkpoints that changed at or after this offset of `checkpoints`, oldest change first; None when that is
        too long ago to tell.
        """
        if offset < self._changes_known_from:
            return None
        return list(dict.fromkeys(checkpoint_id for at, checkpoint_id in self._changes if at >= offset))

    def newest(
        self, status: str | None = None, *, after: tuple[int, str] | None = None
    ) -> Iterator[CheckpointRow]:
        """Checkpoints by period end, newest first; only those of one status, if given. `after` is (period end,
        checkpoint id) of one of them: the list continues after it.
        """
        last = None if after is None else b"E" + key(*after)
        newest = b"E" + key(self._newest_end + 1)
        first = newest if last is None else min(last, newest)
        for name, checkpoint_id in self.store.scan(b"E", start=first, backwards=True):
            if name == last:
                continue
            row = self.get(checkpoint_id.decode())
            if row is not None and status in (None, row.status):
                yield row

    def latest_offered(self) -> CheckpointRow | None:
        """The newest checkpoint that is or was offered for payment. A withheld one was not offered."""
        return next((row for row in self.newest() if row.status != WITHHELD), None)

    def refusal(self, command_id: str) -> CommandRefusedData | None:
        """Why this command did nothing, or None when it was not refused (or not decided yet)."""
        raw = self.store.get(b"R" + key(command_id))
        return _refused_decoder.decode(raw) if raw else None

    def done_by(self, command_id: str) -> tuple[str, str] | None:
        """The checkpoint that this command moved, and where to; None when it moved none (or is not decided yet)."""
        raw = self.store.get(b"K" + key(command_id))
        return _done_decoder.decode(raw) if raw else None
