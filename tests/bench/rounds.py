"""Latencies: an input arrives and its predictions are durable; a horizon is reached and its score is on the board.

Both over a real broker and real worker processes; the models answer at once, in the predict worker's own process.
Times are taken on one machine's clocks: CLOCK_MONOTONIC is one for all processes; a record's own time stamp is the
wall's, in whole ms.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.synthetic import MINUTE_MS, SUBJECT, SyntheticLog, write
from bench.world import World, percentile
from coordinator.infra.kafka.clients import PARTITION, make_producer, make_reader, stop_reader
from coordinator.infra.kafka.topics import create_topics
from coordinator.streams.events import ClockTicked
from coordinator.streams.log import ids
from coordinator.streams.log.counting import Counter
from coordinator.streams.settings import Settings
from coordinator.streams.topology import topic_name

WARM_UP_ROUNDS = 20
PACE_SECONDS = 0.04
LAST_SECONDS_MAX = 20.0


class Latency(msgspec.Struct, frozen=True):
    """Over `rounds` rounds, in ms."""

    rounds: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def _latency(waits_ms: list[float]) -> Latency:
    return Latency(len(waits_ms), percentile(waits_ms, 0.5), percentile(waits_ms, 0.99), max(waits_ms))


def input_to_predictions(world: World, rounds: int, models: int = 100) -> Latency:
    """From just before the input's record is sent to the acknowledgement of the append that answers its round."""
    settings = world.settings("bench-rounds")
    log = SyntheticLog(settings, models)
    asyncio.run(create_topics(settings.kafka_bootstrap, settings.crunch_id))
    asyncio.run(_send_head(settings, log))
    predict = world.script("predict_worker", settings, str(models))
    predict.wait_for("stage_resumed")
    predict.wait_quiet()
    total = rounds + WARM_UP_ROUNDS
    sent_at = asyncio.run(_send_inputs(settings, log, total, predict.check))
    predict.wait_for("answered", total, LAST_SECONDS_MAX)
    answered_at = {event["input_id"]: event["mono"] for event in predict.events("answered")}
    world.stop(predict)
    waits = [1000 * (answered_at[input_id] - at) for input_id, at in sent_at.items()]
    return _latency(waits[WARM_UP_ROUNDS:])


async def _send_head(settings: Settings, log: SyntheticLog) -> None:
    producer = make_producer(settings.kafka_bootstrap)
    await producer.start()
    await write(producer, settings.crunch_id, [log.head(("feeds", "inputs"))])
    await producer.stop()


async def _send_inputs(
    settings: Settings, log: SyntheticLog, rounds: int, check: Callable[[], None]
) -> dict[str, float]:
    """Feed and input of each minute, at a steady pace; input_id -> when it was handed to the producer."""
    producer = make_producer(settings.kafka_bootstrap)
    await producer.start()
    sent_at: dict[str, float] = {}
    due = time.monotonic()
    for records in log.minutes(0, rounds, ("feeds", "inputs")):
        await write(producer, settings.crunch_id, [{"feeds": records["feeds"]}])
        sent_at[ids.input_id(SUBJECT, log.point(len(sent_at)))] = time.monotonic()
        name = topic_name(settings.crunch_id, "inputs")
        await (await producer.send(name, records["inputs"][0], partition=PARTITION))
        check()
        due += PACE_SECONDS
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    await producer.stop()
    return sent_at


def horizon_to_board(world: World, rounds: int, rounds_per_second: float, models: int = 100) -> Latency:
    """From the time stamp of the `feeds` append that completes a window to the commit of its scores' board.

    The whole node but for the models' processes: feed worker replaying a file, predict, score, the board.
    """
    settings = world.settings("bench-horizon")
    log = SyntheticLog(settings, models)
    total = rounds + WARM_UP_ROUNDS + 2
    settings.data_dir.mkdir(parents=True)
    candles = log.candle_file(settings.data_dir / "candles.csv", total)
    settings = settings.changed(
        feed_candles_file=str(candles),
        replay_speed=rounds_per_second * MINUTE_MS / 1000,
        replay_models_min=models,
    )
    asyncio.run(create_topics(settings.kafka_bootstrap, settings.crunch_id))
    projector = world.script("projector", settings)
    score = world.worker("score", settings)
    predict = world.script("predict_worker", settings, str(models))
    score.wait_for("stage_resumed", 2)
    predict.wait_for("stage_resumed")
    feed = world.worker("feed", settings)
    feed.wait_for("replay_finished", seconds=60 + 3 * total / rounds_per_second)
    deadline = time.monotonic() + LAST_SECONDS_MAX
    while len(folded := projector.events("folded")) < rounds and time.monotonic() < deadline:
        projector.check()
        time.sleep(0.1)
    world.stop(feed, predict, score, projector)
    ticked_at = asyncio.run(_ticks(settings))
    folded_at: dict[int, float] = {}
    for mark in projector.events("folded") or folded:
        folded_at.setdefault(mark["resolvable_at"], mark["wall"])
    waits = [1000 * folded_at[at] - ticked_at[at] for at in sorted(folded_at) if at in ticked_at]
    return _latency(waits[WARM_UP_ROUNDS:])


async def _ticks(settings: Settings) -> dict[int, int]:
    """Tick -> the time stamp of its record in `feeds`, both in ms."""
    consumer = make_reader(settings.kafka_bootstrap)
    await consumer.start()
    try:
        return await _read_ticks(consumer, TopicPartition(topic_name(settings.crunch_id, "feeds"), PARTITION))
    finally:
        await stop_reader(consumer)


async def _read_ticks(consumer: AIOKafkaConsumer, partition: TopicPartition) -> dict[int, int]:
    end = (await consumer.end_offsets([partition]))[partition]
    consumer.assign([partition])
    consumer.seek(partition, 0)
    counter, written_at = Counter("feeds"), dict[int, int]()
    while counter.next_offset < end:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            for record in records:
                decision = counter.read(record.offset, record.value)
                for event in decision.events if decision is not None else ():
                    if isinstance(event, ClockTicked):
                        written_at[event.at] = record.timestamp
    return written_at
