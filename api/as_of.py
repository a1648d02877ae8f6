"""`?as_of=TIME` and `?as_of_offsets=POSITION`: the reading routes as of any moment, or at a cut of the log.

The routes run unchanged, over views of the stores (`projections/folding/past.py`), in threads of their own with an
event loop each: the one that folds and serves live answers never waits for the past. A few questions run at a time,
some wait, the rest are told to come again. Answers are kept by the position that they stand for, as much as fits into
CACHE_BYTES.
"""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coordinator.api.positions import ContradictionError, headers_of, parse_position, position_text
from coordinator.api.problems import problem
from coordinator.api.reading import LIVE, READ, WINDOW, Looked
from coordinator.api.times import parse_ms, zulu
from coordinator.projections.folding.past import (
    Cut,
    Cuts,
    NotInThePastError,
    PastReadModels,
    TooManyLatecomersError,
    check_cuts,
    cuts_at,
    folded_until,
)
from coordinator.projections.views.all_views import ReadModels

THREADS = 1
"""More would not answer faster, the interpreter being one; they would take it from the live answers."""
SWITCH_SECONDS = 0.0005
WAITING_MAX = 64
RETRY_AFTER_SECONDS = "1"
CACHE_BYTES = 16 * 1024 * 1024
CACHED_ANSWER_BYTES_MAX = 1024 * 1024
TIME_CHARS_MAX = 64
OK = 200
HAS_A_PAST = re.compile(
    r"/reports/(leaderboard(/history)?|pools|models(/[^/]+(/state)?)?|predictions|snapshots|feeds(/tail)?|schema|checkpoints(/[^/]+)?)"
)
"""What pays (`emission`, `prizes`) is answered as of now alone: an old state must not be signed for."""
FROM_ROWS_ALONE = "/reports/predictions"


def let_live_answers_through() -> None:
    """A thread that computes keeps the interpreter for so long before another gets it. Python's own 5 ms cost a live
    answer, which needs it several times, 33 ms beside a flood of questions about the past; this 1.5 ms, and those
    questions a fifth of their speed (`tests/bench/as_of.py`). It holds for the whole process.
    """
    sys.setswitchinterval(SWITCH_SECONDS)


class Asked(msgspec.Struct, frozen=True):
    """One question about the past. `query` is without what names the moment."""

    path: str
    query: tuple[tuple[str, str], ...]
    at_ms: int | None
    cuts: Mapping[str, Cut] | None


class Answer(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def asked(scope: Scope) -> Asked | None:
    """The question, or None when it is about now. Raises ValueError with a sentence."""
    query = scope["query_string"].decode("latin-1")
    if "as_of" not in query:
        return None
    pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=2_000)
    named = {name: [value for one, value in pairs if one == name] for name in ("as_of", "as_of_offsets")}
    pairs_of_query = [(name, value) for name, values in named.items() for value in values]
    if not pairs_of_query:
        return None
    if len(pairs_of_query) > 1:
        raise ContradictionError("give as_of or as_of_offsets, and once")
    path = scope["path"]
    if HAS_A_PAST.fullmatch(path) is None:
        raise ValueError(f"{path} is about now alone: ask it without as_of")
    rest = tuple(sorted((name, value) for name, value in pairs if name not in named))
    name, value = pairs_of_query[0]
    if name == "as_of_offsets":
        return Asked(path, rest, None, parse_position(value))
    if len(value) > TIME_CHARS_MAX:
        raise ValueError("as_of is ISO 8601 or epoch ms")
    # "+" in a query is a blank to HTTP, and then no zone: take it back.
    return Asked(path, rest, parse_ms(value.replace(" ", "+") if "T" in value else value), None)


