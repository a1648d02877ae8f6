"""The stage of checkpoints: makes a payment from the ranking of each period, and follows it until it is PAID.

Driven by `snapshots` and `commands`, emits `checkpoints`. When PeriodClosed ends a checkpoint period, the models are
ranked by the contract's `checkpoint_key`, and the ranking becomes an emission. The emission is validated before it is
offered: if it fails, the checkpoint opens WITHHELD with the reason. A period without a ranked model has no checkpoint.
The id is a hash of crunch and period, so a period cannot have two. A checkpoint that is offered also carries what
earlier ones still owe (`corrections.py`).

A command is decided by the state that it meets (`settlement.py`). If its effect is done already, the decision is
empty, so repeating a command is safe. If it is not legal, the decision is CommandRefused with the reason. Statuses
follow from own events. `need` reaches back only to the snapshots of the running period, and to commands that wait to
withhold a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import ClassVar

import msgspec

from coordinator.streams.checkpoints.evidence_keys import decide_rotation
from coordinator.streams.checkpoints.offering import build_emission, offer_faults
from coordinator.streams.checkpoints.period_ranking import PeriodTotals, ranked_entries
from coordinator.streams.checkpoints.settlement import COMMANDS, Settlements
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.contract.emission import emission_sha256
from coordinator.streams.contract.periods import unpaid_reason
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.events import (
    AnyEvent,
    CheckpointData,
    CheckpointOpened,
    CheckpointWithheld,
    CheckpointWithheldData,
    CrunchConfigured,
    EvidenceKeyRotated,
    PeriodClosed,
    RotateEvidenceKey,
    SnapshotTaken,
    WithholdCheckpoint,
)
from coordinator.streams.log import ids
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.stage import Draft, PlacedEvent, Stage, State
from coordinator.streams.topology import BY_TOPIC

OTHERS_COMMANDS = frozenset(BY_TOPIC["commands"].events) - COMMANDS - {"RotateEvidenceKey"}
"""The commands that other stages decide. This one skips them."""


class OwnCheckpoints(msgspec.Struct):
    """What follows from the stage's own events."""

    terms: TermsInForce = msgspec.field(default_factory=TermsInForce)
    settlements: Settlements = msgspec.field(default_factory=Settlements)
    """The checkpoints with their statuses."""
    built_commands: int = -1
    """The offset of the last command that was decided before the newest checkpoint was built."""
    key_successors: dict[str, str] = {}
    """Key that signed notes about the log -> the key that took its place, both as public keys in text."""


class CheckpointsState(State):
    """What follows from own events, the running periods, and the commands that wait to withhold a checkpoint."""

    own: OwnCheckpoints = msgspec.field(default_factory=OwnCheckpoints)
    totals: dict[int, PeriodTotals] = msgspec.field(default_factory=dict)
    """Start of the period (ms) -> its totals."""
    withholds: dict[int, WithholdCheckpoint] = msgspec.field(default_factory=dict)
    """Offset of the command -> the command."""


