"""The source `questions`: posts from a JSON-lines file, a folder of them, or an HTTP endpoint.

A file is followed while it grows, and each line is read once it is complete. An endpoint is polled with
`GET url?cursor=..`: it answers `{"posts": [..], "cursor": ".."}`, the posts after the cursor as the lines of a file
have them. A page that is too large, or is none, is not read: the source says that it is refused and why, and asks
again, some minutes later where the fault will last. A cursor that goes back is followed no faster than the source
polls. After a restart all is read again from the start, which does no harm: the stage of feeds knows a post by its
text. A post is taken when it is read, or at its own `at` if that is later.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, ClassVar

import msgspec

from coordinator.streams.clock import wall_ms
from coordinator.streams.feeds.posts import KIND, POST_BYTES_MAX
from coordinator.streams.log.errors import NoHistoryError, OperatorError, RefusedError, WorldError
from coordinator.streams.ports import FeedRecord, SourceHealth, Subscription
from coordinator.streams.sources.candle_values import OnGarbage
from coordinator.streams.sources.files.grown_lines import GrownLines, Line
from coordinator.streams.sources.options import Options
from coordinator.streams.sources.questions.lines import PostLine, read_line
from coordinator.streams.sources.rest import Refusals, Rest
from coordinator.streams.sources.waiting import Patience, trouble_of

FILE_LOOK_SECONDS = 0.5
SUFFIXES = (".jsonl", ".ndjson")


CURSOR_CHARS_MAX = 2_000
"""It is a part of the next request's address."""
REDIRECTS = (301, 302, 303, 307, 308)
MOVED = "redirects are not followed: name the new address in FEED_OPT_URL"


class _Page(msgspec.Struct):
    posts: list[msgspec.Raw] = []
    cursor: Annotated[str, msgspec.Meta(max_length=CURSOR_CHARS_MAX)] = ""


