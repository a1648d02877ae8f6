"""Posted questions on a real broker, in replayed time, while every worker that decides over them is killed in turn: what
counts in the log is what an undisturbed node makes, byte for byte, and that is held against an oracle of plain numbers.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import pytest
from tests.broker import asked_contract
from tests.broker.crash import Board, Plan, board, first_difference
from tests.broker.fixed_log import decided
from tests.streams.engine import test_questions_played as events_played
from tests.waiting import limit

from coordinator.infra.contracts.loading import ContractShelf
from coordinator.streams.contract import CrunchContract
from coordinator.streams.engine.engine import Engine
from coordinator.streams.log.envelope import decode_append

pytestmark = pytest.mark.broker

LIVES = {
    "score": [
        Plan("before-send", "scores", "live", 3),
        Plan("after-send", "snapshots", "", 2),
        Plan("take", "scores", "catch-up", 5),
        Plan("durable-send", "scores", "live", 2),
    ],
    "checkpoint": [Plan("take", "checkpoints", "", 4), Plan("claimed", "checkpoints")],
}
"""Worker -> how each of its lives ends. After them comes a life that is not killed."""
CHUNKS = 8


def hash_of(contract: CrunchContract) -> str:
    shelf = ContractShelf()
    shelf.put(contract)
    return shelf.current_hash


def events(crunch_id: str, count: int) -> Engine:
    """The node after so many events, undisturbed, and held against the oracle."""
    contract, posted = asked_contract.GATED, events_played.drawn(count, seed=count)
    engine = events_played.run(posted, contract, hash_of(contract), crunch_id)
    events_played.hold_against_the_oracle(posted, engine.log.events)
    return engine


def chunks(engine: Engine) -> list[tuple[list[bytes], list[bytes]]]:
    """(inputs, predictions) of each: no round stands before the input that it is of."""
    inputs, predictions = engine.log["inputs"], engine.log["predictions"]
    cuts = [1 + (len(inputs) - 1) * i // CHUNKS for i in range(1, CHUNKS + 1)]
    parts, since, at = [], 1, 1
    for cut in cuts:
        end = at
        while end < len(predictions):
            append = decode_append(predictions[end])
            if (
                append is not None
                and append.upto
                and append.upto.get("inputs", (0, 0))[0] >= cut
                and cut != cuts[-1]
            ):
                break
            end += 1
        parts.append((inputs[since:cut], predictions[at:end]))
        since, at = cut, end
    return parts


async def live_and_die(field: Board, feed: Callable[[], object], contract: str, name: str) -> None:
    for plan in LIVES[name]:
        worker = field.start(name, plan, CONTRACT=contract)
        async with limit():
            while worker.process.poll() is None:
                await asyncio.sleep(0.2)
                if worker.events("stage_resumed", stage=plan.topic):
                    await feed()  # type: ignore[misc]
        assert worker.process.returncode == -signal.SIGKILL, worker.tail()
        assert worker.events("harmed"), worker.tail()
    field.start(name, CONTRACT=contract)


async def test_killed_workers_leave_what_the_oracle_computes(kafka_bootstrap, crunch_id, tmp_path):
    engine = events(crunch_id, 40)
    expected = {topic: decided(engine.log[topic], topic) for topic in ("scores", "snapshots", "checkpoints")}
    waiting = chunks(engine)
    async with board(kafka_bootstrap, crunch_id, tmp_path) as field:
        for topic in ("feeds", "commands"):
            await field.put(topic, engine.log[topic][1:])
        feeding = asyncio.Lock()

        async def feed() -> None:
            async with feeding:
                if waiting:
                    inputs, predictions = waiting.pop(0)
                    await field.put("inputs", inputs)
                    await field.put("predictions", predictions)

        await feed()
        await asyncio.gather(*(live_and_die(field, feed, "asked_contract:GATED", name) for name in LIVES))
        while waiting:
            await feed()
        async with limit():
            for topic, events_of in expected.items():
                while len(now := await field.events(topic)) < len(events_of):
                    await asyncio.sleep(0.2)
                assert now == events_of, first_difference(now, events_of)
        assert await field.claims("scores") >= 3