class CheckpointStage(Stage[CheckpointsState]):
    """snapshots and commands -> checkpoints."""

    topic: ClassVar[str] = "checkpoints"
    drivers: ClassVar[tuple[str, ...]] = ("snapshots", "commands")
    memory: ClassVar[tuple[str, ...]] = (
        "CrunchConfigured",
        "CheckpointOpened",
        "CheckpointWithheld",
        "PayeesBound",
        "CheckpointSubmitted",
        "CheckpointSubmissionFailed",
        "CheckpointClaimable",
        "CheckpointPaid",
        "CheckpointCorrected",
        "EvidenceKeyRotated",
    )

    def __init__(self, crunch_id: str, contracts: Contracts, *, settle_rehearsals: bool = False) -> None:
        super().__init__(CheckpointsState())
        self._crunch_id = crunch_id
        self._contracts = contracts
        self._settle_rehearsals = settle_rehearsals

    @property
    def settlements(self) -> Settlements:
        """Every checkpoint with its status."""
        return self.state.own.settlements

    def decide(self, state: CheckpointsState, placed: PlacedEvent) -> Draft | None:
        """PeriodClosed builds checkpoints, a command changes one. New terms are repeated in this topic."""
        events: list[AnyEvent]
        match placed.event:
            case CrunchConfigured() as configured:
                events = [configured]
            case PeriodClosed(data=data) as closed:
                events = list(self._build(state, closed))
                # The end of a checkpoint period is decided even if nobody is ranked, so that the stage shows progress.
                if not events and not state.own.terms.ends_checkpoint_period(data.from_ms, data.until_ms):
                    return None
            case command if placed.topic == "commands":
                events = list(self._command(state, command))
            case _:
                return None
        return Draft(events, {placed.topic: placed.position}, self.needed(state, placed))

    def fold(self, state: CheckpointsState, placed: PlacedEvent) -> None:
        """Own events change statuses. Snapshots are kept until their period is built, a withhold until it is used."""
        own = state.own
        match placed.event:
            case CrunchConfigured() as configured:
                if placed.topic == self.topic:
                    own.terms.add(configured)
            case EvidenceKeyRotated(data=data):
                own.key_successors[data.old_key] = data.new_key
            case SnapshotTaken(data=data):
                start, end = own.terms.checkpoint_period(data.period_start)
                if end > own.settlements.built_until:
                    state.totals.setdefault(start, PeriodTotals(start, end, placed.before)).add(data)
            case PeriodClosed(data=data):
                for totals in state.totals.values():
                    totals.closed(data)
                state.totals = {
                    start: totals for start, totals in state.totals.items() if totals.end > data.until_ms
                }
                if own.built_commands >= 0:
                    state.withholds = {
                        offset: command
                        for offset, command in state.withholds.items()
                        if not _used_up(own, offset, command)
                    }
            case WithholdCheckpoint() as command:
                if not _used_up(own, placed.position[0], command):
                    state.withholds[placed.position[0]] = command
            case event if placed.topic == self.topic:
                built_until = own.settlements.built_until
                own.settlements.evolve(event)
                if (
                    own.settlements.built_until > built_until
                ):  # by a PeriodClosed, whose decision moves no command
                    own.built_commands = state.upto["commands"][0]
            case _:
                pass

    def needed(self, state: CheckpointsState, placed: PlacedEvent) -> dict[str, Need]:
        """The position of the first snapshot of a running period, or of the first command that waits to withhold."""
        if placed.topic == "snapshots":
            closing = placed.event.data.until_ms if isinstance(placed.event, PeriodClosed) else -1
            running = [totals.before for totals in state.totals.values() if totals.end > closing]
            return {"snapshots": min([*running, placed.before], key=lambda need: need.offset)}
        return {"commands": Need(min([*state.withholds, placed.position[0]]))}

    # --- building ----------------------------------------------------------------------------------

    def _build(self, state: CheckpointsState, event: PeriodClosed) -> Iterator[AnyEvent]:
        """The checkpoints of all periods that end with this event, in order of their periods."""
        # A withhold without a time applies to the next checkpoint that is built, and only to that one.
        withholds = dict(state.withholds)
        settlements, carried = state.own.settlements, set[str]()
        built_until = settlements.built_until
        for start in sorted(state.totals):
            totals = state.totals[start].closing(event.data)
            if built_until < totals.end <= event.data.until_ms:
                data, faults = self._checkpoint(state.own.terms, totals, built_until, event.at)
                if data is None:
                    continue
                built_until = totals.end
                for offset, command in sorted(withholds.items()):
                    at = command.data.period_at
                    if at is None or totals.start <= at < totals.end:
                        faults.append(f"withheld by command: {command.data.reason}")
                        del withholds[offset]
                if faults:
                    yield CheckpointWithheld(
                        id=f"{data.checkpoint_id}:withheld",
                        at=event.at,
                        data=CheckpointWithheldData(reason="; ".join(dict.fromkeys(faults)), checkpoint=data),
                    )
                else:
                    owed = settlements.corrections.owed(rehearsal=data.rehearsal)
                    # This decision may open several checkpoints: only the first of them carries a credit.
                    new_credits = [credit for credit in owed if credit.checkpoint_id not in carried]
                    carried.update(credit.checkpoint_id for credit in new_credits)
                    data = msgspec.structs.replace(data, credits=new_credits)
                    yield CheckpointOpened(id=f"{data.checkpoint_id}:opened", at=event.at, data=data)

    def _checkpoint(
        self, in_force: TermsInForce, totals: PeriodTotals, previous_end: int, at: int
    ) -> tuple[CheckpointData | None, list[str]]:
        """(the checkpoint of a period, what forbids offering it); (None, []) if the period has none."""
        terms = in_force.at(totals.start)
        ranked, unranked = ranked_entries(totals, terms)
        is_over = terms.calendar is not None and totals.start >= terms.calendar.ends_at
        if not ranked or is_over:
            return None, []
        contract = self._contracts(terms.contract_hash)
        built = build_emission(contract, ranked, terms.score_decimals, totals.end)
        pools = [pool.key for pool in contract.payout.pools] if contract.payout else []
        data = CheckpointData(
            checkpoint_id=ids.checkpoint_id(self._crunch_id, totals.start, totals.end),
            period_start=totals.start,
            period_end=totals.end,
            snapshot_count=totals.snapshot_count,
            ranking=ranked,
            unranked=list(unranked),
            unranked_reasons=unranked,
            emission_contract_hash=terms.contract_hash,
            emission=built.emission,
            emission_sha256=emission_sha256(built.emission),
            payout=built.payout,
            contract_hash=terms.contract_hash,
            rehearsal=totals.rehearsal(
                [terms.checkpoint_key, *pools, *(board.window for board in terms.boards)]
            ),
        )
        unpaid = unpaid_reason(terms.calendar, totals.start)
        faults = [built.fault] if built.fault else offer_faults(data, previous_end, at)
        return data, [unpaid, *faults] if unpaid else faults

    def _rebuilt(self, terms: TermsInForce, before: CheckpointData) -> tuple[CheckpointData, list[str]]:
        """(a withheld checkpoint, judged again; what still forbids offering it).

        An emission that may be offered stays as the contract of its period made it: a later contract must not change
        what was promised. One that may not be offered is made again by the newest contract. The ranking stays in any
        case, because it follows from the scores, which do not change.
        """
        if unpaid := unpaid_reason(terms.at(before.period_start).calendar, before.period_start):
            return before, [unpaid]
        if not offer_faults(before, -1, before.period_end):
            return before, []
        newest = terms.events[-1].data.contract_hash
        decimals = terms.at(before.period_start).score_decimals
        built = build_emission(self._contracts(newest), before.ranking, decimals, before.period_end)
        data = msgspec.structs.replace(
            before,
            emission=built.emission,
            emission_sha256=emission_sha256(built.emission),
            emission_contract_hash=newest,
            payout=built.payout,
        )
        return data, [built.fault] if built.fault else offer_faults(data, -1, before.period_end)

    def _command(self, state: CheckpointsState, event: AnyEvent) -> Iterator[AnyEvent]:
        if type(event).__name__ in OTHERS_COMMANDS:
            return
        if isinstance(event, RotateEvidenceKey):
            yield from decide_rotation(event, state.own.key_successors, self._crunch_id)
            return
        rebuild = partial(self._rebuilt, state.own.terms)
        settle = self._settle_rehearsals
        yield from state.own.settlements.decide(event, rebuild, settle_rehearsals=settle)


def _used_up(own: OwnCheckpoints, offset: int, command: WithholdCheckpoint) -> bool:
    """Whether the checkpoint to which a withhold applies has been built."""
    at = command.data.period_at
    return own.settlements.built_until > at if at is not None else offset <= own.built_commands
