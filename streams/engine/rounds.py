"""The owners of `models` and `predictions` in an engine: record the models, and ask them in each round.

Rounds open in the order of their inputs. Each is asked and answered before the next one opens. No model is late,
because the clock is that of the feed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from coordinator.streams.contract import CallMethod, CrunchContract
from coordinator.streams.engine.log import LogReader, MemoryLog
from coordinator.streams.engine.models import Models
from coordinator.streams.engine.owner import Kept, Owner
from coordinator.streams.events import InputReceived, InputReceivedData, RosterEntry, RoundHistory
from coordinator.streams.inputs.ground_truth import TypedRecords
from coordinator.streams.inputs.windows import History, first_tick
from coordinator.streams.log.counting import Decision, TailCounter
from coordinator.streams.log.errors import LogError
from coordinator.streams.log.stage import Told
from coordinator.streams.models.stage import ModelStage
from coordinator.streams.predictions.calls import NONE, Calls, FirstTick
from coordinator.streams.predictions.performance import LastPeriod
from coordinator.streams.predictions.stage import Answered, Asked, PredictionStage


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
        contracts: Callable[[str], CrunchContract],
        seen: ModelsOwner,
        clock: Callable[[], int],
    ) -> None:
        super().__init__(log, PredictionStage())
        self._models, self._contracts, self._seen, self._clock = models, contracts, seen, clock
        self._history, self._typed = History(), TypedRecords(contracts)
        self._feeds: LogReader | None = None
        self._snapshots, self._last = TailCounter("snapshots"), LastPeriod()
        self._snapshots_read = 0
        self.snapshots_needed = 0
        """The offset in `snapshots` of the last closed period, of which models are told; or after the last record
        read.
        """

    def go_on(self, kept: Kept) -> None:
        """As every owner does; of `snapshots` the log holds what was needed, and no more."""
        super().go_on(kept)
        self.snapshots_needed = self.log.bases.get("snapshots", 0)

    def take(self, decision: Decision) -> None:
        """Ask the models for each input that is not decided yet. Raises LogError for a round that was left open."""
        self._history.learn(decision)
        for told in self.stage.unfold(decision):
            if isinstance(told.event, InputReceived) and not self.stage.decided("inputs", told.position):
                self._round(told.event.data, told)

    def _round(self, data: InputReceivedData, told: Told) -> None:
        stage, state = self.stage, self.stage.state
        stage.fold(state, told)
        if state.is_answered(data.input_id):
            return
        if data.input_id in state.open_rounds:
            raise LogError(f"the round of {data.input_id} was left open: an engine ends what it begins")
        clock = self._clock()
        self._seen.notice(max(clock, 0))
        roster = self._models.roster(data, self._seen.stage.models.roster())
        contract, performance, each = self._contracts(data.contract_hash), None, NONE
        history, first = self._first_tick(data, roster)
        last = self._last_period(contract.call_method)
        if last is not None:
            performance, each = last.told(roster, self._contracts)
        self.put(stage.hear(Asked(data, roster, clock, self._seen.seq, history, performance)))
        opened = state.open_rounds[data.input_id].opened
        answers = self._models.answers(opened, data, contract, Calls(data, contract, first, each))
        self.put(stage.hear(Answered(data.input_id, answers, self._clock())))

    def _first_tick(
        self, data: InputReceivedData, roster: Sequence[RosterEntry]
    ) -> tuple[RoundHistory | None, FirstTick | None]:
        """Who gets the longer first tick, and the tick; none where the contract has none."""
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
        """The last closed period, as `snapshots` stands; None where models are not told of it."""
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
