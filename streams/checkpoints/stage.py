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
from typing import ClassVar

import msgspec

from coordinator.streams.checkpoints.offering import build_emission, offer_faults
from coordinator.streams.checkpoints.period_ranking import PeriodTotals, ranked_entries
from coordinator.streams.checkpoints.settlement import COMMANDS, Settlements
from coordinator.streams.checkpoints.state import CheckpointState
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
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need, Position
from coordinator.streams.log.old_stage import OldStage, passing
from coordinator.streams.log.stage import EMPTY_DECISION_EVERY, Draft
from coordinator.streams.topology import BY_TOPIC

OTHERS_COMMANDS = frozenset(BY_TOPIC["commands"].events) - COMMANDS
"""Other stages decide these; here they are passed over."""


class CheckpointStage(OldStage):
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
    )

    def __init__(
        self, crunch_id: str, contracts: Callable[[str], CrunchContract], *, settle_rehearsals: bool = False
    ) -> None:
        super().__init__()
        self._crunch_id = crunch_id
        self._contracts = contracts
        self._queue: deque[tuple[Position, AnyEvent, Decision]] = deque()
        self._totals: dict[int, PeriodTotals] = {}
        self._withholds: dict[int, WithholdCheckpoint] = {}
        # own memory
        self._terms = TermsInForce()
        self.settlements = Settlements(settle_rehearsals=settle_rehearsals)
        self._built_commands = -1

    # --- folding -----------------------------------------------------------------------------------

    def absorb(self, decision: Decision) -> None:
        """Fold what is decided, queue the rest. A command comes as a decision of one event."""
        for index, event in enumerate(decision.events):
            position = (decision.offset, index)
            if self.decided(decision.topic, position):
                self._take_in(position, event, decision)
            else:
                self._queue.append((position, event, decision))

    def evolve(self, event: AnyEvent) -> None:
        """Own events: terms, statuses by the lifecycle's table, up to which command the last checkpoint was built."""
        match event:
            case CrunchConfigured():
                self._terms.add(event)
            case _:
                before = self.settlements.built_until
                self.settlements.evolve(event)
                if self.settlements.built_until > before:  # a period's close moves no command
                    self._built_commands = self.upto["commands"][0]

    # --- deciding ----------------------------------------------------------------------------------

    def decide(self, *_unused: object) -> Draft | None:
        """What the oldest waiting event makes."""
        if not self._queue:
            return None
        position, event, decision = self._queue[0]
        source = decision.topic
        if source == "commands":
            events = list(self._command(event))
            return self._draft(source, position, decision, events, event)
        if isinstance(event, CrunchConfigured):
            return self._draft(source, position, decision, [event], event)
        if isinstance(event, PeriodClosed):
            events = list(self._build(event))
            # Said aloud also where nobody could be ranked: else that is not to be told from a stage that stands still.
            if events or self._terms.ends_checkpoint_period(event.data.from_ms, event.data.until_ms):
                return self._draft(source, position, decision, events, event)
        if decision.offset - self.upto[source][0] >= EMPTY_DECISION_EVERY:
            return self._draft(source, position, decision, [], event)
        return passing(source, position)

    def fold_decided(self, draft: Draft) -> None:  # noqa: ARG002 - each draft decides one event
        """The event that was decided leaves the queue."""
        self._take_in(*self._queue.popleft())

    def _take_in(self, position: Position, event: AnyEvent, decision: Decision) -> None:
        """Fold a source's event once nothing more is decided by it."""
        match event:
            case SnapshotTaken(data=data):
                start, end = self._terms.checkpoint_period(data.period_start)
                if end > self.settlements.built_until:
                    totals = self._totals.get(start)
                    if totals is None:
                        totals = self._totals[start] = PeriodTotals(start, end, decision.before)
                    totals.add(data)
            case PeriodClosed(data=data):
                for one in self._totals.values():
                    one.closed(data)
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
        return self.settlements.built_until > at if at is not None else offset <= self._built_commands

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
        built_until = self.settlements.built_until
        for start in sorted(self._totals):
            totals = self._totals[start].closing(event.data)
            if built_until < totals.end <= event.data.until_ms:
                data, faults = self._checkpoint(totals, built_until, event.at)
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
                    yield CheckpointOpened(id=f"{data.checkpoint_id}:opened", at=event.at, data=data)

    def _checkpoint(
        self, totals: PeriodTotals, previous_end: int, at: int
    ) -> tuple[CheckpointData | None, list[str]]:
        terms = self._terms.at(totals.start)
        ranked, unranked = ranked_entries(totals, terms)
        over = terms.calendar is not None and totals.start >= terms.calendar.ends_at
        if not ranked or over:
            return None, []
        contract = self._contracts(terms.contract_hash)
        built = build_emission(contract, ranked, terms.score_decimals, totals.end)
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
            rehearsal=totals.rehearsal(terms.checkpoint_key),
        )
        unpaid = unpaid_reason(terms.calendar, totals.start)
        faults = [built.fault] if built.fault else offer_faults(data, previous_end, at)
        return data, [unpaid, *faults] if unpaid else faults

    def _rebuilt(self, state: CheckpointState) -> tuple[CheckpointData, list[str]]:
        """A withheld checkpoint computed anew: judged again, and where its emission may not be offered, made again by
        the newest contract.

        A right emission stays as its period's contract made it: a later one must not change what was promised, and an
        old contract need not be at hand. The ranking stays: it follows from the scores, which do not change.
        """
        before = state.data
        if unpaid := unpaid_reason(self._terms.at(before.period_start).calendar, before.period_start):
            return before, [unpaid]
        if not offer_faults(before, -1, before.period_end):
            return before, []
        newest = self._terms.events[-1].data.contract_hash
        decimals = self._terms.at(before.period_start).score_decimals
        built = build_emission(self._contracts(newest), before.ranking, decimals, before.period_end)
        data = msgspec.structs.replace(
            before,
            emission=built.emission,
            emission_sha256=emission_sha256(built.emission),
            emission_contract_hash=newest,
            payout=built.payout,
        )
        return data, [built.fault] if built.fault else offer_faults(data, -1, before.period_end)

    def _command(self, event: AnyEvent) -> Iterator[AnyEvent]:
        kind = type(event).__name__
        if kind in OTHERS_COMMANDS:
            return
        yield from self.settlements.decide(event, self._rebuilt)
