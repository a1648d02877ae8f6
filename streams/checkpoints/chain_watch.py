"""Compares our checkpoints with the chain: returns commands for the checkpoint stage, and concerns for people.

Pure. Takes our checkpoints, the status of their transactions on the chain, and what the chain has for the crunch. The
stage decides each command by the state that it meets, so a comparison with an old state does no harm.

The rules, the most important first:

- A transaction has failed only if the chain finally says so. One that the chain does not know stays SUBMITTED: that is
no
  proof of failure, and if a checkpoint is offered again after its transaction was sent, it may be paid twice.
- Before a checkpoint is offered again, everything that was done for its crunch is checked. Another settlement of it
  replaces the failed one in the same decision. A transaction that may be one keeps it from being offered.
- If the chain has a settlement of a checkpoint that is PENDING here (its confirm was lost), it is confirmed.
- CLAIMABLE and PAID are recorded only when they were seen of the checkpoint on chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from coordinator.streams.events import (
    AdvanceCheckpoint,
    AdvanceCheckpointData,
    ConfirmCheckpoint,
    ConfirmCheckpointData,
    Event,
    FailCheckpointSubmission,
    FailCheckpointSubmissionData,
)
from coordinator.streams.log.ids import content_id
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.ports import ChainCheckpoint, ChainState, TxState, TxStatus

_UNKNOWN = TxStatus(TxState.UNKNOWN)
HASHES_NAMED = 3
ADVANCED = (ChainState.CLAIMABLE, ChainState.PAID)


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint of this crunch: its status, and the transaction that pays it."""

    checkpoint_id: str
    status: str
    tx_hash: str = ""


class WantedCommand(msgspec.Struct, frozen=True, kw_only=True):
    """A command that should be sent. `kind`: confirm, advance or fail."""

    kind: str
    checkpoint_id: str
    tx_hash: str = ""
    status: str = ""
    reason: str = ""
    replaced_by: str = ""

    def command(self, at: int) -> Event:
        """The command. Its id is made of these fields alone, so that sending it twice has one effect."""
        the_id = content_id(
            "chain", self.kind, self.checkpoint_id, self.tx_hash, self.status, self.replaced_by
        )
        if self.kind == "confirm":
            confirmed = ConfirmCheckpointData(checkpoint_id=self.checkpoint_id, tx_hash=self.tx_hash)
            return ConfirmCheckpoint(id=the_id, at=at, data=confirmed)
        if self.kind == "advance":
            advanced = AdvanceCheckpointData(
                checkpoint_id=self.checkpoint_id, status=self.status, tx_hash=self.tx_hash
            )
            return AdvanceCheckpoint(id=the_id, at=at, data=advanced)
        failed = FailCheckpointSubmissionData(
            checkpoint_id=self.checkpoint_id,
            tx_hash=self.tx_hash,
            reason=self.reason,
            replaced_by=self.replaced_by,
        )
        return FailCheckpointSubmission(id=the_id, at=at, data=failed)