class AsOf:
    """The layer next to the routes. It gives them the read models that they are to answer from."""

    def __init__(self, app: ASGIApp, read: ReadModels) -> None:
        self._app = app
        self._live = read
        self._threads = ThreadPoolExecutor(THREADS, "as-of")
        self._local = threading.local()
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Any, ...], Answer] = OrderedDict()
        self._kept_bytes = 0
        self._reads: dict[str, frozenset[str]] = {}
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer about now, or about the past where the query says so."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        try:
            question = asked(scope)
        except ContradictionError as error:
            await problem(409, str(error))(scope, receive, send)
            return
        except ValueError as error:
            await problem(422, str(error))(scope, receive, send)
            return
        if question is None:
            await self._now(scope, receive, send)
            return
        if self._running >= THREADS + WAITING_MAX:
            retry = {"Retry-After": RETRY_AFTER_SECONDS}
            await problem(503, "many questions about the past are waiting; ask again", retry)(
                scope, receive, send
            )
            return
        self._running += 1
        try:
            # Between two commits: no store is ahead of another.
            ends = folded_until(self._live)
            answer = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._past, question, dict(scope), ends
            )
        finally:
            self._running -= 1
        await send({"type": "http.response.start", "status": answer.status, "headers": list(answer.headers)})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

    async def _now(self, scope: Scope, receive: Receive, send: Send) -> None:
        read: Looked | PastReadModels
        if scope["path"] == FROM_ROWS_ALONE:
            # This route runs in a thread beside the folds: over a view of this moment, all its rows are of one state.
            ends = folded_until(self._live)
            read = PastReadModels(self._live, {topic: Cut(end) for topic, end in ends.items()})
        else:
            read = Looked(self._live)
        window: list[str] = []
        scope.update({READ: read, LIVE: self._live, WINDOW: window})

        async def send_with_position(message: Message) -> None:
            if message["type"] == "http.response.start" and read.used():
                moved = [(b"x-window", one.encode()) for one in window]
                message["headers"] = [*message.get("headers", ()), *_headers(read, "live"), *moved]
            await send(message)

        await self._app(scope, receive, send_with_position)

    def _past(self, question: Asked, scope: Scope, ends: Mapping[str, int]) -> Answer:
        """In one of our threads: find the cut, and run the route over the view there, unless the answer is kept."""
        stands_for = "offsets" if question.at_ms is None else f"time {zulu(question.at_ms)}"
        try:
            if question.at_ms is not None:
                cuts: Cuts = cuts_at(self._live, question.at_ms, ends)
            else:
                cuts = question.cuts or {}
                check_cuts(self._live, cuts, ends)
            answer = self._get(question, cuts)
            if answer is None:
                read = PastReadModels(self._live, cuts)
                answer = self._run({**scope, READ: read})
                if read.used():
                    more = tuple(_headers(read, ""))
                    answer = Answer(answer.status, answer.headers + more, answer.body)
                    self._keep(question, cuts, frozenset(read.cuts_read()), answer)
        except (NotInThePastError, TooManyLatecomersError) as error:
            answer = _plain(409, str(error))
        headers = [pair for pair in answer.headers if pair[0] != b"x-as-of"]
        return Answer(answer.status, (*headers, (b"x-as-of", stands_for.encode())), answer.body)

    def _run(self, scope: Scope) -> Answer:
        loop = getattr(self._local, "loop", None)
        if loop is None:
            loop = self._local.loop = asyncio.new_event_loop()
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        loop.run_until_complete(self._app(scope, receive, send))
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return Answer(sent[0]["status"], tuple(sent[0]["headers"]), body)

    def _get(self, question: Asked, cuts: Cuts) -> Answer | None:
        with self._lock:
            reads = self._reads.get(question.path)
            if reads is None or not reads <= set(cuts):
                return None
            name = (question.path, question.query, position_text({read: cuts[read] for read in reads}))
            answer = self._kept.get(name)
            if answer is not None:
                self._kept.move_to_end(name)
            return answer

    def _keep(self, question: Asked, cuts: Cuts, reads: frozenset[str], answer: Answer) -> None:
        if answer.status != OK or len(answer.body) > CACHED_ANSWER_BYTES_MAX:
            return
        with self._lock:
            # A route may read more at another moment: what is kept goes by all the topics that it ever read.
            reads = self._reads[question.path] = self._reads.get(question.path, frozenset()) | reads
            if not reads <= set(cuts):
                return
            name = (question.path, question.query, position_text({read: cuts[read] for read in reads}))
            if name not in self._kept:
                self._kept_bytes += len(answer.body)
            self._kept[name] = answer
            while self._kept_bytes > CACHE_BYTES:
                _, dropped = self._kept.popitem(last=False)
                self._kept_bytes -= len(dropped.body)


def _headers(read: Looked | PastReadModels, stands_for: str) -> list[tuple[bytes, bytes]]:
    return headers_of(read.used(), read.cuts_read(), stands_for)


def _plain(status: int, detail: str) -> Answer:
    refused = problem(status, detail)
    return Answer(status, tuple(refused.raw_headers), bytes(refused.body))
