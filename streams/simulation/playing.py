"""One run: plays a schedule's faults against a whole node of a contract, in virtual time. `judge_run.py` judges it.

    outcome = play(draw(7, 30, ...), challenge)
    judge(outcome, challenge)    # empty, or each rule that does not hold

A run has three parts: the rounds, in which faults happen; a calm, in which the node must come to rest; and an end, in
which no new facts come and no stage may be behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import msgspec

from coordinator.infra.contracts.loading import ContractShelf
from coordinator.streams.contract import (
    Aggregation,
    AggregationWindow,
    CrunchContract,
    PredictionScope,
    ScheduledPrediction,
    by_weights,
    defaults,
)
from coordinator.streams.contract.strategies import Entries
from coordinator.streams.durations import HOUR_SECONDS
from coordinator.streams.engine import MemoryLog
from coordinator.streams.log.birth import Birth, birth_records
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.settings import Settings
from coordinator.streams.simulation import faults as f
from coordinator.streams.simulation.faults import Schedule
from coordinator.streams.simulation.loop import SimulationLoop, run
from coordinator.streams.simulation.node import Node
from coordinator.streams.simulation.operator import Operator
from coordinator.streams.simulation.transport import Shared
from coordinator.streams.simulation.world import SOURCE, START_MS, World

CRUNCH_ID = "simulated"
BIRTH_ID = "5" * 32
CALM_SECONDS = 75.0
"""Longer than a keeper's longest pause and silence together, and than the longest pause between two asks for a gap."""
REST_SECONDS = 8.0
RECORDS_A_SECOND_MAX = 50

PUBKEY = "4Nd1mBQtrMJVYVfKf2PJy9NZUZdTAsp7D4xWLs4gDB4T"
"""An address that belongs to nobody. Without an address, or with the placeholder, every checkpoint would be withheld.
"""


def weights_of_places(entries: Entries) -> list[Fraction]:
    """1, 1/2, 1/3, ..: shares that are no whole numbers."""
    return [Fraction(1, entry["rank"]) for entry in entries]


BY_PLACE = by_weights(weights_of_places)
CONTRACT = CrunchContract(
    crunch_pubkey=PUBKEY,
    scheduled_predictions=[
        ScheduledPrediction(scope_key="10s", scope=PredictionScope(horizon_seconds=10), interval_seconds=10),
        ScheduledPrediction(scope_key="40s", scope=PredictionScope(horizon_seconds=40), interval_seconds=20),
    ],
    aggregation=Aggregation(windows=[AggregationWindow(name="hour", hours=1)], ranking_key="hour"),
    input_records=12,
    input_records_first=24,
    deadline_seconds=4,
    grace_seconds=2,
    gap_wait_seconds=60,
    absence_policy="worst",
    build_emission=BY_PLACE,
)
"""The contract of a simulation that names no other: two horizons, rounds of seconds, a charge for absence, and shares
with remainders.
"""


def half_score(prediction: Any, ground_truth: Any) -> dict[str, Any]:
    """The default score, halved: rules whose scores cannot be added to those before."""
    return {name: value / 2 for name, value in defaults.score_prediction(prediction, ground_truth).items()}


class Challenge:
    """A contract, and settings of a node that fit it. A round is asked as often as the shortest schedule says."""

    def __init__(self, contract: CrunchContract = CONTRACT) -> None:
        """Raises OperatorError for a contract that asks of named subjects, or together."""
        self.contract = contract
        self.shelf = ContractShelf()
        absence = "ignore" if contract.absence_policy == "worst" else "worst"
        others: dict[str, dict[str, Any]] = {"absence": {"absence_policy": absence}}
        if contract.build_emission is BY_PLACE:
            others["absence"]["build_emission"] = defaults.build_emission
        if contract.score_prediction is defaults.score_prediction:
            others["score"] = {"score_prediction": half_score}
        self.rules = {
            name: self.shelf.put(contract.model_copy(update=fields)) for name, fields in others.items()
        }
        """Name -> the hash of rules that an operator may apply: others, or the `first` again."""
        self.rules["first"] = self.shelf.put(contract)
        schedules = contract.schedules()
        named = [
            schedule.scope.together or (schedule.scope.name,) for schedule in schedules if schedule.scope.name
        ]
        subjects = tuple(dict.fromkeys(subject for names in named for subject in names if subject)) or (
            "BTCUSDT",
        )
        if len(subjects) > SUBJECTS_MAX:
            raise OperatorError(
                f"the contract names {len(subjects)} subjects; a simulation has at most {SUBJECTS_MAX}"
            )
        self.round_seconds = min(schedule.interval_seconds for schedule in schedules)
        fine = any(
            seconds % 60
            for schedule in schedules
            for seconds in (schedule.interval_seconds, schedule.scope.horizon_seconds)
        )
        self.granularity_seconds = 5 if fine else 60
        snapshot = next(
            (seconds for seconds in (30, 60, 120, 300, 600, 1800) if seconds >= 3 * self.round_seconds),
            HOUR_SECONDS,
        )
        self.settings = Settings(
            crunch_id=CRUNCH_ID,
            feed_source=SOURCE,
            feed_subjects=subjects,
            feed_granularity="5s" if fine else "1m",
            snapshot_interval_seconds=snapshot,
            checkpoint_interval_seconds=4 * snapshot,
        )


SUBJECTS_MAX = 8
NewNode = Callable[[World, ContractShelf, str, Shared, float], Node]


class Outcome(msgspec.Struct, frozen=True):
    """The result of a run: the log, the errors of the node, and the world that knows what really happened."""

    schedule: Schedule
    log: MemoryLog
    order: list[str]
    """The topic of each record, in the order in which the records were appended."""
    world: World
    bugs: list[str]
    seconds: float
    """When the calm began."""


def play(schedule: Schedule, challenge: Challenge, new_node: NewNode = Node, seconds: float = 0.0) -> Outcome:
    """Play a schedule. The calm begins after the rounds and the faults, and at least `seconds` after the start. The
    same arguments give the same log.
    """
    return run(_played(schedule, challenge, new_node, seconds), SimulationLoop)


async def _played(schedule: Schedule, challenge: Challenge, new_node: NewNode, at_least: float) -> Outcome:
    interval_seconds = challenge.settings.checkpoint_interval_seconds
    restated = [
        fault.at + f.PERIODS_TO_CARRY * interval_seconds
        for fault in schedule.faults
        if isinstance(fault, f.Corrected) and fault.restated == "carried"
    ]
    seconds = max(schedule.rounds * challenge.round_seconds, schedule.until_seconds, at_least, *restated)
    shared = Shared()
    shared.records_max = int(RECORDS_A_SECOND_MAX * (seconds + CALM_SECONDS))
    for topic, record in birth_records(CRUNCH_ID, Birth(BIRTH_ID, START_MS)).items():
        shared.append(topic, record)
    world = World(
        schedule,
        challenge.contract,
        challenge.settings,
        seconds + CALM_SECONDS + REST_SECONDS,
        challenge.rules,
    )
    node = new_node(world, challenge.shelf, CRUNCH_ID, shared, seconds)
    operator = asyncio.get_running_loop().create_task(Operator(world, shared).run())
    node.start()
    await asyncio.sleep(seconds + CALM_SECONDS)
    await node.stop("feed")
    operator.cancel()
    await asyncio.sleep(REST_SECONDS)
    await node.stop("predict", "score", "checkpoint")
    bugs = [shared.runs_away] if shared.runs_away else node.bugs
    return Outcome(schedule, shared.log, shared.order, world, bugs, seconds)
