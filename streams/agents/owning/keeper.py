"""Keeps one stage owned: one tenure per assignment, and a gate in front of Faust's delivery.

Only the assigned set counts; Faust's `revoked` is sometimes empty. The stage is claimed when its partition is newly
assigned, and again after a failed send of our own, after a pause of 1, 2, 4 .. 30 s. When another owner claims the
stage, the gate closes and waits for the next assignment from the group. If the group says nothing for longer than a
session, but answers, this process is still its member, and the other owner is gone: the stage is claimed again. A
partition that stays assigned through a rebalance keeps its claim.

The group knows only that its coordinator hears this process. If the connection to the broker that leads a topic is cut,
the stage would stay here and make no progress. So a process that cannot own it ends when its group has another member.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from aiokafka.errors import ConsumerStoppedError, KafkaError

from coordinator.infra.kafka.groups import SettledGroup
from coordinator.streams.agents.owning.ownership import LostOwnershipError
from coordinator.streams.agents.owning.tenure import Tenure
from coordinator.streams.log.errors import CoordinatorError, WorldError

PAUSE_SECONDS_MAX = 30.0
HEALTHY_SECONDS = 60.0
SILENT_SECONDS_MAX = 15.0
STALLED_SECONDS_MAX = 60.0
LOOK_SECONDS = 10.0
ASKS = 3
"""How often a topic's broker is asked in vain before the stage is left to others."""
ORPHAN_LOOKS = 3
"""In how many looks in a row no member must hold the partition: the group may be about to assign it."""
MEMBERS_MIN = 2
"""With fewer, nobody would take over a stage that this process leaves."""

WORLD = (WorldError, KafkaError, ConsumerStoppedError, OSError)
"""Errors of the world: they end an ownership, but not the process."""

log = structlog.get_logger()


class StalledError(CoordinatorError):
    """This process cannot run the stage any longer: Faust's consumer died silently, its group assigned the partition
    to no member, or the connection to the topic's broker is cut. The process must be restarted.
    """


