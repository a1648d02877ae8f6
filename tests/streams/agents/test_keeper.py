"""The gate: when it opens, which records pass, and what closes it. With a fake Faust and a log in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiokafka.errors import KafkaTimeoutError
from tests.memory_io import MemoryLog, MemoryReader
from tests.streams.agents.echo import EchoStage, claim_of, claims, log_of_ten, score_until, untils_in
from tests.waiting import in_time, until

from coordinator.infra.kafka.groups import SettledGroup, any_holds
from coordinator.streams.agents.owning import keeper as keeper_module
from coordinator.streams.agents.owning.keeper import Keeper, StalledError
from coordinator.streams.agents.owning.tenure import Tenure
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import UnknownEventError

SILENT_SECONDS = 0.3


@pytest.fixture
def io() -> MemoryLog:
    return log_of_ten()


@pytest.fixture
def new_tenure(io: MemoryLog) -> Callable[[], Tenure]:
    return lambda: Tenure(io, EchoStage(), "me")


@pytest.fixture
async def keeper(io, new_tenure) -> AsyncIterator[Keeper]:
    """A running keeper. Its end is checked after the test."""
    keeper_ = Keeper("aggregate", new_tenure, SILENT_SECONDS)
    running = asyncio.create_task(keeper_.run())
    yield keeper_
    if not running.done():
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    else:
        running.result()


async def deliver(keeper: Keeper, io: MemoryLog, offset: int) -> None:
    """What Faust's agent does with a record, with a time limit."""
    await in_time(keeper.deliver([(offset, io.records["scores"][offset])]))


async def test_the_gate_opens_after_catching_up_and_not_before(io, keeper):
    delivery = asyncio.create_task(keeper.deliver([(1, io.records["scores"][1])]))
    await asyncio.sleep(0.05)
    assert not delivery.done()
    assert not untils_in(io)
    keeper.assigned(ours=True)
    await delivery
    assert untils_in(io) == list(range(1, 11))
    assert claims(io) == 1


async def test_a_redelivered_record_changes_nothing(io, keeper):
    keeper.assigned(ours=True)
    for _ in range(2):
        for offset in range(len(io.records["scores"])):
            await deliver(keeper, io, offset)
    io.records["scores"].append(score_until(11))
    for _ in range(3):
        await deliver(keeper, io, 11)
    assert untils_in(io) == list(range(1, 12))


async def test_a_fetch_is_delivered_completely_and_a_new_owner_skips_what_is_decided(io, keeper, monkeypatch):
    keeper.assigned(ours=True)
    await until(lambda: keeper.is_open)
    io.records["scores"] += [score_until(seq) for seq in range(11, 21)]
    original, failed = Tenure.process, []

    async def failing_once(tenure: Tenure, decision: Decision) -> None:
        if decision.seq == 15 and not failed:
            failed.append(True)
            raise KafkaTimeoutError("away")
        await original(tenure, decision)

    monkeypatch.setattr(Tenure, "process", failing_once)
    fetched = list(enumerate(io.records["scores"]))[5:]
    await in_time(keeper.deliver(fetched))
    assert untils_in(io) == list(range(1, 21))
    assert claims(io) == 2


async def test_a_gap_in_the_delivery_is_read_from_the_log(io, keeper):
    keeper.assigned(ours=True)
    await until(lambda: keeper.is_open)
    io.records["scores"] += [score_until(seq) for seq in range(11, 15)]
    await deliver(keeper, io, 14)
    assert untils_in(io) == list(range(1, 15))


async def test_garbage_is_skipped_and_an_unknown_kind_is_not(io, keeper):
    keeper.assigned(ours=True)
    await until(lambda: keeper.is_open)
    io.records["scores"] += [
        b"\xff",
        score_until(11),
        b'{"e":1,"epoch":1,"seq":12,"events":[{"kind":"New","id":"n","at":1,"v":1}]}',
    ]
    await deliver(keeper, io, 11)
    await deliver(keeper, io, 12)
    assert untils_in(io) == list(range(1, 12))
    with pytest.raises(UnknownEventError, match=r"scores offset 13.*New"):
        await deliver(keeper, io, 13)


async def test_a_partition_kept_through_rebalances_keeps_its_claim(io, keeper):
    for _ in range(20):
        keeper.assigned(ours=True)
        await asyncio.sleep(0.005)
    await until(lambda: keeper.is_open)
    assert claims(io) == 1


