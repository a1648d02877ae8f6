"""Keeps one stage owned: a tenure for each assignment, a gate in front of Faust's delivery.

The assigned set is the whole truth (Faust's `revoked` is sometimes empty). A claim is made only when the
partition is newly assigned, or after an own failed send, after a pause of 1, 2, 4 .. 30 s. At a foreign
claim the gate closes and waits for a new assignment. A partition kept through a rebalance keeps its claim.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from aiokafka.errors import KafkaError

from coordinator.streams.agents.ownership import LostOwnershipError
from coordinator.streams.agents.tenure import Tenure
from coordinator.streams.errors import WorldError

PAUSE_SECONDS_MAX = 30.0
HEALTHY_SECONDS = 60.0

log = structlog.get_logger()


class Keeper:
    """Runs tenures made by `new_tenure` while the stage's driving partition is assigned to this process."""

    def __init__(self, name: str, new_tenure: Callable[[], Tenure]) -> None:
        self.name = name
        self.claims = 0
        self._new_tenure = new_tenure
        self._assigned = False
        self._changed = asyncio.Event()
        self._open: asyncio.Future[Tenure] = asyncio.get_running_loop().create_future()
        self._tenure: Tenure | None = None

    def assigned(self, *, ours: bool) -> None:
        """What the group says now. Only a change counts."""
        if ours != self._assigned:
            self._assigned = ours
            self._changed.set()

    async def deliver(self, offset: int, record: bytes) -> None:
        """Hand one record of the driving topic to the tenure, waiting at the gate; a lost one is tried on the next."""
        while True:
            tenure = await asyncio.shield(self._open)
            try:
                await tenure.deliver(offset, record)
            except LostOwnershipError as why:
                tenure.owned.give_up(why)
                self._close_gate()
                continue
            return

    def _close_gate(self) -> None:
        if self._open.done():
            self._open = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """For ever: own while assigned. Ends by cancellation, or by an exception that is our bug or the operator's."""
        pause = 1.0
        loop = asyncio.get_running_loop()
        while True:
            if not self._assigned:
                self._changed.clear()
                await self._changed.wait()
                continue
            self._changed.clear()
            began = loop.time()
            tenure = self._tenure = self._new_tenure()
            try:
                why = await self._hold(tenure)
            finally:
                self._close_gate()
                await tenure.close()
                self._tenure = None
            if why is None:
                continue
            log.warning("ownership_lost", stage=self.name, reason=str(why), foreign=why.foreign)
            if why.foreign:
                self._assigned = False  # until the group says so anew
                continue
            pause = 1.0 if loop.time() - began > HEALTHY_SECONDS else pause
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)

    async def _hold(self, tenure: Tenure) -> LostOwnershipError | None:
        """One tenure from claim to loss; None when the partition went away."""
        starting = asyncio.ensure_future(tenure.start())
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({starting, changed}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
                return None
            starting.result()
            self.claims += 1
            if not self._open.done():
                self._open.set_result(tenure)
            while not self._changed.is_set() and not tenure.owned.lost.done():
                if (bug := tenure.tails_failed()) is not None:
                    raise bug
                await asyncio.wait({changed, tenure.owned.lost}, timeout=1, return_when=asyncio.FIRST_COMPLETED)
        except LostOwnershipError as why:
            return why
        except (WorldError, KafkaError, OSError) as error:
            return LostOwnershipError(str(error), foreign=False)
        finally:
            changed.cancel()
        return tenure.owned.lost.result() if tenure.owned.lost.done() else None
