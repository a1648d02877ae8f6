"""Claiming a topic, sending in order, and noticing the end of an ownership; without a broker."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import KafkaTimeoutError
from tests.memory_io import MemoryLog
from tests.streams.agents.echo import EchoStage, claim_of, claims, log_of_ten, score_until, untils_in
from tests.waiting import in_time, until

from coordinator.streams.agents.owning.ownership import LostOwnershipError, OwnedTopic
from coordinator.streams.agents.owning.tenure import Tenure
from coordinator.streams.log.errors import TruncatedTopicError, UnknownEventError


async def claimed(io: MemoryLog, name: str = "me") -> OwnedTopic:
    owned = OwnedTopic(io, "snapshots", name)
    await owned.claim(lambda _decision: None)
    return owned


async def test_a_foreign_claim_ends_an_ownership_and_later_sends_do_not_count():
    io = MemoryLog()
    first = await claimed(io)
    await first.send([], {}, {})
    second = await claimed(io, "you")
    why = await in_time(first.lost)
    assert why.foreign
    with pytest.raises(LostOwnershipError):
        await first.send([], {}, {})
    assert (second.epoch, second.seq) == (2, 1)
    await second.send([], {}, {})
    assert claims(io) == 2


async def test_a_claim_that_does_not_count_does_not_end_an_ownership():
    io = MemoryLog()
    owned = await claimed(io)
    io.records["snapshots"] += [claim_of(1), claim_of(3), b"garbage"]
    await asyncio.sleep(0.1)
    assert not owned.lost.done()


async def test_a_second_claim_of_an_epoch_owns_nothing():
    io = MemoryLog()

    def foreign_first(topic: str, number: int) -> None:
        if number == 1:
            io.records[topic].append(claim_of(1))

    io.on_send = foreign_first
    with pytest.raises(LostOwnershipError, match="came second") as caught:
        await claimed(io)
    assert not caught.value.foreign, "the group says that it is ours: try again after a pause"


async def test_after_a_failed_send_nothing_more_is_sent():
    io = MemoryLog()
    owned = await claimed(io)
    io.on_send = lambda _topic, number: KafkaTimeoutError("away") if number == 3 else None
    await owned.send([], {}, {})
    await owned.send([], {}, {})
    with pytest.raises(LostOwnershipError):
        await owned.flush()
    with pytest.raises(LostOwnershipError):
        await owned.send([], {}, {})
    assert io.sends["snapshots"] == 3
    assert not owned.lost.result().foreign


async def test_an_owner_whose_topic_is_recreated_sends_nothing_more():
    """The broker accepts sends also to a new topic of the same name. The offset shows it."""
    io = MemoryLog()
    owned = await claimed(io)
    for _ in range(5):
        await owned.send([], {}, {})
    await owned.flush()
    io.records["snapshots"] = [b"another birth"]
    await owned.send([], {}, {})
    why = await in_time(owned.lost)
    assert str(why) == "snapshots was created again: a record has offset 1, after one at 5"
    with pytest.raises(LostOwnershipError):
        await owned.send([], {}, {})
    assert len(io.records["snapshots"]) == 2
    await owned.close()


async def test_a_resumed_stage_decides_only_what_was_not_decided():
    io = log_of_ten()
    io.on_send = lambda _topic, number: KafkaTimeoutError("away") if number == 6 else None
    first = Tenure(io, EchoStage(), "me")
    with pytest.raises(LostOwnershipError):
        await first.start()
    assert untils_in(io) == [1, 2, 3, 4]
    await first.close()
    io.on_send = lambda _topic, _number: None
    second = Tenure(io, EchoStage(), "me")
    await second.start()
    assert untils_in(io) == list(range(1, 11))
    await second.close()
    assert all(reader.closed for reader in io.readers)


async def test_a_stage_whose_need_is_beyond_the_end_of_its_source_reports_it():
    io = log_of_ten()
    tenure = Tenure(io, EchoStage(), "me")
    await tenure.start()
    await tenure.close()
    del io.records["scores"][5:]
    with pytest.raises(TruncatedTopicError, match="scores"):
        await Tenure(io, EchoStage(), "me").start()


async def test_a_newer_envelope_in_the_own_topic_stops_the_claim():
    io = log_of_ten()
    io.records["snapshots"].append(b'{"e":2,"epoch":1,"seq":1,"new":true}')
    with pytest.raises(UnknownEventError, match="snapshots offset 0"):
        await Tenure(io, EchoStage(), "me").start()


async def test_what_a_former_owner_appends_to_an_owned_driver_until_the_claim_is_decided_before_the_gate_opens():
    """The source is opened beside the claim, so its first end may be before that append. A replay would then write the
    next point while a round of the last one waits.
    """
    io = log_of_ten()
    second = OwnedTopic(io, "scores", "me")

    def former_owner_last(topic: str, _number: int) -> None:
        if topic == "scores":
            io.records[topic].append(score_until(11))

    io.on_send = former_owner_last
    tenure, memory = Tenure(io, EchoStage(), "me"), EchoStage()
    memory.remember = lambda _decision: None
    tenure._also.append((second, memory))
    await tenure.start()
    assert untils_in(io) == list(range(1, 12))
    await tenure.close()


async def test_losing_the_second_topic_ends_the_ownership_of_the_first():
    io = log_of_ten()
    tenure = Tenure(io, EchoStage(), "me")
    tenure._also.append((OwnedTopic(io, "models", "me"), EchoStage()))
    await tenure.start()
    io.records["models"].append(claim_of(2))
    await until(tenure.owned.lost.done)
    assert tenure.owned.lost.result().foreign
    await tenure.close()


async def test_a_replaced_owner_does_not_claim_the_second_topic():
    io = log_of_ten()
    tenure = Tenure(io, EchoStage(), "me")
    await tenure.start()
    io.records["snapshots"].append(claim_of(2))
    await until(tenure.owned.lost.done)
    tenure._also.append((OwnedTopic(io, "models", "me"), EchoStage()))
    with pytest.raises(LostOwnershipError):
        await tenure.claim_others()
    assert io.sends["models"] == 0
    await tenure.close()


async def test_a_second_topic_is_read_while_the_first_is_claimed_and_claimed_after_it():
    """Far from the broker each claim costs a dozen round trips: those before the second need not wait for the first."""
    io = log_of_ten()
    io.records["models"].append(claim_of(1))
    tenure, second, release = Tenure(io, EchoStage(), "me"), OwnedTopic(io, "models", "me"), asyncio.Event()
    tenure._also.append((second, EchoStage()))
    plain = tenure.owned.claim

    async def held(*args: object) -> None:
        await release.wait()
        await plain(*args)

    tenure.owned.claim = held
    order: list[str] = []
    io.on_send = lambda topic, _number: order.append(topic)
    starting = asyncio.create_task(tenure.start())
    await until(lambda: second._counter.epoch == 1)
    assert (io.sends["snapshots"], io.sends["models"]) == (0, 0)
    io.records["models"].append(claim_of(2))  # it comes between the reading and our claim
    release.set()
    await starting
    assert order[:2] == ["snapshots", "models"]
    assert (second.epoch, io.sends["models"]) == (3, 1)
    await tenure.close()
