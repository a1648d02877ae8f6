"""Answers that participants hand in, as they wait to be decided: in the order of `commands`, each once.

What is refused goes to the dead letters, one letter for each question, before the decision.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from coordinator.infra.blobs.answer_blobs import beside_the_log
from coordinator.streams.agents.owning.tenure import OnGarbage
from coordinator.streams.agents.predict.read_ahead import InputsAhead
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.events import SubmitAnswers
from coordinator.streams.large_answers import read_answers
from coordinator.streams.log import ids
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import Need
from coordinator.streams.log.stage import EMPTY_DECISION_EVERY, Draft, PlacedEvent
from coordinator.streams.ports import Blobs
from coordinator.streams.predictions.questions import judged
from coordinator.streams.predictions.stage import PredictionStage, Submitted

log = structlog.get_logger()


class Submissions:
    """The SubmitAnswers that were read and are not decided yet."""

    def __init__(
        self,
        stage: PredictionStage,
        contracts: Contracts,
        ahead: InputsAhead,
        on_garbage: OnGarbage | None,
        blobs: Blobs | None = None,
    ) -> None:
        self._ahead = ahead
        self._stage, self._contracts, self._on_garbage, self._blobs = stage, contracts, on_garbage, blobs
        self._waiting: deque[PlacedEvent] = deque()

    def take(self, decision: Decision) -> None:
        """Keep the answers of a decision of `commands`, unless they are decided."""
        self._waiting += [
            told
            for told in self._stage.unfold(decision)
            if isinstance(told.event, SubmitAnswers) and not self._stage.decided(told.topic, told.position)
        ]

    def passed(self, read: Need) -> Draft | None:
        """An empty decision that `commands` is read up to here, so that the next owner begins there. None while
        answers wait, or too few other commands came since the last decision.
        """
        decided = self._stage.upto["commands"][0]
        if self._waiting or read.offset - 1 - decided < EMPTY_DECISION_EVERY:
            return None
        return Draft([], {"commands": (read.offset - 1, 0)}, {"commands": read})

    async def next(
        self, behind: Callable[[], Awaitable[bool | None]], clock: int, models_seq: int
    ) -> PlacedEvent | None:
        """The next command as the stage decides it; None if there is none, or if it must wait.

        A question that is not known may be among the inputs that were not delivered yet (`behind`, None if the broker
        does not say): its answers wait. A close that was not delivered yet holds for the answers, too: it is often one
        by the truth, which whoever handed them in later may have known.
        """
        if not self._waiting:
            return None
        told, state = self._waiting[0], self._stage.state
        command: SubmitAnswers = told.event
        round_id = command.data.round_id
        names = {ids.question_input_id(round_id, answer.question_id) for answer in command.data.answers}
        if not names <= state.own.questions.keys() and await behind() is not False:
            return None
        # In a thread: a store may be far away. Nothing else takes from the queue meanwhile: one caller at a time.
        command, lost = await asyncio.to_thread(read_answers, command, self._blobs)
        closings = {**await self._ahead.closings(self._stage.need["inputs"]), **state.closings}
        rounds, at, refused = judged(
            state.own.questions, closings, command, self._contracts, clock, models_seq, lost
        )
        answers = await asyncio.to_thread(
            beside_the_log, [submitted.answer for submitted in rounds], self._blobs
        )
        rounds = [
            msgspec.structs.replace(submitted, answer=answer)
            for submitted, answer in zip(rounds, answers, strict=True)
        ]
        for item, reason in refused:
            log.warning("answer_refused", command_id=command.id, item=item, reason=reason)
            if self._on_garbage is not None:
                # By the body whoever sent the command finds what was refused; it also tells the letters apart.
                body = f"{command.id} {item}".encode()
                await self._on_garbage(told.topic, told.position[0], body, f"{item}: {reason}")
        self._waiting.popleft()
        return msgspec.structs.replace(told, event=Submitted(rounds, at))
