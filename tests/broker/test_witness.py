"""A witness over the topics of a real Kafka: it asks the node for its note alone, and writes nothing to the log."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tests.infra.evidence.bundles import whole_log
from tests.infra.evidence.test_witness import Node, serving
from tests.memory_log import MemoryLog
from tests.waiting import LIMIT_SECONDS
from typer.testing import CliRunner

from coordinator.cli.main import app
from coordinator.infra.kafka.clients import make_producer
from coordinator.infra.log.positions import offsets, reading
from coordinator.streams.evidence.notes import Note
from coordinator.streams.signing.note_keys import COSIGNATURE, VerifierKey
from coordinator.streams.topology import TOPICS, topic_name

pytestmark = [pytest.mark.broker, pytest.mark.xdist_group("btc-up")]
CRUNCH = "btc-up"
"""The crunch that `whole_log` is of: the ids of its checkpoints are made of this name."""
UNITS = b'"units":{"value":[1000000000', b'"units":{"value":[1500000000'


class Shown(Node):
    """A node whose answers are hidden for long, and that offers no bundle."""

    def __init__(self, folder, log):
        folder.mkdir()
        super().__init__(folder, log)
        self.bundle_from = "2999-01-01T00:00:00.000Z"

    def answer(self, path):
        assert "/bundle" not in path
        return super().answer(path)


async def shown(folder, log):
    """In a thread: a bundle is made in an event loop of its own."""
    return await asyncio.to_thread(Shown, folder, log)


@asynccontextmanager
async def topics_of(bootstrap, log):
    """The topics of the log in memory, without birth records, so that every offset is the same."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    names = [topic_name(CRUNCH, topic) for topic in TOPICS]
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            await admin.create_topics([NewTopic(name, 1, 1) for name in names])
            producer = make_producer(bootstrap)
            await producer.start()
            try:
                for topic, records in log.topics.items():
                    for record in records:
                        await producer.send(topic_name(CRUNCH, topic), record)
                await producer.flush()
            finally:
                await producer.stop()
        yield
    finally:
        await admin.delete_topics(names)
        async with asyncio.timeout(LIMIT_SECONDS):
            while set(names) & set(await admin.list_topics()):
                await asyncio.sleep(0.05)
        await admin.close()


@contextmanager
def receiver():
    """(URL, the posts that came)."""
    posts = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", posts
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def hook(monkeypatch):
    with receiver() as (url, posts):
        monkeypatch.setenv("WEBHOOK_URL", url)
        yield posts


async def look(node, bootstrap, folder):
    with serving(node) as url:
        options = ["--kafka", bootstrap, "--folder", str(folder), "--name", "w.example", "--once"]
        result = await asyncio.to_thread(CliRunner().invoke, app, ["witness", url, *options])
    return result.exit_code, result.output


async def ends(bootstrap):
    async with reading(bootstrap) as consumer:
        return await offsets(consumer, CRUNCH)


def with_one_score_altered():
    log = whole_log()
    topics = {topic: list(records) for topic, records in log.topics.items()}
    at = next(i for i, record in enumerate(topics["scores"]) if UNITS[0] in record)
    topics["scores"][at] = topics["scores"][at].replace(*UNITS, 1)
    return MemoryLog(topics)


async def test_valid_topics_are_cosigned_before_their_bundle_is_available(kafka_bootstrap, tmp_path, hook):
    node, folder = await shown(tmp_path / "served", whole_log()), tmp_path / "witness"
    async with topics_of(kafka_bootstrap, whole_log()):
        before = await ends(kafka_bootstrap)
        code, output = await look(node, kafka_bootstrap, folder)
        assert code == 0, output
        assert f"signed {node.checkpoint_id}" in output
        assert "nothing new to sign" in (await look(node, kafka_bootstrap, folder))[1]
        await asyncio.to_thread(node.show, 2)
        code, output = await look(node, kafka_bootstrap, folder)
        assert (code, "ok history" in output) == (0, True), output
        assert await ends(kafka_bootstrap) == before
    own = VerifierKey.parse(output.partition("signs as ")[2].split()[0])
    assert own.kind == COSIGNATURE
    notes = [Note.parse(path.read_bytes()) for path in (folder / "notes").iterdir()]
    assert len(notes) == 2
    assert all(len(note.signed_by([own, VerifierKey.parse(node.public_key)])) == 2 for note in notes)
    assert sorted(path.name for path in folder.iterdir()) == ["key", "latest", "lock", "node.pub", "notes"]
    assert hook == []


async def test_the_first_difference_is_reported_and_posted_and_nothing_is_signed(
    kafka_bootstrap, tmp_path, hook
):
    """The node uses and signs an altered log: its tree is valid, but a score in it is wrong."""
    altered = with_one_score_altered()
    node = await shown(tmp_path / "served", altered)
    async with topics_of(kafka_bootstrap, altered):
        code, output = await look(node, kafka_bootstrap, tmp_path / "witness")
    assert code == 1
    assert "scores does not hold; nothing is signed" in output, output
    (post,) = hook
    assert (post["state"], post["kind"], post["name"]) == ("firing", "witness", "scores")
    assert "1.5" in post["text"] or "1500000000" in post["text"], post["text"]
    assert not list((tmp_path / "witness/notes").iterdir())


async def test_topics_that_differ_from_what_the_node_signed_are_found(kafka_bootstrap, tmp_path, hook):
    """It shows everybody an honest tree, and the topics have other content, or end too early."""
    node, folder = await shown(tmp_path / "served", whole_log()), tmp_path / "witness"
    async with topics_of(kafka_bootstrap, with_one_score_altered()):
        code, output = await look(node, kafka_bootstrap, folder)
    assert (code, "note does not hold" in output) == (1, True), output
    cut = {topic: list(records) for topic, records in whole_log().topics.items()}
    cut["checkpoints"] = []
    async with topics_of(kafka_bootstrap, MemoryLog(cut)):
        code, output = await look(node, kafka_bootstrap, folder)
    assert (code, "checkpoint does not hold" in output) == (1, True), output
    assert [post["name"] for post in hook] == ["note", "checkpoint"]
    assert not list((folder / "notes").iterdir())


async def test_no_topics_and_no_kafka_are_no_difference(kafka_bootstrap, tmp_path, hook):
    node = await shown(tmp_path / "served", whole_log())
    code, output = await look(node, kafka_bootstrap, tmp_path / "witness")
    assert code not in (0, 1), output
    code, output = await look(node, "127.0.0.1:1", tmp_path / "witness")
    assert code not in (0, 1), output
    assert hook == []
