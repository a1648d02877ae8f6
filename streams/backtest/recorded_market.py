"""A recorded log as the market of a backtest: its feed, and the models that took part in it, with their answers.

Reads a copy of the topics (`coordinator topics backup`). The decisions of the feed are played again, with gaps and
ticks, so that inputs and truths are those of the node. The rules are those of the log, too: each round is scored by the
contract that it was asked under, which the log keeps. The models of the log are not asked, because the log has their
answers; only the models of the backtest are. So a new model is ranked among those that took part.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

from coordinator.infra.contracts.archive import unpack
from coordinator.infra.contracts.loading import ContractShelf
from coordinator.infra.log.copy_file import read_topics
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.terms import in_force
from coordinator.streams.engine import Models, RecordedAnswers
from coordinator.streams.engine.memory_log import LogReader
from coordinator.streams.engine.models import Pending
from coordinator.streams.engine.rerun import recorded_terms
from coordinator.streams.events import ApplyContract, InputReceivedData, RosterEntry, RoundOpened
from coordinator.streams.log.birth import read_birth
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.stage import Draft
from coordinator.streams.ports import Blobs, ModelNotice
from coordinator.streams.predictions.calls import Calls
from coordinator.streams.predictions.replies import Answers


class RecordedLog:
    """The feed, the answers and the contracts of a log, all in memory.

    `contracts` gives the contract of a hash; `terms` and `contract` are those in force at the log's end.
    """

    def __init__(self, path: Path, blobs: Blobs, own: CrunchContract) -> None:
        """`blobs` takes the blobs of the copy. `own` is used where the log names its hash; the others are run from the
        log. Raises OperatorError, LogError, ContractError.
        """
        self._log = read_topics(path, ("feeds", "predictions", "commands"), blobs)
        self.blobs = blobs
        self.answers = RecordedAnswers(iter(LogReader(self._log, "predictions").next, None))
        birth = read_birth(self._log.record("feeds", 0)) if self._log.end("feeds") else None
        told = recorded_terms(self._log)
        if birth is None or not told:
            raise OperatorError(f"{path} holds no rules, because it holds no feed")
        self.crunch_id = birth.data.crunch_id
        self._archives = {
            event.data.contract_hash: bytes(event.data.archive)
            for event in self._log.events("commands")
            if isinstance(event, ApplyContract)
        }
        self.contracts = ContractShelf(self._find)
        self.contracts.put(own)
        for terms in told:
            self.contracts(terms.contract_hash)
        clock = max(event.at for event in self._log.events("feeds"))
        self.terms = in_force(told).at(clock)
        self.contract = self.contracts(self.terms.contract_hash)

    def _find(self, contract_hash: str) -> CrunchContract:
        archive = self._archives.get(contract_hash)
        if archive is None:
            raise OperatorError(
                f"the log was made under contract {contract_hash[:12]}, which is neither in the log nor the one "
                "that you named"
            )
        return unpack(archive, contract_hash)

    def drafts(self) -> Generator[Draft, None, None]:
        """The decisions of the feed, one after another, with the terms that it tells."""
        for decision in iter(LogReader(self._log, "feeds").next, None):
            if decision.events:
                yield Draft(decision.events, {}, {})


class JoinedModels:
    """The models of a log and those of a backtest as one port. Every round asks both.

    Raises OperatorError if a model of the backtest has the id of a model of the log.
    """

    def __init__(self, recorded: RecordedAnswers, models: Models) -> None:
        self._recorded, self._models = recorded, models

    def notices(self) -> Sequence[ModelNotice]:
        """The notices of the backtest's models. Those of the log are on its rosters already."""
        return self._models.notices()

    def roster(self, data: InputReceivedData, entries: list[RosterEntry]) -> list[RosterEntry]:
        """The models of both, in order of model_id."""
        of_log = self._recorded.roster(data, entries)
        if twice := {entry.model_id for entry in of_log} & {entry.model_id for entry in entries}:
            raise OperatorError(f"the log has a model {min(twice)!r} too: rename the folder")
        return sorted([*of_log, *entries], key=lambda entry: entry.model_id)

    def answers(
        self, opened: RoundOpened, data: InputReceivedData, contract: CrunchContract, calls: Calls
    ) -> Answers | Pending:
        """The recorded answers of the log's models, and the answers that the others give now."""
        of_log = self._recorded.answers(opened, data, contract, calls)
        asked_now = self._models.answers(opened, data, contract, calls)
        return (lambda: _both(of_log, asked_now())) if callable(asked_now) else _both(of_log, asked_now)


def _both(of_log: Answers, asked_now: Answers) -> Answers:
    models_of_log = {entry.model_id for entries in of_log.values() for entry in entries}
    return {
        scope_key: [
            *of_log.get(scope_key, ()),
            *(entry for entry in entries if entry.model_id not in models_of_log),
        ]
        for scope_key, entries in asked_now.items()
    }
