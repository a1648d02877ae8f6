"""The node of a simulation: its workers' processes, wired as `streams/agents/workers.py` does, over lines to one log.

Claims, tenures, keepers, stages and the shells of feed and models are those of a real node. Two things are replaced.
Instead of Faust a group deals each worker's partitions to one process, and delivers records from about where it had
committed. Instead of the supervisor a process that ended is started again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from functools import partial
from typing import Any

from coordinator.infra.contracts.loading import ContractShelf
from coordinator.infra.contracts.meaning import scoring_hash
from coordinator.streams.agents.feed.clocks import MachineTime
from coordinator.streams.agents.feed.configuration import Intake, TermsMade, make_witness
from coordinator.streams.agents.feed.worker import FeedTenure
from coordinator.streams.agents.owning.dead_letters import DeadLetters
from coordinator.streams.agents.owning.keeper import WORLD, Keeper, StalledError
from coordinator.streams.agents.owning.tenure import Tenure
from coordinator.streams.agents.predict.models_asked import ModelsAsked
from coordinator.streams.agents.predict.worker import PredictTenure
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.events import ApplyContract, Terms, TermSettings
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.ports import ModelNotice
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.settings import Settings
from coordinator.streams.simulation import faults as f
from coordinator.streams.simulation.operator import apply_contract
from coordinator.streams.simulation.transport import SendFault, Shared, SimulatedLogIO
from coordinator.streams.simulation.world import Gateway, Source, World
from coordinator.streams.snapshots.stage import SnapshotStage

SESSION_SECONDS = 10.0
DELIVERED_MAX = 64
RESTART_SECONDS = 1.0
DRIVERS = {
    "input": "feeds",
    "predict": "inputs",
    "score": "inputs",
    "aggregate": "scores",
    "checkpoint": "snapshots",
}


class Contracts:
    """`AppliedContracts` of the contracts on a shelf. Their commands carry no archive: every process has the shelf."""

    def __init__(self, shelf: ContractShelf, settings: Settings) -> None:
        self._shelf, self._settings = shelf, settings

    def apply_proposed(self, at: int, told: TermSettings | None) -> ApplyContract:  # noqa: ARG002 - settings stay
        """See `AppliedContracts`."""
        return apply_contract(self._shelf.current_hash, at)

    def terms_of(self, command: ApplyContract, held: Terms | None = None) -> Terms:  # noqa: ARG002 - settings stay
        """See `AppliedContracts`."""
        return self.terms_under(command.data.contract_hash)

    def terms_under(self, contract_hash: str, told: TermSettings | None = None) -> Terms:  # noqa: ARG002
        """See `AppliedContracts`."""
        contract = self._shelf(contract_hash)
        return make_terms(contract, contract_hash, self._settings, 0, scoring_hash=scoring_hash(contract))

    def settings_remark(self, held: Terms) -> str:  # noqa: ARG002 - nobody reads it
        """See `AppliedContracts`."""
        return ""

    def remark(self, applied: str) -> str:  # noqa: ARG002 - nobody reads it
        """See `AppliedContracts`."""
        return ""


class Process:
    """One process of a worker."""

    def __init__(self, node: Node, worker: str, number: int) -> None:
        self.node, self.worker, self.name = node, worker, f"{worker}-{number}"
        schedule = node.world.schedule
        self.line = SimulatedLogIO(
            node.shared, schedule.latency_ms / 1000, states_often=schedule.states_often
        )
        self.line.on_death = lambda: node.killed(self)
        self.dead_letters = DeadLetters(self.line, worker, node.world.wall_ms)
        self.source = Source(node.world, self.line)
        self.gateway = Gateway(node.world.models, self.line)
        self.witness = make_witness(node.world.settings, self.source)
        self.noticed: list[ModelNotice] = []
        self.assigned: dict[str, asyncio.Event] = {}
        self.keepers: dict[str, Keeper] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Run the keeper and the delivery of every stage."""
        loop = asyncio.get_running_loop()
        for stage in f.STAGES[self.worker]:
            new_tenure = partial(getattr(self.node, f"{stage}_tenure"), self)
            keeper = Keeper(stage, new_tenure, 1.5 * SESSION_SECONDS)
            self.keepers[stage], self.assigned[stage] = keeper, asyncio.Event()
            self._tasks += [
                loop.create_task(self._guard(keeper.run())),
                loop.create_task(self._guard(self._deliver(stage))),
            ]
        self._tasks.append(loop.create_task(self._guard(self.dead_letters.run())))

    async def _guard(self, work: Any) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - as the worker's edge does: it ends the process and is told
            self.node.ended(self, error)

    def assign(self, *, ours: bool) -> None:
        """Tell the process whether the partitions of its stages are dealt to it."""
        for stage, keeper in self.keepers.items():
            keeper.assigned(ours=ours)
            (self.assigned[stage].set if ours else self.assigned[stage].clear)()

    async def _deliver(self, stage: str) -> None:
        """What Faust does: records of the driving topic, from about where the group had committed."""
        shared, node, driver = self.line.shared, self.node, DRIVERS[stage]
        while True:
            await self.assigned[stage].wait()
            dealt = node.dealt[stage]
            position = node.committed[stage]
            while self.assigned[stage].is_set() and node.dealt[stage] == dealt:
                await self.line.ready()
                if not await shared.grown(driver, position):
                    continue
                await self.line.ready()
                end = min(shared.log.end(driver), position + DELIVERED_MAX)
                await self.keepers[stage].deliver(
                    [(offset, shared.log.record(driver, offset)) for offset in range(position, end)]
                )
                position = node.committed[stage] = end

    def kill(self, landing: int = 0, late_seconds: float = 0.0) -> None:
        """End it as `kill -9` does. Of its records in flight `landing` still land, `late_seconds` later."""
        self.line.die(landing, late_seconds)
        for task in self._tasks:
            task.cancel()

    async def gone(self) -> None:
        """Wait until all of its tasks have ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Node:
    """All processes, and the group. Tests of the judge replace a tenure by one with a known fault."""

    def __init__(
        self, world: World, shelf: ContractShelf, crunch_id: str, shared: Shared, calm_from: float
    ) -> None:
        self.calm_from = calm_from
        self.world, self.shelf, self.crunch_id, self.shared = world, shelf, crunch_id, shared
        self.contracts = Contracts(shelf, world.settings)
        shared.on_send = self._on_send
        self.committed: defaultdict[str, int] = defaultdict(int)
        self.dealt: defaultdict[str, int] = defaultdict(int)
        """Stage -> how often its delivery was restarted."""
        self.owners: dict[str, Process] = {}
        self.processes: list[Process] = []
        self.bugs: list[str] = []
        """Errors of ours that ended a process."""
        self._crashes = {(fault.topic, fault.send): fault for fault in world.of(f.Crash)}
        self._failing = {(fault.topic, fault.send): fault for fault in world.of(f.SendFails)}
        self._killed_by: dict[Process, f.Crash] = {}
        self._beside: list[asyncio.Task[None]] = []

    # --- the stages' shells ----------------------------------------------------------------------------

    def input_tenure(self, process: Process) -> Tenure:
        """See `workers._feed`."""
        settings = self.world.settings
        return FeedTenure(
            process.line,
            InputStage(self.shelf),
            process.name,
            settings,
            Intake(process.source, process.dead_letters, process.witness),
            TermsMade(lambda: self.contracts.terms_under(self.shelf.current_hash), self.contracts),
            MachineTime(self.world.wall_ms, self.world.uptime_ms),
        )

    def predict_tenure(self, process: Process) -> Tenure:
        """See `workers._predict`."""
        return PredictTenure(
            process.line,
            process.name,
            ModelsAsked(process.gateway, process.noticed),
            self.shelf,
            monotonic=asyncio.get_running_loop().time,
        )

    def score_tenure(self, process: Process) -> Tenure:
        """See `workers._score`."""
        return Tenure(process.line, ScoreStage(self.shelf), process.name)

    def aggregate_tenure(self, process: Process) -> Tenure:
        """See `workers._score`."""
        return Tenure(process.line, SnapshotStage(self.shelf), process.name)

    def checkpoint_tenure(self, process: Process) -> Tenure:
        """See `workers._checkpoint`."""
        stage = CheckpointStage(self.crunch_id, self.shelf)
        return Tenure(process.line, stage, process.name, process.dead_letters.from_topic)

    # --- processes -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start one process of each worker, and the faults that have a time."""
        loop = asyncio.get_running_loop()
        for worker in f.WORKERS:
            self._own(self._spawn(worker))
        for fault in self.world.schedule.faults:
            if isinstance(fault, f.Cut):
                self._beside.append(loop.create_task(self._cut(fault)))
            elif isinstance(fault, f.Claimants):
                self._beside.append(loop.create_task(self._claimants(fault)))
            elif isinstance(fault, f.Delivered):
                self._beside.append(loop.create_task(self._redeliver(fault)))
            elif isinstance(fault, f.Garbage):
                self._beside.append(loop.create_task(self._garbage(fault)))
            elif isinstance(fault, f.Rebuilt):
                self._beside.append(loop.create_task(self._rebuild(fault)))

    def _spawn(self, worker: str) -> Process:
        process = Process(self, worker, sum(earlier.worker == worker for earlier in self.processes) + 1)
        self.processes.append(process)
        process.start()
        return process

    def _own(self, process: Process, *, tell: bool = True) -> None:
        """Deal the worker's partitions to a process; `tell` the others."""
        self.owners[process.worker] = process
        for other in self.processes:
            if other.worker == process.worker and other is not process and not other.line.dead and tell:
                other.assign(ours=False)
        process.assign(ours=True)

    def killed(self, process: Process) -> None:
        """Kill the process: it has reached the send at which a crash is due."""
        fault = self._killed_by[process]
        process.kill(fault.landing, fault.late_seconds)
        self._back(process, fault.back_seconds)

    def ended(self, process: Process, error: BaseException) -> None:
        """A process ended by an error. Note the error if it is a bug of ours, and start the process again."""
        if process.line.dead:
            return
        if not isinstance(error, (*WORLD, StalledError)):
            self.bugs.append(f"{process.name} ended: {type(error).__name__}: {error}")
        process.kill()
        self._back(process, RESTART_SECONDS)

    def _back(self, process: Process, seconds: float) -> None:
        async def back() -> None:
            await process.gone()
            await asyncio.sleep(seconds)
            new = self._spawn(process.worker)
            owner = self.owners[process.worker]
            if owner.line.dead:
                self._own(new)

        self._beside.append(asyncio.get_running_loop().create_task(back()))

    async def stop(self, *workers: str) -> None:
        """End all processes of these workers, as `kill -9` does, without any record in flight."""
        for process in self.processes:
            if process.worker in workers and not process.line.dead:
                process.kill()
                await process.gone()

    # --- faults ----------------------------------------------------------------------------------------

    def _on_send(self, line: SimulatedLogIO, topic: str, number: int) -> SendFault | None:
        if self.world.now >= self.calm_from:
            return None  # a number that only the calm reaches
        crash = self._crashes.get((topic, number))
        if crash is not None:
            process = next((sender for sender in self.processes if sender.line is line), None)
            if process is not None:
                self._killed_by[process] = crash
                return SendFault(dies=True)
        failing = self._failing.get((topic, number))
        return None if failing is None else SendFault(fails=True, lands=failing.lands)

    async def _cut(self, fault: f.Cut) -> None:
        await asyncio.sleep(fault.at)
        process = self.owners[fault.worker]
        process.line.cut()
        if fault.successor:
            await asyncio.sleep(min(SESSION_SECONDS, fault.seconds / 2))
            self._own(self._spawn(fault.worker), tell=False)
            await asyncio.sleep(fault.seconds - min(SESSION_SECONDS, fault.seconds / 2))
        else:
            await asyncio.sleep(fault.seconds)
        process.line.mend()
        if fault.successor and not process.line.dead and self.owners[fault.worker] is not process:
            await asyncio.sleep(1)  # until the group's word has come
            if self.owners[fault.worker] is not process and not process.line.dead:
                process.assign(ours=False)

    async def _claimants(self, fault: f.Claimants) -> None:
        await asyncio.sleep(fault.at)
        first = self.owners[fault.worker]
        second = self._spawn(fault.worker)
        self._own(second, tell=False)
        await asyncio.sleep(fault.seconds)
        for process in (first, second):
            if process is not self.owners[fault.worker] and not process.line.dead:
                process.assign(ours=False)
        owner = self.owners[fault.worker]
        if not owner.line.dead:
            owner.assign(ours=True)  # the group's word to its owner, in the same rebalance

    async def _rebuild(self, fault: f.Rebuilt) -> None:
        await asyncio.sleep(fault.at)
        running = [process for process in self.processes if not process.line.dead]
        for process in running:
            process.kill()
        for process in running:
            await process.gone()
        await asyncio.sleep(fault.seconds)
        self.committed.clear()
        for worker in f.WORKERS:
            if self.owners[worker].line.dead:  # a worker that had crashed before may be back already
                self._own(self._spawn(worker))

    async def _redeliver(self, fault: f.Delivered) -> None:
        await asyncio.sleep(fault.at)
        end = self.shared.log.end(DRIVERS[fault.stage])
        self.committed[fault.stage] = min(max(0, self.committed[fault.stage] - fault.back), end)
        self.dealt[fault.stage] += 1

    async def _garbage(self, fault: f.Garbage) -> None:
        await asyncio.sleep(fault.at)
        end = self.shared.log.end(fault.topic)
        repeated = end - fault.repeats
        record = (
            self.shared.log.record(fault.topic, repeated) if fault.repeats and repeated > 0 else f.GARBAGE
        )
        self.shared.append(fault.topic, record)
