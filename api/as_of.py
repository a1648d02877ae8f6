"""`?as_of=TIME` and `?as_of_offsets=POSITION`: the reading routes as of a past time, or at a cut of the log.

The routes run unchanged over views of the stores (`projections/folding/as_of.py`), in threads that have their own event
loop: the loop that folds and serves live answers never waits for a question about the past. THREADS questions run at a
time, WAITING_MAX wait, more are refused with 503. Answers are cached by the position that they are of, up to
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
from coordinator.api.read_models import HELD_FROM, LIVE, READ, WINDOW, TrackedReadModels
from coordinator.api.times import parse_ms, zulu
from coordinator.projections.folding.as_of import (
    Cut,
    Cuts,
    NotInThePastError,
    PastReadModels,
    TooManyLatecomersError,
    check_cuts,
    check_held,
    cuts_at,
    folded_until,
    horizon_of,
)
from coordinator.projections.folding.past_held import PastCutError
from coordinator.projections.views.all_views import ReadModels

THREADS = 1
"""More threads would not answer faster, because they share one interpreter, and would delay the live answers."""
SWITCH_SECONDS = 0.0005
WAITING_MAX = 64
RETRY_AFTER_SECONDS = "1"
CACHE_BYTES = 16 * 1024 * 1024
CACHED_ANSWER_BYTES_MAX = 1024 * 1024
TIME_CHARS_MAX = 64
MOMENT_PARAMETERS = ("as_of", "as_of_offsets")
OK = 200
HAS_A_PAST = re.compile(
    r"/reports/(leaderboard(/history|/boards)?|pools|models(/[^/]+(/state)?)?|predictions|ensembles|snapshots|feeds(/tail)?|schema|checkpoints(/[^/]+)?|"
    r"rounds(/.+)?|stakes|explain/(predictions|checkpoints|snapshots|board|copies)/.+)|/events/overview"
)
"""Not what pays (`emission`, `prizes`): nobody may sign for an old state."""
EXPLAIN_PATHS = "/reports/explain/"
"""Their answers are not cached: each is about another figure, and hardly one is asked for twice."""
IN_A_THREAD = re.compile(rf"/reports/predictions|/reports/rounds/.+|/events/overview|{EXPLAIN_PATHS}.+")
"""These routes run in a thread beside the folds, so they get a view, whose rows stay as they are."""


def let_live_answers_through() -> None:
    """Shorten the interpreter's switch interval, for the whole process.

    A thread that computes holds the interpreter for one interval before another thread gets it, and a live answer needs
    the interpreter several times. Under a flood of questions about the past a live answer takes 33 ms with Python's
    default of 5 ms, and 1.5 ms with SWITCH_SECONDS; the questions get a fifth slower (`tests/bench/as_of.py`).
    """
    sys.setswitchinterval(SWITCH_SECONDS)


class Question(msgspec.Struct, frozen=True):
    """A question about the past: a path and its query, without the parameter that names the moment.

    Either `at_ms` (a time) or `cuts` (topic -> where to cut the log) names the moment; the other is None.
    """

    path: str
    query: tuple[tuple[str, str], ...]
    at_ms: int | None
    cuts: Mapping[str, Cut] | None


class Answer(msgspec.Struct, frozen=True):
    """A whole HTTP answer, so that it can be cached."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def question_of(scope: Scope) -> Question | None:
    """The question about the past that a request asks; None if it asks about now. Raises ValueError with a sentence."""
    query = scope["query_string"].decode("latin-1")
    if "as_of" not in query:
        return None
    pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=2_000)
    moments = [(name, value) for name, value in pairs if name in MOMENT_PARAMETERS]
    if not moments:
        return None
    if len(moments) > 1:
        raise ContradictionError("give either as_of or as_of_offsets, and only once")
    path = scope["path"]
    if HAS_A_PAST.fullmatch(path) is None:
        raise ValueError(f"{path} answers only about the present: leave out as_of")
    rest = tuple(sorted((name, value) for name, value in pairs if name not in MOMENT_PARAMETERS))
    name, value = moments[0]
    if name == "as_of_offsets":
        return Question(path, rest, None, parse_position(value))
    if len(value) > TIME_CHARS_MAX:
        raise ValueError("as_of is ISO 8601 or epoch ms")
    # In a query "+" stands for a blank. A time with a blank has lost the sign of its zone: put it back.
    return Question(path, rest, parse_ms(value.replace(" ", "+") if "T" in value else value), None)


