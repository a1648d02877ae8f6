"""Runs the models of a backtest, each in a process of its own, and asks them as the node does, without gRPC.

A question is sent to all models at once. The engine does its other work while they think: it scores the last round and
decides the next instant of the feed. Then it reads their answers, and asks again. Nothing of a later round reaches a
model early, because its pipe holds one question at a time. A model that hangs, or whose process ends, loses its round
and its memory, and is started again, as at the node: up to `restarts_max` times within `restart_window_seconds` of the
market's time. A model with too many bad answers in a row, by the contract, is stopped, as the orchestrator would do.

The time that a model takes is measured (`times`). It has no effect on the score unless `deadlines` is true, because
this machine is not the node's.
"""

from __future__ import annotations

import json
import time
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from coordinator.infra.models.host.model_folder import ModelEntry
from coordinator.infra.models.piped_child import Answer, Answered, Question
from coordinator.infra.models.piped_model import BadModelError, GoneError, PipedModel, encoded
from coordinator.streams.contract import CrunchContract
from coordinator.streams.engine.models import Pending, judged
from coordinator.streams.events import InputReceivedData, RosterEntry, RoundOpened
from coordinator.streams.large_answers import stopped_by, table_of
from coordinator.streams.log.errors import BlobLostError, OperatorError
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.ports import BlobReader, ModelInfo, ModelNotice, ModelReply, Outcome
from coordinator.streams.predictions.answer_size import answer_size_fault
from coordinator.streams.predictions.calls import Calls
from coordinator.streams.predictions.replies import Answers, all_missed
from coordinator.streams.predictions.stage import BUDGET_SHARE
from coordinator.streams.predictions.strikes import Strikes


class ProcessLimits(NamedTuple):
    """How long and how large a model's process may be. With `deadlines` an answer that took longer than the contract
    allows is lost; without, only one that never comes.
    """

    deadlines: bool = False
    memory_mb: int = 2048
    restarts_max: int = 4
    restart_window_seconds: int = 300
    """Both are those of a model host (`Limits` in `infra/models/host/process.py`)."""


USUAL_LIMITS = ProcessLimits()


