"""The owners of `models` and `predictions` in an engine: record the models, and ask them in each round.

Rounds open in the order of their inputs. Each is asked and answered before the next one opens. No model is late,
because the clock is that of the feed.

If the port has not waited for the answers (`Pending`), the round stays open while the other stages continue, and its
answers are recorded before anything else of `predictions` is decided. So the topic is the same. The other topics are
the same too, because no stage decides otherwise when it reads `predictions` later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from coordinator.streams.contract import CallMethod
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.engine.memory_log import LogReader, MemoryLog
from coordinator.streams.engine.models import Models, Pending
from coordinator.streams.engine.owner import Owner, SavedOwner
from coordinator.streams.events import (
    InputClosed,
    InputReceived,
    InputReceivedData,
    InputResolved,
    RosterEntry,
    RoundHistory,
    SubmitAnswers,
)
from coordinator.streams.inputs.feed_windows import History, first_tick
from coordinator.streams.inputs.ground_truth import TypedRecords
from coordinator.streams.large_answers import read_answers
from coordinator.streams.log.counting import Decision, TailCounter
from coordinator.streams.log.errors import LogError
from coordinator.streams.log.stage import PlacedEvent
from coordinator.streams.models.stage import ModelStage
from coordinator.streams.ports import BlobReader
from coordinator.streams.predictions.calls import NONE, Calls, FirstTick
from coordinator.streams.predictions.performance import LastPeriod
from coordinator.streams.predictions.questions import judged, to_ask
from coordinator.streams.predictions.stage import Answered, PredictionStage, RoundAsked, Submitted


class ModelsOwner(Owner):
    """The owner of `models`: records the notices of the port, and the operator's commands."""

    stage: ModelStage

    def __init__(self, log: MemoryLog, models: Models) -> None:
        super().__init__(log, ModelStage())
        self._models = models
        self._timed = False

    def notice(self, at: int) -> None:
        """Record the models that were seen or left. `at`: the clock in ms."""
        notices = self._models.notices()
        if notices or not self._timed:  # models that were seen before the first tick get its time
            self.put(self.stage.offer(notices, at))
            self._timed = at > 0


