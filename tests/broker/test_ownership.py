"""Owners that fail, stop, come back late or change: one counted decision per number, whoever sends."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter as Tally

import pytest
from aiokafka import AIOKafkaConsumer
from tests.broker.crash import LONG_SESSION, STEADY_SESSION, Plan, board
from tests.broker.fixed_log import TopicLog, fixed_log, fixed_shelf, make_commands, pour
from tests.given import decision
from tests.streams.agents.echo import EchoStage
from tests.streams.build import T0, answers, scored_until
from tests.waiting import LIMIT_SECONDS, in_time, limit

from coordinator.infra.kafka.clients import make_reader
from coordinator.infra.kafka.topics import create_topics
from coordinator.streams.agents.owning import log_io, newest_state
from coordinator.streams.agents.owning.log_io import KafkaLog, KafkaWriter
from coordinator.streams.agents.owning.ownership import LostOwnershipError, OwnedTopic, pump
from coordinator.streams.log import recorded_state
from coordinator.streams.log.counting import Decision
from coordinator.streams.scores.stage import ScoreStage

pytestmark = pytest.mark.broker

STAGES = ("scores", "snapshots", "checkpoints")


def scores_of(chunk: dict[str, list[bytes]]) -> int:
    """The number of the score stage's decisions on a first chunk."""
    scores = TopicLog("scores")
    pour(ScoreStage(fixed_shelf()), scores, chunk)
    return scores.seq


async def test_a_failed_send_costs_a_claim_and_nothing_else(kafka_bootstrap, crunch_id, tmp_path):
    """The score stage's very last send fails, so no later record wakes it. The checkpoint stage's send was delivered."""
    log, commands = fixed_log(crunch_id, 120), make_commands(crunch_id)
    live = len(log.expected["scores"]) - scores_of(log.chunk(0))
    async with board(kafka_bootstrap, crunch_id, tmp_path) as field:
        await field.put("commands", commands["before"])
        await field.feed(log)
        score = field.start("score", Plan("send-dropped", "scores", "live", live), **STEADY_SESSION)
        checkpoint = field.start(
            "checkpoint", Plan("send-delivered", "checkpoints", "live", 1), **STEADY_SESSION
        )
        await score.wait_resumed("scores", "snapshots")
        await checkpoint.wait_resumed("checkpoints")
        await field.feed_all(log)
        lost = await score.wait_event("ownership_lost", stage="score")
        assert not lost["foreign"]
        await field.wait_decided(log, STAGES[:2])
        await checkpoint.wait_event("ownership_lost", stage="checkpoint")
        await field.wait_built(log)
        await field.put("commands", commands["first"] + commands["last"])
        await field.wait_decided(log, STAGES[2:])
        await field.assert_equal(log, STAGES)
        assert [await field.claims(topic) for topic in STAGES] == [2, 1, 2]
        assert [await score.stop(), await checkpoint.stop()] == [0, 0]


async def test_an_owner_paused_in_the_middle_of_a_decision_comes_back_to_a_closed_gate(
    kafka_bootstrap, crunch_id, tmp_path
):
    log = fixed_log(crunch_id, 180)
    async with board(kafka_bootstrap, crunch_id, tmp_path) as field:
        await field.feed(log)
        zombie = field.start(
            "score", Plan("before-send", "scores", "live", 15, signal="SIGSTOP"), **LONG_SESSION
        )
        await zombie.wait_resumed("scores", "snapshots")
        standby = field.start("score", **LONG_SESSION)
        await standby.wait_event("worker_started")
        await field.feed(log)
        await zombie.wait_event("harmed")
        await standby.wait_resumed("scores", "snapshots")
        await field.feed(log)
        while len(await field.events("scores")) < scores_of(log.chunk(0)) + 60:
            await asyncio.sleep(0.1)
        before = await field.late_appends("scores")

        os.kill(zombie.process.pid, signal.SIGCONT)
        # It hears of its end from the group or from the foreign claim, whichever is read first; the gate is closed by both.
        async with limit():
            while await field.late_appends("scores") == 0:
                await asyncio.sleep(0.1)
        await field.feed_all(log)
        await field.wait_decided(log, STAGES[:2])
        await field.assert_equal(log, STAGES[:2])
        assert before == 0
        assert await field.late_appends("scores") >= 1, "the zombie's append did not come"
        assert await field.claims("scores") <= 3, "the group may hand the partition back once"
        assert [await zombie.stop(), await standby.stop()] == [0, 0]