class Concern(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a person must check. `name` is the same for the same kind of trouble."""

    name: str
    checkpoint_id: str
    text: str


class ChainComparison(msgspec.Struct, frozen=True):
    """The result of one comparison."""

    wanted_commands: list[WantedCommand]
    concerns: list[Concern]


def judge(
    watched: Iterable[Watched],
    known_hashes: frozenset[str],
    statuses: Mapping[str, TxStatus],
    on_chain: Sequence[ChainCheckpoint],
    *,
    finalized_is_claimable: bool = False,
) -> ChainComparison:
    """Compare each checkpoint with the chain.

    `watched`: the checkpoints that are not PAID. `known_hashes`: the transaction hashes of all our checkpoints, also
    PAID ones. `statuses`: transaction hash -> status, for those of `watched`. `on_chain`: everything that was done for
    the crunch since the oldest watched checkpoint was opened, read after `statuses`. `finalized_is_claimable`: the
    operator declares that prizes are claimable once the transaction is final.
    """
    live = [done for done in on_chain if done.state is not ChainState.FAILED]
    # Transactions that we do not know, and that name no checkpoint: each may be a settlement whose confirm was lost.
    unknown_hashes = sorted(
        done.tx_hash for done in live if not done.checkpoint_id and done.tx_hash not in known_hashes
    )
    comparison = ChainComparison([], [])
    for checkpoint in watched:
        settlements = sorted(
            (done for done in live if done.checkpoint_id == checkpoint.checkpoint_id),
            key=lambda done: (done.at_ms if done.at_ms is not None else -1, done.tx_hash),
        )
        if len(settlements) > 1:
            hashes = ", ".join(done.tx_hash for done in settlements)
            text = f"the chain holds {len(settlements)} settlements: {hashes}"
            _add_concern(comparison, "settled_twice", checkpoint, text)
        if checkpoint.status == "WITHHELD" and settlements:
            text = f"it is withheld here, but {settlements[0].tx_hash} settles it on chain"
            _add_concern(comparison, "withheld_but_settled", checkpoint, text)
        elif checkpoint.status == "PENDING":
            _pending(comparison, checkpoint, settlements, unknown_hashes)
        elif checkpoint.status == "SUBMITTED":
            status = statuses.get(checkpoint.tx_hash, _UNKNOWN)
            _submitted(comparison, checkpoint, status, settlements, unknown_hashes, finalized_is_claimable)
        elif checkpoint.status == "CLAIMABLE":
            _claimable(comparison, checkpoint, statuses.get(checkpoint.tx_hash, _UNKNOWN), settlements)
    return comparison


def _add_concern(comparison: ChainComparison, name: str, checkpoint: Watched, text: str) -> None:
    comparison.concerns.append(Concern(name=name, checkpoint_id=checkpoint.checkpoint_id, text=text))


def _pending(
    comparison: ChainComparison,
    checkpoint: Watched,
    settlements: list[ChainCheckpoint],
    unknown_hashes: list[str],
) -> None:
    if settlements:
        comparison.wanted_commands.append(
            WantedCommand(
                kind="confirm", checkpoint_id=checkpoint.checkpoint_id, tx_hash=settlements[0].tx_hash
            )
        )
    elif unknown_hashes:
        text = f"{_few(unknown_hashes)} on the crunch may settle it, with its confirm lost: look before you settle it"
        _add_concern(comparison, "maybe_settled", checkpoint, text)


def _submitted(
    comparison: ChainComparison,
    checkpoint: Watched,
    status: TxStatus,
    settlements: list[ChainCheckpoint],
    unknown_hashes: list[str],
    finalized_is_claimable: bool,  # noqa: FBT001 - the caller's own option passed on
) -> None:
    if status.state is TxState.FAILED:
        others = [done.tx_hash for done in settlements if done.tx_hash != checkpoint.tx_hash]
        if not others and unknown_hashes:
            text = (
                f"{checkpoint.tx_hash} failed, but {_few(unknown_hashes)} may settle it: "
                "not offered again until that is clear"
            )
            _add_concern(comparison, "maybe_settled", checkpoint, text)
            return
        comparison.wanted_commands.append(
            WantedCommand(
                kind="fail",
                checkpoint_id=checkpoint.checkpoint_id,
                tx_hash=checkpoint.tx_hash,
                reason=as_reason(f"the chain finally failed it: {status.error or 'no reason given'}", 500),
                replaced_by=others[0] if others else "",
            )
        )
        return
    if _seen_as(checkpoint, settlements, ADVANCED) or (
        finalized_is_claimable and status.state is TxState.FINALIZED
    ):
        comparison.wanted_commands.append(_advance(checkpoint, "CLAIMABLE"))


def _claimable(
    comparison: ChainComparison, checkpoint: Watched, status: TxStatus, settlements: list[ChainCheckpoint]
) -> None:
    if status.state is TxState.FAILED:
        text = f"CLAIMABLE here, but the chain finally failed {checkpoint.tx_hash}: {status.error}"
        _add_concern(comparison, "claimable_but_failed", checkpoint, text)
    elif _seen_as(checkpoint, settlements, (ChainState.PAID,)):
        comparison.wanted_commands.append(_advance(checkpoint, "PAID"))


def _advance(checkpoint: Watched, status: str) -> WantedCommand:
    return WantedCommand(
        kind="advance", checkpoint_id=checkpoint.checkpoint_id, status=status, tx_hash=checkpoint.tx_hash
    )


def _seen_as(checkpoint: Watched, settlements: list[ChainCheckpoint], states: tuple[ChainState, ...]) -> bool:
    return any(done.tx_hash == checkpoint.tx_hash and done.state in states for done in settlements)


def _few(hashes: list[str]) -> str:
    more = len(hashes) - HASHES_NAMED
    return ", ".join(hashes[:HASHES_NAMED]) + (f" and {more} more" if more > 0 else "")
