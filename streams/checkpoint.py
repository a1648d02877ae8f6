"""Checkpoints: once per interval the ranking becomes an emission, and then goes its way to PAID.

Driven by `snapshots` and `commands`, emits `checkpoints`. PeriodClosed closes a checkpoint period; its
snapshots are ranked by the contract's `checkpoint_key` and turned into an emission, which is validated
before it is offered: one that fails is opened WITHHELD with its reason. A period without a ranked model has none. The
id is a hash of crunch and period, so a period has one checkpoint by construction.

A command is decided by the state that it meets. One whose effect is done already gets an empty decision
(repeating is safe); one that is not legal gets CommandRefused with its reason. Statuses are own memory;
only the running period's snapshots, and commands to withhold that wait for a checkpoint, are `need`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from coordinator.streams import ids, lifecycle
from coordinator.streams.checkpoint_state import CheckpointState
from coordinator.streams.contract import CrunchContract, EmissionCheckpoint
from coordinator.streams.counting import Decision
from coordinator.streams.emission import base58_bytes, emission_faults, emission_sha256
from coordinator.streams.envelope import Need, Position
from coordinator.streams.errors import IllegalTransitionError
from coordinator.streams.events import (
    AdvanceCheckpoint,
    AnyEvent,
    BanModel,
    CheckpointAdvancedData,
    CheckpointClaimable,
    CheckpointData,
    CheckpointOpened,
    CheckpointPaid,
    CheckpointSubmissionFailed,
    CheckpointSubmissionFailedData,
    CheckpointSubmitted,
    CheckpointSubmittedData,
    CheckpointWithheld,
    CheckpointWithheldData,
    CommandRefused,
    CommandRefusedData,
    ConfirmCheckpoint,
    CrunchConfigured,
    FailCheckpointSubmission,
    PeriodClosed,
    RankedEntry,
    ReadmitModel,
    ReleaseCheckpoint,
    SnapshotTaken,
    Terms,
    WithholdCheckpoint,
)
from coordinator.streams.period_ranking import PeriodTotals, ranked_entries
from coordinator.streams.reasons import as_reason
from coordinator.streams.stage import EMPTY_DECISION_EVERY, Draft, Stage
from coordinator.streams.terms import TermsInForce

TX_HASH_BYTES = 64
TX_HASH_CHARS_MAX = 100


class CheckpointStage(Stage):
    """snapshots and commands -> checkpoints."""

    topic: ClassVar[str] = "checkpoints"
    drivers: ClassVar[tuple[str, ...]] = ("snapshots", "commands")
    memory: ClassVar[tuple[str, ...]] = (
        "CrunchConfigured",
        "CheckpointOpened",
        "CheckpointWithheld",
        "CheckpointSubmitted",
        "CheckpointSubmissionFailed",
        "CheckpointClaimable",
        "CheckpointPaid",
    )

    def __init__(
        self, crunch_id: str, contracts: Callable[[str], CrunchContract], *, settle_rehearsals: bool = False
    ) -> None:
        super().__init__()
        self._crunch_id = crunch_id
        self._contracts = contracts
        self._settle_rehearsals = settle_rehearsals
        self._queue: deque[tuple[Position, AnyEvent, Decision]] = deque()
        self._totals: dict[int, PeriodTotals] = {}
        self._withholds: dict[int, WithholdCheckpoint] = {}
        # own memory
        self._terms = TermsInForce()
        self._states: dict[str, CheckpointState] = {}
        self._built_until = -1
        self._built_commands = -1

    # --- folding -----------------------------------------------------------------------------------

    def absorb(self, decision: Decision) -> None:
        """Queue what drives. A command comes as a decision of one event."""
        for index, event in enumerate(decision.events):
            self._queue.append(((decision.offset, index), event, decision))

    def remember(self, draft: Draft | Decision) -> None:
        """Own events, and up to which command the last checkpoint was built."""
        before = self._built_until
        super().remember(draft)
        if self._built_until > before:
            self._built_commands = self.upto["commands"][0]

    def evolve(self, event: AnyEvent) -> None:
        """Own events: terms and statuses, by the lifecycle's table."""
        match event:
            case CrunchConfigured():
                self._terms.add(event)
            case CheckpointOpened(data=data):
                self._move(data, event)
            case CheckpointWithheld(data=data):
                self._move(data.checkpoint, event)
                self._states[data.checkpoint.checkpoint_id].withheld_reason = data.reason
            case CheckpointSubmitted(data=data):
                state = self._states[data.checkpoint_id]
                state.status = lifecycle.advance(lifecycle.CHECKPOINT, state.status, "CheckpointSubmitted")
                state.tx_hash = data.tx_hash
            case CheckpointSubmissionFailed(data=data):
                state = self._states[data.checkpoint_id]
                state.status = lifecycle.advance(
                    lifecycle.CHECKPOINT, state.status, "CheckpointSubmissionFailed"
                )
                state.refused_hashes.add(state.tx_hash)
                state.tx_hash = ""
            case CheckpointClaimable(data=data) | CheckpointPaid(data=data):
                state = self._states[data.checkpoint_id]
                state.status = lifecycle.advance(lifecycle.CHECKPOINT, state.status, type(event).__name__)
            case _:
                pass

    def _move(self, data: CheckpointData, event: CheckpointOpened | CheckpointWithheld) -> None:
        state = self._states.setdefault(data.checkpoint_id, CheckpointState(data))
        state.status = lifecycle.advance(lifecycle.CHECKPOINT, state.status, type(event).__name__)
        state.data = data
        self._built_until = max(self._built_until, data.period_end)

    # --- deciding ----------------------------------------------------------------------------------

    def decide(self) -> Draft | None:
        """The decision of the oldest waiting event that makes one."""
        while self._queue:
            position, event, decision = self._queue[0]
            source = decision.topic
            if self.decided(source, position):
                self._queue.popleft()
                self._take_in(position, event, decision)
                continue
            if source == "commands":
                events = list(self._command(event, position[0]))
                return self._draft(source, position, decision, events, event)
            if isinstance(event, CrunchConfigured):
                return self._draft(source, position, decision, [event], event)
            if isinstance(event, PeriodClosed):
                events = list(self._build(event))
                if events:
                    return self._draft(source, position, decision, events, event)
            if decision.offset - self.upto[source][0] >= EMPTY_DECISION_EVERY:
                return self._draft(source, position, decision, [], event)
            self._queue.popleft()
            self._take_in(position, event, decision)
        return None

    def _take_in(self, position: Position, event: AnyEvent, decision: Decision) -> None:
        """Fold a source's event once nothing more is decided by it."""
        match event:
            case SnapshotTaken(data=data):
                start, end = self._terms.checkpoint_period(data.period_start)
                if end > self._built_until:
                    totals = self._totals.get(start)
                    if totals is None:
                        totals = self._totals[start] = PeriodTotals(start, end, decision.before)
                    totals.add(data)
            case PeriodClosed(data=data):
                self._totals = {start: one for start, one in self._totals.items() if one.end > data.until_ms}
                if self._built_commands >= 0:
                    self._withholds = {
                        o: one for o, one in self._withholds.items() if not self._consumed(o, one)
                    }
            case WithholdCheckpoint():
                if not self._consumed(position[0], event):
                    self._withholds[position[0]] = event
            case _:
                pass

    def _consumed(self, offset: int, command: WithholdCheckpoint) -> bool:
        at = command.data.period_at
        return self._built_until > at if at is not None else offset <= self._built_commands

    def _draft(
        self, source: str, position: Position, decision: Decision, events: list[AnyEvent], event: AnyEvent
    ) -> Draft:
        need: dict[str, Need] = {}
        if source == "snapshots":
            closing = event.data.until_ms if isinstance(event, PeriodClosed) else -1
            still = [one.before for one in self._totals.values() if one.end > closing]
            need["snapshots"] = min([*still, decision.before], key=lambda one: one.offset)
        else:
            # A withhold command stays needed until its checkpoint is built.
            need["commands"] = Need(min([*self._withholds, position[0]]))
        return Draft(events, {source: position}, need)

    # --- building ----------------------------------------------------------------------------------

    def _build(self, event: PeriodClosed) -> Iterator[AnyEvent]:
        withholds = dict(self._withholds)
        for start in sorted(self._totals):
            totals = self._totals[start]
            if self._built_until < totals.end <= event.data.until_ms:
                data, faults = self._checkpoint(totals)
                if data is None:
                    continue
                for offset, command in sorted(withholds.items()):
                    at = command.data.period_at
                    if at is None or totals.start <= at < totals.end:
                        faults.append(f"withheld by command: {command.data.reason}")
                        del withholds[offset]
                if faults:
                    yield CheckpointWithheld(
                        id=f"{data.checkpoint_id}:withheld",
                        at=event.at,
                        data=CheckpointWithheldData(reason="; ".join(faults), checkpoint=data),
                    )
                else:
                    yield CheckpointOpened(id=f"{data.checkpoint_id}:opened", at=event.at, data=data)

    def _checkpoint(self, totals: PeriodTotals) -> tuple[CheckpointData | None, list[str]]:
        terms = self._terms.at(totals.start)
        ranked, unranked = ranked_entries(totals, terms)
        if not ranked:
            return None, []
        emission, faults = self._emission(ranked, terms)
        data = CheckpointData(
            checkpoint_id=ids.checkpoint_id(self._crunch_id, totals.start, totals.end),
            period_start=totals.start,
            period_end=totals.end,
            snapshot_count=totals.snapshot_count,
            ranking=ranked,
            unranked=unranked,
            emission=emission,
            emission_sha256=emission_sha256(emission),
            contract_hash=terms.contract_hash,
            rehearsal=totals.rehearsal(terms.checkpoint_key),
        )
        return data, faults

    def _emission(self, ranked: list[RankedEntry], terms: Terms) -> tuple[dict[str, Any], list[str]]:
        contract = self._contracts(terms.contract_hash)
        unit = 10**terms.score_decimals
        entries = [
            {name: units / unit for name, units in entry.result_summary_units.items()}
            | {"model_id": entry.model_id, "rank": entry.rank, "key": entry.key_units / unit}
            | {"prediction_count": entry.prediction_count}
            for entry in ranked
        ]
        try:
            built = contract.build_emission(
                entries, contract.crunch_pubkey, contract.compute_provider, contract.data_provider
            )
            emission = EmissionCheckpoint.model_validate(built).model_dump(mode="json")
        except Exception as error:  # noqa: BLE001 - the author's function: the checkpoint is withheld with its reason
            empty = EmissionCheckpoint(crunch="", cruncher_rewards=[]).model_dump(mode="json")
            return empty, [as_reason(f"build_emission: {type(error).__name__}: {error}", 500)]
        return emission, emission_faults(emission, len(ranked))

    # --- commands ----------------------------------------------------------------------------------

    def _command(self, event: AnyEvent, offset: int) -> Iterator[AnyEvent]:
        match event:
            case WithholdCheckpoint(data=data):
                if data.period_at is not None and self._built_until > data.period_at:
                    yield from self._withhold_late(event, data.period_at)
            case ConfirmCheckpoint(data=data):
                yield from self._for_state(event, data.checkpoint_id, self._confirm)
            case AdvanceCheckpoint(data=data):
                yield from self._for_state(event, data.checkpoint_id, self._advance)
            case ReleaseCheckpoint(data=data):
                yield from self._for_state(event, data.checkpoint_id, self._release)
            case FailCheckpointSubmission(data=data):
                yield from self._for_state(event, data.checkpoint_id, self._fail)
            case BanModel() | ReadmitModel():  # the predict worker's
                return
            case _:
                message = f"commands offset {offset} holds {type(event).__name__}, which is no command"
                yield self._refused(event, "", message, "", 422)

    def _for_state(
        self, event: Any, checkpoint_id: str, decide: Callable[[Any, CheckpointState], Iterator[AnyEvent]]
    ) -> Iterator[AnyEvent]:
        state = self._states.get(checkpoint_id)
        if state is None:
            yield self._refused(event, checkpoint_id, "no such checkpoint", lifecycle.NONE, 404)
            return
        try:
            yield from decide(event, state)
        except IllegalTransitionError as error:
            yield self._refused(event, checkpoint_id, str(error), state.status, 409)

    def _confirm(self, event: ConfirmCheckpoint, state: CheckpointState) -> Iterator[AnyEvent]:
        tx_hash, the_id = event.data.tx_hash, event.data.checkpoint_id
        if len(tx_hash) > TX_HASH_CHARS_MAX or base58_bytes(tx_hash) != TX_HASH_BYTES:
            yield self._refused(event, the_id, "tx_hash is not base58 of 64 bytes", state.status, 422)
            return
        if state.tx_hash == tx_hash:
            return
        for other_id, other in self._states.items():
            if tx_hash in other.refused_hashes or (other.tx_hash == tx_hash and other_id != the_id):
                what = f"tx_hash was used for {other_id} before"
                yield self._refused(event, the_id, what, state.status, 409)
                return
        if state.data.rehearsal and not self._settle_rehearsals:
            what = "the period is a rehearsal (replayed time); SETTLE_REHEARSALS=true allows settling it"
            yield self._refused(event, the_id, what, state.status, 409)
            return
        lifecycle.advance(lifecycle.CHECKPOINT, state.status, "CheckpointSubmitted")
        yield CheckpointSubmitted(
            id=f"{the_id}:submitted:{tx_hash}",
            at=event.at,
            data=CheckpointSubmittedData(checkpoint_id=the_id, tx_hash=tx_hash, command_id=event.id),
        )

    def _advance(self, event: AdvanceCheckpoint, state: CheckpointState) -> Iterator[AnyEvent]:
        the_id, wanted = event.data.checkpoint_id, event.data.status
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
        """The checkpoint of that time is built: done if it is withheld, else too late, and that must be said."""
        for the_id, state in self._states.items():
            if state.data.period_start <= at < state.data.period_end:
                if state.status != "WITHHELD":
                    what = "the checkpoint of that time has been offered already"
                    yield self._refused(event, the_id, what, state.status, 409)
                return
        yield self._refused(event, "", "that time has no checkpoint", lifecycle.NONE, 404)

    def _release(self, event: ReleaseCheckpoint, state: CheckpointState) -> Iterator[AnyEvent]:
        the_id = event.data.checkpoint_id
        if state.status == "PENDING" and state.withheld_reason:
            return
        if state.status != "WITHHELD":
            yield self._refused(event, the_id, "only a withheld checkpoint is released", state.status, 409)
            return
        # Computed anew, under the newest terms: the fault may have been in the contract.
        emission, faults = self._emission(state.data.ranking, self._terms.events[-1].data)
        if faults:
            yield self._refused(event, the_id, "; ".join(faults), state.status, 409)
            return
        data = CheckpointData(
            **{name: getattr(state.data, name) for name in CheckpointData.__struct_fields__}
            | {"emission": emission, "emission_sha256": emission_sha256(emission)}
        )
        yield CheckpointOpened(id=f"{the_id}:released", at=event.at, data=data)

    def _fail(self, event: FailCheckpointSubmission, state: CheckpointState) -> Iterator[AnyEvent]:
        the_id, tx_hash = event.data.checkpoint_id, event.data.tx_hash
        if tx_hash in state.refused_hashes:
            return
        if tx_hash != state.tx_hash:
            yield self._refused(event, the_id, "this transaction was never recorded here", state.status, 409)
            return
        lifecycle.advance(lifecycle.CHECKPOINT, state.status, "CheckpointSubmissionFailed")
        yield CheckpointSubmissionFailed(
            id=f"{the_id}:submission-failed:{tx_hash}",
            at=event.at,
            data=CheckpointSubmissionFailedData(
                checkpoint_id=the_id, tx_hash=tx_hash, reason=event.data.reason, command_id=event.id
            ),
        )

    def _refused(
        self, event: AnyEvent, checkpoint_id: str, reason: str, state: str, http_status: int
    ) -> CommandRefused:
        data = CommandRefusedData(
            command_id=event.id,
            command_kind=type(event).__name__,
            checkpoint_id=checkpoint_id,
            reason=as_reason(reason, 500),
            state=state,
            http_status=http_status,
        )
        return CommandRefused(id=f"{event.id}:refused", at=event.at, data=data)
