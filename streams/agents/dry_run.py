"""What the running period would pay if it ended now: the real stages over the real log, and nothing is written.

Their sends go into memory, behind the ends of the topics as they were when it began, so claims, decisions and readers
work as ever. Once all is folded, terms that hold from now on are put in: a change of terms cuts every period, so the
running snapshot and checkpoint periods end there, and the stages close them by the only code that pays.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable

import msgspec

from coordinator.streams.agents.owning.log_io import LogIO, Reader
from coordinator.streams.agents.owning.tenure import Tenure
from coordinator.streams.checkpoints.stage import CheckpointsState, CheckpointStage
from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import (
    CheckpointData,
    CheckpointOpened,
    CheckpointWithheld,
    CrunchConfigured,
    RoundScored,
    ScoredUntil,
    ScoredUntilData,
    Terms,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import (
    ENVELOPE_VERSION,
    Append,
    Need,
    decode_append,
    decode_events,
    encode_append,
    encode_decision,
)
from coordinator.streams.log.errors import WorldError
from coordinator.streams.log.stage import Told
from coordinator.streams.snapshots.stage import SnapshotStage

OWNER = "dry-run"
IDLE_SECONDS = 0.05


class DryRun(msgspec.Struct, frozen=True):
    """The checkpoint of [period_start, until) as it would be; `reason` is why it would be withheld.

    `checkpoint` is None when nobody would be ranked. `until` (ms) is right behind the last scored round.
    """

    until: int
    checkpoint: CheckpointData | None
    reason: str = ""


class OverlayLog:
    """`LogIO` whose readers go on from a log's end into what was sent here; the log itself is only read."""

    def __init__(self, log: LogIO) -> None:
        self._log = log
        self._ends: dict[str, int] = {}
        self.sent: defaultdict[str, list[bytes]] = defaultdict(list)

    async def reader(self, topic: str, offset: int, *, patient: bool = False) -> OverlayReader:
        """See `LogIO`."""
        below = await self._log.reader(topic, min(offset, self._ends.get(topic, offset)), patient=patient)
        if topic not in self._ends:
            self._ends[topic] = await below.end()
        return OverlayReader(below, self.sent[topic], self._ends[topic], offset)

    async def writer(self) -> OverlayWriter:
        """See `LogIO`."""
        return OverlayWriter(self)

    def append(self, topic: str, record: bytes) -> int:
        """Put a record behind the end; its offset. The topic must have been opened."""
        self.sent[topic].append(record)
        return self._ends[topic] + len(self.sent[topic]) - 1


class OverlayReader:
    """`Reader`: the log below up to its end as it was, then what was sent."""

    def __init__(self, below: Reader, sent: list[bytes], below_end: int, offset: int) -> None:
        self._below, self._sent, self._below_end, self._position = below, sent, below_end, offset

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
            self._position = self._below_end  # offsets need not be dense
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


class EndingAggregate(SnapshotStage):
    """The stage, and when the last round that it was told of became known."""

    latest = -1

    def end(self) -> tuple[int, Terms]:
        """(right behind all that is scored or closed, the terms in force then). Raises WorldError before that."""
        until = max(self.latest, self.state.own.closed_until) + 1
        if until <= 0:
            message = "nothing has been scored yet"
            raise WorldError(message)
        return until, self.state.own.terms.at(until)

    def absorb(self, decision: Decision) -> None:
        """Fold, and look."""
        super().absorb(decision)
        for event in decision.events:
            if isinstance(event, RoundScored):
                self.latest = max(self.latest, event.data.resolvable_at)


class EndingCheckpoint(CheckpointStage):
    """The stage, for terms that begin within the running period: it ends there. Real ones begin at a boundary."""

    def fold(self, state: CheckpointsState, told: Told) -> None:
        """As the stage does; and the running period's new end."""
        super().fold(state, told)
        if told.topic == self.topic and isinstance(told.event, CrunchConfigured):
            for one in state.totals.values():
                if one.start < told.event.data.effective_from < one.end:
                    one.end = told.event.data.effective_from


async def dry_run(
    log: LogIO,
    crunch_id: str,
    contracts: Callable[[str], CrunchContract],
) -> DryRun:
    """The running period's checkpoint as of the last scored round.

    Reads `snapshots` and `checkpoints` as a new owner does, and what is open of `scores` and `commands`. Raises
    WorldError when nothing was scored yet, OperatorError for a contract that is not at hand, and what `LogIO` raises.
    """
    overlay = OverlayLog(log)
    aggregate = EndingAggregate(contracts)
    tenure = Tenure(overlay, aggregate, OWNER)
    try:
        await tenure.start()
        until, terms = aggregate.end()
        for record in _ending(until, terms, tenure.counter_of("scores")):
            await tenure.deliver(overlay.append("scores", record), record)
    finally:
        await tenure.close()

    payment = Tenure(overlay, EndingCheckpoint(crunch_id, contracts), OWNER)
    try:
        await payment.start()
    finally:
        await payment.close()
    return _result(overlay.sent["checkpoints"], until)


def _ending(until: int, terms: Terms, scores: Need) -> list[bytes]:
    """The appends of an owner of `scores` who says that all is scored, and that other terms hold from here."""
    from_here = msgspec.structs.replace(terms, effective_from=until)
    configured = CrunchConfigured(id=f"{OWNER}/terms", at=until, data=from_here)
    done = ScoredUntil(id=f"{OWNER}/{until}", at=until, data=ScoredUntilData(until=until, rehearsal=False))
    epoch = scores.epoch + 1
    return [
        encode_append(Append(e=ENVELOPE_VERSION, epoch=epoch, seq=0, claim=OWNER)),
        *encode_decision([configured], epoch=epoch, seq=scores.seq + 1, upto={}, need={}),
        *encode_decision([done], epoch=epoch, seq=scores.seq + 2, upto={}, need={}),
    ]


def _result(sent: list[bytes], until: int) -> DryRun:
    for record in sent:
        append = decode_append(record)
        for event in decode_events(append.events) if append is not None else ():
            if isinstance(event, CheckpointOpened) and event.data.period_end == until:
                return DryRun(until, event.data)
            if isinstance(event, CheckpointWithheld) and event.data.checkpoint.period_end == until:
                return DryRun(until, event.data.checkpoint, event.data.reason)
    return DryRun(until, None)
