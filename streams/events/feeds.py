"""Events of `feeds`: what the outside delivered, what it lacks, and what time it is."""

from __future__ import annotations

from coordinator.streams.events.base import Data, Event


class FeedRecordData(Data, frozen=True):
    """One record. `ts_event` is its own time (a candle's open); `at` of the event is when it was known."""

    source: str
    subject: str
    kind: str
    granularity: str
    ts_event: int
    values: dict[str, str]
    revision: int = 0
    backfilled: bool = False


class FeedRecordReceived(Event, frozen=True):
    """A feed delivered a record."""

    data: FeedRecordData


class FeedGapData(Data, frozen=True):
    """Records expected with from_ms < at <= until_ms did not come."""

    source: str
    subject: str
    kind: str
    granularity: str
    from_ms: int
    until_ms: int
    reason: str


class FeedGapFound(Event, frozen=True):
    """A hole in a feed was found."""

    data: FeedGapData


class FeedGapClosedData(Data, frozen=True):
    """No more records with from_ms < at <= until_ms will come. `complete`: all of them are there now."""

    source: str
    subject: str
    kind: str
    granularity: str
    from_ms: int
    until_ms: int
    complete: bool
    reason: str


class FeedGapClosed(Event, frozen=True):
    """A hole in a feed was filled, or is known to stay."""

    data: FeedGapClosedData


class FeedStateChangedData(Data, frozen=True):
    """How a source's live side stands: connecting, connected, reconnecting, ended; and why it is not connected."""

    source: str
    state: str
    reason: str


class FeedStateChanged(Event, frozen=True):
    """A source was connected, or lost its connection."""

    data: FeedStateChangedData


class ClockTickedData(Data, frozen=True):
    """`rehearsal`: the time is replayed, not lived."""

    rehearsal: bool


class ClockTicked(Event, frozen=True):
    """It is now `at`: every source has delivered up to it, or has said that it has a gap."""

    data: ClockTickedData
