"""What a look at the chain means for our checkpoints: commands for the checkpoint stage, and concerns for people.

Pure: checkpoints as they stand here, what the chain says of their transactions, what it has for the crunch. The stage
decides each command by the state that it meets, so a look at old state does no harm.

The rules, in order of what they protect:
- A transaction is failed only when the chain says so finally. One that the chain does not know stays SUBMITTED:
  not knowing is no proof, and offering again what was sent may pay twice.
- Before a checkpoint is offered again, all that was done for its crunch is looked at. Another settlement of it takes
  the failed one's place in the same decision; a transaction that may be one holds it where it is.
- A settlement that is on the chain while its checkpoint is PENDING here (its confirm was lost) is confirmed.
- A state is only claimed when it was seen: CLAIMABLE and PAID come from the checkpoint on chain.
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
    """A checkpoint as it stands here."""

    checkpoint_id: str
    status: str
    tx_hash: str = ""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A command to be: `kind` is confirm, advance or fail."""

    kind: str
    checkpoint_id: str
    tx_hash: str = ""
    status: str = ""
    reason: str = ""
    replaced_by: str = ""

    def command(self, at: int) -> Event:
        """The command; the same wish has the same id whoever has it, and how often."""
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
    """What a person must look at. `name` is stable for the same kind of trouble."""

    name: str
    checkpoint_id: str
    text: str


class Look(msgspec.Struct, frozen=True):
    """What came of one look."""

    wishes: list[Wish]
    concerns: list[Concern]


def judge(
    watched: Iterable[Watched],
    known_hashes: frozenset[str],
    statuses: Mapping[str, TxStatus],
    on_chain: Sequence[ChainCheckpoint],
    *,
    finalized_is_claimable: bool = False,
) -> Look:
    """Commands and concerns.

    `watched`: checkpoints that are not PAID. `known_hashes`: every transaction hash of any checkpoint here, PAID ones
    too. `statuses`: of the watched ones' hashes. `on_chain`: read after `statuses`, all that was done for the crunch
    since the oldest watched checkpoint was opened. `finalized_is_claimable` is the operator's word that a final
    transaction makes the prizes claimable.
    """
    live = [one for one in on_chain if one.state is not ChainState.FAILED]
    # Ours by no hash, and not known to be another checkpoint's: any of these may be a settlement without a confirm.
    strangers = sorted(
        one.tx_hash for one in live if not one.checkpoint_id and one.tx_hash not in known_hashes
    )
    look = Look([], [])
    for one in watched:
        settlements = sorted(
            (done for done in live if done.checkpoint_id == one.checkpoint_id),
            key=lambda done: (done.at_ms if done.at_ms is not None else -1, done.tx_hash),
        )
        if len(settlements) > 1:
            hashes = ", ".join(done.tx_hash for done in settlements)
            _say(look, "settled_twice", one, f"the chain holds {len(settlements)} settlements: {hashes}")
        if one.status == "WITHHELD" and settlements:
            what = f"it is withheld here, but {settlements[0].tx_hash} settles it on chain"
            _say(look, "withheld_but_settled", one, what)
        elif one.status == "PENDING":
            _pending(look, one, settlements, strangers)
        elif one.status == "SUBMITTED":
            status = statuses.get(one.tx_hash, _UNKNOWN)
            _submitted(look, one, status, settlements, strangers, finalized_is_claimable)
        elif one.status == "CLAIMABLE":
            _claimable(look, one, statuses.get(one.tx_hash, _UNKNOWN), settlements)
    return look


def _say(look: Look, name: str, one: Watched, text: str) -> None:
    look.concerns.append(Concern(name=name, checkpoint_id=one.checkpoint_id, text=text))


def _pending(look: Look, one: Watched, settlements: list[ChainCheckpoint], strangers: list[str]) -> None:
    if settlements:
        look.wishes.append(
            Wish(kind="confirm", checkpoint_id=one.checkpoint_id, tx_hash=settlements[0].tx_hash)
        )
    elif strangers:
        what = (
            f"{_few(strangers)} on the crunch may settle it, with its confirm lost: look before you settle it"
        )
        _say(look, "maybe_settled", one, what)


def _submitted(
    look: Look,
    one: Watched,
    status: TxStatus,
    settlements: list[ChainCheckpoint],
    strangers: list[str],
    finalized_is_claimable: bool,  # noqa: FBT001 - the caller's own option passed on
) -> None:
    if status.state is TxState.FAILED:
        others = [done.tx_hash for done in settlements if done.tx_hash != one.tx_hash]
        if not others and strangers:
            what = f"{one.tx_hash} failed, but {_few(strangers)} may settle it: not offered again until that is clear"
            _say(look, "maybe_settled", one, what)
            return
        look.wishes.append(
            Wish(
                kind="fail",
                checkpoint_id=one.checkpoint_id,
                tx_hash=one.tx_hash,
                reason=as_reason(f"the chain finally failed it: {status.error or 'no reason given'}", 500),
                replaced_by=others[0] if others else "",
            )
        )
        return
    if _seen_as(one, settlements, ADVANCED) or (finalized_is_claimable and status.state is TxState.FINALIZED):
        look.wishes.append(_advance(one, "CLAIMABLE"))


def _claimable(look: Look, one: Watched, status: TxStatus, settlements: list[ChainCheckpoint]) -> None:
    if status.state is TxState.FAILED:
        what = f"CLAIMABLE here, but the chain finally failed {one.tx_hash}: {status.error}"
        _say(look, "claimable_but_failed", one, what)
    elif _seen_as(one, settlements, (ChainState.PAID,)):
        look.wishes.append(_advance(one, "PAID"))


def _advance(one: Watched, status: str) -> Wish:
    return Wish(kind="advance", checkpoint_id=one.checkpoint_id, status=status, tx_hash=one.tx_hash)


def _seen_as(one: Watched, settlements: list[ChainCheckpoint], states: tuple[ChainState, ...]) -> bool:
    return any(done.tx_hash == one.tx_hash and done.state in states for done in settlements)


def _few(hashes: list[str]) -> str:
    more = len(hashes) - HASHES_NAMED
    return ", ".join(hashes[:HASHES_NAMED]) + (f" and {more} more" if more > 0 else "")
