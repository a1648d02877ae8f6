"""What the running period would pay if it ended now: the real stages run over the real log, and nothing is written.

The stages' sends go into memory, after the ends that the topics had at the beginning. So claims, decisions and readers
work as usual. Once everything is folded, the running periods are ended on copies of the states
(`engine/period_end.py`).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from coordinator.streams.agents.owning.log_io import LogIO, Reader
from coordinator.streams.agents.owning.tenure import Tenure
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.engine.period_end import Ending, SeenSnapshotStage, end_now

OWNER = "dry-run"
IDLE_SECONDS = 0.05


class OverlayLog:
    """A `LogIO` that only reads the log below, and keeps sends in memory; readers continue into these."""

    states_often = False

    def __init__(self, log: LogIO) -> None:
        self._log = log
        self._ends: dict[str, int] = {}
        self.sent: defaultdict[str, list[bytes]] = defaultdict(list)

    async def reader(self, topic: str, offset: int, *, patient: bool = False) -> OverlayReader:
        """See `LogIO`."""
        below = await self._log.reader(topic, min(offset, self._ends.get(topic, offset)), patient=patient)
        if topic not in self._ends:
            self._ends[topic] = below.first_end
        return OverlayReader(below, self.sent[topic], self._ends[topic], offset)

    async def writer(self) -> OverlayWriter:
        """See `LogIO`."""
        return OverlayWriter(self)

    def append(self, topic: str, record: bytes) -> int:
        """Append a record in memory; returns its offset. A reader of the topic must have been opened before."""
        self.sent[topic].append(record)
        return self._ends[topic] + len(self.sent[topic]) - 1


class OverlayReader:
    """`Reader`: reads the log below up to the end that it had, then what was sent."""

    def __init__(self, below: Reader, sent: list[bytes], below_end: int, offset: int) -> None:
        self._below, self._sent, self._below_end, self._position = below, sent, below_end, offset
        self.first_end = below_end + len(sent)

    async def read(self, until: int | None = None) -> list[tuple[int, bytes]]:
        """See `Reader`."""
        if self._position < self._below_end:
            bound = self._below_end if until is None else min(until, self._below_end)
            batch = await self._below.read(bound)
            if batch:
                self._position = batch[-1][0] + 1
                return batch
            if until is not None and until <= self._below_end:
                return []
            self._position = self._below_end  # there may be offsets without a record before the end
        first = self._position - self._below_end
        last = len(self._sent) if until is None else until - self._below_end
        batch = list(enumerate(self._sent[first:last], start=self._position))
        self._position += len(batch)
        await asyncio.sleep(0 if batch or until is not None else IDLE_SECONDS)
        return batch

    async def end(self) -> int:
        """See `Reader`."""
        return self._below_end + len(self._sent)

    async def close(self) -> None:
        """See `Reader`."""
        await self._below.close()


class OverlayWriter:
    """`Writer` into memory."""

    def __init__(self, overlay: OverlayLog) -> None:
        self._overlay = overlay

    async def send(self, topic: str, value: bytes) -> asyncio.Future[int]:
        """See `Writer`."""
        sent: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        sent.set_result(self._overlay.append(topic, value))
        return sent

    async def close(self) -> None:
        """See `Writer`."""


async def dry_run(log: LogIO, crunch_id: str, contracts: Contracts) -> Ending:
    """The running period's checkpoint as of the last scored round.

    Reads `snapshots` and `checkpoints` as a new owner does, and what is open of `scores` and `commands`. Raises
    WorldError when nothing was scored yet, OperatorError for a contract that is not at hand, and what `LogIO` raises.
    """
    overlay = OverlayLog(log)
    aggregate, payment = SeenSnapshotStage(contracts), CheckpointStage(crunch_id, contracts)
    for stage in (aggregate, payment):
        tenure = Tenure(overlay, stage, OWNER)
        try:
            await tenure.start()
        finally:
            await tenure.close()
    return end_now(aggregate.state, aggregate.latest, payment.state, crunch_id, contracts)
