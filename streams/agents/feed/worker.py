"""The feed worker's shell: reads sources and the clock, writes `feeds` and `inputs`.

One assignment, the partition of `feeds`, owns both topics. The source part writes `feeds`; the input stage folds it as
Faust delivers it. A replay is closed-loop: nothing with at > t is sent while an input with at <= t has no finished
round, or while the input stage has not folded what was sent. So replayed time loses nothing, however slow the models
are. Live ticks come from the wall clock, but are never ahead of what the sources have delivered.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog

from coordinator.streams.agents.feed import configuration
from coordinator.streams.agents.feed.clocks import THIS_MACHINE, Clocks, MachineTime
from coordinator.streams.agents.feed.configuration import CommandsRead, Intake, TermsMade, under_terms
from coordinator.streams.agents.feed.live_feed import LiveFeed
from coordinator.streams.agents.feed.rounds_finished import RoundsFinished, newest_input
from coordinator.streams.agents.owning.log_io import LogIO
from coordinator.streams.agents.owning.ownership import (
    LostOwnershipError,
    OwnedTopic,
    fold_and_send,
    send_folded,
)
from coordinator.streams.agents.owning.tenure import Tenure
from coordinator.streams.contract.term_settings import settings_of, term_settings
from coordinator.streams.durations import DAY_MS, FAR_MS
from coordinator.streams.events import ApplyContract, ModelSeen, PostReceived, PostReceivedData, Terms
from coordinator.streams.feeds.order import merge_by_time, with_turns
from coordinator.streams.feeds.stage import FeedStage
from coordinator.streams.granularity import granularity_ms
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.counting import Counter, Decision
from coordinator.streams.log.envelope import encode_event
from coordinator.streams.log.errors import NoHistoryError, OperatorError, RefusedError, WorldError
from coordinator.streams.log.stage import Draft
from coordinator.streams.ports import AppliedContracts, FeedRecord, subscriptions_of
from coordinator.streams.settings import Settings
from coordinator.streams.sources.record_faults import record_fault

MODELS_WAIT_SECONDS = 60.0
CLOCK_ASK_SECONDS_MAX = 30.0

log = structlog.get_logger()


class FeedTenure(Tenure):
    """The claims on `feeds` and `inputs`, and the source that feeds them."""

    stage: InputStage

    def __init__(
        self,
        io: LogIO,
        stage: InputStage,
        owner: str,
        settings: Settings,
        intake: Intake,
        terms: TermsMade,
        time_read: MachineTime = THIS_MACHINE,
    ) -> None:
        super().__init__(io, stage, owner)
        self._settings = settings
        self._source, self._dead_letters, witness, self._source_of = intake
        self._new_terms, self._contracts = terms
        self._wall_ms, self._uptime_ms, self._ntp = time_read
        self._witness = witness or configuration.make_witness(settings, self._source)
        self.feeds = FeedStage(
            None if self._contracts is None else partial(self._applied_terms, self._contracts)
        )
        self._feeds_owned = OwnedTopic(io, "feeds", owner)
        self._also.append((self._feeds_owned, self.feeds))
        self._commands: CommandsRead | None = None
        self._writing = asyncio.Lock()
        self._finished = RoundsFinished(io)
        self._folded = asyncio.Condition()
        self._folded_offset = -1
        self.subscriptions = subscriptions_of(settings)

    async def start(self) -> None:
        """Claim and resume both topics, then run the source and follow the commands."""
        await super().start()
        commands = self._commands = await CommandsRead.start(self._io, self.feeds.need["commands"])
        # First the commands that wait: one may apply another feed, because the present one cannot be read any more.
        if self.feeds.own.terms:
            while batch := await commands.read(commands.end):
                await self._take_commands(batch)
            self._keep_to_terms()
        self._tails.append(asyncio.create_task(self._run_source(), name="feed-source"))
        self._tails.append(asyncio.create_task(self._follow_commands(commands), name="feed-commands"))

    def _keep_to_terms(self) -> None:
        """Take the feed of the newest terms in the log. The settings of this start change nothing by themselves."""
        if self._source_of is None:
            return
        self._settings = under_terms(self._settings, self.feeds.own.terms.events[-1].data)
        self._source, self._witness = self._source_of(self._settings)
        self.subscriptions = subscriptions_of(self._settings)

    def _applied_terms(self, contracts: AppliedContracts, command: ApplyContract) -> Terms:
        """The terms that a command applies."""
        told = self.feeds.own.terms.events
        return contracts.terms_of(command, told[-1].data if told else None)

    async def process(self, decision: Decision) -> None:
        """Fold and decide as the input stage; a replay will wait for the rounds of the new inputs."""
        self.stage.absorb(decision)
        while (draft := self.stage.step()) is not None:
            sent = await send_folded(self.stage, self.owned, draft)
            if self._finished.follows and (index := newest_input(draft.events)) is not None:
                self._finished.expect((await sent, index))
        async with self._folded:
            self._folded_offset = decision.offset
            self._folded.notify_all()

    async def _write(self, make: Callable[[], Draft | None]) -> int | None:
        """Write the draft that `make` returns to `feeds`; returns its offset once it is durable, None without a draft.

        One call at a time runs: each draft is made after the last was folded.
        """
        async with self._writing:
            draft = make()
            if draft is None:
                return None
            for event in draft.events:
                if isinstance(event, PostReceived):
                    await self._refuse_post(event.data)
            sent = await fold_and_send(self.feeds, self._feeds_owned, draft)
            await self._decide_commands()  # those that waited for the first terms
        return await sent

    async def _refuse_post(self, data: PostReceivedData) -> None:
        """Put what a source's post was refused for into the dead letters. They are durable before the decision."""
        for item, reason in data.refused:
            await self._dead_letters.put(f"feed {data.source}", item, reason, data.sha256.encode())

    async def _wait_folded(self, offset: int) -> None:
        async with self._folded:
            while self._folded_offset < offset:
                if self.owned.lost.done():
                    raise self.owned.lost.result()
                try:
                    async with asyncio.timeout(1):
                        await self._folded.wait()
                except TimeoutError:
                    continue

    # --- the source --------------------------------------------------------------------------------

    async def _run_source(self) -> None:
        try:
            terms = await self._terms()
            await self._write(lambda: self.feeds.configure(terms, self._wall_ms_or_clock()))
            await self._wait_for_models()
            await self._replay()
            await self._finished.close()
            self._refuse_empty_replay()
            log.info("replay_finished", until=self.feeds.own.clock)
            await self._live()
        except LostOwnershipError as loss:
            self.owned.give_up(loss)
        except WorldError as error:
            with contextlib.suppress(LostOwnershipError):
                await self._record_state("reconnecting", error)
            self.owned.give_up(LostOwnershipError(f"feed source: {error}", foreign=False))

    async def _record_state(self, state: str, error: WorldError) -> None:
        """Record the state of a source that is not followed live, also of one whose history cannot be read."""
        log.warning("feed_source_away", state=state, reason=str(error))
        states = [(self._source.name, state, str(error))]
        await self._write(lambda: self.feeds.offer([], None, rehearsal=False, states=states))

    def _refuse_empty_replay(self) -> None:
        """Raises OperatorError if a replay with an end had no record: the file, source or time must be wrong."""
        until = self._settings.replay_until_ms
        if self.feeds.own.clock >= 0 or not (self._from_file() or until is not None):
            return
        raise OperatorError(configuration.nothing_replayed(self._settings))

    async def _terms(self) -> Terms:
        """The terms of the contract applied last, with the settings that were applied with it. Raises OperatorError.

        In a new crunch the contract on disk is applied first, so that it is in the log before the terms that name it.
        """
        if self._contracts is None:
            return self._new_terms()
        if not self.feeds.own.terms:
            command = self._contracts.apply_proposed(self._wall_ms(), term_settings(self._settings))
            writer = await self._io.writer()
            try:
                await (await writer.send("commands", encode_event(command)))
            finally:
                await writer.close()
            log.info("contract_applied", contract=command.data.contract_hash[:12], path=command.data.path)
            return self._contracts.terms_of(command)
        held = self.feeds.own.terms.events[-1].data
        for remark in (self._contracts.remark(held.contract_hash), self._contracts.settings_remark(held)):
            if remark:
                log.warning("contract_remark", says=remark)
        return self._contracts.terms_under(held.contract_hash, settings_of(held))

    def _wall_ms_or_clock(self) -> int:
        return max(self.feeds.own.clock, 0)

    async def _wait_for_models(self) -> None:
        """Wait for the models that a replay needs: without them it would record only absences."""
        wanted = self._settings.replay_models_min
        if wanted <= 0:
            return
        reader, counter = await self._io.reader("models", 0), Counter("models")
        seen: set[str] = set()
        deadline = time.monotonic() + MODELS_WAIT_SECONDS
        try:
            while len(seen) < wanted and time.monotonic() < deadline:
                for offset, record in await reader.read():
                    decision = counter.read(offset, record)
                    events = [] if decision is None else decision.events
                    seen |= {event.data.model_id for event in events if isinstance(event, ModelSeen)}
        finally:
            await reader.close()
        if len(seen) < wanted:
            log.warning("models_missing", wanted=wanted, seen=sorted(seen))

    def _from_file(self) -> bool:
        return bool(self._settings.feed_candles_file)

    async def _replay(self) -> None:
        """Replay history up to the end of the file, or until the replay has caught up with the wall clock."""
        until = self._settings.replay_until_ms
        if self._from_file():
            await self._replay_stretch(self._settings.replay_from_ms or 0, until or FAR_MS)
            return
        # After live time there is no replay: the grid points that were missed in an outage stay missed.
        wanted = self._settings.replay_from_ms is not None or self._settings.replay_days > 0
        if self.feeds.own.lived or not wanted:
            return
        length = granularity_ms(self._settings.feed_granularity)
        days_ms = int(self._settings.replay_days * DAY_MS)
        start = self._settings.replay_from_ms or (self._wall_ms() - days_ms) // length * length
        while True:
            now = min(self._witness.capped(self._wall_ms(), self._uptime_ms()), until or FAR_MS)
            if now - max(self.feeds.own.clock, start) < length or self.feeds.own.clock >= (until or FAR_MS):
                return
            clock_before = self.feeds.own.clock
            try:
                await self._replay_stretch(start, now)
            except NoHistoryError as error:
                log.warning("replay_left_out", reason=str(error))
                return
            except (
                RefusedError
            ) as error:  # do not give up the ownership: the next tenure would ask again at once
                await self._record_state("refused", error)
                await asyncio.sleep(error.again_seconds)
                continue
            if self.feeds.own.clock == clock_before:
                return

    async def _replay_stretch(self, start_ms: int, end_ms: int) -> None:
        await self._finished.start()
        first = max(start_ms, self.feeds.own.clock + 1)
        histories = [
            await self._sound([record async for record in self._source.history(subscription, first, end_ms)])
            for subscription in self.subscriptions
        ]
        began, began_at = time.monotonic(), None
        for at, records in with_turns(merge_by_time(histories), self.feeds.turn_before):
            await self._finished.wait(self.owned.lost)
            if self._settings.replay_speed > 0:
                began_at = at if began_at is None else began_at
                due = began + (at - began_at) / 1000 / self._settings.replay_speed
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            offset = await self._write(partial(self.feeds.replayed, at, self.subscriptions, records))
            if offset is not None:
                await self._wait_folded(offset)
        await self._finished.wait(self.owned.lost)

    async def _live(self) -> None:
        """Follows the source live. A replay of a file, or up to a given time, waits here without end."""
        if self._from_file() or self._settings.replay_until_ms is not None:
            await asyncio.Event().wait()
        watermarks = (self.feeds.own.last_at(subscription) for subscription in self.subscriptions)
        for at_ms in (self.feeds.own.clock, *watermarks):
            self._witness.record(at_ms)
        live = LiveFeed(
            self._source,
            self.subscriptions,
            self.feeds,
            self._write,
            self._sound,
            Clocks(
                self._wall_ms,
                self._uptime_ms,
                self._witness,
                self._time_question(),
                min(self._settings.clock_ahead_seconds_max / 4, CLOCK_ASK_SECONDS_MAX),
            ),
            self._settings.feed_stall_alert_seconds,
        )
        await live.run()

    def _time_question(self) -> Callable[[], Awaitable[int]] | None:
        """How to ask for the time: the operator's NTP server, or else the source; None if the source has no clock."""
        if self._ntp is not None and self._settings.ntp_server:
            return partial(self._ntp, self._settings.ntp_server)
        return getattr(self._source, "time_ms", None)

    # --- commands ------------------------------------------------------------------------------------

    async def _follow_commands(self, commands: CommandsRead) -> None:
        """Decide each command once; a command with records of the past puts them into `feeds`. One that applies another
        feed ends this tenure: the next one follows that feed.
        """
        try:
            while True:
                await self._take_commands(await commands.read(None))
                told = self.feeds.own.terms.events if self._source_of is not None else []
                if (
                    told
                    and subscriptions_of(under_terms(self._settings, told[-1].data)) != self.subscriptions
                ):
                    raise LostOwnershipError("another feed was applied", foreign=False)
        except LostOwnershipError as loss:
            self.owned.give_up(loss)

    async def _take_commands(self, decisions: Sequence[Decision | None]) -> None:
        for decision in decisions:
            if decision is None:
                continue
            async with self._writing:
                self.feeds.absorb(decision)
                sent = await self._decide_commands()
            if sent is not None:
                await sent

    async def _decide_commands(self) -> asyncio.Future[int] | None:
        """Decide the commands that wait; returns the future of the last decision, None if there was none."""
        last: asyncio.Future[int] | None = None
        while (offset := self.feeds.due()) is not None:
            # The letters must be durable before the decision. If this process is killed in between, the next owner
            # refuses again, with letters of the same ids. In the other order a refusal could be lost.
            for position, reason in self.feeds.refused():
                sender_finds = self.feeds.due_id().encode()  # the refused items, by the command's id
                await self._dead_letters.put("commands", f"{offset} {position}", reason, sender_finds)
            draft = self.feeds.step()
            if draft is not None:  # each command makes one
                last = await send_folded(self.feeds, self._feeds_owned, draft)
        return last

    async def _sound(self, records: Sequence[FeedRecord]) -> list[FeedRecord]:
        """The records that are possible and not too late; others go to the dead letters."""
        sound: list[FeedRecord] = []
        any_price = self._settings.feed_any_price
        now_ms = max(self._wall_ms(), self._witness.confirmed_ms, self.feeds.own.clock)
        for record in records:
            fault = record_fault(record, now_ms, any_price=any_price) or self.feeds.own.refusal(record)
            if fault is None:
                sound.append(record)
            else:
                await self._dead_letters.put(
                    f"feed {record.source}",
                    f"{record.subject} {record.ts_event}",
                    fault,
                    repr(record).encode(errors="backslashreplace"),  # a wrong record may not be valid JSON
                )
        return sound

    async def close(self) -> None:
        """Give up both claims."""
        await super().close()
        if self._commands is not None:
            await self._commands.close()
        await self._finished.close()
