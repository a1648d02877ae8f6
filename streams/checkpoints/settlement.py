"""The settlement of checkpoints, from offered to PAID: what each command does in each status.

Pure; `stage.py` calls it. Own events change statuses by the table of the lifecycle. A command is decided by the state
that it meets. If its effect is done already, it makes no event, so repeating a command is safe. If it is not legal, it
makes CommandRefused with the reason, and the HTTP status that says whose fault it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from coordinator.streams.addresses import is_tx_hash, wallet_fault
from coordinator.streams.checkpoints.corrections import Corrections, correction_fault, correction_id
from coordinator.streams.checkpoints.prizes import shares_of, shares_sha256
from coordinator.streams.checkpoints.state import CheckpointState
from coordinator.streams.events import (
    AdvanceCheckpoint,
    AnyEvent,
    BindPayees,
    CheckpointAdvancedData,
    CheckpointClaimable,
    CheckpointCorrected,
    CheckpointCorrectedData,
    CheckpointData,
    CheckpointOpened,
    CheckpointPaid,
    CheckpointSubmissionFailed,
    CheckpointSubmissionFailedData,
    CheckpointSubmitted,
    CheckpointSubmittedData,
    CheckpointWithheld,
    CommandRefused,
    CommandRefusedData,
    ConfirmCheckpoint,
    CorrectCheckpoint,
    FailCheckpointSubmission,
    PayeesBound,
    PayeesBoundData,
    ReleaseCheckpoint,
    WithholdCheckpoint,
)
from coordinator.streams.log import lifecycle
from coordinator.streams.log.envelope import OUTSIDE_ID_CHARS_MAX
from coordinator.streams.log.errors import IllegalTransitionError
from coordinator.streams.log.reasons import as_reason

COMMANDS = frozenset(
    {
        "AdvanceCheckpoint",
        "BindPayees",
        "ConfirmCheckpoint",
        "CorrectCheckpoint",
        "FailCheckpointSubmission",
        "ReleaseCheckpoint",
        "WithholdCheckpoint",
    }
)
"""The kinds of the commands that are decided here."""
Rebuild = Callable[[CheckpointData], tuple[CheckpointData, list[str]]]
"""A withheld checkpoint -> (the checkpoint judged again, what still forbids offering it)."""


class Settlements(msgspec.Struct):
    """All checkpoints, and the decisions on commands about them. A value."""

    states: dict[str, CheckpointState] = {}
    """checkpoint_id -> its state."""
    built_until: int = -1
    """The end (ms) of the newest checkpoint's period; -1 before the first."""
    corrections: Corrections = msgspec.field(default_factory=Corrections)

    def evolve(self, event: AnyEvent) -> None:
        """Fold an own event. Raises IllegalTransitionError if the lifecycle does not allow it."""
        match event:
            case CheckpointOpened(data=data):
                self._move(data, event)
                self.corrections.carry(data.credits)
            case CheckpointWithheld(data=data):
                self._move(data.checkpoint, event).withheld_reason = data.reason
            case PayeesBound(data=data):
                self.states[data.checkpoint_id].payees |= data.payees
            case CheckpointSubmitted(data=data):
                self._advanced(data.checkpoint_id, event).tx_hash = data.tx_hash
            case CheckpointSubmissionFailed(data=data):
                state = self._advanced(data.checkpoint_id, event)
                state.refused_hashes[state.tx_hash] = None
                state.tx_hash = ""
            case CheckpointClaimable(data=data):
                self._advanced(data.checkpoint_id, event)
            case CheckpointPaid(data=data):
                state = self._advanced(data.checkpoint_id, event)
                if state.data is not None:
                    state.shares_sha256 = shares_sha256(shares_of(state.data))
                state.data, state.payees = None, {}
            case CheckpointCorrected(data=data):
                self.corrections.correct(data, rehearsal=self.states[data.checkpoint_id].rehearsal)
            case _:
                pass

    def _move(self, data: CheckpointData, event: CheckpointOpened | CheckpointWithheld) -> CheckpointState:
        fresh = CheckpointState(data.period_start, data.period_end, data, data.rehearsal)
        state = self.states.setdefault(data.checkpoint_id, fresh)
        state.status = lifecycle.advance(lifecycle.CHECKPOINT, state.status, type(event).__name__)
        state.data = data
        self.built_until = max(self.built_until, data.period_end)
        return state

    def _advanced(self, checkpoint_id: str, event: AnyEvent) -> CheckpointState:
        state = self.states[checkpoint_id]
        state.status = lifecycle.advance(lifecycle.CHECKPOINT, state.status, type(event).__name__)
        return state

    def decide(
        self, event: AnyEvent, rebuild: Rebuild, *, settle_rehearsals: bool = False
    ) -> Iterator[AnyEvent]:
        """The events that a command makes. Changes nothing.

        `rebuild` judges a withheld checkpoint again. A checkpoint of replayed time is settled only with
        `settle_rehearsals`.
        """
        match event:
            case WithholdCheckpoint(data=data):
                if data.period_at is not None and self.built_until > data.period_at:
                    yield from self._withhold_late(event, data.period_at)
            case BindPayees(data=data):
                yield from self._for_state(event, data.checkpoint_id, self._bind)
            case ConfirmCheckpoint(data=data):
                confirm = partial(self._confirm, settle_rehearsals=settle_rehearsals)
                yield from self._for_state(event, data.checkpoint_id, confirm)
            case AdvanceCheckpoint(data=data):
                yield from self._for_state(event, data.checkpoint_id, self._advance)
            case ReleaseCheckpoint(data=data):
                release = partial(self._release, rebuild=rebuild)
                yield from self._for_state(event, data.checkpoint_id, release)
            case FailCheckpointSubmission(data=data):
                yield from self._for_state(event, data.checkpoint_id, self._fail)
            case CorrectCheckpoint(data=data):
                yield from self._for_state(event, data.checkpoint_id, self._correct)
            case _:
                yield self._refused(event, "", f"{type(event).__name__} is no command", "", 422)

    def _for_state(
        self, event: Any, checkpoint_id: str, decide: Callable[[Any, CheckpointState], Iterator[AnyEvent]]
    ) -> Iterator[AnyEvent]:
        state = self.states.get(checkpoint_id)
        if state is None:
            yield self._refused(event, checkpoint_id, "no such checkpoint", lifecycle.NONE, 404)
            return
        try:
            yield from decide(event, state)
        except IllegalTransitionError as error:
            yield self._refused(event, checkpoint_id, str(error), state.status, 409)

    def _bind(self, event: BindPayees, state: CheckpointState) -> Iterator[AnyEvent]:
        """Bind wallets to models, while the checkpoint is offered.

        Each model is bound once; only `replaces`, which is the operator's own decision, changes a wallet.
        """
        data, the_id = event.data, event.data.checkpoint_id
        too_late = "who is paid is bound while a checkpoint is offered, and not after"
        if state.data is None:
            yield self._refused(event, the_id, too_late, state.status, 409)
            return
        payable = {entry.model_id for entry in state.data.ranking}
        payable.update(*(credit.prizes for credit in state.data.credits))
        wrong = next(
            (f"{model_id} is not in its ranking" for model_id in data.payees if model_id not in payable),
            None,
        )
        for model_id, wallet in data.payees.items():
            if (fault := wallet_fault(wallet)) is not None:
                wrong = wrong or f"the wallet of {model_id} {fault}"
        if wrong is not None:
            yield self._refused(event, the_id, wrong, state.status, 422)
            return
        changed = {
            model_id: wallet
            for model_id, wallet in sorted(data.payees.items())
            if state.payees.get(model_id) != wallet and (data.replaces or model_id not in state.payees)
        }
        if not changed:
            return
        if state.status != "PENDING":
            yield self._refused(event, the_id, too_late, state.status, 409)
            return
        yield PayeesBound(
            id=f"{the_id}:payees:{event.id}",
            at=event.at,
            data=PayeesBoundData(checkpoint_id=the_id, payees=changed, command_id=event.id),
        )

    def _confirm(
        self, event: ConfirmCheckpoint, state: CheckpointState, *, settle_rehearsals: bool
    ) -> Iterator[AnyEvent]:
        """Record the transaction that was sent for a checkpoint: PENDING becomes SUBMITTED."""
        tx_hash, the_id = event.data.tx_hash, event.data.checkpoint_id
        if state.tx_hash == tx_hash != "":
            return  # recorded already
        if (wrong := self._unusable(tx_hash, the_id)) is not None:
            yield self._refused(event, the_id, wrong[0], state.status, wrong[1])
            return
        if state.data is not None and state.data.rehearsal and not settle_rehearsals:
            what = "the period is a rehearsal (replayed time); SETTLE_REHEARSALS=true allows settling it"
            yield self._refused(event, the_id, what, state.status, 409)
            return
        lifecycle.advance(lifecycle.CHECKPOINT, state.status, "CheckpointSubmitted")
        yield self._submitted(event, the_id, tx_hash)

    def _unusable(self, tx_hash: str, the_id: str) -> tuple[str, int] | None:
        """(why this hash cannot be the payment of this checkpoint, HTTP status), or None if it can.

        A transaction pays one checkpoint, and one that finally failed on the chain pays none. Otherwise a payment could
        be claimed that never happens.
        """
        if not is_tx_hash(tx_hash):
            return "tx_hash is not base58 of 64 bytes", 422
        for other_id, other in self.states.items():
            if tx_hash in other.refused_hashes or (other.tx_hash == tx_hash and other_id != the_id):
                return f"tx_hash was used for {other_id} before", 409
        return None

    def _submitted(self, event: AnyEvent, the_id: str, tx_hash: str) -> CheckpointSubmitted:
        return CheckpointSubmitted(
            id=f"{the_id}:submitted:{tx_hash}",
            at=event.at,
            data=CheckpointSubmittedData(checkpoint_id=the_id, tx_hash=tx_hash, command_id=event.id),
        )

    def _advance(self, event: AdvanceCheckpoint, state: CheckpointState) -> Iterator[AnyEvent]:
        """Record what was seen on the chain: SUBMITTED becomes CLAIMABLE, CLAIMABLE becomes PAID."""
        the_id, wanted, seen = event.data.checkpoint_id, event.data.status, event.data.tx_hash
        if (
            state.tx_hash and seen != state.tx_hash
        ):  # an observation of another transaction does not concern this one
            what = f"that was seen of transaction {seen[:90] or 'none'}, but {state.tx_hash} pays this checkpoint now"
            yield self._refused(event, the_id, what, state.status, 409)
            return
        if wanted == state.status:
            return
        data = CheckpointAdvancedData(checkpoint_id=the_id, command_id=event.id)
        if wanted == "CLAIMABLE":
            lifecycle.advance(lifecycle.CHECKPOINT, state.status, "CheckpointClaimable")
            yield CheckpointClaimable(id=f"{the_id}:claimable:{state.tx_hash}", at=event.at, data=data)
        elif wanted == "PAID":
            lifecycle.advance(lifecycle.CHECKPOINT, state.status, "CheckpointPaid")
            yield CheckpointPaid(id=f"{the_id}:paid", at=event.at, data=data)
        elif wanted in lifecycle.CHECKPOINT.values():
            what = f"{wanted} is not reached by this command" + (
                "; confirm with a tx_hash" if wanted == "SUBMITTED" else ""
            )
            yield self._refused(event, the_id, what, state.status, 409)
        else:
            yield self._refused(event, the_id, f"unknown status {wanted[:40]!r}", state.status, 422)

    def _withhold_late(self, event: WithholdCheckpoint, at: int) -> Iterator[AnyEvent]:
        """A withhold for a checkpoint that is built already: done if it is WITHHELD, refused as too late otherwise."""
        for the_id, state in self.states.items():
            if state.period_start <= at < state.period_end:
                if state.status != "WITHHELD":
                    what = "the checkpoint of that time has been offered already"
                    yield self._refused(event, the_id, what, state.status, 409)
                return
        yield self._refused(event, "", "that time has no checkpoint", lifecycle.NONE, 404)

    def _release(
        self, event: ReleaseCheckpoint, state: CheckpointState, rebuild: Rebuild
    ) -> Iterator[AnyEvent]:
        """Offer a withheld checkpoint, if nothing forbids that any more."""
        the_id = event.data.checkpoint_id
        if state.status == "PENDING" and state.withheld_reason:
            return  # released already
        if state.status != "WITHHELD" or state.data is None:
            yield self._refused(event, the_id, "only a withheld checkpoint is released", state.status, 409)
            return
        data, faults = rebuild(state.data)
        if faults:
            yield self._refused(event, the_id, "; ".join(faults), state.status, 409)
            return
        data = msgspec.structs.replace(data, credits=self.corrections.owed(rehearsal=data.rehearsal))
        yield CheckpointOpened(id=f"{the_id}:released", at=event.at, data=data)

    def _correct(self, event: CorrectCheckpoint, state: CheckpointState) -> Iterator[AnyEvent]:
        """Record what a checkpoint that was offered or paid should have paid."""
        data = event.data
        if self.corrections.states(data, event.id):
            return  # recorded already
        if state.status == "WITHHELD":
            what = "it is withheld, so nothing was promised yet: release it, and correct what it then offers"
            yield self._refused(event, data.checkpoint_id, what, state.status, 409)
        elif fault := correction_fault(data, self._paid_sha256(state)):
            yield self._refused(event, data.checkpoint_id, fault, state.status, 422)
        elif self.corrections.are_too_many(data):
            what = "it and the credits that wait for a checkpoint are too many for one: correct it after the next one"
            yield self._refused(event, data.checkpoint_id, what, state.status, 409)
        else:
            the_id = correction_id(data.checkpoint_id, data.total_prize, data.models)
            fields = msgspec.structs.asdict(data)
            del fields["shares"]  # its checkpoint has them
            yield CheckpointCorrected(
                id=f"{the_id}:{event.id}",
                at=event.at,
                data=CheckpointCorrectedData(**fields, correction_id=the_id, command_id=event.id),
            )

    def _paid_sha256(self, state: CheckpointState) -> str:
        return state.shares_sha256 if state.data is None else shares_sha256(shares_of(state.data))

    def _fail(self, event: FailCheckpointSubmission, state: CheckpointState) -> Iterator[AnyEvent]:
        """Record that the chain finally failed the transaction: SUBMITTED becomes PENDING, and may be paid again.

        If another transaction took its place (`replaced_by`), it is SUBMITTED with that one in the same decision.
        """
        the_id, tx_hash = event.data.checkpoint_id, event.data.tx_hash
        if tx_hash in state.refused_hashes:
            return  # recorded already
        if tx_hash != state.tx_hash:
            yield self._refused(event, the_id, "this transaction was never recorded here", state.status, 409)
            return
        pending = lifecycle.advance(lifecycle.CHECKPOINT, state.status, "CheckpointSubmissionFailed")
        replaced_by = event.data.replaced_by
        if replaced_by:
            if replaced_by == tx_hash:
                what = "a transaction cannot replace itself"
                yield self._refused(event, the_id, what, state.status, 422)
                return
            if (wrong := self._unusable(replaced_by, the_id)) is not None:
                yield self._refused(event, the_id, wrong[0], state.status, wrong[1])
                return
            lifecycle.advance(lifecycle.CHECKPOINT, pending, "CheckpointSubmitted")
        yield CheckpointSubmissionFailed(
            id=f"{the_id}:submission-failed:{tx_hash}",
            at=event.at,
            data=CheckpointSubmissionFailedData(
                checkpoint_id=the_id, tx_hash=tx_hash, reason=event.data.reason, command_id=event.id
            ),
        )
        if (
            replaced_by
        ):  # in the same decision, so that nobody pays it while the other transaction is under way
            yield self._submitted(event, the_id, replaced_by)

    def _refused(
        self, event: AnyEvent, checkpoint_id: str, reason: str, state: str, http_status: int
    ) -> CommandRefused:
        data = CommandRefusedData(
            command_id=event.id,
            command_kind=type(event).__name__,
            checkpoint_id=as_reason(checkpoint_id, OUTSIDE_ID_CHARS_MAX),
            reason=as_reason(reason, 500),
            state=state,
            http_status=http_status,
        )
        return CommandRefused(id=f"{event.id}:refused", at=event.at, data=data)
