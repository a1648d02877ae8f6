"""The source of questions against servers that misbehave: whose fault each is, and that the next good page is read."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from tests.waiting import until

from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources import rest
from coordinator.streams.sources.questions.source import MOVED, REDIRECTS, QuestionsSource
from coordinator.streams.sources.rest import Refusals, Rest
from coordinator.streams.sources.waiting import Patience

OF = Subscription("questions", "questions", "question", "1s")
STAKES = [{"do": "stakes", "stakes": {"a": str(number)}} for number in range(4)]
BODY_BYTES_MAX = 100_000
PATIENCE = Patience(
    request_timeout_seconds=60.0,
    answer_seconds=60.0,
    attempts=2,
    wait_initial_seconds=0.01,
    wait_max_seconds=0.02,
    wait_jitter_seconds=0.0,
    refused_seconds=0.05,
)
PATIENCE_WITH = {
    "trickles": msgspec.structs.replace(PATIENCE, answer_seconds=0.5),
    "hangs": msgspec.structs.replace(PATIENCE, request_timeout_seconds=0.4),
}
"""A short limit, only where a test is about it, because any answer may take longer on a busy machine."""
Answer = Callable[[BaseHTTPRequestHandler, str], None]
"""What the server does with a request for the page after a cursor."""


def page(*posts: Any, cursor: str = "") -> bytes:
    return json.dumps({"posts": posts, "cursor": cursor}).encode()


def send(
    handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, length: int = -1, **headers: str
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body) if length < 0 else length))
    handler.end_headers()
    handler.wfile.write(body)


def sends(body: bytes, status: int = 200, length: int = -1, **headers: str) -> Answer:
    return lambda handler, _cursor: send(handler, body, status, length, **headers)


def trickles(handler: BaseHTTPRequestHandler, _cursor: str) -> None:
    """Sends a byte now and then, so that no single wait is too long."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(1000):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            if handler.server.over.wait(0.05):  # type: ignore[attr-defined]
                return


def hangs(handler: BaseHTTPRequestHandler, _cursor: str) -> None:
    handler.server.over.wait(30)  # type: ignore[attr-defined]


def no_http(handler: BaseHTTPRequestHandler, _cursor: str) -> None:
    handler.wfile.write(b"220 mail.example ready\r\n")


