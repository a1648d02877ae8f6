"""Looks at what a shadow left in the data directory, for the routes and the alerts. Reads files; asks nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from coordinator.infra.shadow_files import ShadowFiles, ShadowOrder, ShadowResult, ShadowStatus, why_ill
from coordinator.streams.engine.divergence import divergence
from coordinator.streams.log.errors import OperatorError

LOOK_SECONDS = 2.0


class ShadowSeen(msgspec.Struct, frozen=True):
    """A shadow that was started; `status` and `result` are None until its process has said them, of these rules."""

    order: ShadowOrder
    status: ShadowStatus | None
    result: ShadowResult | None


class ShadowLoop:
    """`seen` is None where no shadow was started. `concerns` are what the operator should know, by name."""

    def __init__(self, data_dir: Path, now_ms: Callable[[], int]) -> None:
        self._files, self._now_ms = ShadowFiles(data_dir), now_ms
        self._written: tuple[int, int] | None = None
        self.seen: ShadowSeen | None = None
        self.concerns: dict[str, str] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """One look, in a thread: a large result would hold up the answers."""
        await asyncio.to_thread(self.look_now)

    def look_now(self) -> None:
        """One look. A file that cannot be read is a concern, and what was seen before stays."""
        try:
            seen, diverges = self._look()
        except OperatorError as error:
            self.concerns = {"files": str(error)}
            return
        told = {} if seen is None else {"failed": why_ill(seen.order, seen.status, self._now_ms())}
        self.seen = seen
        self.concerns = {name: text for name, text in (told | {"diverges": diverges}).items() if text}

    def _look(self) -> tuple[ShadowSeen | None, str]:
        order = self._files.order()
        if order is None:
            return None, ""
        status, result = self._files.status(), self._newest()
        key = order.rules.key
        seen = ShadowSeen(
            order,
            status if status is not None and status.key == key else None,
            result if result is not None and result.key == key else None,
        )
        if seen.result is None or order.stopped:
            return seen, ""
        return seen, divergence(seen.result.new, seen.result.live, order.bounds)

    def _newest(self) -> ShadowResult | None:
        """The result. It is decoded again only after it was written again."""
        written = self._files.result_written()
        if written != self._written or self.seen is None:
            result = self._files.result()
            self._written = written
            return result
        return self.seen.result
