"""The source of questions: a file and a folder that grow, a real HTTP endpoint, and invalid lines."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.waiting import limit, until

from coordinator.streams.log.errors import NoHistoryError, OperatorError
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources import rest
from coordinator.streams.sources.catalog import source_by_name
from coordinator.streams.sources.questions.lines import read_line
from coordinator.streams.sources.questions.source import QuestionsSource
from coordinator.streams.sources.waiting import Patience

OF = Subscription("questions", "questions", "question", "1s")
STAKES = [{"do": "stakes", "stakes": {"a": str(number)}} for number in range(6)]


async def first(source: Any, count: int) -> list[FeedRecord]:
    """The first records of the stream."""
    records: list[FeedRecord] = []
    stream = source.stream([OF])
    try:
        async with limit():
            while len(records) < count:
                records.append(await anext(stream))
    finally:
        await stream.aclose()
    return records


def posts(records: list[FeedRecord]) -> list[Any]:
    return [json.loads(record.values["post"]) for record in records]


def lines(*some: Any) -> str:
    return "".join(json.dumps(line) + "\n" for line in some)


async def test_a_file_is_followed_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "posts.jsonl"
    path.write_text(lines(*STAKES[:2]) + json.dumps(STAKES[2])[:10])
    source = source_by_name("questions", {"path": str(path)})
    stream = source.stream([OF])
    async with limit():
        assert posts([await anext(stream) for _ in range(2)]) == STAKES[:2]
        with path.open("a") as file:
            file.write(json.dumps(STAKES[2])[10:] + "\n")
        last = await anext(stream)
    await stream.aclose()
    assert posts([last]) == STAKES[2:3], "a line is read once it is complete"
    assert last.at == last.ts_event


async def test_a_folder_is_followed_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(*STAKES[:2]))
    (tmp_path / "notes.txt").write_text("no post\n")
    source = source_by_name("questions", {"path": str(tmp_path)})
    stream = source.stream([OF])
    async with limit():
        assert posts([await anext(stream) for _ in range(2)]) == STAKES[:2]
        (tmp_path / "b.jsonl").write_text(lines(STAKES[2]))
        assert posts([await anext(stream)]) == STAKES[2:3]
    await stream.aclose()


async def test_a_post_with_a_time_waits_for_it_and_has_a_history(tmp_path: Path) -> None:
    path = tmp_path / "posts.jsonl"
    late = STAKES[0] | {"at": "2099-01-01T00:00:00Z"}
    old = STAKES[1] | {"at": "2020-01-01T00:00:00Z"}
    older = STAKES[2] | {"at": 1_500_000_000_000}
    path.write_text(lines(late, old, older, STAKES[3]))
    source = source_by_name("questions", {"path": str(path)})
    records = await first(source, 3)
    assert [post["stakes"] for post in posts(records)] == [{"a": "3"}, {"a": "2"}, {"a": "1"}]
    assert [record.at for record in records] == sorted(record.at for record in records)
    history = [record async for record in source.history(OF, 0, 1 << 50)]
    assert [record.at for record in history] == [1_500_000_000_000, 1_577_836_800_000, 4_070_908_800_000]
    assert {record.values["post"] for record in records[1:]} == {
        record.values["post"] for record in history[:2]
    }, "one post"


BAD_LINES = [
    ("{", "Expecting"),
    ("[]", "a post is an object"),
    ('{"round_id": "r"}', "a post is an object"),
    ('{"do": "resolve", "truths": {"q1": 1, "q1": 2}}', "'q1' stands twice"),
    ('{"do": "stakes", "stakes": {"a": NaN}}', "NaN is not a number"),
    ('{"do": "stakes", "at": "yesterday"}', "at 'yesterday'"),
    ('{"do": "resolve", "truths": {"q1": 1e999}}', "1e999 is out of the range of numbers"),
    ('{"do": "stakes", "at": -5}', "at -5 is not between 1970 and 9999"),
    ('{"do": "post", "questions": [{"closes_at": 1%s}]}' % ("0" * 30), "closes_at 1000.* is not between"),
    ('{"do": "post", "questions": [{"closes_at": 1%s}]}' % ("0" * 5000), "4300 digits"),
    ('\ufeff{"do": "stakes", "stakes": {}}', "BOM"),
    ('{"do": "post", "questions": [{"opens_at": "2026-01-01"}]}', "has no zone"),
    ('{"do": "post", "questions": [{"opens_at": true}]}', "opens_at"),
    ('{"do":' * 50_000, "nested"),
]


@pytest.mark.parametrize(("line", "words"), BAD_LINES)
def test_an_invalid_line_is_refused_with_its_reason(line: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_line(line)


async def test_garbage_is_reported_and_the_next_line_read(tmp_path: Path) -> None:
    path = tmp_path / "posts.jsonl"
    path.write_text("".join(line + "\n" for line, _ in BAD_LINES[:5]) + lines(STAKES[0]))
    garbage: list[tuple[str, str]] = []
    source = source_by_name(
        "questions", {"path": str(path)}, lambda reason, text: garbage.append((reason, text))
    )
    assert posts(await first(source, 1)) == STAKES[:1]
    assert [reason.split(":")[0] for reason, _ in garbage] == [f"line {number}" for number in range(1, 6)]
    assert source.health.refused == 5  # type: ignore[attr-defined]


def test_times_may_be_iso_texts_and_the_time_of_a_post_is_the_opening() -> None:
    question = {"question_id": "q1", "payload": {}, "closes_at": "2026-12-01T13:00:00+01:00"}
    post = {"do": "post", "round_id": "r", "at": "2026-11-30T12:00:00Z", "questions": [question]}
    read = read_line(json.dumps(post))
    assert read.at == 1_796_040_000_000
    assert json.loads(read.text)["questions"][0] == {
        "question_id": "q1",
        "payload": {},
        "closes_at": 1_796_126_400_000,
        "opens_at": 1_796_040_000_000,
    }


@contextlib.contextmanager
def endpoint(answers: dict[str, Any], *, compressed: bool = False):
    """A server that answers by cursor and records the requests."""
    asked: list[tuple[str, str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            cursor = parse_qs(parts.query).get("cursor", [""])[0]
            asked.append((parts.path, cursor, self.headers.get("Authorization")))
            body = json.dumps(answers.get(cursor, {"posts": [], "cursor": cursor})).encode()
            self.send_response(200)
            if compressed:
                body = gzip.compress(body)
                self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/posts", asked
    finally:
        server.shutdown()
        server.server_close()


async def test_an_endpoint_is_polled_with_a_cursor() -> None:
    answers = {
        "": {"posts": STAKES[:2], "cursor": "2"},
        "2": {"posts": STAKES[2:3], "cursor": "3"},
        "3": {"posts": [], "cursor": "3"},
    }
    with endpoint(answers) as (url, asked):
        source = source_by_name("questions", {"url": url, "token": "secret", "poll_seconds": "0.05"})
        stream = source.stream([OF])
        async with limit():
            assert posts([await anext(stream) for _ in range(3)]) == STAKES[:3]
            answers["3"] = {"posts": STAKES[3:4], "cursor": "4"}
            assert posts([await anext(stream)]) == STAKES[3:4]
        await stream.aclose()
        assert [cursor for _, cursor, _ in asked][:3] == ["", "2", "3"]
        assert {(path, key) for path, _, key in asked} == {("/posts", "Bearer secret")}
        with pytest.raises(NoHistoryError):
            await anext(source.history(OF, 0, 1))


@pytest.mark.parametrize("compressed", [False, True])
async def test_a_page_that_is_too_large_is_not_read_and_the_next_one_is(
    monkeypatch, compressed: bool
) -> None:
    """Its size is counted without compression, because a small body can contain a large one."""
    monkeypatch.setattr(rest, "BODY_BYTES_MAX", 20_000)
    answers = {"": {"posts": [], "cursor": "", "more": "x" * 200_000}}
    with endpoint(answers, compressed=compressed) as (url, asked):
        base, _, route = url.rpartition("/")
        server = rest.Rest("questions", base, Patience(refused_seconds=0.02))
        source = QuestionsSource(None, server, f"/{route}", poll_seconds=0.01)
        stream = source.stream([OF])
        async with limit():
            coming = asyncio.ensure_future(anext(stream))
            await until(lambda: len(asked) > 1)
            assert source.health.state == "refused"
            assert source.health.reason == (
                f"questions: {base}/posts: the answer has more than 20,000 bytes, and is not read"
            )
            answers[""] = {"posts": STAKES[:1], "cursor": ""}
            assert posts([await coming]) == STAKES[:1]
        assert source.health.state == "connected"
        await stream.aclose()


@pytest.mark.parametrize("options", [{}, {"path": "x", "url": "http://127.0.0.1"}, {"file": "x"}])
def test_missing_or_contradicting_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(OperatorError, match="FEED_OPT_"):
        source_by_name("questions", options)
