"""The owners of `models` and `predictions` of an engine: who takes part, and each round as it is asked and answered.

A round is opened in the order of its input, asked at once and answered before the next one is opened. Nobody is late
here: the clock is the feed's.
"""

from __future__ import annotations

from collections.abc import Callable

from coordinator.streams.contract import CrunchContract
from coordinator.streams.engine.log import MemoryLog
from coordinator.streams.engine.models import Models
from coordinator.streams.engine.owner import Owner
from coordinator.streams.events import InputReceived, InputReceivedData
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.errors import LogError
from coordinator.streams.log.stage import Told
from coordinator.streams.models.stage import ModelStage
from coordinator.streams.predictions.stage import Answered, Asked, PredictionStage


class ModelsOwner(Owner):
    """`models`: what the port notices, and the operator's commands."""

    stage: ModelStage

    def __init__(self, log: MemoryLog, models: Models) -> None:
        super().__init__(log, ModelStage())
        self._models = models

    def notice(self, at: int) -> None:
        """Put down who was seen or left; `at` is the clock in ms."""
        self.put(self.stage.offer(self._models.notices(), at))


class RoundsOwner(Owner):
    """`predictions`: every input's round."""

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

    def take(self, decision: Decision) -> None:
        """Ask the models for each input that is not decided yet. Raises LogError for a round that was left open."""
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
        self.put(stage.hear(Asked(data, roster, clock, self._seen.seq)))
        opened = state.open_rounds[data.input_id].opened
        answers = self._models.answers(opened, data, self._contracts(data.contract_hash))
        self.put(stage.hear(Answered(data.input_id, answers, self._clock())))