class QuestionsSource:
    """Posts of `path` (a file, or a folder of .jsonl files) or `url`."""

    name = "questions"
    about = "questions that are posted: a JSON-lines file or folder that grows (option path), or a URL (option url)"
    offers: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({KIND: ("1s",)})
    keeps_to_the_clock = True

    def __init__(
        self,
        path: Path | None,
        rest: Rest | None,
        route: str,
        poll_seconds: float,
        on_garbage: OnGarbage | None = None,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self.health = SourceHealth()
        self._path = path
        self._rest = rest
        self._route = route
        self._poll_seconds = poll_seconds
        self._on_garbage = on_garbage
        self._now_ms = now_ms

    @classmethod
    def from_options(cls, options: Mapping[str, str], on_garbage: OnGarbage | None = None) -> QuestionsSource:
        """Made of FEED_OPT_PATH, or of FEED_OPT_URL with _TOKEN and _POLL_SECONDS. Raises OperatorError."""
        checked = Options("questions", options, ("path", "url", "token", "poll_seconds"))
        path, url, token = checked.text("path"), checked.text("url"), checked.secret("token")
        if bool(path) == bool(url):
            raise OperatorError(
                "feed source 'questions' needs one of FEED_OPT_PATH (a file or folder) and FEED_OPT_URL"
            )
        rest = None
        if url:
            headers = {"Authorization": f"Bearer {token}"} if token else None
            base, _, rest_path = url.partition("://")[2].partition("/")
            rest = Rest(
                "questions",
                f"{url.partition('://')[0]}://{base}",
                Patience(),
                headers,
                Refusals(lasting=dict.fromkeys(REDIRECTS, MOVED)),
            )
            return cls(None, rest, f"/{rest_path}", checked.seconds("poll_seconds", 10.0), on_garbage)
        return cls(Path(path), None, "", checked.seconds("poll_seconds", 10.0), on_garbage)

    async def stream(self, subscriptions: Sequence[Subscription]) -> AsyncIterator[FeedRecord]:
        """Posts as they are read, in order of their times."""
        (of,) = subscriptions
        if of.kind != KIND:
            raise OperatorError(f"feed source 'questions' delivers only FEED_KIND={KIND}, not {of.kind}")
        later: list[tuple[int, int, str]] = []
        count = newest = 0
        async for posts in self._batches():
            for post in posts:
                count += 1
                heapq.heappush(later, (post.at or 0, count, post.text))
            now = self._now_ms()
            while later and later[0][0] <= now:
                _, _, text = heapq.heappop(later)
                newest = max(newest, now)
                yield of.record(newest, newest, {"post": text})

    async def history(
        self, subscription: Subscription, start_ms: int, end_ms: int
    ) -> AsyncIterator[FeedRecord]:
        """The posts of files that say when they were made. Raises NoHistoryError for a URL."""
        if self._path is None:
            raise NoHistoryError("a URL of questions has no history; its posts come again by the stream")
        lines = _Files(self._path)
        posts: list[PostLine] = []
        try:
            while lines_read := lines.read():
                posts += self._read(lines_read)
        finally:
            lines.close()
        for at, text in sorted(
            ((post.at, post.text) for post in posts if post.at is not None),
            key=lambda timed_post: timed_post[0],
        ):
            if start_ms <= at <= end_ms:
                yield subscription.record(at, at, {"post": text})

    async def _batches(self) -> AsyncIterator[list[PostLine]]:
        if self._path is not None:
            files = _Files(self._path)
            try:
                while True:
                    try:
                        lines = files.read()
                        self._connected()
                    except OSError as error:
                        lines = []
                        self.health.state, self.health.reason = "reconnecting", str(error)
                    yield self._read(lines)
                    if not lines:
                        await asyncio.sleep(FILE_LOOK_SECONDS)
            finally:
                files.close()
        async for page in self._pages():
            yield page

    async def _pages(self) -> AsyncIterator[list[PostLine]]:
        if self._rest is None:
            return
        cursor = ""
        asked: set[str] = set()
        """The cursors since the last pause."""
        async with self._rest.client() as client:
            while True:
                posts: list[PostLine] = []
                more, pause_seconds = False, self._poll_seconds
                asked.add(cursor)
                try:
                    body = await self._rest.get(client, self._route, {"cursor": cursor} if cursor else {})
                    page = msgspec.json.decode(body, type=_Page)
                    lines = [Line(bytes(raw).decode(), number) for number, raw in enumerate(page.posts, 1)]
                    posts = self._read(lines)
                    cursor = page.cursor or cursor
                    more = bool(lines) and cursor not in asked
                    self._connected()
                except (WorldError, OperatorError) as error:
                    self.health.state, self.health.reason = trouble_of(error)
                    if isinstance(error, RefusedError):
                        pause_seconds = max(pause_seconds, error.again_seconds)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    self._no_page(f"no page of posts: {error}")
                yield posts
                if not more:
                    asked.clear()
                    await asyncio.sleep(pause_seconds)

    def _no_page(self, reason: str) -> None:
        """The server's fault, said once while it lasts."""
        if self.health.reason != reason:
            self._garbage(reason, "")
        self.health.state, self.health.reason = "refused", reason

    def _connected(self) -> None:
        if self.health.state != "connected":
            self.health.connections += 1
        self.health.state, self.health.reason = "connected", ""

    def _read(self, lines: Iterable[Line]) -> list[PostLine]:
        posts: list[PostLine] = []
        for line in lines:
            if not line.text.strip():
                continue
            try:
                if line.fault:
                    raise ValueError(line.fault)
                posts.append(read_line(line.text))
            except ValueError as error:
                self._garbage(f"line {line.number}: {error}", line.text[:10_000])
        return posts

    def _garbage(self, reason: str, text: str) -> None:
        self.health.refused += 1
        if self._on_garbage is not None:
            self._on_garbage(reason, text)


class _Files:
    """A file, or the files of a folder in the order of their names, each followed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[Path, GrownLines] = {}

    def read(self) -> list[Line]:
        """The next complete lines; empty if there are none now. Raises OSError."""
        paths = [self._path]
        if self._path.is_dir():
            # What is no file (a folder, a pipe) would stop the others, or never end.
            paths = sorted(
                path for path in self._path.iterdir() if path.suffix in SUFFIXES and path.is_file()
            )
        for path in paths:
            if path not in self._files:
                self._files[path] = GrownLines(path, line_bytes_max=POST_BYTES_MAX)
        for path in paths:
            if lines := self._files[path].read():
                return lines
        return []

    def close(self) -> None:
        """Close them."""
        for lines in self._files.values():
            lines.close()
