"""Whatever is killed, and whenever: the log that counts equals that of an undisturbed run, byte for byte.

COORDINATOR_CRASH_KILLS (10) sets the number of kills of stages (a fifth as many of the report worker come on top),
COORDINATOR_CRASH_SEED (1) where exactly they strike.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest
from tests.broker.crash import Board, Plan, WorkerProcess, board
from tests.broker.fixed_log import ROUNDS_A_CHUNK, FixedLog, fixed_log, make_commands, settings
from tests.broker.report import Report, kill_while_folding
from tests.logs import of_events
from tests.memory_log import MemoryLog, undisturbed
from tests.streams.test_crash_inputs import burst
from tests.streams.test_crash_inputs import new_stage as new_input_stage
from tests.waiting import limit

from coordinator.infra.kafka.embedded import free_ports
from coordinator.projections.folding.decisions import Folder
from coordinator.projections.folding.replay import replay
from coordinator.projections.views.all_views import open_projections
from coordinator.streams.events import AnyEvent
from coordinator.streams.log.envelope import encode_event

pytestmark = pytest.mark.broker

KILLS = int(os.environ.get("COORDINATOR_CRASH_KILLS", "10"))
SEED = int(os.environ.get("COORDINATOR_CRASH_SEED", "1"))
STAGES = ("scores", "snapshots", "checkpoints")
# (worker, point, topic, phase, largest count): ten kills take each once, more begin anew.
STRIKES = [
    ("score", "before-send", "scores", "live", 40),
    ("checkpoint", "after-send", "checkpoints", "live", 1),
    ("score", "take", "scores", "catch-up", 40),
    ("checkpoint", "take", "checkpoints", "catch-up", 5),
    ("score", "claimed", "scores", "", 1),
    ("checkpoint", "before-send", "checkpoints", "live", 1),
    ("score", "take", "snapshots", "catch-up", 10),
    ("score", "after-send", "snapshots", "live", 2),
    ("checkpoint", "claimed", "checkpoints", "", 1),
    ("score", "durable-send", "scores", "live", 40),
]


DECIDED_BY = {"score": ("scores", "snapshots"), "checkpoint": ("checkpoints",)}


def plans(kills: int, seed: int) -> dict[str, list[Plan]]:
    """The plans of each worker, one for each of its lives."""
    draw = random.Random(seed)
    drawn_plans: dict[str, list[Plan]] = {"score": [], "checkpoint": []}
    for number in range(kills):
        worker, point, topic, phase, most = STRIKES[number % len(STRIKES)]
        drawn_plans[worker].append(Plan(point, topic, phase, draw.randint(1, most)))
    return drawn_plans


async def live_and_die(field: Board, log: FixedLog, name: str, lives: list[Plan]) -> WorkerProcess:
    """Starts the worker with each plan in turn, with work to be killed at. The last life has no plan."""
    for plan in lives:
        await field.feed(log)  # what came while it was dead: work for its catch-up
        worker, before = field.start(name, plan), -1
        while worker.process.poll() is None:
            for _ in range(60):
                await asyncio.sleep(0.1)
                if worker.process.poll() is not None:
                    break
            else:
                # More work only once it has none left: a slow machine would use the log up before the plan is come to.
                decided = sum([len(await field.look(topic)) for topic in DECIDED_BY[name]])
                if decided == before and worker.events("stage_resumed", stage=plan.topic):
                    assert await field.feed(log), f"never came to {plan}\n{worker.tail()}"
                before = decided
        assert worker.process.returncode == -signal.SIGKILL, worker.tail()
        assert worker.events("harmed"), worker.tail()
        print(f"killed {name}: {plan}")
    return field.start(name)


async def report_lives(field: Board, kills: int, seed: int) -> Report:
    """The report worker, killed while it folds the others' records. Its last life continues."""
    draw = random.Random(seed)
    report = Report(
        settings(field.crunch_id).changed(
            kafka_bootstrap=field.bootstrap,
            data_dir=field.log_dir,
            api_port=free_ports(1)[0],
        )
    )
    for _ in range(kills):
        report.start()
        await kill_while_folding(report, draw)
        print("killed report")
    report.start()
    return report