async def test_a_worker_ends_when_told_although_its_group_cannot_settle(kafka_bootstrap, crunch_id, tmp_path):
    """A paused member blocks the group for its session, and with it the leaving of every other member."""
    session = {"SESSION_TIMEOUT_SECONDS": "600", "HEARTBEAT_SECONDS": "1"}
    async with board(kafka_bootstrap, crunch_id, tmp_path) as field:
        still = field.start("score", **session)
        await still.wait_resumed("scores", "snapshots")
        os.kill(still.process.pid, signal.SIGSTOP)
        joins = field.start("score", **session)
        await joins.wait_event("partitions_revoked")
        assert await joins.stop() == 0
        assert joins.events("end_forced")


class TogetherLog(KafkaLog):
    """Both claimants have read the topic before either writes its claim."""

    barrier: asyncio.Barrier

    async def writer(self) -> KafkaWriter:
        record_writer = await super().writer()
        await self.barrier.wait()
        return record_writer


async def test_of_two_claimants_of_one_epoch_exactly_one_owns(kafka_bootstrap, crunch_id):
    await create_topics(kafka_bootstrap, crunch_id)
    io = TogetherLog(kafka_bootstrap, crunch_id)
    io.barrier = asyncio.Barrier(2)
    seen: dict[str, list[Decision]] = {"one": [], "other": []}
    claimants = {name: OwnedTopic(io, "scores", name) for name in seen}
    ends = await asyncio.gather(
        *(claimants[name].claim(seen[name].append) for name in seen), return_exceptions=True
    )
    lost = [end for end in ends if end is not None]
    assert len(lost) == 1
    assert isinstance(lost[0], LostOwnershipError)
    loser, winner = sorted(claimants.values(), key=lambda claimant: claimant.epoch)
    assert (loser.epoch, winner.epoch) == (0, 1)
    await winner.send([], {}, {})
    await winner.flush()

    io.barrier = asyncio.Barrier(1)
    again = OwnedTopic(io, "scores", loser.owner)
    await again.claim(seen[loser.owner].append)
    assert again.epoch == 2
    assert [decision.seq for decision in seen[loser.owner]] == [1], (
        "the next owner knows what the first one decided"
    )
    why = await in_time(winner.lost)
    assert why.foreign
    with pytest.raises(LostOwnershipError):
        await winner.send([], {}, {})
    for claimant in (*claimants.values(), again):
        await claimant.close()
    await io.close()


@pytest.mark.parametrize("rebalances", [6, pytest.param(20, marks=pytest.mark.slow)])
async def test_rebalances_change_owners_and_nothing_else(kafka_bootstrap, crunch_id, tmp_path, rebalances):
    """Six rebalances are three changes of owner: to the other, back, and to the other again. Twenty are more of the
    same.
    """
    log = fixed_log(crunch_id)
    async with board(kafka_bootstrap, crunch_id, tmp_path) as field:
        await field.feed(log)
        members = [field.start("score", COORDINATOR_TEST_FLAP="1", **STEADY_SESSION) for _ in range(2)]
        owner, other = members
        owner.say("join")
        await owner.wait_resumed("scores", "snapshots")
        began, done, changes = time.monotonic(), 0, 0
        joined, left = Tally([owner]), Tally()
        while done < rebalances:
            # The other joins: the owner keeps its claim.
            other.say("join")
            joined[other] += 1
            await other.wait_event("worker_started", joined[other])
            done += 1
            await progress(field, log)
            # The owner leaves: the other claims.
            resumed = len(other.events("stage_resumed", stage="scores"))
            owner.say("leave")
            left[owner] += 1
            await owner.wait_event("worker_stopped", left[owner])
            await other.wait_event("stage_resumed", resumed + 1, stage="scores")
            done += 1
            changes += 1
            owner, other = other, owner
            await progress(field, log)
        print(f"{done} rebalances, {changes} changes of owner in {time.monotonic() - began:.1f} s")
        await field.feed_all(log)
        await field.wait_decided(log, STAGES[:2])
        await field.assert_equal(log, STAGES[:2])
        assert await field.claims("scores") <= changes + 1
        assert await field.claims("snapshots") <= changes + 1
        for member in members:
            assert member.process.poll() is None, member.tail()


