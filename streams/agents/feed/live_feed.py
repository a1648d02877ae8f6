"""The live side of the feed worker: records as they arrive, missed records from history, ticks from the wall clock.

Reads a source; emits records, gaps and their closings, the source's state, ticks. After every new connection, history
is read before anything is written, so that no input opens over a gap that history can fill; live records are held
meanwhile, for a bounded time. A gap that stays is asked for again, less and less often, until history has its records
or says that it has none.

Time is never ahead of what was delivered or recorded as missing, and not by more than a bound ahead of what the sources
confirm (`clock_witness.py`). While the clock is not believed, no tick and no gap is written. Records are still written,
because they bring their own time, unless our own clock made it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

import msgspec
import structlog

from coordinator.streams.agents.feed.clocks import Clocks
from coordinator.streams.durations import DAY_MS
from coordinator.streams.feeds.clock_witness import CLOCK, ClockState, Verdict
from coordinator.streams.feeds.gaps import LATE, Gap
from coordinator.streams.feeds.listening import Listening
from coordinator.streams.feeds.new_facts import FILLED
from coordinator.streams.feeds.stage import GONE, FeedStage
from coordinator.streams.feeds.state import GapClosing, GapSaid
from coordinator.streams.granularity import granularity_ms
from coordinator.streams.log.errors import NoHistoryError, OperatorError, RefusedError, WorldError
from coordinator.streams.log.stage import Draft
from coordinator.streams.ports import FeedRecord, FeedSource, SourceHealth, Subscription

TICK_SECONDS = 1.0
HOLD_SECONDS_MAX = 5.0
ASKING_LOOK_SECONDS = 0.05
ASK_PAUSE_SECONDS_MIN = 2.0
ASK_PAUSE_SECONDS_MAX = 60.0
WARM_UP_RECORDS = 150
BACKFILL_DAYS_MAX = 3
APPEND_RECORDS_MAX = 1_000

NO_HISTORY = "the source has no history of it"
TOO_OLD = f"older than the {BACKFILL_DAYS_MAX} days that are asked for: see coordinator feeds backfill"
FORGOTTEN = "so long ago that it is no longer known which of its records are repeats"

log = structlog.get_logger()


class Answer(msgspec.Struct, frozen=True):
    """The answer of history for one subscription: its records from `from_ms` to `until_ms`.

    `failed`: history could not be read. `none_kept`: the source has no history of it.
    """

    from_ms: int
    until_ms: int
    records: list[FeedRecord]
    failed: bool = False
    none_kept: bool = False


class LiveFeed:
    """Follows one source until it ends.

    `write` takes a function that makes a draft, and calls it when earlier drafts are folded. `sound` returns the
    records that may be written. `quiet_seconds`: how long a subscription may be silent.
    """

    def __init__(
        self,
        source: FeedSource,
        subscriptions: Sequence[Subscription],
        feeds: FeedStage,
        write: Callable[[Callable[[], Draft | None]], Awaitable[int | None]],
        sound: Callable[[Sequence[FeedRecord]], Awaitable[list[FeedRecord]]],
        clocks: Clocks,
        quiet_seconds: float,
    ) -> None:
        self._source = source
        self._subscriptions = subscriptions
        self._feeds = feeds
        self._write = write
        self._sound = sound
        self._clocks = clocks
        self._witness = clocks.witness
        self._keeps_to_the_clock = keeps_to_the_clock(source)
        self._doubted = False
        self._verdict = self._look()
        self._monotonic = asyncio.get_running_loop().time
        self._asking: asyncio.Task[dict[Subscription, Answer]] | None = None
        self._hold_until = 0.0
        self._ask_again_at = 0.0
        self._ask_pause_seconds = ASK_PAUSE_SECONDS_MIN
        self._refused_until = 0.0
        self._listening = Listening(subscriptions, quiet_seconds, self._monotonic())

    async def run(self) -> None:
        """Follow the source until cancelled.

        Raises WorldError when its stream ends, OperatorError for a wrong subject.
        """
        queue: asyncio.Queue[FeedRecord] = asyncio.Queue(10_000)

        async def stream() -> None:
            async for record in self._source.stream(self._subscriptions):
                await queue.put(record)

        streaming = asyncio.create_task(stream(), name="feed-stream")
        asking_time = asyncio.create_task(self._follow_time(), name="feed-time")
        try:
            await self._follow(queue, streaming)
        finally:
            tasks = [streaming, asking_time, *([] if self._asking is None else [self._asking])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, queue: asyncio.Queue[FeedRecord], streaming: asyncio.Task[None]) -> None:
        """Write what arrives in the queue, and what history answers. Raises WorldError when the stream has ended."""
        self._ask(hold=True)
        held: list[FeedRecord] = []
        connections, missed = 0, False
        while True:
            # What came before the stream's end is written before the end is told.
            if streaming.done() and queue.empty() and not held:
                streaming.result()
                raise WorldError(f"source {self._source.name} ended its stream")
            wait_seconds = TICK_SECONDS if self._asking is None else ASKING_LOOK_SECONDS
            arrived = [record async for record in _drain(queue, wait_seconds)]
            self._listening.heard(arrived)
            held += arrived
            self._refuse_unknown()
            if self._connections() > connections:
                if connections:
                    log.info("feed_reconnected", source=self._source.name, connections=self._connections())
                connections, missed = self._connections(), True
            # One question at a time. A connection that comes during one is asked for afterwards, and `missed` says that
            # it still has to be.
            if self._asking is None and missed:
                self._ask(hold=True)
                missed = False
            if self._holds():
                continue
            self._look()
            await self._write_all(held)
            held = []
            if self._asking is None and self._monotonic() >= self._ask_again_at and self._open_gaps():
                self._ask(hold=False)

    def _holds(self) -> bool:
        """Whether nothing may be written yet: a tick would open inputs over a gap that the answer may fill.

        The hold ends after some seconds, so that a history that does not answer does not stop the node.
        """
        return self._asking is not None and not self._asking.done() and self._monotonic() < self._hold_until

    async def _write_all(self, held: list[FeedRecord]) -> None:
        """Write the buffered live records and the records from history in order of time, then the gaps and the
        tick.
        """
        answers: dict[Subscription, Answer] = {}
        if self._asking is not None and self._asking.done():
            answers, self._asking = self._asking.result(), None
        if self._keeps_to_the_clock:
            held, answers = self._made_by_our_clock(held, answers)
        held = await self._sound(held)
        from_history = await self._sound([record for answer in answers.values() for record in answer.records])
        uptime_ms = self._clocks.uptime_ms()
        for record in (*held, *from_history):
            self._witness.record(record.at, uptime_ms)
        now = self._look().now_ms
        deadline_ms = self._feeds.own.terms.at(now).deadline_ms
        from_history = [
            msgspec.structs.replace(record, backfilled=True) if record.at < now - deadline_ms else record
            for record in from_history
        ]
        records = sorted([*from_history, *held], key=lambda record: (record.at, record.subject))
        # The tick comes with the last part alone: time must not pass a record that is not written yet.
        while len(records) > APPEND_RECORDS_MAX:
            part, records = records[:APPEND_RECORDS_MAX], records[APPEND_RECORDS_MAX:]
            await self._write(partial(self._feeds.offer, part, None, rehearsal=False))
        await self._write(lambda: self._draft(records, answers))
        if answers:
            # The next gap is a new one once none is left: it need not wait as long as those of an outage that is over.
            still_open = self._open_gaps()
            pause = self._ask_pause_seconds if still_open else ASK_PAUSE_SECONDS_MIN
            self._ask_pause_seconds = min(2 * pause, ASK_PAUSE_SECONDS_MAX) if still_open else pause
            self._ask_again_at = max(self._monotonic() + pause, self._refused_until)

    def _draft(self, records: list[FeedRecord], answers: dict[Subscription, Answer]) -> Draft | None:
        verdict, feeds = self._look(), self._feeds
        now = verdict.now_ms
        patience_ms = 2 * feeds.own.terms.at(now).grace_ms
        health = self._health()
        connected = health is not None and health.state == "connected"
        gaps: list[GapSaid] = []
        tick_at: int | None = None
        if verdict.believed:
            gaps, tick_at = feeds.own.due(
                now, self._subscriptions, records, patience_ms, LATE, connected=connected
            )
        closings = [
            closing
            for subscription, answer in answers.items()
            for closing in self._closings(subscription, answer, records, patience_ms)
        ]
        state = self._listening.state(health, self._monotonic())
        if state is None and self._listening.has_heard and feeds.own.state_of(self._source.name):
            state = ("connected", "")  # the source reports no state; the one that we recorded is over
        states = [] if state is None else [(self._source.name, *state)]
        if verdict.state != (feeds.own.state_of(CLOCK) or ClockState.RIGHT):
            # Only a change of the state is recorded: the seconds in its reason change with every look.
            states.append((CLOCK, verdict.state.value, verdict.reason))
            say = log.info if verdict.state is ClockState.RIGHT else log.error
            say("clock_" + verdict.state, reason=verdict.reason)
        return feeds.offer(records, tick_at, rehearsal=False, gaps=gaps, closings=closings, states=states)

    def _closings(
        self, of: Subscription, answer: Answer, records: list[FeedRecord], patience_ms: int
    ) -> list[GapClosing]:
        """The open gaps that history has settled: their records are there, or will never come."""
        whole = self._feeds.own.whole(of)
        arrived = {
            record.at
            for record in records
            if record.subject == of.subject and self._feeds.own.revision(of, record.ts_event) < 0
        }
        newest = max([whole.last_at, *arrived])

        def settled(gap: Gap) -> tuple[bool, str] | None:
            """(whether the gap is filled, the reason of its closing); None while it stays open."""
            # Filled comes first; then what nobody can fill any more; then what the answer says, unless it failed.
            filled = sum(gap.lacks(at, whole.cadence_ms) for at in arrived) if whole.cadence_ms else 0
            if gap.missing is not None and gap.missing <= filled:
                return True, FILLED
            if gap.from_ms < self._feeds.own.floor_ms(of):
                return False, FORGOTTEN
            if gap.from_ms + 1 < answer.from_ms:
                return False, TOO_OLD
            if answer.failed:
                return None
            if gap.missing is not None and newest <= gap.until_ms:
                return None  # there is no later record yet: the missing ones may still arrive
            if answer.none_kept:
                return False, NO_HISTORY
            if gap.missing is not None and answer.until_ms > gap.until_ms:
                return False, GONE
            if gap.missing is None and answer.until_ms >= gap.until_ms + patience_ms:
                return True, FILLED
            return None

        return [
            (of, gap.from_ms, gap.until_ms, *closing)
            for gap in whole.gaps
            if (closing := settled(gap)) is not None
        ]

    # --- history -----------------------------------------------------------------------------------

    def _open_gaps(self) -> bool:
        return any(self._feeds.own.whole(subscription).gaps for subscription in self._subscriptions)

    def _ask(self, *, hold: bool) -> None:
        self._asking = asyncio.create_task(self._answers(), name="feed-history")
        deadline_seconds = self._feeds.own.terms.at(self._verdict.now_ms).deadline_ms / 1000
        self._hold_until = (
            self._monotonic() + min(HOLD_SECONDS_MAX, deadline_seconds / 2) if hold else self._monotonic()
        )

    async def _answers(self) -> dict[Subscription, Answer]:
        trouble_before = self._listening.history_trouble
        if self._monotonic() >= self._refused_until:
            self._listening.history_trouble = ""
        answers = {subscription: await self._answer(subscription) for subscription in self._subscriptions}
        if self._listening.history_trouble not in ("", trouble_before):  # lasting trouble is logged once
            log.warning("history_refused", reason=self._listening.history_trouble)
        return answers

    async def _answer(self, of: Subscription) -> Answer:
        """Read history since the subscription was last complete, and at least what a first input is made of: a record
        that is known may have been corrected while nobody listened.
        """
        now = self._clocks.wall_ms()  # a wrong clock asks for too much or too little, and does no other harm
        whole = self._feeds.own.whole(of)
        start = now - WARM_UP_RECORDS * granularity_ms(of.granularity)
        if whole.last_at >= 0:
            since = min([whole.until, *(gap.from_ms for gap in whole.gaps)])
            start = max(
                min(since + 1, start), now - BACKFILL_DAYS_MAX * DAY_MS, self._feeds.own.floor_ms(of) + 1
            )
        if self._monotonic() < self._refused_until:
            return Answer(start, now, [], failed=True)
        try:
            records = [record async for record in self._source.history(of, start, now)]
        except NoHistoryError:
            return Answer(start, now, [], none_kept=True)
        except RefusedError as error:
            # The refusal holds for all subscriptions: do not ask for the others, either.
            self._listening.history_trouble = str(error)
            self._refused_until = self._monotonic() + error.again_seconds
            return Answer(start, now, [], failed=True)
        except OperatorError as error:
            if whole.last_at < 0:
                raise
            # The source served it before: the node continues with the others, and reports this one.
            self._listening.history_trouble = str(error)
            return Answer(start, now, [], failed=True)
        except WorldError as error:
            log.warning("history_failed", subject=of.subject, error=str(error))
            return Answer(start, now, [], failed=True)
        return Answer(start, now, records)

    # --- the clock ---------------------------------------------------------------------------------

    def _look(self) -> Verdict:
        """Read the clock and judge it. This is done each time before anything is written by it."""
        health, uptime_ms = self._health(), self._clocks.uptime_ms()
        if health is not None and health.time_ms > 0:
            self._witness.said(health.time_ms, uptime_ms)
        self._verdict = self._witness.look(self._clocks.wall_ms(), uptime_ms)
        return self._verdict

    async def _follow_time(self) -> None:
        """Ask the source's own clock or the NTP server repeatedly, because records may be hours apart."""
        ask_time = self._clocks.ask_time
        asks_source = ask_time == getattr(self._source, "time_ms", None)
        while ask_time is not None:
            if asks_source and (wait_seconds := self._refused_until - self._monotonic()) > 0:
                await asyncio.sleep(wait_seconds)  # each request during a ban would prolong it
                continue
            try:
                self._witness.said(await ask_time(), self._clocks.uptime_ms())
            except WorldError as error:
                log.debug("time_not_told", reason=str(error))
            await asyncio.sleep(self._clocks.ask_seconds)

    def _made_by_our_clock(
        self, held: list[FeedRecord], answers: dict[Subscription, Answer]
    ) -> tuple[list[FeedRecord], dict[Subscription, Answer]]:
        """What may be written of a source whose records are timed by our clock: nothing while the clock is wrong.

        Raises WorldError when the clock is right again: the source must be started again, from the right time.
        """
        if not self._verdict.believed:
            self._doubted = True
            return [], {}
        if self._doubted:
            raise WorldError("this machine's clock was wrong and is right again: the source is started again")
        future_ms = self._verdict.now_ms + 1_000
        answers = {
            subscription: msgspec.structs.replace(
                answer, records=[record for record in answer.records if record.at <= future_ms]
            )
            for subscription, answer in answers.items()
        }
        return [record for record in held if record.at <= future_ms], answers

    # --- the source --------------------------------------------------------------------------------

    def _refuse_unknown(self) -> None:
        """Raises OperatorError for a subject that the source does not know and of which no record ever arrived."""
        health = self._health()
        unknown = {} if health is None else health.unknown
        for subscription in self._subscriptions:
            if subscription.subject in unknown and self._feeds.own.whole(subscription).last_at < 0:
                raise OperatorError(unknown[subscription.subject])

    def _health(self) -> SourceHealth | None:
        health = getattr(self._source, "health", None)
        return health if isinstance(health, SourceHealth) else None

    def _connections(self) -> int:
        """How often the source's live side was connected; 0 if the source does not report it."""
        health = self._health()
        return 0 if health is None else health.connections


def keeps_to_the_clock(source: FeedSource) -> bool:
    """Whether the times of the source's records come from this machine's clock."""
    return bool(getattr(source, "keeps_to_the_clock", False))


async def _drain(queue: asyncio.Queue[FeedRecord], seconds: float) -> AsyncIterator[FeedRecord]:
    """The records in the queue; waits up to `seconds` for the first."""
    try:
        async with asyncio.timeout(seconds):
            first = await queue.get()
    except TimeoutError:
        return
    yield first
    while not queue.empty():
        yield queue.get_nowait()
