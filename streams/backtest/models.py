"""The models of a backtest: each in a process of its own, asked as the node asks, without gRPC.

A question goes to all of them at once, then the answers are taken. Nothing of a later round reaches a model: its pipe
holds one question at a time. A model that hangs, or whose process ends, loses its round and its memory, as it would at
the node: it is begun anew, up to `restarts_max` times. One that answers badly as often in a row as the contract lets it
is stopped, as the orchestrator stops it.

How long a model took is measured and told (`times`). It costs it nothing unless `deadlines` says so, because this
machine is not the node's.
"""

from __future__ import annotations

import json
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from coordinator.infra.models.host.folder import ModelEntry
from coordinator.infra.models.piped import BadModelError, GoneError, PipedModel, encoded
from coordinator.infra.models.piped_child import Answer, Answered, Question
from coordinator.streams.contract import CrunchContract
from coordinator.streams.engine.models import judged
from coordinator.streams.events import InputReceivedData, RosterEntry, RoundOpened
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.log.reasons import as_reason
from coordinator.streams.ports import ModelInfo, ModelNotice, ModelReply, Outcome
from coordinator.streams.predictions.answer_size import answer_size_fault
from coordinator.streams.predictions.calls import Calls
from coordinator.streams.predictions.judging import Answers
from coordinator.streams.predictions.stage import BUDGET_SHARE
from coordinator.streams.predictions.strikes import Strikes

RESTARTS_MAX = 4
MEMORY_LIMIT_MB = 2048


class ProcessModels:
    """The models of folders, as an engine's port. `start` first, `close` at the end."""

    def __init__(
        self,
        entries: Sequence[ModelEntry],
        base_classname: str,
        work_dir: Path,
        *,
        deadlines: bool = False,
        memory_limit_mb: int = MEMORY_LIMIT_MB,
        restarts_max: int = RESTARTS_MAX,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._running = {
            entry.model_id: PipedModel(entry, base_classname, work_dir, memory_limit_mb) for entry in entries
        }
        self._deadlines, self._restarts_max, self._monotonic = deadlines, restarts_max, monotonic
        self._notices: list[ModelNotice] = [ModelNotice("seen", _info(entry)) for entry in entries]
        self._entries = {entry.model_id: entry for entry in entries}
        self._restarts: dict[str, int] = dict.fromkeys(self._running, 0)
        self._strikes = Strikes()
        self.times: dict[str, array[int]] = {model_id: array("I") for model_id in self._running}
        """model_id -> how long each of its rounds took, in microseconds of its own time."""

    def start(self) -> None:
        """Begin every process. Raises OperatorError for a model that cannot be made."""
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
        """Who was seen, and who was stopped."""
        taken, self._notices = self._notices, []
        return taken

    def roster(self, data: InputReceivedData, known: list[RosterEntry]) -> list[RosterEntry]:  # noqa: ARG002
        """All that are known."""
        return known

    def answers(
        self, opened: RoundOpened, data: InputReceivedData, contract: CrunchContract, calls: Calls
    ) -> Answers:
        """Ask all, then take what each says."""
        asked = [entry.model_id for entry in opened.data.roster if entry.model_id in self._running]
        calls, method = calls.raw(), contract.call_method  # the very bytes that the log holds

        def question_of(model_id: str) -> bytes:
            predicts = [values for _, values in calls.predicts(model_id)]
            return encoded(Question(method.tick, calls.tick(model_id), method.predict, predicts))

        usual = question_of("")
        until = self._monotonic() + BUDGET_SHARE * contract.deadline_seconds
        lost: dict[str, ModelReply] = {}
        for model_id in asked:
            try:
                question = usual if calls.is_usual(model_id) else question_of(model_id)
                self._running[model_id].ask(question)
            except GoneError as error:
                lost[model_id] = self._lost(model_id, Outcome.CRASHED, str(error))
        keys = [scope.scope_key for scope in data.scopes]
        replies: dict[str, Mapping[str, ModelReply]] = {}
        for model_id in asked:
            reply = lost.get(model_id) or self._taken(model_id, keys, until, contract)
            replies[model_id] = dict.fromkeys(keys, reply) if isinstance(reply, ModelReply) else reply
        found = judged(opened, data, contract, replies)
        for strike in self._strikes.note(found, contract.model_strikes_max):
            self._strikes.reported(strike.model_id)
            self._stop(strike.model_id, strike.code, strike.reason)
        return found

    def _taken(
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
        if self._deadlines and answered.us > BUDGET_SHARE * contract.deadline_seconds * 1e6:
            return _reply(model_id, Outcome.DEADLINE, f"it took {answered.us / 1e6:.3f} s")
        return _replies(model_id, keys, answered, contract.output_max_bytes)

    def _lost(self, model_id: str, outcome: Outcome, detail: str) -> ModelReply:
        """The process is of no more use: begin it anew, unless it was too often."""
        model = self._running[model_id]
        model.end()
        self._restarts[model_id] += 1
        if self._restarts[model_id] > self._restarts_max:
            self._stop(model_id, "CRASHED", f"its process was begun anew {self._restarts_max} times")
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
        key: _of_call(model_id, one, output_max_bytes)
        for key, one in zip(keys, answered.predicts, strict=True)
    }


def _of_call(model_id: str, answer: Answer, output_max_bytes: int) -> ModelReply:
    if answer.fault:
        return _reply(model_id, Outcome.MODEL_FAILED, answer.fault)
    if fault := answer_size_fault(answer.output.encode(), output_max_bytes):
        return _reply(model_id, Outcome.TOO_BIG, fault)
    try:
        output = msgspec.json.decode(answer.output)
    except msgspec.DecodeError:
        output = json.loads(
            answer.output
        )  # NaN and infinity, which JSON has no word for: judged like all else
    return ModelReply(model_id, f"{model_id}-1", Outcome.OK, output=output)


def _reply(model_id: str, outcome: Outcome, detail: str) -> ModelReply:
    return ModelReply(model_id, f"{model_id}-1", outcome, "model", detail=as_reason(detail))
