"""Expensive questions: one at a time in a thread beside the live answers. A few wait; more are refused with 503."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fastapi import HTTPException, Request
from fastapi.responses import Response

from coordinator.api.addresses import address_group

WAITING_MAX = 64
WAITING_PER_ADDRESS_MAX = 24
RETRY_AFTER_SECONDS = "1"


class Turns:
    """One thread for expensive work. The event loop keeps its share of the interpreter for the cheap answers."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._lock = threading.Lock()  # `run` is also called from the threads that answer about the past
        self._waiting: Counter[str] = Counter()

    async def run(self, request: Request, work: Callable[[], Response]) -> Response:
        """Run `work` in the thread when its turn comes. Raises HTTPException 503 when too many wait already."""
        address = address_group(request.client.host if request.client else "")
        with self._lock:
            if self._waiting.total() >= WAITING_MAX or self._waiting[address] >= WAITING_PER_ADDRESS_MAX:
                retry = {"Retry-After": RETRY_AFTER_SECONDS}
                raise HTTPException(503, "many such questions are waiting; ask again", retry)
            self._waiting[address] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            with self._lock:
                self._waiting[address] -= 1
                if not self._waiting[address]:
                    del self._waiting[address]
