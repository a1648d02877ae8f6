"""Expensive questions: one or a few at a time in threads beside the live answers. Some wait; more are refused with 503.

Where it is known who asks, each has one question under way, and a second is refused with 429: so one whose questions
are slow delays nobody else for longer than one of them.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fastapi import HTTPException, Request
from fastapi.responses import Response

from coordinator.api.callers import address_group

WAITING_MAX = 64
WAITING_PER_ADDRESS_MAX = 24
RETRY_AFTER_SECONDS = "1"
RETRY_OWN_AFTER_SECONDS = "10"
"""After one's own question, which may take that long."""


class Turns:
    """Threads for expensive work, one by default. The event loop keeps its share of the interpreter for the cheap
    answers.
    """

    def __init__(self, name: str, at_once: int = 1) -> None:
        self._threads = ThreadPoolExecutor(at_once, name)
        self._lock = threading.Lock()  # `run` is also called from the threads that answer about the past
        self._waiting: Counter[str] = Counter()

    async def run(self, request: Request, work: Callable[[], Response], asker: str = "") -> Response:
        """Run `work` in a thread when its turn comes. Raises HTTPException 503 when too many wait already, and 429 for
        a second one of an `asker`.
        """
        who = asker or address_group(request.client.host if request.client else "")
        with self._lock:
            if asker and self._waiting[who]:
                retry = {"Retry-After": RETRY_OWN_AFTER_SECONDS}
                raise HTTPException(429, "another one of yours is being looked at; ask again after it", retry)
            if self._waiting.total() >= WAITING_MAX or self._waiting[who] >= WAITING_PER_ADDRESS_MAX:
                retry = {"Retry-After": RETRY_AFTER_SECONDS}
                raise HTTPException(503, "many such questions are waiting; ask again", retry)
            self._waiting[who] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            with self._lock:
                self._waiting[who] -= 1
                if not self._waiting[who]:
                    del self._waiting[who]
