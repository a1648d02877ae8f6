"""The operator of a simulation: pays every offered checkpoint, and does what the schedule says.

Reads `checkpoints`; writes `commands`.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter as Tally
from collections.abc import Sequence
from typing import Any

import base58

from coordinator.streams import events as ev
from coordinator.streams.checkpoints.prizes import prize_amounts, shares_of
from coordinator.streams.log.counting import Counter
from coordinator.streams.log.envelope import encode_event
from coordinator.streams.simulation import faults as f
from coordinator.streams.simulation.transport import Shared
from coordinator.streams.simulation.world import World

PAYS_SECONDS = 3.0
RESTATED_SECONDS = 5.0
FAILS_SHARE = 0.3
"""The share of transactions that fail."""


def apply_contract(contract_hash: str, at: int) -> ev.ApplyContract:
    """The command that applies a contract of the simulation; `at` in ms."""
    data = ev.ApplyContractData(contract_hash=contract_hash, path="simulated", archive=b"")
    return ev.ApplyContract(id=f"simulated/ApplyContract/{contract_hash[:12]}/{at}", at=at, data=data)


def correction_of(data: ev.CheckpointData, micro_usdc: int, parts: int) -> ev.CorrectCheckpointData:
    """A statement that the last place of a checkpoint should have got this amount from the first place, or all of the
    first place's amount if that is less; or one of this many `parts` of it. If there is a single model, it was paid
    that much too much. The statement has no models if the amount is zero.
    """
    paid, _ = prize_amounts(data, f.CORRECTED_MAX)
    models: list[ev.ModelCorrection] = []
    moved = 0
    if paid and paid[0][1]:
        first_id, first_paid = paid[0]
        last_id, last_paid = paid[-1]
        moved = min(micro_usdc, first_paid) // parts
        models.append(ev.ModelCorrection(model_id=first_id, paid=first_paid, due=first_paid - moved))
        if last_id != first_id:
            models.append(ev.ModelCorrection(model_id=last_id, paid=last_paid, due=last_paid + moved))
    return ev.CorrectCheckpointData(
        checkpoint_id=data.checkpoint_id,
        total_prize=f.CORRECTED_MAX,
        models=sorted(models, key=lambda model: model.model_id) if moved else [],
        reason="simulated",
        shares=shares_of(data),
    )


class Operator:
    """Pays by commands. A transaction may fail, and then the operator pays again by another one."""

    def __init__(self, world: World, shared: Shared) -> None:
        self._world, self._shared = world, shared
        self._attempts: Tally[str] = Tally()
        self._offered: dict[str, ev.CheckpointData] = {}
        self._corrected: dict[f.Corrected, str] = {}
        """Fault -> the checkpoint that was corrected for it."""
        self._restated: set[f.Corrected] = set()

    async def run(self) -> None:
        """Work until cancelled."""
        await asyncio.gather(
            self._pay(),
            *(self._do(fault) for fault in self._world.of(f.OperatorDoes)),
            *(self._apply(fault) for fault in self._world.of(f.RulesApplied)),
        )

    def _command(self, event: ev.Event) -> None:
        twice = any(
            fault.what == "twice" and fault.at <= self._world.now for fault in self._world.of(f.OperatorDoes)
        )
        for _ in range(2 if twice else 1):
            self._shared.append("commands", encode_event(event))

    def _new(self, kind: type[Any], data: Any, what: str) -> Any:
        the_id = f"simulated/{kind.__name__}/{what}"
        return kind(id=the_id, at=self._world.true_ms(), data=data)

    def _confirm(self, checkpoint_id: str) -> None:
        """Confirm a payment, with a transaction of its own for each attempt."""
        self._attempts[checkpoint_id] += 1
        text = f"{self._world.schedule.seed} {checkpoint_id} {self._attempts[checkpoint_id]}"
        digest = hashlib.sha512(text.encode()).digest()
        tx_hash = base58.b58encode(digest).decode()
        data = ev.ConfirmCheckpointData(checkpoint_id=checkpoint_id, tx_hash=tx_hash)
        self._command(self._new(ev.ConfirmCheckpoint, data, tx_hash))

    async def _pay(self) -> None:
        counter = Counter("checkpoints")
        while True:
            await self._shared.grown("checkpoints", counter.next_offset, None)
            while counter.next_offset < self._shared.log.end("checkpoints"):
                offset = counter.next_offset
                decision = counter.read(offset, self._shared.log.record("checkpoints", offset))
                for event in () if decision is None else decision.events:
                    await self._answer(event)

    async def _answer(self, event: ev.AnyEvent) -> None:
        match event:
            case ev.CheckpointOpened(data=data):
                self._offered[data.checkpoint_id] = data
                await self._restate(data.credits)
                await self._correct(data, "offered")
                await asyncio.sleep(PAYS_SECONDS)
                self._confirm(data.checkpoint_id)
            case ev.CheckpointWithheld(data=data):
                await asyncio.sleep(PAYS_SECONDS)
                checkpoint_id = data.checkpoint.checkpoint_id
                release = ev.ReleaseCheckpointData(checkpoint_id=checkpoint_id, reason="simulated")
                self._command(self._new(ev.ReleaseCheckpoint, release, checkpoint_id))
            case ev.CheckpointSubmitted(data=data):
                await asyncio.sleep(PAYS_SECONDS)
                if random.Random(data.tx_hash).random() < FAILS_SHARE:
                    failed = ev.FailCheckpointSubmissionData(
                        checkpoint_id=data.checkpoint_id, tx_hash=data.tx_hash, reason="simulated"
                    )
                    self._command(self._new(ev.FailCheckpointSubmission, failed, data.tx_hash))
                else:
                    self._advance(data.checkpoint_id, "CLAIMABLE", data.tx_hash)
                    self._advance(data.checkpoint_id, "PAID", data.tx_hash)
            case ev.CheckpointSubmissionFailed(data=data):
                self._confirm(data.checkpoint_id)
            case ev.CheckpointPaid(data=data):
                await self._correct(self._offered[data.checkpoint_id], "paid")
            case _:
                pass

    def _advance(self, checkpoint_id: str, status: str, tx_hash: str) -> None:
        data = ev.AdvanceCheckpointData(checkpoint_id=checkpoint_id, status=status, tx_hash=tx_hash)
        self._command(self._new(ev.AdvanceCheckpoint, data, f"{status}/{tx_hash}"))

    async def _correct(self, data: ev.CheckpointData, status: str) -> None:
        """State what the checkpoint should have paid, for each correction that waits for one of this status."""
        for fault in self._world.of(f.Corrected):
            if fault.status != status or fault.at > self._world.now or fault in self._corrected:
                continue
            self._corrected[fault] = data.checkpoint_id
            for parts in {"never": (1,), "soon": (1, 2), "carried": (2,)}[fault.restated]:
                await self._state(data, fault.micro_usdc, parts)

    async def _restate(self, carried: Sequence[ev.Credits]) -> None:
        """State all of what was stated in part, and is carried now."""
        carried_ids = {credit.checkpoint_id for credit in carried}
        for fault, checkpoint_id in self._corrected.items():
            if fault.restated == "carried" and checkpoint_id in carried_ids and fault not in self._restated:
                self._restated.add(fault)
                await self._state(self._offered[checkpoint_id], fault.micro_usdc, 1)

    async def _state(self, data: ev.CheckpointData, micro_usdc: int, parts: int) -> None:
        statement = correction_of(data, micro_usdc, parts)
        if statement.models:
            what = f"{data.checkpoint_id}/{micro_usdc}/{parts}"
            self._command(self._new(ev.CorrectCheckpoint, statement, what))
            await asyncio.sleep(RESTATED_SECONDS)

    async def _apply(self, fault: f.RulesApplied) -> None:
        await asyncio.sleep(fault.at)
        rules = self._world.rules
        self._command(apply_contract(rules.get(fault.rules, rules["absence"]), self._world.true_ms()))

    async def _do(self, fault: f.OperatorDoes) -> None:
        await asyncio.sleep(fault.at)
        kind, data = {
            "withhold": (ev.WithholdCheckpoint, ev.WithholdCheckpointData(reason="simulated")),
            "ban": (ev.BanModel, ev.BanModelData(model_id="m0", reason="simulated")),
            "readmit": (ev.ReadmitModel, ev.ReadmitModelData(model_id="m0", reason="simulated")),
        }.get(fault.what, (None, None))
        if kind is not None:
            self._command(self._new(kind, data, str(fault.at)))
