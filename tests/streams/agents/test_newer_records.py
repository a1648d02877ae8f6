"""A record that only a newer version can read stops every worker, which names its topic, offset and version."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.broker.fixed_log import FixedLog, fixed_log, fixed_shelf
from tests.fakes import FakeGateway
from tests.memory_io import MemoryLog
from tests.waiting import limit

from coordinator.streams.agents.owning.dead_letters import DeadLetters
from coordinator.streams.agents.owning.tenure import Tenure
from coordinator.streams.agents.predict.models_asked import ModelsAsked
from coordinator.streams.agents.predict.worker import PredictTenure
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.envelope import decode_append, decode_event
from coordinator.streams.log.errors import TruncatedTopicError, UnknownEventError
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.snapshots.stage import SnapshotStage

CRUNCH_ID = "in-memory"


@pytest.fixture(scope="module")
def log() -> FixedLog:
    return fixed_log(CRUNCH_ID, 60)


def plain(stage: Callable[[], object]) -> Callable[[MemoryLog], Tenure]:
    return lambda io: Tenure(io, stage(), "me")  # type: ignore[arg-type]


def predict(io: MemoryLog) -> Tenure:
    return PredictTenure(io, "me", ModelsAsked(FakeGateway()), fixed_shelf())


TENURES: dict[str, Callable[[MemoryLog], Tenure]] = {
    "inputs": plain(lambda: InputStage(fixed_shelf())),
    "predictions": predict,
    "scores": plain(lambda: ScoreStage(fixed_shelf())),
    "snapshots": plain(lambda: SnapshotStage(fixed_shelf())),
    "checkpoints": plain(lambda: CheckpointStage(CRUNCH_ID, fixed_shelf(), settle_rehearsals=True)),
}
READS = [
    *[("inputs", "feeds"), ("inputs", "inputs"), ("predictions", "inputs"), ("predictions", "predictions")],
    *[("predictions", "models"), ("scores", "inputs"), ("scores", "predictions"), ("scores", "scores")],
    *[("snapshots", "scores"), ("snapshots", "snapshots")],
    *[("checkpoints", "snapshots"), ("checkpoints", "checkpoints")],
]
"""(a stage's topic, a topic that it reads)"""
OWN = [*[(stage, stage) for stage in TENURES], ("predictions", "models")]
NEWER = {
    "envelope version 99": b'{"e":99}',
    "the unknown kind Imagined": b'{"kind":"Imagined","id":"x","at":1,"v":1,"data":{}}',
    "v7, newer than v1": b'{"kind":"%s","id":"x","at":1,"v":7,"data":{}}',
}
KIND_OF = {
    "feeds": b"ClockTicked",
    "inputs": b"InputReceived",
    "predictions": b"RoundOpened",
    "models": b"ModelSeen",
    "scores": b"ScoredUntil",
    "snapshots": b"CrunchConfigured",
    "checkpoints": b"CheckpointOpened",
}


def newer_record(log: FixedLog, topic: str, what: str) -> bytes:
    """The next append of the topic, in a newer version."""
    event = NEWER[what]
    if what.startswith("envelope"):
        return event
    last = decode_append((log.undisturbed.get(topic) or [b""])[-1])
    epoch, seq = (last.epoch, last.seq) if last is not None else (0, 0)
    if b"%s" in event:
        event %= KIND_OF[topic]
    return b'{"e":1,"epoch":%d,"seq":%d,"events":[%s]}' % (epoch, seq + 1, event)


async def start_and_tail(tenure: Tenure) -> None:
    """Catches up, then reads on. Raises what ends the tenure."""
    async with limit():
        await tenure.start()
        while (bug := tenure.tails_failed()) is None:
            await asyncio.sleep(0)
    raise bug


@pytest.mark.parametrize(
    ("stage", "topic", "what"),
    [
        (stage, topic, what)
        for stage, topic in READS
        for what in NEWER
        if "unknown" not in what
        or (stage, topic) not in OWN  # of its own past a stage decodes only the recorded state
    ],
)
async def test_every_reader_stops_and_names_it(log, stage, topic, what):
    io = MemoryLog(batch_max=50)
    for name, records in log.undisturbed.items():
        io.records[name] = list(records)
    io.records["commands"] = [b"garbage"] * len(
        log.undisturbed["snapshots"]
    )  # as those of the fixed log were
    io.records[topic].append(newer_record(log, topic, what))
    offset = len(io.records[topic]) - 1
    tenure = TENURES[stage](io)
    try:
        with pytest.raises(
            UnknownEventError, match=rf"^{topic} offset {offset}\b.*{what}.*upgrade this reader"
        ):
            await start_and_tail(tenure)
    finally:
        await tenure.close()


async def test_its_worker_reports_it_in_a_dead_letter_under_its_name():
    io = MemoryLog()
    letters = DeadLetters(io, "score")
    sending = asyncio.create_task(letters.run())
    await letters.say_log_fault(UnknownEventError("inputs offset 7: too new"))
    await letters.say_log_fault(ValueError("a bug of ours"))
    await letters.say_log_fault(TruncatedTopicError("topic scores was cut: nothing is written beside it"))
    sending.cancel()
    (letter,) = [decode_event(letter_).data for letter_ in io.records["dead-letters"]]
    assert (letter.origin, letter.position, letter.reason) == ("log", "score", "inputs offset 7: too new")
