"""The live stream over real sockets: the messages to a listener, how it resumes, and limits for slow and greedy
clients.
"""

from __future__ import annotations

import asyncio
import json
import socket

import httpx
import pytest
import uvicorn
from httpx_sse import aconnect_sse
from tests.logs import START_MS, TX_HASH, fold_into
from tests.loopback import NO_CERTIFICATES
from tests.waiting import LIMIT_SECONDS, limit

from coordinator.api import live, live_hub
from coordinator.api.app import create_app
from coordinator.api.commands import Sender
from coordinator.api.live_position import parse_position, position_text
from coordinator.api.server import _Server
from coordinator.infra.connections import Connections
from coordinator.projections.folding.projector import Projector
from coordinator.projections.views.all_views import open_read_models
from coordinator.streams import events as ev
from coordinator.streams.settings import Settings


class Node:
    """A report API over sockets, fed from memory. `restart` is a new process over the same stores."""

    def __init__(self, folder, log):
        self.folder, self.log = folder, log

    async def start(self):
        self.read = open_read_models(self.folder, "cluster", self.log.crunch_id)
        self.projector = Projector(Settings(data_dir=self.folder), self.read)
        fold_into(self.projector.folder, self.log)
        self.projector._started = True
        self.bound = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            create_app(self.projector.settings, Sender(self.projector, None)),
            http=Connections(1_000).protocol,
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=3,
        )
        self.server = _Server(config)
        self.serving = asyncio.create_task(self.server.serve([self.bound]))
        self.url = f"http://127.0.0.1:{self.bound.getsockname()[1]}"
        while not self.server.started:
            await asyncio.sleep(0.01)

    async def stop(self):
        self.projector.stop()
        self.server.should_exit = True
        await self.serving
        self.read.close()

    async def restart(self, while_away=lambda: None):
        await self.stop()
        while_away()
        await self.start()

    async def fold(self):
        """Folds the new records of the log."""
        for topic, reader in self.projector.folder.readers.items():
            new = list(enumerate(self.log.records[topic]))[reader.next_offset :]
            await self.projector.take(topic, new)


class Listener:
    """Reads a stream in the background. `messages` are (event, data, id) as they come."""

    def __init__(self, node, last_id=None):
        self.node, self.last_id, self.messages, self.ended = node, last_id, [], False

    async def __aenter__(self):
        self._task = asyncio.create_task(self._read())
        await self.until(lambda: self.last_id_seen)
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def _read(self):
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        url = f"{self.node.url}/reports/live"
        async with (
            httpx.AsyncClient(timeout=LIMIT_SECONDS, verify=NO_CERTIFICATES) as client,
            aconnect_sse(client, "GET", url, headers=headers) as source,
        ):
            async for message in source.aiter_sse():
                self.messages.append((message.event, json.loads(message.data), message.id))
        self.ended = True

    @property
    def last_id_seen(self):
        return next((message_id for kind, _, message_id in reversed(self.messages) if kind == "beat"), None)

    def of(self, kind):
        return [data for event, data, _ in self.messages if event == kind]

    async def until(self, condition):
        async with limit():
            while not condition():
                if self._task.done():
                    self._task.result()
                    assert condition()
                await asyncio.sleep(0.01)


@pytest.fixture
async def node(tmp_path, log):
    live_node = Node(tmp_path, log)
    await live_node.start()
    yield live_node
    await live_node.stop()


def score(log, minute, answers):
    log.round(minute * 60_000, answers)
    log.inputs_until((minute + 2) * 60_000)


def confirmed(log, checkpoint_id):
    data = ev.CheckpointSubmittedData(checkpoint_id=checkpoint_id, tx_hash=TX_HASH, command_id="c")
    log.append("checkpoints", ev.CheckpointSubmitted(id=f"{checkpoint_id}/sent", at=START_MS, data=data))


async def test_a_new_listener_gets_everything_and_then_only_changes(node, log):
    async with Listener(node) as listener:
        kinds = [event for event, _, _ in listener.messages]
        assert kinds == ["state", "leaderboard", "checkpoint", "checkpoint", "feeds", "beat"]
        (board,) = listener.of("leaderboard")
        assert board["complete"]
        assert [(row["model_id"], row["rank"]) for row in board["rows"]][:3] == [
            ("m1", 1), ("m2", 2), ("m3", None),
        ]  # fmt: skip
        assert listener.of("state")[0] | {"crunch_id": "btc-up", "reset": None} == listener.of("state")[0]
        assert {message["status"] for message in listener.of("checkpoint")} == {"WITHHELD", "PENDING"}
        score(log, 543, {"m1": -1.0, "m2": 1.0})
        await node.fold()
        await listener.until(lambda: len(listener.of("leaderboard")) == 2)
        change = listener.of("leaderboard")[1]
        assert not change["complete"]
        assert {row["model_id"] for row in change["rows"]} == {"m1", "m2"}
        assert len(listener.of("checkpoint")) == 2


async def test_a_checkpoint_that_changes_its_status_is_sent_with_its_history(node, log):
    async with Listener(node) as listener:
        pending = next(message for message in listener.of("checkpoint") if message["status"] == "PENDING")
        confirmed(log, pending["id"])
        await node.fold()
        await listener.until(lambda: len(listener.of("checkpoint")) == 3)
        told = listener.of("checkpoint")[-1]
        assert (told["id"], told["status"], told["tx_hash"]) == (pending["id"], "SUBMITTED", TX_HASH)
        assert [move["status"] for move in told["moves"]] == ["PENDING", "SUBMITTED"]


async def test_only_the_message_that_completes_a_turn_has_an_id(node):
    async with Listener(node) as listener:
        # the client keeps the last id it saw; before the beat there was none
        assert [bool(message_id) for _, _, message_id in listener.messages] == [False] * 5 + [True]
        assert parse_position(listener.last_id_seen)["scores"] > 0