async def assert_same_state(field: Board, log: FixedLog, folder: Path, report: Report) -> None:
    """Every read model folded from what the kills left, and by a worker that was killed, is by its hash that of the
    undisturbed run.
    """
    left = await replay(field.bootstrap, field.crunch_id)
    await asyncio.to_thread(report.wait_caught_up, left.records)
    folded_live = report.get("/reports/summary").json()["state_hash"]
    projections = open_projections(folder / "undisturbed", "another-cluster", field.crunch_id)
    folded = Folder(projections)
    for topic, records in log.undisturbed.items():
        for offset, record in enumerate(records):
            folded.fold(topic, offset, record)
    folded.commit()
    expected = {projection.name: projection.store.state_hash for projection in projections}
    for projection in projections:
        projection.store.close()
    assert folded_live == left.state_hash
    assert of_events(folded_live) == of_events(expected)


async def test_inputs_of_ticks_that_come_in_bursts_are_the_same_after_every_kill(
    kafka_bootstrap, crunch_id, tmp_path
):
    feeds = burst(SEED)["feeds"]
    expected = [[encode_event(event) for event in events] for events in input_decisions(burst(SEED))]
    third = len(feeds) // 3
    lives = [
        Plan("before-send", "inputs", "live", 1),
        Plan("take", "inputs", "catch-up", third),
        Plan("after-send", "inputs", "live", 1),
    ]
    async with board(kafka_bootstrap, crunch_id, tmp_path) as field:
        for number, plan in enumerate(lives):
            worker = field.start("inputs", plan)
            if plan.phase == "live":
                await worker.wait_event("stage_resumed")
            await field.put("feeds", feeds[number * third : (number + 1) * third])
            assert await worker.wait_end() == -signal.SIGKILL, worker.tail()
        await field.put("feeds", feeds[3 * third :])
        worker = field.start("inputs")
        async with limit():
            while len(await field.events("inputs")) < len(expected):
                await asyncio.sleep(0.1)
        assert await field.events("inputs") == expected
        assert await worker.stop() == 0


def input_decisions(log: MemoryLog) -> list[list[AnyEvent]]:
    """The undisturbed stage's decisions on these feeds."""
    log_undisturbed = undisturbed(log, new_input_stage)
    return [decision.events for decision in log_undisturbed.decisions("inputs") if decision.events]


async def test_killed_stages_leave_the_log_of_an_undisturbed_run(kafka_bootstrap, crunch_id, tmp_path):
    log, commands = fixed_log(crunch_id, ROUNDS_A_CHUNK * (4 + 2 * KILLS)), make_commands(crunch_id)
    async with board(kafka_bootstrap, crunch_id, tmp_path) as field:
        await field.put("commands", commands["before"])
        lives = plans(KILLS, SEED)
        *last, report = await asyncio.gather(
            *(live_and_die(field, log, name, lives[name]) for name in lives),
            report_lives(field, max(1, KILLS // 5), SEED),
        )
        await field.feed(log)
        await field.wait_built(log, 1)
        await field.put("commands", commands["first"])
        await field.feed_all(log)
        await field.wait_decided(log, STAGES[:2])
        await field.wait_built(log)
        await field.put("commands", commands["last"])
        await field.wait_decided(log, STAGES[2:])
        await field.assert_equal(log, STAGES)
        await assert_same_state(field, log, tmp_path, report)
        assert report.end() == 0
        for topic, name in zip(STAGES, ("score", "score", "checkpoint"), strict=True):
            # One claim for each life; a life may end before the other stage of its process has claimed.
            own_kills = sum(plan.topic == topic for plan in lives[name])
            assert own_kills + 1 <= await field.claims(topic) <= len(lives[name]) + 1
        assert [await worker.stop() for worker in last] == [0, 0]