async def test_a_partition_that_is_revoked_and_assigned_is_claimed_each_time(io, keeper):
    for number in range(1, 6):
        keeper.assigned(ours=True)
        await until(lambda: keeper.is_open)
        keeper.assigned(ours=False)
        await until(lambda: not keeper.is_open)
        io.records["scores"].append(score_until(10 + number))
    assert claims(io) == 5
    assert untils_in(io) == list(range(1, 15)), "what came while the gate was shut waits for the next owner"


async def test_a_partition_revoked_while_catching_up_opens_no_gate(io, keeper, monkeypatch):
    async def never(_tenure: Tenure, _decision: Decision) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Tenure, "process", never)
    keeper.assigned(ours=True)
    await until(lambda: claims(io) == 1)
    keeper.assigned(ours=False)
    await asyncio.sleep(0.05)
    assert not keeper.is_open
    monkeypatch.undo()
    keeper.assigned(ours=True)
    await until(lambda: keeper.is_open)
    assert untils_in(io) == list(range(1, 11))


async def test_a_foreign_claim_closes_the_gate_until_the_group_decides(io, keeper, monkeypatch):
    monkeypatch.setattr(keeper, "_silent_seconds_max", 1000)
    keeper.assigned(ours=True)
    await until(lambda: keeper.is_open)
    io.records["snapshots"].append(claim_of(2))
    await until(lambda: not keeper.is_open)
    await asyncio.sleep(0.05)
    assert claims(io) == 2
    keeper.assigned(ours=True)
    await until(lambda: keeper.is_open)
    assert claims(io) == 3


async def test_a_decision_of_the_group_while_the_old_tenure_is_closing_is_not_lost(io, keeper, monkeypatch):
    original = Tenure.close

    async def slow(tenure: Tenure) -> None:
        keeper.assigned(ours=True)
        await original(tenure)

    keeper.assigned(ours=True)
    await until(lambda: keeper.is_open)
    monkeypatch.setattr(Tenure, "close", slow)
    monkeypatch.setattr(keeper, "_silent_seconds_max", 1000)
    io.records["snapshots"].append(claim_of(2))
    await until(lambda: claims(io) == 3)
    monkeypatch.undo()


async def test_a_claimer_that_vanished_is_replaced_if_the_group_stays_silent(io, keeper):
    keeper.assigned(ours=True)
    await until(lambda: keeper.is_open)
    io.records["snapshots"].append(claim_of(2))
    await until(lambda: not keeper.is_open)
    await until(lambda: keeper.is_open)
    assert claims(io) == 3


async def test_a_failed_send_drops_the_state_pauses_and_claims_again(io, keeper, monkeypatch):
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def no_pause(seconds: float) -> None:
        if seconds >= 1:
            pauses.append(seconds)
        await sleep(min(seconds, 0.01))

    monkeypatch.setattr(keeper_module.asyncio, "sleep", no_pause)
    io.on_send = lambda topic, number: KafkaTimeoutError("away") if number in (4, 8, 12) else None
    keeper.assigned(ours=True)
    await until(lambda: untils_in(io) == list(range(1, 11)))
    assert pauses == [1.0, 2.0, 4.0]
    assert claims(io) == 3, "the third failure was a claim's own"
    assert len(io.records["snapshots"]) > 3 + 10, (
        "what was sent after a failed send stands there and does not count"
    )


async def test_a_record_being_handled_by_an_owner_that_lost_goes_to_the_next(io, keeper, monkeypatch):
    """Without a second delivery, because Faust delivers each record once."""
    keeper.assigned(ours=True)
    await until(lambda: keeper.is_open)
    entered, original = asyncio.Event(), Tenure.process
    tenures: list[Tenure] = []

    async def held(tenure: Tenure, decision: Decision) -> None:
        tenures.append(tenure)
        if len(tenures) == 1:
            entered.set()
            await asyncio.Event().wait()
        assert tenure is not tenures[0] or len(tenures) == 1, "two tenures at work"
        await original(tenure, decision)

    monkeypatch.setattr(Tenure, "process", held)
    io.records["scores"].append(score_until(11))
    delivery = asyncio.create_task(keeper.deliver([(11, io.records["scores"][11])]))
    await entered.wait()
    keeper.assigned(ours=False)
    await until(lambda: not keeper.is_open)
    keeper.assigned(ours=True)
    await in_time(delivery)
    assert untils_in(io) == list(range(1, 12))
    assert claims(io) == 2