class Keeper:
    """Runs tenures made by `new_tenure` while the stage's driving partition is assigned to this process.

    `silent_seconds_max` bounds the wait for an assignment after a foreign claim; it must be longer than a session.
    `ask_group` returns the state of the group, if the group is settled and answers.
    """

    def __init__(
        self,
        name: str,
        new_tenure: Callable[[], Tenure],
        silent_seconds_max: float = SILENT_SECONDS_MAX,
        stalled_seconds_max: float = STALLED_SECONDS_MAX,
        ask_group: Callable[[], Awaitable[SettledGroup | None]] | None = None,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self.name = name
        self.claims = 0
        self._new_tenure = new_tenure
        self._silent_seconds_max = silent_seconds_max
        self._stalled_seconds_max = stalled_seconds_max
        self._ask_group = ask_group
        self._look_seconds = look_seconds
        self._parted_since: float | None = None
        self._assigned = False
        self._changed = asyncio.Event()
        self._heard_of_group = asyncio.Event()
        self._open: asyncio.Future[Tenure] = asyncio.get_running_loop().create_future()
        self._delivery: asyncio.Task[None] | None = None

    def assigned(self, *, ours: bool) -> None:
        """Take the group's newest assignment. Only a change ends or begins a tenure."""
        self._heard_of_group.set()
        if ours != self._assigned:
            self._assigned = ours
            self._changed.set()

    @property
    def is_open(self) -> bool:
        """Whether the gate lets records through."""
        return self._open.done()

    @property
    def stands_by(self) -> bool:
        """Whether the group has not assigned the stage to this process."""
        return not self._assigned

    async def deliver(self, records: Sequence[tuple[int, bytes]]) -> None:
        """Hand records of the driving topic, (offset, value) in order, to the tenure; wait until there is one.

        If the tenure is lost meanwhile, all records are handed to the next one, which skips what is decided. Raises an
        error that is a bug, or a fault of the log.
        """
        while True:
            tenure = await asyncio.shield(self._open)
            delivery = self._delivery = asyncio.ensure_future(_deliver(tenure, records))
            try:
                await asyncio.wait({delivery})
            except asyncio.CancelledError:
                delivery.cancel()
                raise
            if delivery.cancelled():  # its tenure has ended
                continue
            error = delivery.exception()
            if error is None:
                return
            if isinstance(error, LostOwnershipError):
                tenure.owned.give_up(error)
            elif isinstance(error, WORLD):
                tenure.owned.give_up(LostOwnershipError(f"{type(error).__name__}: {error}", foreign=False))
            elif not tenure.owned.lost.done():
                raise error
            self._close_gate(tenure)

    def _close_gate(self, tenure: Tenure) -> None:
        if self._open.done() and self._open.result() is tenure:
            self._open = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Own the stage while it is assigned, until cancelled.

        Raises errors that are a bug, or the operator's fault.
        """
        pause = 1.0
        loop = asyncio.get_running_loop()
        while True:
            if not self._assigned:
                self._changed.clear()
                await self._wait_assigned()
                continue
            self._changed.clear()
            began, claims = loop.time(), self.claims
            tenure = self._new_tenure()
            try:
                loss = await self._hold(tenure)
            finally:
                self._heard_of_group.clear()  # an assignment from here on is a new one
                self._close_gate(tenure)
                await self._end(tenure)
            if loss is None:
                continue
            log.warning("ownership_lost", stage=self.name, reason=str(loss), foreign=loss.foreign)
            if loss.foreign:
                await self._hear_of_group()
                continue
            if self.claims == claims:
                await self._leave_to_others(began, str(loss))
            pause = 1.0 if loop.time() - began > HEALTHY_SECONDS else pause
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)

    async def _hear_of_group(self) -> None:
        """Wait for the group's next assignment; until it is silent for longer than a session, if it answers then.

        The group's silence means nothing while its coordinator cannot be reached. A claim by this process would take
        the stage from the member that has it, and be followed by its claim, again and again.
        """
        answers = False
        while not answers and not self._heard_of_group.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._silent_seconds_max):
                    await self._heard_of_group.wait()
            answers = self._ask_group is None or await self._group() is not None

    async def _wait_assigned(self) -> None:
        """Wait while another process holds the partition. Raises StalledError when no process does.

        This happens: Faust's leader assigns the topics that it knows, and a leader that joined while the broker was
        starting knows none. The group does not assign again by itself.
        """
        orphaned = 0
        while orphaned < ORPHAN_LOOKS:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_seconds):
                    await self._changed.wait()
                return
            # Far from the broker the answer takes six round trips, and the stage may be ours meanwhile.
            asking = asyncio.create_task(self._group())
            changed = asyncio.create_task(self._wait_changed())
            try:
                await _first_of(asking, changed)
                if changed.done():
                    return
                group = asking.result()
            finally:
                asking.cancel()
                changed.cancel()
                await asyncio.gather(asking, changed, return_exceptions=True)  # its client closes
            orphaned = orphaned + 1 if group is not None and not group.holds else 0
        raise StalledError(
            f"{self.name}: its group is stable, but has assigned the partition to none of its members"
        )

    async def _group(self) -> SettledGroup | None:
        return None if self._ask_group is None else await self._ask_group()

    async def _leave_to_others(self, since: float, reason: str) -> None:
        """Called when the stage could not be owned here, tried `since`. Raises StalledError once that has lasted
        `silent_seconds_max` while the group was settled and had another member.
        """
        group, now = await self._group(), asyncio.get_running_loop().time()
        if group is None or group.members < MEMBERS_MIN:
            self._parted_since = None
            return
        self._parted_since = since if self._parted_since is None else self._parted_since
        if now - self._parted_since > self._silent_seconds_max:
            raise StalledError(
                f"{self.name}: its topics cannot be used from here, while its group has another member: {reason}"
            )

    async def _end(self, tenure: Tenure) -> None:
        """Close a tenure. The records it was working on go back to the gate: only one tenure works at a time."""
        if self._delivery is not None:
            self._delivery.cancel()
            await asyncio.gather(self._delivery, return_exceptions=True)
            self._delivery = None
        await tenure.close()

    async def _hold(self, tenure: Tenure) -> LostOwnershipError | None:
        """Run one tenure from its claim until it is lost; returns the reason, None if the partition was revoked."""
        lost = tenure.owned.lost
        starting = asyncio.create_task(tenure.start())
        changed = asyncio.create_task(self._wait_changed())
        try:
            await _first_of(starting, changed, lost)
            if not starting.done():
                return lost.result() if lost.done() else None
            starting.result()
            self.claims += 1
            self._parted_since = None
            self._open.set_result(tenure)
            await self._watch(tenure, changed)
        except LostOwnershipError as loss:
            return loss
        except WORLD as error:
            return LostOwnershipError(f"{type(error).__name__}: {error}", foreign=False)
        finally:
            starting.cancel()
            changed.cancel()
            await asyncio.gather(starting, changed, return_exceptions=True)
        return lost.result() if lost.done() else None

    async def _wait_changed(self) -> None:
        await self._changed.wait()

    async def _watch(self, tenure: Tenure, changed: asyncio.Future[None]) -> None:
        """Return when the partition is revoked or the ownership lost. Raises the error of a tail, or StalledError."""
        loop = asyncio.get_running_loop()
        look_at, last_position, unmoved_since = loop.time() + LOOK_SECONDS, tenure.position, loop.time()
        while not changed.done() and not tenure.owned.lost.done():
            if (bug := tenure.tails_failed()) is not None:
                raise bug
            await _first_of(changed, tenure.owned.lost, timeout_seconds=1)
            busy = self._delivery is not None and not self._delivery.done()
            if busy or tenure.position != last_position:
                last_position, unmoved_since = tenure.position, loop.time()
            elif (asked_at := loop.time()) >= look_at:
                behind = await self._behind(tenure)
                look_at = loop.time() + (0 if behind is None else LOOK_SECONDS)
                if behind is None:
                    await self._leave_to_others(asked_at, "nobody answers for the topic that it follows")
                else:
                    self._parted_since = None
                if not behind:
                    unmoved_since = loop.time()
                    continue
                await tenure.look_ahead()
                if loop.time() - unmoved_since > self._stalled_seconds_max:
                    message = (
                        f"{self.name}: records wait from offset {last_position} on, but none is delivered"
                    )
                    raise StalledError(message)

    async def _behind(self, tenure: Tenure) -> bool | None:
        """As `Tenure.behind`; None soon, where the client would wait twice as long as all of this may last."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._silent_seconds_max / ASKS):
                return await tenure.behind()
        return None


async def _deliver(tenure: Tenure, records: Sequence[tuple[int, bytes]]) -> None:
    for offset, record in records:
        await tenure.deliver(offset, record)
        await asyncio.sleep(0)  # lets the producer send now, not after the last record


async def _first_of(*futures: asyncio.Future[Any], timeout_seconds: float | None = None) -> None:
    await asyncio.wait(futures, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
