"""The host in a container: it listens for others, and announces the name that the network knows it by."""

from __future__ import annotations

import socket

import pytest
from tests.infra.models.stage import CRUNCH_ID, PREDICT, Stage, model_source, write_model

from coordinator.infra.models.gateway import DEFAULT_BASE_CLASSNAME, RunnerClientGateway
from coordinator.infra.models.host.host import ModelHost
from coordinator.infra.models.host.process import Limits
from coordinator.streams.ports import Outcome

ASK = ("BTCUSDT", 60, 15)


@pytest.mark.parametrize(
    ("listen", "announce", "told"),
    [("127.0.0.2", None, "127.0.0.2"), ("127.0.0.1", "localhost", "localhost")],
)
async def test_models_are_called_at_the_address_that_the_host_announces(tmp_path, listen, announce, told):
    write_model(tmp_path / "models", "good", model_source(PREDICT["good"]))
    limits = Limits(listen_address=listen)
    host = ModelHost(tmp_path / "models", CRUNCH_ID, 0, tmp_path / "logs", limits, announce=announce)
    port = await host.start()
    stage = Stage(
        host, port, RunnerClientGateway(listen, port, CRUNCH_ID, DEFAULT_BASE_CLASSNAME), tmp_path / "logs"
    )
    try:
        await stage.gateway.start()
        await stage.seen("good")
        assert host.models["good"].on_wire()["ip"] == told
        replies = await stage.gateway.call("predict", ASK, 5.0, ["good"])
        assert replies["good"].outcome is Outcome.OK
    finally:
        await stage.gateway.stop()
        await host.stop()


async def test_it_is_reachable_at_its_given_address_and_no_other(tmp_path):
    write_model(tmp_path / "models", "good", model_source(PREDICT["good"]))
    limits = Limits(listen_address="127.0.0.2")
    host = ModelHost(tmp_path / "models", CRUNCH_ID, 0, tmp_path / "logs", limits)
    port = await host.start()
    try:
        for listening in (port, host.models["good"].port):
            socket.create_connection(("127.0.0.2", listening), timeout=2).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", listening), timeout=2)
    finally:
        await host.stop()