class AsOf:
    """The innermost ASGI layer: it hands the routes the read models to answer from, of now or of a past moment."""

    def __init__(self, app: ASGIApp, read: ReadModels) -> None:
        self._app = app
        self._live = read
        self._threads = ThreadPoolExecutor(THREADS, "as-of")
        self._local = threading.local()
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[Any, ...], Answer] = OrderedDict()  # the least recently used first
        self._cached_bytes = 0
        self._topics_read: dict[str, frozenset[str]] = {}  # path -> every topic that it ever read
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer about the past if the query asks for it, otherwise about now."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        try:
            question = question_of(scope)
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
            await problem(503, "many questions about the past are waiting; try again later", retry)(
                scope, receive, send
            )
            return
        self._running += 1
        scope[HELD_FROM] = held_ms = _held_ms(self._live)
        try:
            # Taken on the loop, between two commits: all stores are folded up to the same events.
            ends = folded_until(self._live)
            answer = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._past, question, dict(scope), ends
            )
        finally:
            self._running -= 1
        headers = [*answer.headers, *_past_from(held_ms)]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})

    async def _now(self, scope: Scope, receive: Receive, send: Send) -> None:
        read: TrackedReadModels | PastReadModels
        if IN_A_THREAD.fullmatch(scope["path"]):
            ends = folded_until(self._live)
            read = PastReadModels(self._live, {topic: Cut(end) for topic, end in ends.items()})
        else:
            read = TrackedReadModels(self._live)
        window: list[str] = []
        held_ms = _held_ms(self._live)
        scope.update({READ: read, LIVE: self._live, WINDOW: window, HELD_FROM: held_ms})

        async def send_with_position(message: Message) -> None:
            if message["type"] == "http.response.start" and read.used():
                window_headers = [(b"x-window", text.encode()) for text in window]
                message["headers"] = [
                    *message.get("headers", ()),
                    *_headers(read, "live"),
                    *window_headers,
                    *_past_from(held_ms),
                ]
            await send(message)

        await self._app(scope, receive, send_with_position)

    def _past(self, question: Question, scope: Scope, ends: Mapping[str, int]) -> Answer:
        """Find the cut, and run the route over a view of it, unless the answer is cached. Runs in an as-of thread."""
        moment_text = "offsets" if question.at_ms is None else f"time {zulu(question.at_ms)}"
        try:
            if question.at_ms is not None:
                cuts: Cuts = cuts_at(self._live, question.at_ms, ends)
            else:
                cuts = question.cuts or {}
                check_cuts(self._live, cuts, ends)
            answer = self._get(question, cuts)
            if answer is None:
                read = PastReadModels(self._live, cuts)
                try:
                    answer = self._run({**scope, READ: read})
                finally:
                    check_held(self._live, question.at_ms, cuts)  # it may have been cut while it was read
                if read.used():
                    position_headers = tuple(_headers(read, ""))
                    answer = Answer(answer.status, answer.headers + position_headers, answer.body)
                    self._keep(question, cuts, frozenset(read.cuts_read()), answer)
        except (NotInThePastError, TooManyLatecomersError) as error:
            answer = _plain(409, str(error))
        except PastCutError as error:
            answer = _plain(410, str(error))
        # Not part of the cached answer: different times may lead to the same cut.
        headers = [pair for pair in answer.headers if pair[0] != b"x-as-of"]
        return Answer(answer.status, (*headers, (b"x-as-of", moment_text.encode())), answer.body)

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

    def _get(self, question: Question, cuts: Cuts) -> Answer | None:
        with self._lock:
            topics = self._topics_read.get(question.path)
            if topics is None or not topics <= set(cuts):
                return None
            key = _cache_key(question, cuts, topics)
            answer = self._cache.get(key)
            if answer is not None:
                self._cache.move_to_end(key)
            return answer

    def _keep(self, question: Question, cuts: Cuts, topics: frozenset[str], answer: Answer) -> None:
        if answer.status != OK or len(answer.body) > CACHED_ANSWER_BYTES_MAX:
            return
        if question.path.startswith(EXPLAIN_PATHS):
            return
        with self._lock:
            # At another moment a route may read more topics. So the key names the cuts of all topics that it ever read.
            topics = self._topics_read[question.path] = (
                self._topics_read.get(question.path, frozenset()) | topics
            )
            if not topics <= set(cuts):
                return
            key = _cache_key(question, cuts, topics)
            if key not in self._cache:
                self._cached_bytes += len(answer.body)
            self._cache[key] = answer
            while self._cached_bytes > CACHE_BYTES:
                _, dropped = self._cache.popitem(last=False)
                self._cached_bytes -= len(dropped.body)


def _cache_key(question: Question, cuts: Cuts, topics: frozenset[str]) -> tuple[Any, ...]:
    return question.path, question.query, position_text({topic: cuts[topic] for topic in topics})


def _headers(read: TrackedReadModels | PastReadModels, moment_text: str) -> list[tuple[bytes, bytes]]:
    return headers_of(read.used(), read.cuts_read(), moment_text)


def _held_ms(live: ReadModels) -> int:
    horizon = horizon_of(live)
    return 0 if horizon is None else horizon.from_ms


def _past_from(held_ms: int) -> list[tuple[bytes, bytes]]:
    """The header with the time from which on there are rows, so that a client does not take the list for the whole
    past.
    """
    return [(b"x-past-from", zulu(held_ms).encode())] if held_ms else []


def _plain(status: int, detail: str) -> Answer:
    refused = problem(status, detail)
    return Answer(status, tuple(refused.raw_headers), bytes(refused.body))
