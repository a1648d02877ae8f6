"""Predict is killed in the middle of rounds: every prediction still ends once, with a reason, and none is late.

The clock goes on while the worker is dead, so some rounds are answered in time, some were opened by a dead owner,
and some open too late.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter as Tally

import pytest
from tests.broker.crash import Board, Plan, WorkerProcess, board
from tests.broker.fixed_log import FixedLog, fixed_log
from tests.waiting import limit

from coordinator.streams import events as ev
from coordinator.streams.predictions.stage import FELL_BEHIND, NODE_LATE, NODE_RESTARTED

pytestmark = pytest.mark.broker

ROUND_SECONDS = 0.15
ROUNDS_WITHOUT_A_WORKER_MAX = 40
"""Time goes on while the worker is dead, but a machine on which it is slow to start must not use up the log."""
LIVES = [
    Plan("call", "predictions", count=80),  # in the middle of a round
    Plan("before-send", "predictions", "live", 42),  # answered, not recorded
    Plan("claimed", "predictions"),
    Plan("claimed", "models"),  # owns one topic and not the other
    Plan("after-send", "predictions", "live", 31),  # opened, or answered, but perhaps not durable
    Plan("take", "predictions", "catch-up", 3),
]


async def time_goes_by(field: Board, log: FixedLog, end: asyncio.Event) -> None:
    """One record of the feed, then the input it makes, a few a second, whoever is there to answer."""
    alone = 0
    for at_feed, at_input in zip(log.records["feeds"][1:], log.records["inputs"][1:], strict=True):
        await field.put("feeds", [at_feed])
        await field.put("inputs", [at_input])
        await asyncio.sleep(ROUND_SECONDS)
        alone = 0 if is_up(field) else alone + 1
        while alone > ROUNDS_WITHOUT_A_WORKER_MAX and not is_up(field):
            await asyncio.sleep(ROUND_SECONDS)
        if end.is_set():
            return


def is_up(field: Board) -> bool:
    worker = field.workers[-1]
    return worker.process.poll() is None and bool(worker.events("stage_resumed", stage="predictions"))


async def test_every_prediction_of_a_killed_predict_worker_ends_once(kafka_bootstrap, crunch_id, tmp_path):
    log, end = fixed_log(crunch_id), asyncio.Event()
    async with board(kafka_bootstrap, crunch_id, tmp_path) as field:
        clock = asyncio.create_task(time_goes_by(field, log, end))
        for plan in LIVES:
            worker = field.start("predict", plan)
            assert await worker.wait_end() == -signal.SIGKILL, worker.tail()
        worker = field.start("predict")
        await worker.wait_event("stage_resumed", stage="predictions")
        await until_answered(field, worker, (await look_rounds(field))["RoundAnswered"] + 5)
        end.set()
        await clock
        asked = {data.input_id: data for data in await inputs_of(field)}
        await until_answered(field, worker, len(asked))
        assert await worker.stop() == 0
        assert await field.claims("predictions") <= len(LIVES) + 1

        rounds: dict[str, ev.RoundOpened] = {}
        answers: Tally[tuple[str, str, str]] = Tally()
        ends: Tally[str] = Tally()
        open_rounds: dict[str, str] = {}
        for decision in await field.look("predictions"):
            for event in decision.events:
                data = event.data
                if isinstance(event, ev.RoundOpened):
                    subject = asked[data.input_id].subject
                    assert subject not in open_rounds.values(), "one round of a subject at a time"
                    assert data.input_id not in rounds, "a round is opened once"
                    rounds[data.input_id], open_rounds[data.input_id] = event, subject
                elif isinstance(event, ev.RoundAnswered):
                    del open_rounds[data.input_id]
                elif isinstance(event, ev.RoundAnsweredInPart):
                    assert data.input_id in open_rounds
                else:
                    assert data.input_id in open_rounds
                    for entry in data.entries(rounds[data.input_id].data.roster):
                        answers[data.input_id, data.scope_key, entry.model_id] += 1
                        if entry.status == "PENDING":
                            assert event.at <= asked[data.input_id].deadline_at, "made after its time"
                            ends["recorded"] += 1
                        else:
                            assert entry.reason
                            assert entry.status == "ABSENT"
                            assert entry.fault == "node", "the models did nothing wrong"
                            ends[entry.reason] += 1
        assert rounds.keys() == asked.keys()
        assert answers == Tally(
            (input_id, scope_key, entry.model_id)
            for input_id, opened in rounds.items()
            for scope_key in opened.data.scope_keys
            for entry in opened.data.roster
        )
        assert ends.keys() - {FELL_BEHIND, f"ABSENT: {NODE_LATE}"} == {
            "recorded",
            NODE_RESTARTED,
            NODE_LATE,
        }, ends
        print(ends)


async def until_answered(field: Board, worker: WorkerProcess, rounds: int) -> None:
    async with limit():
        while (await look_rounds(field))["RoundAnswered"] < rounds:
            assert worker.process.poll() is None, worker.tail()
            await asyncio.sleep(0.1)


async def inputs_of(field: Board) -> list[ev.InputReceivedData]:
    return [
        event.data
        for decision in await field.look("inputs")
        for event in decision.events
        if isinstance(event, ev.InputReceived)
    ]


async def look_rounds(field: Board) -> Tally[str]:
    return Tally(
        type(event).__name__ for decision in await field.look("predictions") for event in decision.events
    )