async def test_an_outside_failure_during_a_delivery_costs_the_claim_and_not_the_process(
    io, keeper, monkeypatch
):
    keeper.assigned(ours=True)
    await until(lambda: keeper.is_open)
    original, failed = Tenure.process, []

    async def failing(tenure: Tenure, decision: Decision) -> None:
        if not failed:
            failed.append(True)
            raise KafkaTimeoutError("away")
        await original(tenure, decision)

    monkeypatch.setattr(Tenure, "process", failing)
    io.records["scores"].append(score_until(11))
    await deliver(keeper, io, 11)
    assert untils_in(io) == list(range(1, 12))


async def test_a_bug_is_raised_and_the_record_is_not_acknowledged(io, keeper, monkeypatch):
    keeper.assigned(ours=True)
    await until(lambda: keeper.is_open)

    async def buggy(_tenure: Tenure, _decision: Decision) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Tenure, "process", buggy)
    io.records["scores"].append(score_until(11))
    with pytest.raises(ZeroDivisionError):
        await deliver(keeper, io, 11)


async def test_records_that_nobody_delivers_end_the_process(io, new_tenure, monkeypatch):
    monkeypatch.setattr(keeper_module, "LOOK_SECONDS", 0.05)
    stalled = Keeper("aggregate", new_tenure, SILENT_SECONDS, stalled_seconds_max=0.2)
    running = asyncio.create_task(stalled.run())
    stalled.assigned(ours=True)
    await until(lambda: stalled.is_open)
    await asyncio.sleep(0.5)
    assert not running.done(), "an idle stage is not a stalled one"
    io.records["scores"].append(score_until(11))
    with pytest.raises(StalledError, match=r"aggregate.*offset 11"):
        await in_time(running)


@pytest.mark.parametrize("answers", [[True, True, True], [True, False, True, True, True]])
async def test_a_partition_that_the_settled_group_assigned_to_nobody_ends_the_process(io, answers):
    """Seen when a worker joined while the broker was stopped: the stage stopped for good, a member without work."""
    coming = iter(answers)

    async def ask_group() -> SettledGroup:
        return SettledGroup(2, holds=not next(coming))

    keeper = Keeper("aggregate", lambda: None, SILENT_SECONDS, ask_group=ask_group, look_seconds=0.01)
    with pytest.raises(StalledError, match="assigned the partition to none"):
        await keeper.run()
    assert list(coming) == []


async def test_a_standby_takes_the_stage_while_it_still_waits_for_what_it_asked_its_group(io, new_tenure):
    """Far from the broker the answer takes six round trips."""
    asked = asyncio.Event()

    async def no_answer() -> SettledGroup | None:
        asked.set()
        return await asyncio.Future()

    keeper = Keeper("aggregate", new_tenure, SILENT_SECONDS, ask_group=no_answer, look_seconds=0.01)
    running = asyncio.create_task(keeper.run())
    await in_time(asked.wait())
    keeper.assigned(ours=True)
    await until(lambda: keeper.is_open)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_standby_that_ends_waits_for_the_end_of_what_it_asked_its_group():
    asked, closed = asyncio.Event(), asyncio.Event()

    async def no_answer() -> SettledGroup | None:
        asked.set()
        try:
            return await asyncio.Future()
        finally:
            await asyncio.sleep(0.01)  # as a client closes its connections
            closed.set()

    keeper = Keeper("aggregate", lambda: None, SILENT_SECONDS, ask_group=no_answer, look_seconds=0.01)
    running = asyncio.create_task(keeper.run())
    await in_time(asked.wait())
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert closed.is_set()


async def test_a_standby_waits_without_limit_and_follows_the_groups_next_decision(io, new_tenure):
    looks = []

    async def held_by_another() -> SettledGroup:
        looks.append(1)
        return SettledGroup(2, holds=True)

    keeper = Keeper("aggregate", new_tenure, SILENT_SECONDS, ask_group=held_by_another, look_seconds=0.01)
    running = asyncio.create_task(keeper.run())
    await until(lambda: len(looks) > 6)
    keeper.assigned(ours=True)
    await until(lambda: keeper.is_open)
    running.cancel()


