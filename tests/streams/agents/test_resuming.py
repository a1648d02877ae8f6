"""The real stages in their shells, over the fixed log, ended at every single send. The log must come out the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from aiokafka.errors import KafkaTimeoutError
from tests.broker.fixed_log import FixedLog, decided, fixed_log, fixed_shelf, make_commands
from tests.memory_io import MemoryLog
from tests.waiting import in_time, until

from coordinator.streams.agents.owning import newest_state
from coordinator.streams.agents.owning.dead_letters import DeadLetters
from coordinator.streams.agents.owning.ownership import LostOwnershipError
from coordinator.streams.agents.owning.tenure import Tenure
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.log import recorded_state
from coordinator.streams.log.envelope import decode_append, decode_event
from coordinator.streams.log.plain_topics import PlainCounter
from coordinator.streams.log.stage import Stage
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.snapshots.stage import SnapshotStage

CRUNCH_ID = "in-memory"


@pytest.fixture(scope="module")
def log() -> FixedLog:
    return fixed_log(CRUNCH_ID, 60)


def new_score() -> Stage:
    return ScoreStage(fixed_shelf())


def new_aggregate() -> Stage:
    return SnapshotStage(fixed_shelf())


def new_checkpoint() -> Stage:
    return CheckpointStage(CRUNCH_ID, fixed_shelf(), settle_rehearsals=True)


async def resume(io: MemoryLog, new_stage: Callable[[], Stage]) -> None:
    """Owner after owner, until one has caught up and all its sends are in the log."""
    while True:
        tenure = Tenure(io, new_stage(), "me")
        try:
            await tenure.start()
            await tenure.owned.flush()
        except LostOwnershipError:
            continue
        else:
            return
        finally:
            await tenure.close()


def fails_at(number: int) -> Callable[[str, int], Exception | None]:
    return lambda _topic, sent: KafkaTimeoutError("away") if sent == number else None


async def whole(log: FixedLog) -> MemoryLog:
    """The records of the undisturbed run."""
    io = MemoryLog(batch_max=50)
    io.records["inputs"], io.records["predictions"] = log.records["inputs"], log.records["predictions"]
    await resume(io, new_score)
    await resume(io, new_aggregate)
    for topic in ("scores", "snapshots"):
        assert decided(io.records[topic], topic) == log.expected[topic]
    return io


async def test_a_score_stage_that_catches_up_reads_what_it_waits_for_and_holds_no_more(log):
    io = MemoryLog(batch_max=7)
    io.records["inputs"], io.records["predictions"] = log.records["inputs"], log.records["predictions"]
    stage, held = new_score(), []
    absorb = stage.absorb

    def watched(decision):
        absorb(decision)
        held.append((len({told.position[0] for told in stage._waiting}), len(stage.state.rounds)))

    stage.absorb = watched
    tenure = Tenure(io, stage, "me")
    await tenure.start()
    await tenure.close()
    assert decided(io.records["scores"], "scores") == log.expected["scores"]
    most = [max(counts) for counts in zip(*held, strict=True)]
    assert most[0] <= 2 * 7, most  # records of waiting inputs, of some sixty
    assert most[1] <= 3 * 7, most


@pytest.fixture
def states_often(monkeypatch):
    """States are recorded every few decisions, and looked for in topics of any length."""
    monkeypatch.setattr(recorded_state, "EVERY_BYTES_MIN", 3000)
    monkeypatch.setattr(recorded_state, "EVERY_STATES", 1)
    monkeypatch.setattr(newest_state, "LOOK_RECORDS", 4)


def places_of_states(io: MemoryLog, topic: str) -> list[int]:
    return [place for place, record in enumerate(io.records[topic]) if b'"state":' in record[:100]]


@pytest.mark.parametrize("topic", ["scores", "snapshots"])
@pytest.mark.usefixtures("states_often")
async def test_a_new_owner_reads_its_topic_from_the_latest_state(log, topic):
    io, new_stage = await whole(log), {"scores": new_score, "snapshots": new_aggregate}[topic]
    io.records[topic].clear()
    first = Tenure(io, new_stage(), "first")
    await first.start()
    await first.owned.flush()
    await until(lambda: bool(places_of_states(io, topic)))
    await first.close()
    assert decided(io.records[topic], topic) == log.expected[topic]
    place = places_of_states(io, topic)[-1]
    state = decode_append(io.records[topic][place]).state

    io.opened.clear()
    second = Tenure(io, new_stage(), "second")
    await second.start()
    read_from = [offset for name, offset in io.opened if name == topic]
    assert state.after.offset in read_from
    for part in ("own", "upto", "need"):
        assert getattr(second.stage.state, part) == getattr(first.stage.state, part)
    await second.close()
    assert decided(io.records[topic], topic) == log.expected[topic]


@pytest.mark.usefixtures("states_often")
async def test_after_an_upgrade_with_another_state_format_the_topic_is_read_from_its_first_record_once(
    log, monkeypatch
):
    io = await whole(log)
    io.records["scores"].clear()
    first = Tenure(io, new_score(), "first")
    await first.start()
    await first.owned.flush()
    await until(lambda: bool(places_of_states(io, "scores")))
    await first.close()
    monkeypatch.setattr(ScoreStage, "form", 2)
    io.opened.clear()
    second = Tenure(io, new_score(), "second")
    await second.start()
    assert second.owned.read_from == 0
    assert (
        len([opening for opening in io.opened if opening[0] == "scores"]) < 6
    )  # it does not go back to the first record
    assert second.stage.state.own == first.stage.state.own
    await second.close()
    assert decided(io.records["scores"], "scores") == log.expected["scores"]


@pytest.mark.usefixtures("states_often")
async def test_owners_that_end_at_any_send_record_states_that_follow_from_their_events(log):
    checked = 0
    for number in range(2, len(log.expected["scores"]) + 2, 7):
        io = MemoryLog(batch_max=7)
        io.on_send = fails_at(number)
        io.records["inputs"], io.records["predictions"] = log.records["inputs"], log.records["predictions"]
        for _ in range(3):
            tenure = Tenure(io, new_score(), "me")
            with contextlib.suppress(LostOwnershipError):
                await tenure.start()
                await asyncio.sleep(0.1)  # the watch has read back what was sent
            await tenure.close()
        assert decided(io.records["scores"], "scores") == log.expected["scores"], f"send {number}"
        check = recorded_state.StateCheck(new_score())
        for offset, record in enumerate(io.records["scores"]):
            check.read(offset, record)
        checked += check.checked
    assert checked > 3


@pytest.mark.parametrize("first", ["inputs", "predictions"])
async def test_a_score_stage_that_ends_at_any_send_leaves_the_same_log(log, first):
    for number in range(1, len(log.expected["scores"]) + 2, 3):
        io = MemoryLog(batch_max=7)
        io.on_send = fails_at(number)
        io.records[first] = list(log.records[first])
        await resume(io, new_score)
        for topic in ("inputs", "predictions"):
            io.records[topic] = list(log.records[topic])
        await resume(io, new_score)
        assert decided(io.records["scores"], "scores") == log.expected["scores"], f"send {number}"


async def test_an_aggregate_stage_that_ends_at_any_send_leaves_the_same_log(log):
    done = await whole(log)
    for number in range(1, len(log.expected["snapshots"]) + 2):
        io = MemoryLog(batch_max=7)
        io.on_send = fails_at(number)
        for part in (3, 2, 1):
            io.records["scores"] = done.records["scores"][: len(done.records["scores"]) // part]
            await resume(io, new_aggregate)
        assert decided(io.records["snapshots"], "snapshots") == log.expected["snapshots"], f"send {number}"


async def test_an_old_withhold_command_affects_the_snapshots_that_a_new_owner_reads():
    """Two topics drive the stage. Both are folded up to the decided position before anything new is."""
    log = fixed_log(CRUNCH_ID, 120)
    done, waves = await whole(log), make_commands(CRUNCH_ID)
    for number in range(1, 12):
        io = MemoryLog(batch_max=7)
        io.on_send = fails_at(number)
        io.records["commands"] = list(waves["before"])
        for part in (6, 2, 1):
            io.records["snapshots"] = done.records["snapshots"][: len(done.records["snapshots"]) // part]
            await resume(io, new_checkpoint)
        io.records["commands"] += waves["first"] + waves["last"]
        await resume(io, new_checkpoint)
        decisions = decided(io.records["checkpoints"], "checkpoints")
        assert sorted(decisions) == sorted(log.expected["checkpoints"]), f"send {number}"


async def test_a_withhold_command_sent_while_no_owner_ran_affects_the_next_checkpoint(log):
    io = await whole(fixed_log(CRUNCH_ID, 120))
    io.records["commands"] = list(make_commands(CRUNCH_ID)["before"])
    await resume(io, new_checkpoint)
    kinds = [
        type(decode_event(decision[0])).__name__
        for decision in decided(io.records["checkpoints"], "checkpoints")
    ]
    assert kinds.count("CheckpointWithheld") == 1


async def test_a_command_after_garbage_is_decided_after_the_dead_letter_is_durable(log):
    io = await whole(log)
    io.records["commands"] = [b'{"a":1}', *make_commands(CRUNCH_ID)["before"]]
    held = True
    io.on_send = lambda topic, _: KafkaTimeoutError("away") if held and topic == "dead-letters" else None
    letters = DeadLetters(io)
    sending = asyncio.create_task(letters.run())
    tenure = Tenure(io, new_checkpoint(), "me", letters.from_topic)
    starting = asyncio.create_task(tenure.start())
    await until(lambda: io.sends["dead-letters"] == 1)
    assert not starting.done()
    assert not decided(io.records["checkpoints"], "checkpoints")
    held = False
    await in_time(starting)
    assert len(io.records["dead-letters"]) == 1
    assert decided(io.records["checkpoints"], "checkpoints")
    await tenure.close()
    sending.cancel()


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\xff",
        b"null",
        b"[1]",
        b'{"kind":"ConfirmCheckpoint"}',
        b'{"kind":"ConfirmCheckpoint","id":"c","at":1,"v":1,"data":{}}',
        b'{"kind":"ConfirmCheckpoint","id":"c","at":1,"v":"1","data":{}}',
    ],
)
def test_a_record_that_is_no_command_of_ours_is_garbage_with_a_reason(record):
    counter = PlainCounter("commands")
    assert counter.read(0, record) is None
    assert counter.garbage
    assert counter.next_offset == 1


@pytest.mark.parametrize(
    "record",
    [
        b'{"kind":"ConfirmCheckpoint","id":"c","at":1,"v":2,"data":{}}',
        b'{"kind":"BlessCheckpoint","id":"c","at":1,"v":1,"data":{}}',
    ],
)
def test_a_command_of_a_newer_version_is_skipped_with_what_to_do(record):
    counter = PlainCounter("commands")
    assert counter.read(3, record) is None
    assert "upgrade this reader, then send it again" in counter.garbage
    assert counter.next_offset == 4
