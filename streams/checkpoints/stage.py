"""Checkpoints: once per interval the ranking becomes an emission, and then goes its way to PAID.

Driven by `snapshots` and `commands`, emits `checkpoints`. PeriodClosed closes a checkpoint period; its
snapshots are ranked by the contract's `checkpoint_key` and turned into an emission, which is validated
before it is offered: one that fails is opened WITHHELD with its reason. A period without a ranked model has none. The
id is a hash of crunch and period, so a period has one checkpoint by construction. One that is offered also carries what
earlier ones still owe (`corrections.py`).

A command is decided by the state that it meets. One whose effect is done already gets an empty decision
(repeating is safe); one that is not legal gets CommandRefused with its reason. Statuses are own memory;
only the running period's snapshots, and commands to withhold that wait for a checkpoint, are `need`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import ClassVar

import msgspec

from coordinator.streams.checkpoints.offering import build_emission, offer_faults
from coordinator.streams.checkpoints.period_ranking import PeriodTotals, ranked_entries
from coordinator.streams.checkpoints.settlement import COMMANDS, Settlements
from coordinator.streams.contract import CrunchContract
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
    PeriodClosed,
    SnapshotTaken,
    WithholdCheckpoint,
)
from coordinator.streams.log import ids
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.stage import Draft, Stage, State, Told
from coordinator.streams.topology import BY_TOPIC

OTHERS_COMMANDS = frozenset(BY_TOPIC["commands"].events) - COMMANDS
"""Other stages decide these; here they are passed over."""


class OwnCheckpoints(msgspec.Struct):
    """What follows from the stage's own events: terms, statuses, up to which command the last checkpoint was built."""

    terms: TermsInForce = msgspec.field(default_factory=TermsInForce)
    settlements: Settlements = msgspec.field(default_factory=Settlements)
    built_commands: int = -1


class CheckpointsState(State):
    """Own events, the periods that are running, and the commands to withhold that wait for their checkpoint."""

    own: OwnCheckpoints = msgspec.field(default_factory=OwnCheckpoints)
    totals: dict[int, PeriodTotals] = msgspec.field(default_factory=dict)
    """By the period's start, in ms."""
    withholds: dict[int, WithholdCheckpoint] = msgspec.field(default_factory=dict)
    """By the command's offset."""


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
    )

    def __init__(
        self, crunch_id: str, contracts: Callable[[str], CrunchContract], *, settle_rehearsals: bool = False
    ) -> None:
        super().__init__(CheckpointsState())
        self._crunch_id = crunch_id
        self._contracts = contracts
        self._settle_rehearsals = settle_rehearsals

    @property
    def settlements(self) -> Settlements:
        """Every checkpoint as it stands."""
        return self.state.own.settlements

    def decide(self, state: CheckpointsState, told: Told) -> Draft | None:
        """The checkpoints of a period that ended, what a command makes, terms."""
        events: list[AnyEvent]
        match told.event:
            case CrunchConfigured() as configured:
                events = [configured]
            case PeriodClosed(data=data) as closed:
                events = list(self._build(state, closed))
                # Said aloud also where nobody could be ranked: else it looks like a stage that stands still.
                if not events and not state.own.terms.ends_checkpoint_period(data.from_ms, data.until_ms):
                    return None
            case command if told.topic == "commands":
                events = list(self._command(state, command))
            case _:
                return None
        return Draft(events, {told.topic: told.position}, self.needed(state, told))

    def fold(self, state: CheckpointsState, told: Told) -> None:
        """Own events make the statuses; snapshots are kept for their period, a withholding until it is used up."""
        own = state.own
        match told.event:
            case CrunchConfigured() as configured:
                if told.topic == self.topic:
                    own.terms.add(configured)
            case SnapshotTaken(data=data):
                start, end = own.terms.checkpoint_period(data.period_start)
                if end > own.settlements.built_until:
                    state.totals.setdefault(start, PeriodTotals(start, end, told.before)).add(data)
            case PeriodClosed(data=data):
                for totals in state.totals.values():
                    totals.closed(data)
                state.totals = {start: one for start, one in state.totals.items() if one.end > data.until_ms}
                if own.built_commands >= 0:
                    waiting = state.withholds.items()
                    state.withholds = {
                        offset: one for offset, one in waiting if not _used_up(own, offset, one)
                    }
            case WithholdCheckpoint() as command:
                if not _used_up(own, told.position[0], command):
                    state.withholds[told.position[0]] = command
            case event if told.topic == self.topic:
                built_until = own.settlements.built_until
                own.settlements.evolve(event)
                if own.settlements.built_until > built_until:  # a period's close moves no command
                    own.built_commands = state.upto["commands"][0]
            case _:
                pass

    def needed(self, state: CheckpointsState, told: Told) -> dict[str, Need]:
        """The first snapshot of a running period; the first command to withhold that waits for its checkpoint."""
        if told.topic == "snapshots":
            closing = told.event.data.until_ms if isinstance(told.event, PeriodClosed) else -1
            running = [one.before for one in state.totals.values() if one.end > closing]
            return {"snapshots": min([*running, told.before], key=lambda one: one.offset)}
        return {"commands": Need(min([*state.withholds, told.position[0]]))}

    # --- building ----------------------------------------------------------------------------------

    def _build(self, state: CheckpointsState, event: PeriodClosed) -> Iterator[AnyEvent]:
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
                    carries = [one for one in owed if one.checkpoint_id not in carried]
                    carried.update(one.checkpoint_id for one in carries)
                    data = msgspec.structs.replace(data, credits=carries)
                    yield CheckpointOpened(id=f"{data.checkpoint_id}:opened", at=event.at, data=data)

    def _checkpoint(
        self, in_force: TermsInForce, totals: PeriodTotals, previous_end: int, at: int
    ) -> tuple[CheckpointData | None, list[str]]:
        terms = in_force.at(totals.start)
        ranked, unranked = ranked_entries(totals, terms)
        over = terms.calendar is not None and totals.start >= terms.calendar.ends_at
        if not ranked or over:
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
        """A withheld checkpoint computed anew: judged again, and where its emission may not be offered, made again by
        the newest contract.

        A right emission stays as its period's contract made it: a later one must not change what was promised, and an
        old contract need not be at hand. The ranking stays: it follows from the scores, which do not change.
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
        rebuild = partial(self._rebuilt, state.own.terms)
        settle = self._settle_rehearsals
        yield from state.own.settlements.decide(event, rebuild, settle_rehearsals=settle)


def _used_up(own: OwnCheckpoints, offset: int, command: WithholdCheckpoint) -> bool:
    """Has the checkpoint that a command withholds been built?"""
    at = command.data.period_at
    return own.settlements.built_until > at if at is not None else offset <= own.built_commands