@pytest.mark.parametrize(("members", "ends"), [(2, True), (1, False), (None, False)])
async def test_a_process_that_cannot_own_its_stage_ends_if_its_group_has_another_member(io, members, ends):
    """The connection to the broker that leads the topic is cut, and the group's coordinator still hears this process."""

    class Unreachable(MemoryLog):
        async def reader(self, *_: object, **__: object) -> MemoryReader:
            raise KafkaTimeoutError("no answer")

    async def ask_group() -> SettledGroup | None:
        return None if members is None else SettledGroup(members, holds=True)

    keeper = Keeper(
        "aggregate", lambda: Tenure(Unreachable(), EchoStage(), "me"), SILENT_SECONDS, ask_group=ask_group
    )
    running = asyncio.create_task(keeper.run())
    keeper.assigned(ours=True)
    if ends:
        with pytest.raises(StalledError, match=r"aggregate.*another member: .*no answer"):
            await in_time(running)
    else:
        await asyncio.sleep(4 * SILENT_SECONDS + 1)
        assert not running.done()
        running.cancel()


async def test_a_process_whose_group_does_not_answer_takes_no_stage_back(io, new_tenure):
    """It reaches the topic, but not the group's coordinator, which has long assigned the partition to another member."""
    answers: list[SettledGroup | None] = [None]

    async def ask_group() -> SettledGroup | None:
        return answers[-1]

    keeper = Keeper("aggregate", new_tenure, SILENT_SECONDS, ask_group=ask_group)
    running = asyncio.create_task(keeper.run())
    keeper.assigned(ours=True)
    await until(lambda: keeper.is_open)
    io.records["snapshots"].append(claim_of(2))
    await until(lambda: not keeper.is_open)
    await asyncio.sleep(4 * SILENT_SECONDS)
    assert claims(io) == 2
    answers.append(SettledGroup(2, holds=True))
    await until(lambda: keeper.is_open)
    assert claims(io) == 3
    running.cancel()


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_stage_whose_driving_topic_cannot_be_reached_is_left_to_another_member(
    new_tenure, monkeypatch, hangs
):
    monkeypatch.setattr(keeper_module, "LOOK_SECONDS", 0.05)

    async def ask_group() -> SettledGroup:
        return SettledGroup(2, holds=True)

    async def no_answer(_tenure: Tenure) -> None:
        if hangs:  # as a client that waits for its own time limit, longer than all of this may last
            await asyncio.sleep(3600)

    monkeypatch.setattr(Tenure, "behind", no_answer)
    keeper = Keeper("aggregate", new_tenure, SILENT_SECONDS, ask_group=ask_group)
    running = asyncio.create_task(keeper.run())
    keeper.assigned(ours=True)
    with pytest.raises(StalledError, match="nobody answers for the topic"):
        await in_time(running)


async def test_a_topic_that_did_not_answer_once_is_no_reason_to_leave_the_next_time(new_tenure, monkeypatch):
    monkeypatch.setattr(keeper_module, "LOOK_SECONDS", 0.05)
    answers = [None, *[False] * 8, None, *[False] * 3]
    looks = []

    async def ask_group() -> SettledGroup:
        return SettledGroup(2, holds=True)

    async def behind(_tenure: Tenure) -> bool | None:
        looks.append(asyncio.get_running_loop().time())
        return answers[len(looks) - 1] if len(looks) <= len(answers) else False

    monkeypatch.setattr(Tenure, "behind", behind)
    keeper = Keeper("aggregate", new_tenure, SILENT_SECONDS, ask_group=ask_group)
    running = asyncio.create_task(keeper.run())
    keeper.assigned(ours=True)
    await until(lambda: len(looks) > len(answers) or running.done())
    assert looks[9] - looks[0] > SILENT_SECONDS
    assert not running.done()
    running.cancel()


def test_the_holder_of_a_topic_is_read_from_fausts_assignment():
    head, topic = b"\x00\x04\x00\x00\x00\x01\x00\x06", b"b.feed"
    assignment = head + topic + b"\x00\x00\x00\x01\x00\x00\x00\x00" + b"\x00\x00\x00\x00"
    none = head + topic + b"\x00\x00\x00\x00" + b"\x00\x00\x00\x00"
    assert any_holds("b.feed", [none, assignment])
    assert not any_holds("b.feed", [none, b""])
    assert not any_holds("b.other", [assignment])
    assert any_holds("b.feed", []), "a group without members is about to deal"
