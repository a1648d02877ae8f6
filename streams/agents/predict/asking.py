"""Asking the models of one round: for each model its tick, then its scopes one after another, all models side by side.

Reads the gateway's replies; gives them in batches to be recorded: all there are as soon as a quiet pause says that
the rest takes longer. So one slow model holds back nobody's answer, and rounds of several subjects go on side by side.
Calls to one model never overlap: the rounds that wait for it take turns, and a model that is still at work on a round
that gave it up is BUSY. Whoever was given less than a fair time by the node does not pay for being late.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import Fault, InputReceivedData
from coordinator.streams.ports import ModelGateway, ModelReply, Outcome
from coordinator.streams.predictions.calls import Calls

QUIET_SECONDS_MIN = 0.005
QUIET_SECONDS_MAX = 0.2
QUIET_SHARE = 0.25
"""A pause of this part of the time since the round began, without any answer, is quiet. So what is recorded in parts
is late by at most half of the time that it took, and one slow model makes few parts."""
OVERTIME_SECONDS = 5.0
"""Calls end by their own deadlines; a gateway that lets one run on for so long is not waited for."""
BEAT_SECONDS = 0.1
"""How often the node looks whether it is late itself."""

STILL_AT_WORK = "still at work on an earlier round"
NEWER_INPUT = "not done when the next input came"

Replies = dict[str, Mapping[str, ModelReply]]
"""model_id -> scope_key -> reply."""


class Turn:
    """One model's calls: one at a time, in the order in which the rounds came.

    `given_up_at` is when the call under way began, once its round has given the model up. `cut_off_at` is when a call
    was sent that the model's process may still be at work on, since it ended by its deadline.
    """

    def __init__(self, started_at: float) -> None:
        self.lock = asyncio.Lock()
        self.began_at = started_at
        self.given_up_at: float | None = None
        self.cut_off_at: float | None = started_at  # a dead owner's call may still be under way


class Askers:
    """The calls under way, over all rounds, and the time that the models were given."""

    def __init__(self, gateway: ModelGateway, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.gateway = gateway
        self.monotonic = monotonic
        self.tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._stalled_seconds = 0.0
        self._beat_due = self._loop.time() + BEAT_SECONDS
        self._beating = asyncio.create_task(self._beat(), name="beat")
        started_at = self.given()
        self.turns: defaultdict[str, Turn] = defaultdict(lambda: Turn(started_at))
        """model_id -> its turn."""

    def given(self) -> float:
        """A clock in seconds that stands still while this process itself was held up: what it shows to have passed is
        time that a model was really given.
        """
        return self.monotonic() - self._stalled_seconds - max(0.0, self._loop.time() - self._beat_due)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._beat_due - self._loop.time())
            self._stalled_seconds += max(0.0, self._loop.time() - self._beat_due)
            self._beat_due = self._loop.time() + BEAT_SECONDS

    async def close(self) -> None:
        """End what is still under way."""
        tasks = [*self.tasks, self._beating]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Asking:
    """The calls of one round. `over` once every model is done, or given up."""

    def __init__(
        self,
        askers: Askers,
        model_ids: list[str],
        data: InputReceivedData,
        contract: CrunchContract,
        seconds: float,
        fair_seconds: float,
        calls: Calls | None = None,
    ) -> None:
        """Begin. `seconds` is the time for all calls of one model together; one that was late after less than
        `fair_seconds` is ABSENT by the node's fault.
        """
        self._askers = askers
        self._gateway, self._monotonic = askers.gateway, askers.monotonic
        self._data, self._method = data, contract.call_method
        self._output_max_bytes = contract.output_max_bytes
        self._began, self._given = self._monotonic(), askers.given()
        self._until = self._began + seconds
        self._fair_seconds = fair_seconds
        self._answers: Replies = {}
        """What came and was not given yet."""
        self._in_turn: set[str] = set()
        """The models that are asked now; the others of `_waiting` wait for their turn."""
        self._waiting: dict[str, asyncio.Task[None] | None] = dict.fromkeys(model_ids)
        self._all_done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not model_ids:
            self._all_done.set_result(None)
        self._calls = calls or Calls(data, contract, raw=True)
        for model_id in model_ids:
            turn = askers.turns[model_id]
            if turn.given_up_at is not None:
                had = askers.given() - turn.given_up_at
                self._finish(model_id, self._all(self._late(model_id, Outcome.BUSY, STILL_AT_WORK, had)))
                continue
            task = asyncio.create_task(self._ask_in_turn(model_id, turn))
            askers.tasks.add(task)
            self._waiting[model_id] = task
            task.add_done_callback(self._ended)

    @property
    def over(self) -> bool:
        """Is every model done or given up, and its answer taken?"""
        return not self._waiting and not self._answers

    async def next(self, is_superseded: Callable[[], Awaitable[bool]]) -> Replies:
        """The next answers to record; with the last ones `over` is true. A round that is superseded by a newer
        input ends: who is not done by then is DEADLINE.
        """
        while not self._all_done.done():
            before, elapsed = len(self._answers), self._monotonic() - self._began
            quiet = min(max(QUIET_SECONDS_MIN, QUIET_SHARE * elapsed), QUIET_SECONDS_MAX)
            await asyncio.wait([self._all_done], timeout=quiet)
            if self._all_done.done() or len(self._answers) > before:
                continue
            if self._answers:
                break
            late = self._monotonic() - self._until > OVERTIME_SECONDS
            if late or await is_superseded():
                self._give_up("no answer came at all" if late else NEWER_INPUT)
        if self._all_done.done():
            self._all_done.result()
        answers, self._answers = self._answers, {}
        return answers

    def _give_up(self, detail: str) -> None:
        had = self._askers.given() - self._given
        for left, task in list(self._waiting.items()):
            self._finish(left, self._all(self._late(left, Outcome.DEADLINE, detail, had)))
            turn = self._askers.turns[left]
            if task is None:
                continue
            if left in self._in_turn:
                turn.given_up_at = turn.began_at
            else:
                task.cancel()  # it waits for its turn, and nobody waits for it

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._askers.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)  # our own bug: it ends the round, and the worker

    async def _ask_in_turn(self, model_id: str, turn: Turn) -> None:
        try:
            async with asyncio.timeout(max(0.0, self._until - self._monotonic())):
                await turn.lock.acquire()
        except TimeoutError:
            self._finish(model_id, self._all(self._overdue(model_id, Outcome.BUSY, STILL_AT_WORK)))
            return
        try:
            self._in_turn.add(model_id)
            turn.began_at = self._askers.given()
            await self._ask(model_id, turn)
        finally:
            self._in_turn.discard(model_id)
            turn.given_up_at = None
            turn.lock.release()

    async def _ask(self, model_id: str, turn: Turn) -> None:
        ticked = await self._call(model_id, turn, self._method.tick, self._calls.tick(model_id), 0)
        if ticked.outcome is not Outcome.OK:
            self._finish(model_id, self._all(ticked))
            return
        replies: dict[str, ModelReply] = {}
        for scope, arguments in self._calls.predicts(model_id):
            if model_id not in self._waiting:
                return  # given up: what it would still say, nobody records
            replies[scope.scope_key] = await self._call(
                model_id, turn, self._method.predict, arguments, self._output_max_bytes
            )
        self._finish(model_id, replies)

    async def _call(
        self, model_id: str, turn: Turn, method: str, arguments: list[Any], output_max_bytes: int
    ) -> ModelReply:
        left = self._until - self._monotonic()
        if left <= 0:
            return self._overdue(model_id, Outcome.DEADLINE, "no time was left")
        sent_at = self._askers.given()
        replies = await self._gateway.call(method, arguments, left, [model_id], output_max_bytes)
        reply = replies[model_id]
        if reply.outcome is Outcome.BUSY and turn.cut_off_at is not None:
            # At work on a call that was cut off: it pays once that call had a fair time, also if we were late with it.
            return self._late(model_id, reply.outcome, reply.detail, self._askers.given() - turn.cut_off_at)
        if reply.outcome is Outcome.DEADLINE:
            turn.cut_off_at = sent_at if turn.cut_off_at is None else turn.cut_off_at
            return self._overdue(model_id, reply.outcome, reply.detail)
        if reply.outcome is not Outcome.BUSY:
            turn.cut_off_at = None
        return reply

    def _overdue(self, model_id: str, outcome: Outcome, detail: str) -> ModelReply:
        """The round's time is used up: by the model, but for what the node itself was held up."""
        held_up = (self._monotonic() - self._began) - (self._askers.given() - self._given)
        return self._late(model_id, outcome, detail, self._until - self._began - held_up)

    def _late(self, model_id: str, outcome: Outcome, detail: str, had_seconds: float) -> ModelReply:
        fault: Fault = "model"
        if had_seconds < self._fair_seconds:
            fault, outcome = "node", Outcome.ABSENT
            detail = f"the node left it {max(had_seconds, 0):.3f} s: {detail}"
        return ModelReply(model_id, "", outcome, fault, detail=detail)

    def _finish(self, model_id: str, replies: Mapping[str, ModelReply]) -> None:
        if model_id not in self._waiting:
            return  # given up before
        del self._waiting[model_id]
        self._answers[model_id] = replies
        if not self._waiting and not self._all_done.done():
            self._all_done.set_result(None)

    def _fail(self, error: BaseException) -> None:
        if not self._all_done.done():
            self._all_done.set_exception(error)

    def _all(self, reply: ModelReply) -> dict[str, ModelReply]:
        return {scope.scope_key: reply for scope in self._data.scopes}