class Server(ThreadingHTTPServer):
    """`answer` may be changed. `asked` has the cursors of the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Answer = sends(page())
        self.asked: list[str] = []
        self.over = threading.Event()

    def handle_error(self, *_: Any) -> None:
        """the client gave up"""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        cursor = parse_qs(urlsplit(self.path).query).get("cursor", [""])[0]
        self.server.asked.append(cursor)
        self.server.answer(self, cursor)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(rest, "BODY_BYTES_MAX", BODY_BYTES_MAX)
    server_ = Server()
    threading.Thread(target=server_.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server_
    server_.over.set()
    server_.shutdown()
    server_.server_close()


@pytest.fixture
async def play(server, request):
    """(the source, its stream, the garbage that it reported)."""
    garbage: list[str] = []
    to = Rest(
        "questions",
        f"http://127.0.0.1:{server.server_port}",
        PATIENCE_WITH.get(request.node.callspec.params["name"], PATIENCE)
        if hasattr(request.node, "callspec")
        else PATIENCE,
        refusals=Refusals(lasting=dict.fromkeys(REDIRECTS, MOVED)),
    )
    source = QuestionsSource(None, to, "/posts", 0.02, lambda reason, _text: garbage.append(reason))
    stream = source.stream([OF])
    yield source, stream, garbage
    await stream.aclose()


def posts(records: list[FeedRecord]) -> list[Any]:
    return [json.loads(record.values["post"]) for record in records]


BOMB = gzip.compress(b" " * 5_000_000)
PACKED = gzip.compress(page(STAKES[0]))
BAD: dict[str, tuple[Answer, str, str]] = {
    "hangs": (hangs, "reconnecting", "ReadTimeout"),
    "trickles": (trickles, "reconnecting", "not whole within 0.5 s"),
    "closes within the body": (
        sends(page(STAKES[0]), length=1_000),
        "reconnecting",
        "without sending complete",
    ),
    "speaks no HTTP": (no_http, "reconnecting", "disconnected|illegal status line"),
    "has a fault": (sends(b"no database", 500), "reconnecting", "status 500: no database"),
    "is busy": (sends(b"", 503, Retry_After="0"), "reconnecting", "status 503"),
    "refuses the key": (sends(b"no such key", 403), "refused", "status 403: no such key"),
    "has moved": (sends(b"", 302, Location="http://127.0.0.1:9/"), "refused", "status 302: .*FEED_OPT_URL"),
    "says nothing": (sends(b"", 204), "refused", "status 204"),
    "sends too much": (sends(b" " * (BODY_BYTES_MAX + 1)), "refused", "more than 100,000 bytes"),
    "packs too much": (sends(BOMB, Content_Encoding="gzip"), "refused", "more than 100,000 bytes"),
    "packs it twice": (
        sends(gzip.compress(BOMB), Content_Encoding="gzip, gzip"),
        "refused",
        "packed as 'gzip, gzip', which was not asked for",
    ),
    "packs it otherwise": (sends(b"x", Content_Encoding="br"), "refused", "packed as 'br'"),
    "packs nothing": (
        sends(page(STAKES[0]), Content_Encoding="gzip"),
        "refused",
        "not the gzip that it says",
    ),
    "packs it half": (sends(PACKED[:-9], Content_Encoding="gzip"), "refused", "gzip is cut short"),
    "sends HTML": (sends(b"<html>Sign in</html>"), "refused", "no page of posts: JSON is malformed"),
    "sends no page": (sends(b"[1, 2]"), "refused", "no page of posts: Expected `object`"),
    "sends half": (sends(page(STAKES[0])[:-5]), "refused", "no page of posts: Input data was truncated"),
    "sends no UTF-8": (sends(b'{"posts": ["\xff"]}'), "refused", "no page of posts"),
    "nests": (sends(b'{"posts": [' + b"[" * 40_000 + b"]" * 40_000 + b"]}"), "refused", "no page of posts"),
    "has a long cursor": (sends(page(STAKES[0], cursor="x" * 90_000)), "refused", "length <= 2000"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_answer_is_named_and_the_next_good_page_is_read(server, play, name: str) -> None:
    source, stream, garbage = play
    server.answer, state, words = BAD[name]
    coming = asyncio.ensure_future(anext(stream))
    await until(
        lambda: source.health.state == state and re.search(words, source.health.reason),
        state_text=lambda: f"{source.health.state}: {source.health.reason}",
    )
    seen = len(server.asked)
    await until(lambda: len(server.asked) > seen)  # it continues to ask
    assert not coming.done()
    server.answer = sends(page(STAKES[1], cursor="1"))
    assert posts([await coming]) == STAKES[1:2]
    assert (source.health.state, source.health.reason) == ("connected", "")
    assert len(garbage) == (1 if "no page" in words or "length" in words else 0), "said once while it lasts"


async def test_compressed_pages_are_read(server, play) -> None:
    _, stream, _ = play
    server.answer = sends(PACKED, Content_Encoding="gzip")
    assert posts([await anext(stream)]) == STAKES[:1]
    server.answer = sends(zlib.compress(page(STAKES[1])), Content_Encoding="deflate")
    records = [await anext(stream)]
    while posts(records[-1:]) == STAKES[:1]:
        records.append(await anext(stream))
    assert posts(records[-1:]) == STAKES[1:2]


async def test_a_cursor_that_goes_back_is_followed_no_faster_than_the_source_polls(server, play) -> None:
    """Without this limit, two pages that name each other would be requested endlessly, as fast as the server answers."""
    source, stream, _ = play
    following = {"": "1", "1": "2", "2": "1"}
    server.answer = lambda handler, cursor: send(handler, page(STAKES[0], cursor=following[cursor]))
    source._poll_seconds = 3600.0
    for _ in range(3):
        await anext(stream)
    coming = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.2)
    assert server.asked == ["", "1", "2"]
    coming.cancel()
    await asyncio.gather(coming, return_exceptions=True)


async def test_a_repeated_post_is_passed_on_and_a_bad_one_stops_no_other(server, play) -> None:
    """The feed stage recognises a post by its text, so the second has no effect."""
    source, stream, garbage = play
    server.answer = sends(page(STAKES[0], STAKES[0], {"do": 1}, "text", STAKES[1], cursor="1"))
    records = [await anext(stream) for _ in range(3)]
    assert posts(records) == [STAKES[0], STAKES[0], STAKES[1]]
    assert records[0].values == records[1].values
    assert [reason.split(":")[0] for reason in garbage[:2]] == ["line 3", "line 4"]
    assert source.health.state == "connected"
