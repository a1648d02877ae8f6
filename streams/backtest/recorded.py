"""A recorded log as a market: its feed, word for word, and the models that took part in it with what they answered.

Reads a copy of the topics (`coordinator topics backup`). The feed's decisions are told again, gaps and ticks with
them, so that inputs and truths are those of the node; its models are asked nothing: their answers stand in the log,
beside which the models of the backtest are asked. So a new model is ranked among those that were there.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

from coordinator.infra.log.copy_file import read_topics
from coordinator.streams.contract import CrunchContract
from coordinator.streams.engine import Models, RecordedAnswers
from coordinator.streams.engine.log import LogReader
from coordinator.streams.events import InputReceivedData, RosterEntry, RoundOpened
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.stage import Draft
from coordinator.streams.ports import ModelNotice
from coordinator.streams.predictions.calls import Calls
from coordinator.streams.predictions.judging import Answers


class RecordedLog:
    """The feed and the answers of a log; all of it is in memory."""

    def __init__(self, path: Path) -> None:
        """Raises OperatorError, LogError."""
        self._log = read_topics(path, ("feeds", "predictions"))
        self.answers = RecordedAnswers(iter(LogReader(self._log, "predictions").next, None))

    def drafts(self) -> Generator[Draft, None, None]:
        """The decisions of the feed, one after another, with the terms that it tells."""
        for decision in iter(LogReader(self._log, "feeds").next, None):
            if decision.events:
                yield Draft(decision.events, {}, {})


class Beside:
    """The models of a log and those of a backtest as one port: each round asks both. Raises OperatorError for a model
    of the backtest that is called like one of the log.
    """

    def __init__(self, recorded: RecordedAnswers, models: Models) -> None:
        self._recorded, self._models = recorded, models

    def notices(self) -> Sequence[ModelNotice]:
        """The log's models are on its rosters already."""
        return self._models.notices()

    def roster(self, data: InputReceivedData, known: list[RosterEntry]) -> list[RosterEntry]:
        """Both, in order of model_id."""
        theirs = self._recorded.roster(data, known)
        if twice := {entry.model_id for entry in theirs} & {entry.model_id for entry in known}:
            raise OperatorError(f"the log has a model {min(twice)!r} too: rename the folder")
        return sorted([*theirs, *known], key=lambda entry: entry.model_id)

    def answers(
        self, opened: RoundOpened, data: InputReceivedData, contract: CrunchContract, calls: Calls
    ) -> Answers:
        """What the log says of its own, and what the others say now."""
        theirs = self._recorded.answers(opened, data, contract, calls)
        asked_then = {entry.model_id for entries in theirs.values() for entry in entries}
        ours = self._models.answers(opened, data, contract, calls)
        return {
            key: [*theirs.get(key, ()), *(one for one in entries if one.model_id not in asked_then)]
            for key, entries in ours.items()
        }
