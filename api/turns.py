"""Questions that cost much, one at a time beside the live answers: some wait, the rest are told to come again."""

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
    """A thread of its own. The event loop, and with it every cheap answer, keeps its share of the interpreter."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._lock = threading.Lock()  # answers about the past are asked for from a thread of theirs
        self._waiting: Counter[str] = Counter()

    async def run(self, request: Request, work: Callable[[], Response]) -> Response:
        """What `work` gives, when its turn has come. Raises HTTPException 503 when too many wait."""
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