class ProcessModels:
    """The models of folders as a port for the engine. Call `start` first, and `close` at the end."""

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        base_classname: str,
        work_dir: Path,
        *,
        limits: ProcessLimits = USUAL_LIMITS,
        blobs: BlobReader | None = None,
    ) -> None:
        self._blobs, self._work_dir = blobs, work_dir
        self._running = {
            entry.model_id: PipedModel(entry, base_classname, work_dir, limits.memory_mb) for entry in entries
        }
        self._limits = limits
        self._notices: list[ModelNotice] = [ModelNotice("seen", _info(entry)) for entry in entries]
        self._entries = {entry.model_id: entry for entry in entries}
        self._deaths: dict[str, deque[int]] = {model_id: deque() for model_id in self._running}
        """model_id -> the rounds, by their point in ms, in which its process ended within the window."""
        self._point = 0
        self._strikes = Strikes()
        self.times: dict[str, array[int]] = {model_id: array("I") for model_id in self._running}
        """model_id -> the time that each of its rounds took in its process, in microseconds."""

    def start(self) -> None:
        """Start every process. Raises OperatorError if a model cannot be constructed."""
        for model_id, model in self._running.items():
            try:
                model.start()
            except (BadModelError, OSError) as error:
                raise OperatorError(f"{model_id} cannot be run: {error}") from error

    def close(self) -> None:
        """End every process."""
        for model in self._running.values():
            model.end()

    def notices(self) -> Sequence[ModelNotice]:
        """Notices of the models that were started or stopped."""
        taken, self._notices = self._notices, []
        return taken

    def roster(self, data: InputReceivedData, entries: list[RosterEntry]) -> list[RosterEntry]:  # noqa: ARG002
        """All models that take part."""
        return entries

    def answers(
        self, opened: RoundOpened, data: InputReceivedData, contract: CrunchContract, calls: Calls
    ) -> Answers | Pending:
        """Ask all models. What is returned reads and judges their answers."""
        try:
            table = self._table_path(data)
        except BlobLostError as error:
            return all_missed(opened, stopped_by(error), "node")
        asked = [entry.model_id for entry in opened.data.roster if entry.model_id in self._running]
        calls, method = calls.raw(), contract.call_method  # the same bytes as in the log

        def question_of(model_id: str) -> bytes:
            predicts = [values for _, values in calls.predicts(model_id)]
            return encoded(Question(method.tick, calls.tick(model_id), method.predict, predicts, table))

        usual, self._point = question_of(""), data.point
        until = time.monotonic() + BUDGET_SHARE * contract.deadline_seconds
        lost: dict[str, ModelReply] = {}
        for model_id in asked:
            try:
                question = usual if calls.is_usual(model_id) else question_of(model_id)
                self._running[model_id].ask(question)
            except GoneError as error:
                lost[model_id] = self._lost(model_id, Outcome.CRASHED, str(error))
        return partial(self._answers, opened, data, contract, asked, lost, until)

    def _answers(
        self,
        opened: RoundOpened,
        data: InputReceivedData,
        contract: CrunchContract,
        asked: Sequence[str],
        lost: Mapping[str, ModelReply],
        until: float,
    ) -> Answers:
        """The answers of the models that were asked. `lost`: those whose process was gone; `until`: monotonic s."""
        keys = [scope.scope_key for scope in data.scopes]
        replies: dict[str, Mapping[str, ModelReply]] = {}
        for model_id in asked:
            reply = lost.get(model_id) or self._read(model_id, keys, until, contract)
            replies[model_id] = dict.fromkeys(keys, reply) if isinstance(reply, ModelReply) else reply
        answers = judged(opened, data, contract, replies)
        for strike in self._strikes.note(answers, contract.model_strikes_max):
            self._strikes.reported(strike.model_id)
            if strike.model_id in self._running:  # otherwise it is stopped already, by one restart too many
                self._stop(strike.model_id, strike.code, strike.reason)
        return answers

    def _table_path(self, data: InputReceivedData) -> str:
        """The path of a question's table, for all models to map; "" if there is none. Raises BlobLostError."""
        table = table_of(data, self._blobs)
        if table is None:
            return ""
        path = self._work_dir / "table.parquet"
        path.unlink(missing_ok=True)  # a table that a model still has mapped is unchanged
        path.write_bytes(table.parquet)
        return str(path.absolute())

    def _read(
        self, model_id: str, keys: list[str], until: float, contract: CrunchContract
    ) -> ModelReply | Mapping[str, ModelReply]:
        try:
            answered = self._running[model_id].answer(until)
        except GoneError as error:
            return self._lost(model_id, Outcome.CRASHED, str(error))
        except TimeoutError:
            budget_seconds = BUDGET_SHARE * contract.deadline_seconds
            return self._lost(model_id, Outcome.DEADLINE, f"no answer within {budget_seconds:g} s")
        self.times[model_id].append(min(answered.us, 2**32 - 1))
        if self._limits.deadlines and answered.us > BUDGET_SHARE * contract.deadline_seconds * 1e6:
            return _reply(model_id, Outcome.DEADLINE, f"it took {answered.us / 1e6:.3f} s")
        return _replies(model_id, keys, answered, contract.output_max_bytes)

    def _lost(self, model_id: str, outcome: Outcome, detail: str) -> ModelReply:
        """End a process that is of no more use, and start it again, unless it was started too often."""
        model = self._running[model_id]
        model.end()
        deaths, window_seconds = self._deaths[model_id], self._limits.restart_window_seconds
        deaths.append(self._point)
        while deaths[0] < self._point - 1000 * window_seconds:
            deaths.popleft()
        if len(deaths) > self._limits.restarts_max:
            ended = f"its process ended {len(deaths)} times within {window_seconds} s"
            self._stop(model_id, "CRASHED", f"{ended}; a model host gives it up there, too")
        else:
            try:
                model.start()
            except (BadModelError, OSError) as error:
                self._stop(model_id, "CRASHED", str(error))
        return _reply(model_id, outcome, detail)

    def _stop(self, model_id: str, code: str, reason: str) -> None:
        self._running.pop(model_id).end()
        info = _info(self._entries[model_id])
        self._notices += [
            ModelNotice("failed", info, code, reason),
            ModelNotice("left", info, reason=as_reason(reason)),
        ]


def _info(entry: ModelEntry) -> ModelInfo:
    return ModelInfo(
        entry.model_id,
        entry.model_name,
        f"{entry.model_id}-1",
        entry.cruncher_id,
        entry.cruncher_name,
        entry.wallet_pubkey,
        entry.hotkey,
    )


def _replies(
    model_id: str, keys: list[str], answered: Answered, output_max_bytes: int
) -> ModelReply | Mapping[str, ModelReply]:
    if answered.tick.fault:
        return _reply(model_id, Outcome.MODEL_FAILED, answered.tick.fault)
    return {
        scope_key: _of_call(model_id, answer, output_max_bytes)
        for scope_key, answer in zip(keys, answered.predicts, strict=True)
    }


def _of_call(model_id: str, answer: Answer, output_max_bytes: int) -> ModelReply:
    if answer.fault:
        return _reply(model_id, Outcome.MODEL_FAILED, answer.fault)
    if fault := answer_size_fault(answer.output.encode(), output_max_bytes):
        return _reply(model_id, Outcome.TOO_BIG, fault)
    try:
        output = msgspec.json.decode(answer.output)
    except msgspec.DecodeError:
        # NaN and infinity are not JSON, but Python writes and reads them. They are judged like any other value.
        output = json.loads(answer.output)
    return ModelReply(model_id, f"{model_id}-1", Outcome.OK, output=output)


def _reply(model_id: str, outcome: Outcome, detail: str) -> ModelReply:
    return ModelReply(model_id, f"{model_id}-1", outcome, "model", detail=as_reason(detail))
