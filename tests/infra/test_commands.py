"""The port to `commands`: its reports about a command are true, whatever Kafka does."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaTimeoutError

from coordinator.infra.log import commands
from coordinator.infra.log.commands import KafkaCommandPort
from coordinator.streams import events as ev
from coordinator.streams.log.errors import OutcomeUnknownError, WorldError

COMMAND = ev.ReleaseCheckpoint(
    id="c1", at=1, data=ev.ReleaseCheckpointData(checkpoint_id="ckp", reason="looked at it")
)


def port(producer, monkeypatch):
    monkeypatch.setattr(commands, "SEND_SECONDS_MAX", 0.01)
    command_port = KafkaCommandPort("127.0.0.1:1", "btc-up")
    command_port._producer = producer
    return command_port


async def test_a_queued_batch_is_not_reported_as_lost_and_may_still_arrive(monkeypatch):
    """A cancelled wait cancels only the future: the producer still sends the batch."""
    queued = asyncio.get_running_loop().create_future()

    async def send(_topic, _body):
        return queued

    with pytest.raises(OutcomeUnknownError, match="may still arrive"):
        await port(SimpleNamespace(send=send), monkeypatch).send(COMMAND)
    assert not queued.cancelled()
    queued.set_result(SimpleNamespace(offset=7))
    await asyncio.sleep(0)


async def test_a_queued_batch_that_fails_may_have_arrived_all_the_same(monkeypatch):
    async def send(_topic, _body):
        queued = asyncio.get_running_loop().create_future()
        queued.set_exception(KafkaTimeoutError("no answer"))
        return queued

    with pytest.raises(OutcomeUnknownError, match="no answer"):
        await port(SimpleNamespace(send=send), monkeypatch).send(COMMAND)


@pytest.mark.parametrize("how", ["waits", "refuses"])
async def test_a_command_that_was_never_queued_was_not_written(monkeypatch, how):
    async def send(_topic, _body):
        if how == "refuses":
            raise KafkaTimeoutError("no metadata")
        await asyncio.sleep(60)

    with pytest.raises(WorldError, match="was not written") as caught:
        await port(SimpleNamespace(send=send), monkeypatch).send(COMMAND)
    assert not isinstance(caught.value, OutcomeUnknownError)