class RoundsOwner(Owner):
    """The owner of `predictions`: asks the models in the round of each input."""

    stage: PredictionStage

    def __init__(
        self,
        log: MemoryLog,
        models: Models,
        contracts: Contracts,
        seen: ModelsOwner,
        clock: Callable[[], int],
        blobs: BlobReader | None,
    ) -> None:
        super().__init__(log, PredictionStage())
        self._blobs = blobs
        self._models, self._contracts, self._seen, self._clock = models, contracts, seen, clock
        self._history, self._typed = History(), TypedRecords(contracts)
        self._feeds: LogReader | None = None
        self._snapshots, self._last = TailCounter("snapshots"), LastPeriod()
        self._snapshots_read = 0
        self._pending: tuple[str, Pending, int] | None = None
        """(input id, what waits for the answers, the clock in ms) of a round whose models have been asked."""
        self.refused: dict[str, list[tuple[str, str]]] = {}
        """Command -> (question, reason) of each answer that was handed in and refused."""
        self.snapshots_needed = 0
        """The offset in `snapshots` of the last closed period, of which models are told; or after the last record
        read.
        """

    def go_on(self, owner_state: SavedOwner) -> None:
        """Continue as every owner does. Of `snapshots` the log holds only what was needed."""
        super().go_on(owner_state)
        self.snapshots_needed = self.log.bases.get("snapshots", 0)

    def take(self, decision: Decision) -> None:
        """Ask the models for each input that is not decided yet. Raises LogError for a round that was left open."""
        self.collect()
        self._history.learn(decision)
        for placed in self.stage.unfold(decision):
            if self.stage.decided(placed.topic, placed.position):
                continue
            if isinstance(placed.event, InputReceived):
                self.collect()
                self._round(placed.event.data, placed)
            elif isinstance(placed.event, InputResolved):
                # So a truth is scored at the instant at which it is known, also that of a round that just opened.
                if self._pending is not None and placed.event.data.input_id == self._pending[0]:
                    self.collect()
            elif isinstance(placed.event, InputClosed):
                self.collect()
                if not self.put(self.stage.decide(self.stage.state, placed)):
                    self.stage.fold(self.stage.state, placed)
            elif isinstance(placed.event, SubmitAnswers):
                self._submitted(placed.event, placed)

    def collect(self) -> None:
        """Wait for the answers to the last round, if nobody has, and record them."""
        if self._pending is not None:
            (input_id, wait, clock), self._pending = self._pending, None
            self.put(self.stage.hear(Answered(input_id, wait(), clock)))

    def _round(self, data: InputReceivedData, placed: PlacedEvent) -> None:
        stage, state = self.stage, self.stage.state
        stage.fold(state, placed)
        if state.is_answered(data.input_id):
            return
        if state.open_round(data.input_id) is not None:
            raise LogError(f"the round of {data.input_id} was left open: an engine ends what it begins")
        clock = self._clock()
        self._seen.notice(max(clock, 0))
        everyone = self._models.roster(data, self._seen.stage.models.roster())
        roster = to_ask(state.own.questions, data.question, everyone)
        contract, performance, each = self._contracts(data.contract_hash), None, NONE
        history, first = self._first_tick(data, roster)
        last = self._last_period(contract.call_method)
        if last is not None:
            performance, each = last.told(roster, self._contracts)
        self.put(stage.hear(RoundAsked(data, roster, clock, self._seen.seq, history, performance)))
        opened = state.own.rounds[data.input_id].opened
        answers = self._models.answers(opened, data, contract, Calls(data, contract, first, each))
        if not callable(answers):
            self.put(stage.hear(Answered(data.input_id, answers, clock)))
            return
        self._pending = data.input_id, answers, clock
        if last is not None:
            self.collect()  # what models are told of their performance depends on how far periods are closed

    def _submitted(self, command: SubmitAnswers, placed: PlacedEvent) -> None:
        """Record answers that are handed in. What is refused is kept in `refused`, by the command's id."""
        state, clock = self.stage.state, self._clock()
        command, lost = read_answers(command, self._blobs)
        rounds, at, refused = judged(
            state.own.questions, state.closings, command, self._contracts, clock, self._seen.seq, lost
        )
        if refused:
            self.refused[command.id] = refused
        self.put(self.stage.decide(state, msgspec.structs.replace(placed, event=Submitted(rounds, at))))

    def _first_tick(
        self, data: InputReceivedData, roster: Sequence[RosterEntry]
    ) -> tuple[RoundHistory | None, FirstTick | None]:
        """The models that get the longer first tick, and the tick; none if the contract has none."""
        if data.history is None:
            return None, None
        lacking = self.stage.state.own.first_ticks.lacking(data.subject, roster)
        if not lacking:
            return RoundHistory(subject=data.subject, models=[]), None
        if self._feeds is None or self._feeds.counter.next_offset < self._history.start.offset:
            self._history.begin()
            self._feeds = LogReader(self.log, "feeds", self._history.start)
        while self._feeds.counter.next_offset < self._history.end:
            if (decision := self._feeds.step()) is not None:
                self._history.take(decision)
        windows = self._history.windows(data.history, data.point)
        history, payload = first_tick(data, lacking, windows, self._typed)
        return history, FirstTick(payload, {roster[i].model_id for i in history.models})

    def _last_period(self, method: CallMethod) -> LastPeriod | None:
        """The last closed period according to `snapshots`; None if the contract does not tell models about it."""
        first = max(self._snapshots_read, self.log.bases.get("snapshots", 0))
        self._snapshots_read = self.log.end("snapshots")
        for offset in range(first, self._snapshots_read):
            decision = self._snapshots.read(offset, self.log.record("snapshots", offset))
            if decision is not None and method.asks_performance:
                self._last.take(decision.seq, decision.events)
                if self._last.seq == decision.seq:
                    self.snapshots_needed = decision.first_offset
        if not method.asks_performance:
            self.snapshots_needed = self._snapshots_read
            return None
        return self._last
