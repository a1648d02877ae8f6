"""The orchestrator's websocket on the wire: our host as any coordinator sees it, and our gateway with an orchestrator
that refuses it.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from time import monotonic

import pytest
from tests.infra.models.secured import orchestrator
from tests.infra.models.stage import CRUNCH_ID, PREDICT, OpenStage, Stage, model_source, write_model
from tests.waiting import in_time, limit, until
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from coordinator.infra.models.gateway import RunnerClientGateway

STATE_FIELDS = {"deployment_id", "model_id", "state", "ip", "port", "infos"}
INFO_FIELDS = {"model_name", "cruncher_id", "cruncher_name", "cruncher_wallet_pubkey", "cruncher_hotkey"}


@pytest.fixture
async def stage(tmp_path: Path, open_stage: OpenStage) -> Stage:
    write_model(tmp_path / "models", "good", model_source(PREDICT["good"]))
    return await open_stage(tmp_path / "models")


async def test_the_first_message_is_the_whole_list_and_then_come_changes(stage: Stage):
    async with connect(f"ws://127.0.0.1:{stage.port}/{CRUNCH_ID}") as socket:
        first = json.loads(await socket.recv())
        assert first["event"] == "init"
        (state,) = first["data"]
        assert set(state) == STATE_FIELDS
        assert set(state["infos"]) == INFO_FIELDS
        assert (state["model_id"], state["state"], state["ip"]) == ("good", "RUNNING", "127.0.0.1")
        report = {
            "model_id": "good",
            "failure_code": "LOW_PERFORMANCE",
            "failure_reason": None,
            "ip": "127.0.0.1",
        }
        await socket.send(json.dumps({"event": "report_failure", "data": [report]}))
        update = json.loads(await socket.recv())
        assert update["event"] == "update"
        assert [(update_["model_id"], update_["state"]) for update_ in update["data"]] == [
            ("good", "STOPPED")
        ]


GARBAGE = ("", "[]", "{", '{"event": "else"}', '{"event": "report_failure", "data": [{}]}')


async def test_an_invalid_message_changes_nothing(stage: Stage):
    async with connect(f"ws://127.0.0.1:{stage.port}/{CRUNCH_ID}") as socket:
        await socket.recv()
        for garbage in GARBAGE:
            await socket.send(garbage)
        await (await socket.ping())  # they were read, and the connection is still open
        assert stage.host.models["good"].state == "RUNNING"


async def test_a_request_for_another_crunch_is_answered_and_closed(stage: Stage):
    async with connect(f"ws://127.0.0.1:{stage.port}/another-crunch") as socket:
        assert "another-crunch" in json.loads(await socket.recv())["error"]
        await in_time(socket.wait_closed())


async def test_a_plain_request_is_told_to_upgrade_and_an_open_one_does_not_delay_the_hosts_end(
    stage: Stage,
):
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
    writer.write(f"GET /{CRUNCH_ID} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    assert (await reader.readline()).split()[1] == b"426"
    await in_time(stage.host.stop())
    writer.close()


async def test_an_orchestrator_without_this_crunch_is_asked_now_and_then_and_the_operator_is_told(
    caplog: pytest.LogCaptureFixture,
):
    """The library alone connects again at once, several hundred times a second."""
    came = 0

    async def refuse(connection: ServerConnection) -> None:
        nonlocal came
        came += 1
        await connection.send(json.dumps({"error": "crunch not found"}))

    async with serve(refuse, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        gateway = RunnerClientGateway("127.0.0.1", port, "no-such-crunch")
        await gateway.start()
        began = monotonic()
        await until(lambda: came >= 3)
        seconds = monotonic() - began
        await gateway.stop()
    assert seconds > 1, "the second and the third time each wait for a pause"
    assert "refuses CRUNCH_ID=no-such-crunch: crunch not found" in caplog.text
    assert gateway.announced is None


async def test_an_unreadable_message_of_an_orchestrator_is_skipped(caplog: pytest.LogCaptureFixture):
    async def babble(connection: ServerConnection) -> None:
        for text in (
            '{"event": "init"',
            '{"event": "init", "data": 1}',
            '{"event": "init", "data": ["x"]}',
            "[1]",
        ):
            await connection.send(text)
        await connection.send(json.dumps({"event": "init", "data": []}))
        await connection.wait_closed()

    async with serve(babble, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        gateway = RunnerClientGateway("127.0.0.1", port, CRUNCH_ID)
        await gateway.start()
        async with limit():
            await gateway.listed.wait()
        assert gateway.connected
        assert list(gateway.announced or ()) == []
        await gateway.stop()
    assert caplog.text.count("cannot be read") == 4


async def test_a_report_waiting_for_an_orchestrator_that_stays_away_stops_nothing(
    stage: Stage, caplog: pytest.LogCaptureFixture
):
    """Neither the process nor the report is lost, however many tries fail."""
    stage.gateway._runner.model_cluster.ws_client.max_retries = 1
    await stage.seen("good")
    server = stage.host._server
    assert server is not None
    server.close()
    await server.wait_closed()
    await stage.gateway.report_failure("good", "MULTIPLE_FAILED", "it only raises")
    await until(lambda: caplog.text.count("no orchestrator answers at") >= 2)
    assert not stage.gateway.connected
    assert "unexpected" not in caplog.text
    stage.host._server = await serve(stage.host._serve_coordinator, "127.0.0.1", stage.port)
    async with limit():
        while stage.host.models["good"].state != "STOPPED":  # the report arrived
            await asyncio.sleep(0.05)


async def test_a_list_longer_than_a_megabyte_is_read():
    """Some three thousand models. The library alone would accept no more."""
    infos = {"model_name": "x" * 40, "cruncher_id": "w" * 44, "cruncher_name": "y" * 40}
    states = [
        {
            "deployment_id": f"{n}_1",
            "model_id": str(n),
            "state": "STOPPED",
            "ip": "",
            "port": 1,
            "infos": infos,
        }
        for n in range(10_000)
    ]
    async with orchestrator(*states) as (port, _):
        gateway = RunnerClientGateway("127.0.0.1", port, CRUNCH_ID)
        await gateway.start()
        try:
            async with limit():
                await gateway.listed.wait()
        finally:
            await gateway.stop()