async def progress(field, log):
    """The next chunk of the log leads to decisions."""
    before = len(await field.events("scores"))
    assert await field.feed(log) or field.next_chunk == len(log.cuts)
    deadline = time.monotonic() + LIMIT_SECONDS
    while len(await field.events("scores")) == before < len(log.expected["scores"]):
        assert time.monotonic() < deadline, "no progress\n" + "\n".join(
            worker.tail() for worker in field.workers
        )
        await asyncio.sleep(0.05)


async def test_a_round_that_is_larger_than_a_record_is_decided(kafka_bootstrap, crunch_id):
    """13 MB in one decision, more than a record may contain, after a small one and before another."""
    await create_topics(kafka_bootstrap, crunch_id)
    io = KafkaLog(kafka_bootstrap, crunch_id)
    note = {"note": "".join(random.Random(7).choices("abcdefghijklmnopqrstuvwxyz", k=65_000))}
    events_of_round = answers(T0, {f"m{number:04}": note for number in range(200)})
    owned = OwnedTopic(io, "predictions", "tests")
    await owned.claim(lambda _: None)
    for events in (events_of_round[:1], events_of_round, events_of_round[-1:]):
        await owned.send(events, {}, {})
    await owned.flush()
    await owned.close()
    decisions: list[Decision] = []
    again = OwnedTopic(io, "predictions", "the next")
    await again.claim(decisions.append)
    await again.close()
    await io.close()
    assert len(events_of_round) > 10
    assert [len(decision.events) for decision in decisions] == [1, len(events_of_round), 1]


async def test_a_standby_begins_at_the_state_that_its_predecessor_recorded_and_with_its_ready_clients(
    kafka_bootstrap, crunch_id, monkeypatch
):
    monkeypatch.setattr(recorded_state, "EVERY_BYTES_MIN", 3000)
    monkeypatch.setattr(newest_state, "LOOK_RECORDS", 4)
    await create_topics(kafka_bootstrap, crunch_id)
    io, stage = KafkaLog(kafka_bootstrap, crunch_id), EchoStage()
    owned = OwnedTopic(io, "snapshots", "first")
    await owned.claim(stage.remember, stage)
    for number in range(60):
        stage.absorb(decision("scores", number, [scored_until(number)]))
        await pump(stage, owned)
    await owned.flush()
    reader = await io.reader("snapshots", 0)
    async with limit():
        records: list[bytes] = []
        while not any(b'"state":' in record[:100] for record in records):
            records += [record for _, record in await reader.read()]
    await reader.close()
    await owned.close()

    await io.keep_ready()  # twice, as a standby does
    await io.keep_ready()

    def only_the_watch(*_: object, patient: bool = False, **__: object) -> AIOKafkaConsumer:
        assert patient, "a claim opened a reader in place of one that was ready"
        return make_reader(kafka_bootstrap, patient=True)

    monkeypatch.setattr(log_io, "make_reader", only_the_watch)
    monkeypatch.setattr(log_io, "make_producer", lambda _: pytest.fail("a producer was ready"))
    after = EchoStage()
    again = OwnedTopic(io, "snapshots", "the next")
    await again.claim(after.remember, after)
    assert again.read_from > 4
    assert (again.epoch, again.seq) == (2, 60)
    assert after.state == stage.state
    await again.close()
    await io.close()
