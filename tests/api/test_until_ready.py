"""While the node waits for Kafka, calls are answered at once, and nobody is left waiting."""

from __future__ import annotations

import asyncio
import socket

import httpx

from coordinator.api.server import _serve
from coordinator.infra.processes.sockets import listen
from coordinator.streams.settings import Settings


async def test_a_node_that_waits_for_kafka_answers_503_with_the_reason(tmp_path):
    with (
        socket.socket() as silent
    ):  # accepts connections and sends nothing, like a Kafka that is still starting
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        kafka = f"127.0.0.1:{silent.getsockname()[1]}"
        bound = listen("127.0.0.1", 0, "a port")
        running = asyncio.create_task(
            _serve(Settings(data_dir=tmp_path, kafka_bootstrap=kafka, crunch_id="btc-up"), bound, [], None)
        )
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}") as client:
                while True:
                    try:
                        health = await client.get("/healthz")
                        break
                    except httpx.ConnectError:
                        await asyncio.sleep(0.01)
                board = await client.get("/reports/leaderboard")
        finally:
            running.cancel()
            await asyncio.wait((running,))
            bound.close()
    assert (health.status_code, health.json()["status"]) == (503, "starting")
    assert "waits for Kafka" in health.json()["error"]
    assert board.status_code == 503
    assert "waits for Kafka" in board.json()["detail"]
    assert board.headers["retry-after"]
