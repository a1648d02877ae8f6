"""Live listeners of a real report worker: killed and restarted, five hundred at a time, and one that never reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest
from httpx_sse import connect_sse
from tests.broker.browser.scene import add_round, rich_log, submit
from tests.broker.report_node import started
from tests.logs import HOUR_MS, START_MS
from tests.loopback import NO_CERTIFICATES
from tests.waiting import LIMIT_SECONDS, limit

pytestmark = pytest.mark.broker
MODELS = [f"m{i:04}" for i in range(12)]


@pytest.fixture
def node(kafka_bootstrap, crunch_id, tmp_path):
    served = started(kafka_bootstrap, crunch_id, tmp_path, rich_log(models=len(MODELS), hours=7))
    yield served
    served.stop()


def hear(node, last_id=None, until=lambda messages: messages[-1][0] == "beat"):
    """The messages to a listener, until `until` holds: [(event, data, id)]."""
    messages = []
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with (
        httpx.Client(timeout=LIMIT_SECONDS, verify=NO_CERTIFICATES) as client,
        connect_sse(client, "GET", f"{node.url}/reports/live", headers=headers) as source,
    ):
        for message in source.iter_sse():
            messages.append((message.event, json.loads(message.data), message.id))
            if until(messages):
                return messages
    raise AssertionError(f"the stream ended early: {[event for event, _, _ in messages]}")


def test_an_id_survives_kill_9_and_nothing_is_missed_or_sent_twice(node):
    first = hear(node)
    checkpoint = next(data for event, data, _ in first if event == "checkpoint")
    assert checkpoint["status"] == "CLAIMABLE" or checkpoint["status"] == "PAID"
    last_id = first[-1][2]
    assert [event for event, _, _ in hear(node, last_id)] == ["state", "beat"]

    node.stop(signal.SIGKILL)
    node.start()
    node.say()
    assert [event for event, _, _ in hear(node, last_id)] == ["state", "beat"]

    pending = node.log.checkpoint(6 * HOUR_MS, {"m0001": 1_000_000_000})
    node.say()
    node.stop(signal.SIGKILL)  # killed after it folded, before anybody heard
    submit(node.log, pending, START_MS + 12 * HOUR_MS + 1)
    node.start()
    node.say()
    missed = hear(node, last_id)
    assert [event for event, _, _ in missed] == ["state", "checkpoint", "beat"]
    assert [move["status"] for move in missed[1][1]["moves"]] == ["PENDING", "SUBMITTED"]
    assert missed[0][1]["reset"] is None
    assert [event for event, _, _ in hear(node, missed[-1][2])] == ["state", "beat"]


def resident_mb(pid: int) -> float:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1000


class Ear(asyncio.Protocol):
    """One raw connection, and the end of what it received."""

    def __init__(self, request: bytes) -> None:
        self.request, self.heard, self.ended = request, b"", False

    def connection_made(self, transport):
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data):
        self.heard = (self.heard + data)[-200_000:]

    def connection_lost(self, exc):
        self.ended = True


@pytest.mark.slow
async def test_five_hundred_listeners_get_a_score_and_the_board_is_served_meanwhile(node):
    request = f"GET /reports/live HTTP/1.1\r\nHost: {node.url[7:]}\r\n\r\n".encode()
    host, port = node.settings.api_host, node.settings.api_port
    before = resident_mb(node.process.pid)
    loop = asyncio.get_running_loop()
    ears = [(await loop.create_connection(lambda: Ear(request), host, port))[1] for _ in range(500)]
    deaf = socket.create_connection((host, port))
    deaf.sendall(request)

    async def all_hear(words):
        async with limit():
            while not all(words in ear.heard for ear in ears):
                await asyncio.sleep(0.05)

    await all_hear(b"event: beat")
    for ear in ears:
        ear.heard = b""
    add_round(node.log, MODELS, 7 * 60 + 1, tick=True, lift="m0002")
    begun = time.monotonic()
    await asyncio.to_thread(node.say)
    await all_hear(b'"model_id":"m0002"')
    took = time.monotonic() - begun
    grown = resident_mb(node.process.pid) - before
    async with httpx.AsyncClient(verify=NO_CERTIFICATES) as client:
        waits = []
        for _ in range(50):
            asked = time.monotonic()
            assert (await client.get(f"{node.url}/reports/leaderboard")).status_code == 200
            waits.append(1000 * (time.monotonic() - asked))
    print(f"500 heard after {took:.2f} s, + {grown:.0f} MB, a board meanwhile in {sorted(waits)[25]:.1f} ms")
    assert not any(ear.ended for ear in ears)
    assert grown < 60
    for ear in ears:
        ear.transport.close()
    deaf.close()
    with contextlib.suppress(TimeoutError):
        async with limit():  # all who left are forgotten: there is room again
            while (await _listening(node.process.pid)) > 20:
                await asyncio.sleep(0.1)
    assert await _listening(node.process.pid) <= 20


async def _listening(pid: int) -> int:
    return sum(
        os.readlink(f"/proc/{pid}/fd/{descriptor}").startswith("socket:")
        for descriptor in os.listdir(f"/proc/{pid}/fd")
    )
