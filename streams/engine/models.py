"""The models of an engine: the port, models that are functions or objects in this process, and recorded answers.

Answers are judged as at the node: if a model raises, or returns something that is not valid by the contract, its
answer is FAILED, with the reason and whose fault it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import (
    AnswerEntry,
    InputReceivedData,
    RosterEntry,
    RoundAnswered,
    RoundOpened,
    ScopeAnswered,
)
from coordinator.streams.large_answers import stopped_by, table_of
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.errors import BlobLostError
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.ports import BlobReader, ModelInfo, ModelNotice, ModelReply, Outcome
from coordinator.streams.predictions.calls import Calls
from coordinator.streams.predictions.frames import TABLE, frame_of, takes_table
from coordinator.streams.predictions.replies import Answers, all_missed, judge
from coordinator.streams.predictions.sendable import as_json, sendable

NO_KEYWORDS: Mapping[str, Any] = {}
Replies = Mapping[str, Mapping[str, ModelReply]]
"""model_id -> scope_key -> reply."""


Pending = Callable[[], Answers]
"""Waits for models that are asked already, and gives their answers."""


class Models(Protocol):
    """The models of an engine. One caller; everything is asked once, in the order of the rounds."""

    def notices(self) -> Sequence[ModelNotice]:
        """The models that were seen or left since the last call, in order."""
        ...

    def roster(self, data: InputReceivedData, entries: list[RosterEntry]) -> list[RosterEntry]:
        """The models that this input's round asks. `entries`: the models that were seen, and neither left nor are
        banned.
        """
        ...

    def answers(
        self, opened: RoundOpened, data: InputReceivedData, contract: CrunchContract, calls: Calls
    ) -> Answers | Pending:
        """An entry for each model of the roster and each scope. `calls` has the arguments of each call.

        Models in processes of their own are asked here, and the answers returned as Pending: the engine does all other
        work while they think, and calls it before it asks the next round.
        """
        ...


class NoModels:
    """No model takes part."""

    def notices(self) -> Sequence[ModelNotice]:
        return ()

    def roster(self, data: InputReceivedData, entries: list[RosterEntry]) -> list[RosterEntry]:  # noqa: ARG002
        return entries

    def answers(
        self,
        opened: RoundOpened,
        data: InputReceivedData,
        contract: CrunchContract,
        calls: Calls,  # noqa: ARG002
    ) -> Answers:
        return judged(opened, data, contract, {})


class Functions(NoModels):
    """Models in this process, by their id: functions `(data, call) -> output`, or objects with the contract's methods.

    `data`: the model input as JSON values. `call`: the arguments of `predict` by name (`subject`, `horizon_seconds`,
    `step_seconds`, or those of the contract's `call_method`). Each model gets its own copy of both. `players`: model
    id -> id of the player who is paid. `blobs` has the tables of questions, which an object's `tick` gets as `table`.
    """

    def __init__(
        self,
        models: Mapping[str, Any],
        players: Mapping[str, str] | None = None,
        blobs: BlobReader | None = None,
    ) -> None:
        self._blobs = blobs
        self._models = dict(models)
        self._players = players or {}
        self._told = False

    def notices(self) -> Sequence[ModelNotice]:
        """Every model, once."""
        if self._told:
            return ()
        self._told = True
        return [ModelNotice("seen", self._info(model_id)) for model_id in self._models]

    def _info(self, model_id: str) -> ModelInfo:
        player = self._players.get(model_id, f"{model_id}-cruncher")
        return ModelInfo(model_id, model_id, f"{model_id}-1", player, player)

    def answers(
        self, opened: RoundOpened, data: InputReceivedData, contract: CrunchContract, calls: Calls
    ) -> Answers:
        """Call one model after another, in the order of the roster."""
        try:
            calls = calls.with_table(table_of(data, self._blobs))
        except BlobLostError as error:
            return all_missed(opened, stopped_by(error), "node")
        replies = {
            entry.model_id: self._ask(entry.model_id, data, contract, calls) for entry in opened.data.roster
        }
        return judged(opened, data, contract, replies)

    def _ask(
        self, model_id: str, data: InputReceivedData, contract: CrunchContract, calls: Calls
    ) -> Mapping[str, ModelReply]:
        model, method = self._models[model_id], contract.call_method
        predicts = [(scope, _of_its_own(values)) for scope, values in calls.predicts(model_id)]
        if hasattr(model, method.predict):
            tick, keywords = getattr(model, method.tick, None), dict[str, Any]()
            if calls.table is not None and callable(tick) and takes_table(tick):
                keywords[TABLE] = frame_of(calls.table.parquet)
            values = _of_its_own(calls.with_table(None).tick(model_id))
            ticked = _called(model_id, tick, values, keywords, looked_at=False)
            if ticked.outcome is not Outcome.OK:
                return {scope.scope_key: ticked for scope, _ in predicts}
            predict = getattr(model, method.predict)
            return {scope.scope_key: _called(model_id, predict, values) for scope, values in predicts}
        names = method.predict_arguments
        return {
            scope.scope_key: _called(
                model_id, model, [msgspec.json.decode(data.payload), dict(zip(names, values, strict=True))]
            )
            for scope, values in predicts
        }


class RecordedRounds(msgspec.Struct):
    """What was read of the rounds that nobody has asked for yet."""

    opened: dict[str, RoundOpened] = {}
    """input_id -> its round, until its roster is asked for."""
    entries: dict[str, dict[str, list[AnswerEntry]]] = {}
    """input_id -> scope_key -> its answers, until they are asked for."""
    answered: dict[str, bool] = {}
    """The inputs whose answers are all read, each True."""

    def take(self, decision: Decision) -> int:
        """Read one decision of `predictions`: how many answers it holds."""
        count = 0
        for event in decision.events:
            match event:
                case RoundOpened(data=data):
                    self.opened[data.input_id] = event
                case ScopeAnswered(data=data):
                    entries = data.entries(self.opened[data.input_id].data.roster)
                    count += len(entries)
                    self.entries.setdefault(data.input_id, {}).setdefault(data.scope_key, []).extend(entries)
                case RoundAnswered(data=data):
                    self.answered[data.input_id] = True
                case _:
                    pass
        return count


class RecordedAnswers:
    """The rosters and answers of a log; no model is asked. An input that is not in the log has an empty roster.

    A round is read when the engine asks for it, and dropped once it is answered. The engine asks in the order of the
    log, so the memory does not grow.
    """

    def __init__(self, predictions: Iterable[Decision], rounds: RecordedRounds | None = None) -> None:
        """`predictions`: the counted decisions of that topic, in order. `rounds`: what was read before them."""
        self._ahead = iter(predictions)
        self.after = Need()
        """Where to read on, behind the last decision that was read."""
        self.rounds = rounds or RecordedRounds()
        self.count = 0
        """How many answers were read."""
        self.on_answers: Callable[[Answers, int], None] | None = None
        """Called with the answers of each round that is asked for, and its point (ms)."""

    def notices(self) -> Sequence[ModelNotice]:
        return ()

    def roster(self, data: InputReceivedData, entries: list[RosterEntry]) -> list[RosterEntry]:  # noqa: ARG002
        """The recorded roster. If the log does not have the input, it is read to its end."""
        while data.input_id not in self.rounds.answered and self._read():
            pass
        opened = self.rounds.opened.pop(data.input_id, None)
        return [] if opened is None else opened.data.roster

    def answers(
        self,
        opened: RoundOpened,  # noqa: ARG002
        data: InputReceivedData,
        contract: CrunchContract,  # noqa: ARG002
        calls: Calls,  # noqa: ARG002
    ) -> Answers:
        """The recorded answers; they are returned only once."""
        self.rounds.answered.pop(data.input_id, None)
        answers = self.rounds.entries.pop(data.input_id, {})
        if self.on_answers is not None:
            self.on_answers(answers, data.point)
        return answers

    def _read(self) -> bool:
        """Read the next decision. Returns False at the end of the log."""
        decision = next(self._ahead, None)
        if decision is not None:
            self.count += self.rounds.take(decision)
            self.after = decision.after()
        return decision is not None


def judged(
    opened: RoundOpened, data: InputReceivedData, contract: CrunchContract, replies: Replies
) -> Answers:
    """Judge the replies of a round: scope_key -> answers. A model without a reply is ABSENT by the node's fault."""
    return {
        scope.scope_key: judge(
            opened,
            {model_id: of_model[scope.scope_key] for model_id, of_model in replies.items()},
            contract.output_type,
            contract.output_max_bytes,
        )
        for scope in data.scopes
    }


def _of_its_own(values: list[Any]) -> list[Any]:
    """A copy of the arguments, so that no model sees what another one did to them."""
    own: list[Any] = msgspec.json.decode(msgspec.json.encode(values))
    return own


def _called(
    model_id: str,
    method: Callable[..., Any] | None,
    values: list[Any],
    keywords: Mapping[str, Any] = NO_KEYWORDS,
    *,
    looked_at: bool = True,
) -> ModelReply:
    """Call a method of a model, with the result that a model's process would send."""
    deployment = f"{model_id}-1"
    if not callable(method):
        return ModelReply(
            model_id, deployment, Outcome.MODEL_FAILED, "model", detail="the model has no such method"
        )
    try:
        output = method(*values, **keywords)
        return ModelReply(model_id, deployment, Outcome.OK, output=as_sent(output) if looked_at else None)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a participant's code: whatever it raises is its answer
        reason = as_reason(f"{type(error).__name__}: {error}")
        return ModelReply(model_id, deployment, Outcome.MODEL_FAILED, "model", detail=reason)


def as_sent(value: Any) -> Any:
    """The value that a model returned, as it would arrive at the node. Raises VariantError if it cannot be sent."""
    value = sendable(value)
    return json.loads(as_json(value)) if isinstance(value, dict | list) else value
