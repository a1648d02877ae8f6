"""What a feed worker follows: the subscriptions, the source and the judge of the clock that its settings name, and the
commands.

The terms in the log come before the settings of a start: a feed changes when its change is applied, as every rule does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from coordinator.streams.agents.feed.live_feed import keeps_to_the_clock
from coordinator.streams.agents.owning.dead_letters import DeadLetters
from coordinator.streams.agents.owning.log_io import LogIO, Reader
from coordinator.streams.contract.term_settings import settings_of, with_term_settings
from coordinator.streams.events import Terms
from coordinator.streams.feeds.clock_witness import Witness
from coordinator.streams.granularity import granularity_ms
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.plain_topics import PlainCounter
from coordinator.streams.ports import AppliedContracts, FeedSource
from coordinator.streams.settings import Settings
from coordinator.streams.sources.files.file_times import utc_text

SourceOf = Callable[[Settings], tuple[FeedSource, Witness]]
"""Makes the source of these settings, and the judge of the clock for it. Raises OperatorError."""


class Intake(NamedTuple):
    """Where records come from, and where those go that are refused.

    `witness` judges the clock: pass the same to each tenure, since a new one believes whatever the clock shows at its
    start. `source_of` makes the source of the terms that hold, where they name another feed than the settings; without
    it a tenure keeps to `source`.
    """

    source: FeedSource
    dead_letters: DeadLetters
    witness: Witness | None = None
    source_of: SourceOf | None = None


class TermsMade(NamedTuple):
    """How terms are made: `new` are those of the contract on disk. `contracts` makes those of a command that applies a
    contract; without it none can be applied.
    """

    new: Callable[[], Terms]
    contracts: AppliedContracts | None = None


def make_witness(settings: Settings, source: FeedSource) -> Witness:
    """The judge of this process's clock, by the settings and the source."""
    bound_ms = round(settings.clock_ahead_seconds_max * 1000)
    silence_ms = granularity_ms(settings.feed_granularity)
    return Witness(bound_ms, independent=not keeps_to_the_clock(source), silence_ms=silence_ms)


def under_terms(settings: Settings, terms: Terms) -> Settings:
    """The settings of a node that keeps to these terms. A file of candles for another feed is left out."""
    held = with_term_settings(settings, settings_of(terms))
    return held if held.feed_source == settings.feed_source else held.changed(feed_candles_file="")


def nothing_replayed(settings: Settings) -> str:
    """What to tell the operator of a replay with an end that had no record."""
    source = settings.feed_candles_file or f"feed source {settings.feed_source}"
    window = " ".join(
        f"{name} {utc_text(at)}"
        for name, at in (("from", settings.replay_from_ms), ("until", settings.replay_until_ms))
        if at is not None
    )
    return (
        f"{source} gave no record of {', '.join(settings.feed_subjects)} {settings.feed_kind} "
        f"{settings.feed_granularity}{' ' if window else ''}{window}: nothing was replayed; "
        "check the source, its subject, and --from and --until"
    )


class CommandsRead:
    """The topic `commands`, read from a position on. `end` is where it ended when the reading began."""

    def __init__(self, reader: Reader, need: Need, end: int) -> None:
        self._reader, self._counter, self.end = reader, PlainCounter("commands", need), end

    @classmethod
    async def start(cls, io: LogIO, need: Need) -> CommandsRead:
        """Begin at this position."""
        reader = await io.reader("commands", need.offset)
        return cls(reader, need, reader.first_end)

    async def read(self, until: int | None) -> list[Decision | None]:
        """The next records: a decision each, None for one that is no event. See `Reader.read` for `until`."""
        return [self._counter.read(offset, record) for offset, record in await self._reader.read(until)]

    async def close(self) -> None:
        """Give up the reader."""
        await self._reader.close()
