"""Records that no stage should meet: skipped by all alike, made dead letters, or a reason to stop and report it."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from tests.broker.crash import Board, board
from tests.broker.fixed_log import fixed_log, make_commands

from coordinator.infra.kafka.topics import make_topics
from coordinator.streams.events import DeadLettered
from coordinator.streams.log.envelope import decode_append, decode_event
from coordinator.streams.topology import topic_name

pytestmark = pytest.mark.broker

STAGES = ("scores", "snapshots", "checkpoints")
SOURCES = ("inputs", "predictions")
GARBAGE = [b"", b"\xff\xfe", b"{}", b"[]", b'{"e":1}', b'{"e":1,"epoch":9,"seq":1,"part":[2,1]}']


def unknown_kind(log, topic: str) -> bytes:
    """The append after the last one of chunk 0, well formed, with an event that only a newer version knows."""
    last = decode_append(log.chunk(0)[topic][-1])
    assert last is not None
    event = '{"kind":"InputImagined","id":"x","at":1,"v":1,"data":{}}'
    return f'{{"e":1,"epoch":{last.epoch},"seq":{last.seq + 1},"events":[{event}]}}'.encode()


async def test_garbage_in_our_topics_is_skipped_by_every_reader_alike(kafka_bootstrap, crunch_id, tmp_path):
    log, commands = fixed_log(crunch_id, 90), make_commands(crunch_id)
    async with board(kafka_bootstrap, crunch_id, tmp_path) as field:
        await field.put("commands", commands["before"])
        await field.put("inputs", GARBAGE)
        await field.feed(log)
        score, checkpoint = field.start("score"), field.start("checkpoint")
        await score.wait_resumed("scores", "snapshots")
        await checkpoint.wait_resumed("checkpoints")
        for topic in ("inputs", "predictions", "scores", "snapshots", "checkpoints"):
            await field.put(topic, GARBAGE)
        await field.feed(log)
        await field.put("scores", GARBAGE)
        assert [await score.stop(), await checkpoint.stop()] == [0, 0]
        score, checkpoint = field.start("score"), field.start("checkpoint")
        await field.feed_all(log)
        await field.wait_decided(log, STAGES[:2])
        await field.wait_built(log)
        await field.put("commands", commands["first"] + commands["last"])
        await field.wait_decided(log, STAGES[2:])
        await field.assert_equal(log, STAGES)
        assert [await score.stop(), await checkpoint.stop()] == [0, 0]


async def test_an_unknown_kind_stops_the_worker_and_names_the_record(kafka_bootstrap, tmp_path):
    """In the driving topic, which Faust delivers, and in the other one, which a reader tails."""
    await asyncio.gather(*(stops_at_an_unknown_kind(kafka_bootstrap, tmp_path, source) for source in SOURCES))


async def stops_at_an_unknown_kind(bootstrap: str, log_dir: Path, topic: str) -> None:
    log = fixed_log("newer", 60)
    async with board(bootstrap, f"newer-{topic}", log_dir) as field:
        await field.feed(log)
        worker = field.start("score")
        await worker.wait_resumed("scores")
        where = f"{topic} offset {1 + len(log.chunk(0)[topic])}"
        await field.put(topic, [unknown_kind(log, topic)])
        assert await worker.wait_end() == 70
        assert where in worker.output
        assert "InputImagined" in worker.output
        assert "upgrade" in worker.output
        letter = (await dead_letters(field))[-1].data
        assert (letter.origin, letter.position) == ("log", "score")
        assert where in letter.reason
        again = field.start("score")  # the record does not go away by starting again
        assert await again.wait_end() == 70
        assert where in again.output


async def dead_letters(field: Board) -> list[DeadLettered]:
    await field.look("dead-letters")
    return [decode_event(record) for record in field.raw["dead-letters"][1:]]  # behind the birth


async def test_garbage_among_the_commands_becomes_dead_letters_and_the_worker_continues(
    kafka_bootstrap, crunch_id, tmp_path
):
    commands = make_commands(crunch_id)
    bad_fields = b'{"kind":"ConfirmCheckpoint","id":"c9","at":1,"v":1,"data":{"checkpoint_id":5}}'
    answered = b'{"kind":"SubmitAnswers","id":"c8","at":1,"v":1,"data":{"answers":[{"output":{"value":0.31415927}}]}}'
    garbage = [b"\xff\xfe", b'{"value":0.31415927}', answered, b"3", bad_fields]
    async with board(kafka_bootstrap, crunch_id, tmp_path) as field:
        await field.put("commands", garbage[:2] + commands["before"])
        worker = field.start("checkpoint")
        await worker.wait_resumed("checkpoints")
        await field.put("commands", garbage[2:])
        await field.put("commands", commands["first"][:1])
        while len(await field.events("checkpoints")) < 2:  # two refusals: no such checkpoint
            assert worker.process.poll() is None, worker.tail()
            await asyncio.sleep(0.1)
        letters = await dead_letters(field)
        # By its hash only: a record of `commands` may hold answers, which nobody may see before the close.
        assert [letter.data.head for letter in letters] == [
            f"a record of {len(record)} bytes with the SHA-256 {hashlib.sha256(record).hexdigest()}"
            for record in garbage
        ]
        assert "0.314" not in repr(letters) + worker.tail()
        assert [letter.data.position for letter in letters] == ["1", "2", "5", "6", "7"]
        assert all(letter.data.reason and letter.data.origin == "commands" for letter in letters)

        newer = b'{"kind":"ConfirmCheckpoint","id":"c10","at":1,"v":2,"data":{}}'
        await field.put("commands", [newer, *commands["first"][1:2]])
        while len(await field.events("checkpoints")) < 3:
            assert worker.process.poll() is None, worker.tail()
            await asyncio.sleep(0.1)
        assert "then send it again" in (await dead_letters(field))[-1].data.reason


async def test_a_recreated_topic_stops_the_stage_that_needs_its_past(kafka_bootstrap, crunch_id, tmp_path):
    log = fixed_log(crunch_id, 90)
    async with board(kafka_bootstrap, crunch_id, tmp_path) as field:
        await field.feed_all(log)
        worker = field.start("score")
        await field.wait_decided(log, STAGES[:2])
        assert await worker.stop() == 0

        admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
        await admin.start()
        await admin.delete_topics([topic_name(crunch_id, "inputs")])
        await asyncio.sleep(1)
        await admin.close()
        await make_topics(kafka_bootstrap, crunch_id)
        worker = field.start("score")
        assert await worker.wait_end() == 2
        assert f"topic {crunch_id}.inputs is empty: it was created again" in worker.output
