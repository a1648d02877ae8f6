"""The feed for a process that does not own it: reads `feeds`, and sends records of the past as commands.

Only the feed worker writes `feeds`. Records of the past are sent to it as RecordFeed commands. The worker decides each
once, records what the topic lacks, and marks it `backfilled`. So sending the same records twice, or again after a stop
half-way, changes nothing, and a running node needs no pause.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec

from coordinator.infra.log.commands import KafkaCommandPort
from coordinator.infra.log.followed_topic import FollowedTopic, OnProgress
from coordinator.streams.clock import wall_ms
from coordinator.streams.events import (
    FeedRecordData,
    FeedRecordReceived,
    GivenRecord,
    RecordFeed,
    RecordFeedData,
)
from coordinator.streams.feeds.stage import FeedStage
from coordinator.streams.feeds.state import subscription_of
from coordinator.streams.log.errors import WorldError
from coordinator.streams.log.ids import content_id
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.settings import Settings

COMMAND_RECORDS_MAX = 500
UNDECIDED_MAX = 8
DECIDED_SECONDS_MAX = 30.0
POLL_SECONDS = 0.05


class FeedLog(FollowedTopic):
    """`async with FeedLog(settings) as log`: `await log.read()` folds what is new in `feeds`.

    Raises WorldError when Kafka does not answer, OperatorError when the crunch has no topics.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.kafka_bootstrap, settings.crunch_id, "feeds")
        self._stage = FeedStage()
        self._said: dict[Subscription, dict[int, int]] | None = None

    async def read(self, on_progress: OnProgress = lambda _done, _total: None) -> None:
        """Read to the topic's end as of now; `on_progress` is called with (records read, records there)."""
        async for decision in self.decisions(on_progress):
            self._stage.remember(decision)
            for event in decision.events if self._said is not None else ():
                if isinstance(event, FeedRecordReceived) and event.data.kind == "candle":
                    self._note(event.data)

    def remember_values(self) -> None:
        """From the next `read` on, keep what each candle says: to tell a correction. A year of minutes takes 60 MB."""
        self._said = {}

    def revision(self, record: FeedRecord) -> int:
        """The highest revision that the feed has of this record, -1 if it has none."""
        return self._stage.own.revision(subscription_of(record), record.ts_event)

    def too_late(self, record: FeedRecord) -> bool:
        """Whether the feed worker refuses this record: it is older than what the worker remembers for finding
        repeats.
        """
        return self._stage.own.refusal(record) is not None

    def differs(self, record: FeedRecord) -> bool:
        """Whether the feed's newest revision of this candle has other values. False where that is not known."""
        if self._said is None or record.kind != "candle":
            return False
        digest_known = self._said.get(subscription_of(record), {}).get(record.ts_event)
        return digest_known is not None and digest_known != digest(record.values)

    def holds_all(self, subscription: Subscription, times: Iterable[int]) -> bool:
        """Whether the feed holds a record of each of these times (`ts_event`, ms)."""
        return all(self._stage.own.revision(subscription, time) >= 0 for time in times)

    def _note(self, data: FeedRecordData) -> None:
        assert self._said is not None  # noqa: S101 - read() asked
        digests = self._said.setdefault(
            Subscription(data.source, data.subject, data.kind, data.granularity), {}
        )
        # One append may hold two revisions; the highest comes last, and an older one never after a newer.
        digests[data.ts_event] = digest(data.values)

    def decided(self, command_offset: int) -> bool:
        """Whether the feed worker has decided the command at this offset."""
        return self._stage.upto["commands"][0] >= command_offset


class FeedGiver:
    """Gives records to the feed worker, a command at a time, and waits for its decisions.

    `given` counts records that were new, `corrected` those of them that the feed held with other values, `known` those
    that it held already, `late` those older than the feed's memory of its records. Call `finish` at the end: it waits
    for the last command.
    """

    def __init__(self, log: FeedLog, port: KafkaCommandPort) -> None:
        self.given = 0
        self.known = 0
        self.late = 0
        self.corrected = 0
        self.subjects: set[str] = set()
        self._log = log
        self._port = port
        self._waiting: list[FeedRecord] = []
        self._undecided: deque[int] = deque()

    async def give(self, record: FeedRecord) -> None:
        """Send one record, unless the feed holds it already. A candle with other values is sent as a new revision.

        Raises WorldError when nobody decides.
        """
        if self._log.too_late(record):
            self.late += 1
            return
        revision = self._log.revision(record)
        if revision >= record.revision:
            if not self._log.differs(record):
                self.known += 1
                return
            self.corrected += 1
            record = msgspec.structs.replace(record, revision=revision + 1)
        if self._waiting and (
            subscription_of(self._waiting[0]) != subscription_of(record)
            or len(self._waiting) == COMMAND_RECORDS_MAX
        ):
            await self._send()
        self._waiting.append(record)
        self.subjects.add(f"{record.source}/{record.subject}/{record.kind}/{record.granularity}")

    async def finish(self) -> None:
        """Send the rest and wait until all is decided. Raises WorldError."""
        await self._send()
        await self._wait(0)

    async def _send(self) -> None:
        if not self._waiting:
            return
        first, records = self._waiting[0], self._waiting
        at = wall_ms()
        content = (first.source, first.subject, first.kind, first.granularity, str(first.ts_event), str(at))
        data = RecordFeedData(
            source=first.source,
            subject=first.subject,
            kind=first.kind,
            granularity=first.granularity,
            records=[
                GivenRecord(
                    ts_event=record.ts_event, at=record.at, values=record.values, revision=record.revision
                )
                for record in records
            ],
        )
        self._undecided.append(
            await self._port.send(RecordFeed(id=content_id("cmd", "record", *content), at=at, data=data))
        )
        self.given += len(records)
        self._waiting = []
        await self._wait(UNDECIDED_MAX)

    async def _wait(self, undecided_max: int) -> None:
        until = time.monotonic() + DECIDED_SECONDS_MAX
        while True:
            await self._log.read()
            while self._undecided and self._log.decided(self._undecided[0]):
                self._undecided.popleft()
                until = time.monotonic() + DECIDED_SECONDS_MAX
            if len(self._undecided) <= undecided_max:
                return
            if time.monotonic() > until:
                raise WorldError(
                    f"{len(self._undecided)} commands with records are in the log, but no feed worker has decided "
                    f"one in {DECIDED_SECONDS_MAX:g} s; they will be decided when one runs; then run the command "
                    "again for the rest"
                )
            await asyncio.sleep(POLL_SECONDS)


def digest(values: Mapping[str, str]) -> int:
    """A hash of a record's values as numbers: 1.0 and 1.00 have the same one."""
    return hash(tuple(sorted((name, Decimal(text)) for name, text in values.items())))