@pytest.mark.parametrize("restarted", [False, True])
async def test_an_id_resumes_with_what_was_missed_and_nothing_else(node, log, restarted):
    async with Listener(node) as listener:
        last = listener.last_id_seen
        pending = next(message for message in listener.of("checkpoint") if message["status"] == "PENDING")
    if restarted:
        await node.restart(lambda: confirmed(log, pending["id"]))
    else:
        confirmed(log, pending["id"])
        await node.fold()
    async with Listener(node, last) as listener:
        assert [event for event, _, _ in listener.messages] == ["state", "checkpoint", "beat"]
        assert listener.of("checkpoint")[0]["status"] == "SUBMITTED"
        last = listener.last_id_seen
    async with Listener(node, last) as listener:
        assert [event for event, _, _ in listener.messages] == ["state", "beat"]


async def test_an_id_of_a_running_listener_resumes_without_the_unchanged_rows(node, log):
    async with Listener(node) as _other, Listener(node) as listener:
        last = listener.last_id_seen
        score(log, 543, {"m2": 1.0})
        await node.fold()
        await listener.until(lambda: len(listener.of("leaderboard")) == 2)
        async with Listener(node, last) as resumed:
            board = resumed.of("leaderboard")[0]
            assert not board["complete"]
            assert "m4" not in {row["model_id"] for row in board["rows"]}


async def test_an_id_from_another_log_or_too_long_ago_gets_everything_with_the_reason(node, log, monkeypatch):
    async with Listener(node) as listener:
        last = listener.last_id_seen
    ahead = position_text(dict.fromkeys(parse_position(last), 10**6))
    async with Listener(node, ahead) as listener:
        assert "ahead of this node" in listener.of("state")[0]["reset"]
        assert listener.of("leaderboard")[0]["complete"]
    monkeypatch.setattr("coordinator.projections.views.checkpoints.CHANGES_KEPT", 1)
    early = position_text(parse_position(last) | {"checkpoints": 0})
    confirmed(
        log, next(message for message in listener.of("checkpoint") if message["status"] == "PENDING")["id"]
    )
    await node.fold()
    async with Listener(node, early) as listener:
        assert "older than the stored changes" in listener.of("state")[0]["reset"]
        assert len(listener.of("checkpoint")) == 2


@pytest.mark.parametrize("bad", ["17", "scores:x", "scores:1;feeds:2", "a" * 500, "scores:-1"])
async def test_an_invalid_id_is_422(node, bad):
    async with httpx.AsyncClient(verify=NO_CERTIFICATES) as client:
        answer = await client.get(f"{node.url}/reports/live", headers={"Last-Event-ID": bad})
    assert answer.status_code == 422


async def test_there_is_no_live_stream_of_the_past(node):
    async with httpx.AsyncClient(verify=NO_CERTIFICATES) as client:
        assert (await client.get(f"{node.url}/reports/live?as_of=2023-03-10T00:00:00Z")).status_code == 422


async def test_one_listener_too_many_must_come_again(node, monkeypatch):
    monkeypatch.setattr(live_hub, "LISTENERS_PER_ADDRESS_MAX", 2)
    async with httpx.AsyncClient(verify=NO_CERTIFICATES) as client, Listener(node), Listener(node):
        answer = await client.get(f"{node.url}/reports/live")
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        told = (await client.get(f"{node.url}/metrics")).text
        assert "coordinator_live_listeners 2.0" in told
        assert "coordinator_live_refused_total 1.0" in told
    async with Listener(node) as again:  # a listener that left makes room
        assert again.of("leaderboard")


async def test_silence_is_filled_with_beats(node, monkeypatch):
    monkeypatch.setattr(live_hub, "BEAT_SECONDS", 0.05)
    async with Listener(node) as listener:
        await listener.until(lambda: len(listener.of("beat")) >= 3)
        assert len(listener.of("leaderboard")) == 1


async def test_a_listener_that_does_not_read_is_cut_off_and_the_others_continue(node, log, monkeypatch):
    monkeypatch.setattr(live, "WRITE_SECONDS_MAX", 0.5)
    monkeypatch.setattr(live_hub, "TURN_SECONDS_MIN", 0.0)
    for i in range(1_000):
        log.model(f"crowd-{i}", cruncher_name="c" * 200)
    await node.fold()
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.connect(node.bound.getsockname())
    deaf.sendall(b"GET /reports/live HTTP/1.1\r\nHost: node\r\n\r\n")
    async with Listener(node) as listener, httpx.AsyncClient(verify=NO_CERTIFICATES) as client, limit():
        number = 1_000
        while "coordinator_live_cut_off_total 1.0" not in (await client.get(f"{node.url}/metrics")).text:
            number -= 1
            newest = log.model(f"a{number:04}").model_id  # changes every row's place
            await node.fold()
            await listener.until(lambda newest=newest: any(row["model_id"] == newest for message in listener.of("leaderboard")[-1:] for row in message["rows"]))  # fmt: skip
    deaf.settimeout(LIMIT_SECONDS)
    got = b"".join(iter(lambda: deaf.recv(1 << 20), b""))
    deaf.close()
    assert got.startswith(b"HTTP/1.1 200")
    assert not got.endswith(b"0\r\n\r\n")  # aborted, not ended


async def test_a_stopping_node_ends_its_streams_at_once(node, monkeypatch):
    monkeypatch.setattr(live_hub, "BEAT_SECONDS", 3600.0)  # no beat wakes it
    async with Listener(node) as listener:
        node.projector.stop()
        await listener.until(lambda: listener.ended)
