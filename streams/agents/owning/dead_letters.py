"""Writes garbage from outside to `dead-letters` with its reason; the worker continues."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections import Counter
from collections.abc import Callable

import structlog

from coordinator.streams.agents.owning.log_io import LogIO, Writer
from coordinator.streams.clock import wall_ms
from coordinator.streams.events import DeadLettered, DeadLetteredData
from coordinator.streams.log import ids
from coordinator.streams.log.envelope import HEAD_CHARS, encode_event
from coordinator.streams.log.errors import LogError, WrongLogError
from coordinator.streams.log.reasons import as_reason

log = structlog.get_logger()

WAITING_MAX = 1_000
"""How many letters may wait to be sent before a source's garbage is only counted."""
PLACE_CHARS_MAX = 300
LOG = "log"
"""The origin of a letter about a record in our own log that stops a stage."""
LOG_LETTER_SECONDS_MAX = 5.0
LOG_LETTER_NS = 600 * 1_000_000_000


def dead_letter(origin: str, position: str, reason: str, body: bytes, at: int) -> DeadLettered:
    """The event for one piece of garbage. Equal garbage at the same place has the same id."""
    origin, position = as_reason(origin, PLACE_CHARS_MAX), as_reason(position, PLACE_CHARS_MAX)
    digest = hashlib.sha256(body).hexdigest()
    return DeadLettered(
        id=ids.content_id("dead", origin, position, digest),
        at=at,
        data=DeadLetteredData(
            origin=origin,
            position=position,
            reason=as_reason(reason, 500),
            sha256=digest,
            head=body[:HEAD_CHARS].decode("utf-8", "replace"),
        ),
    )


class DeadLetters:
    """Takes letters from anywhere in the process, and sends them in one task (`run`)."""

    def __init__(self, io: LogIO, worker: str = "", now_ms: Callable[[], int] = wall_ms) -> None:
        self._io = io
        self._worker = worker
        self._now_ms = now_ms
        self._queue: asyncio.Queue[tuple[DeadLettered, asyncio.Future[None]]] = asyncio.Queue()
        self._left_out = 0
        self._last_left_out = ("", "")
        self._times_seen: Counter[bytes] = Counter()

    def put(self, origin: str, position: str, reason: str, body: bytes) -> asyncio.Future[None]:
        """Queue a letter; the future is done when the letter is durable.

        The letter has wall-clock time, because no decision depends on it.
        """
        log.warning("dead_letter", origin=origin, position=position, reason=reason)
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        letter = dead_letter(origin, position, reason, body, self._now_ms())
        self._queue.put_nowait((letter, durable))
        return durable

    async def say_log_fault(self, error: BaseException) -> None:
        """Write a letter about the fault in our own log that is about to end this process; for other errors, nothing.

        Its origin is LOG, its position the worker's name. A worker that restarts and ends again writes the same letter:
        its id changes once in ten minutes. Into topics that are not ours or not whole nothing is written: who ends by
        that names it last, and the letter would still be told when the topics are restored.
        """
        if isinstance(error, LogError) and not isinstance(error, WrongLogError):
            body = f"{error} {time.time_ns() // LOG_LETTER_NS}".encode()
            with contextlib.suppress(TimeoutError):  # no broker: the last line on stderr has it
                async with asyncio.timeout(LOG_LETTER_SECONDS_MAX):
                    await self.put(LOG, self._worker, str(error), body)

    async def from_topic(self, topic: str, offset: int, body: bytes, reason: str) -> None:
        """`OnGarbage` for a topic of many writers: returns when the letter is durable; then the stage continues."""
        await self.put(topic, str(offset), reason, body)

    def from_source(self, reason: str, text: str) -> None:
        """`on_garbage` for a feed source. Garbage that arrives faster than it can be sent is counted in one letter."""
        if self._queue.qsize() < WAITING_MAX:
            self._put_from_source(reason, text)
        else:
            self._left_out += 1
            self._last_left_out = (reason, text)

    def _put_left_out(self) -> None:
        count, (reason, text) = self._left_out, self._last_left_out
        self._left_out = 0
        self._put_from_source(f"{count} more came meanwhile, too many to keep; the last: {reason}", text)

    def _put_from_source(self, reason: str, text: str) -> None:
        """The position counts equal texts, so a source that says the same line again and again is a flood of letters.

        The count begins again with the process: a file that is read again after a restart gives the same letters.
        """
        body = text.encode("utf-8", "replace")
        digest = hashlib.sha256(body).digest()
        if len(self._times_seen) >= WAITING_MAX and digest not in self._times_seen:
            self._times_seen.clear()
        self._times_seen[digest] += 1
        times = self._times_seen[digest]
        self.put("feed source", "" if times == 1 else f"the same, time {times}", reason, body)

    async def run(self) -> None:
        """Send letters until cancelled. If the broker does not answer, a letter waits and is sent again."""
        writer: Writer | None = None
        while True:
            if self._left_out and self._queue.empty():
                self._put_left_out()
            letter, durable = await self._queue.get()
            while True:
                try:
                    if writer is None:
                        writer = await self._io.writer()
                    await (await writer.send("dead-letters", encode_event(letter)))
                    if not durable.done():
                        durable.set_result(None)
                    break
                except Exception as error:  # noqa: BLE001 - whatever the broker does, the letter is sent again
                    log.warning("dead_letter_waits", error=str(error))
                    if writer is not None:
                        await writer.close()
                        writer = None
                    await asyncio.sleep(1)
