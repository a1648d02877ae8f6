"""Asks the models of one round, all at the same time: each gets its tick, then its scopes one after another.

Reads the gateway's replies; returns them in batches to be recorded. A batch ends with a pause in which no model
answers, because the models that are left then take longer. So one slow model does not delay the record of the others,
and rounds of several subjects run in parallel.

Calls to one model never overlap. Rounds that wait for the same model take turns, and a model that still works on a call
of a round that gave it up is BUSY. A model that had less than a fair time, because the node itself was slow, does not
pay for a late answer.
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
"""A batch ends after a pause without answers of this share of the time since the round began. The pauses grow, so a
slow model makes few batches, and each is recorded soon after its last answer."""
OVERTIME_SECONDS = 5.0
"""Every call has its own deadline. After this time beyond it the round no longer waits for the gateway."""
FAIR_SHARE = 0.5
"""The share of its time that a model must have had to be at fault for a late answer."""
BEAT_SECONDS = 0.1
"""How often the node measures how late its own event loop is."""

TABLES_AT_ONCE = 4
"""Calls with a table that are sent side by side: each holds a copy or two of it, of up to 60 MB."""
TABLE_SECONDS = 2.0
"""After this time another call with a table may begin although the one before is not over: a model that hangs must not
use up the time of the others."""

STILL_AT_WORK = "still at work on an earlier round"
NOT_SENT = "the table was not sent to it in time"
NEWER_INPUT = "not done when the next input came"

Replies = dict[str, Mapping[str, ModelReply]]
"""model_id -> scope_key -> reply."""


class Turn:
    """The calls of one model, one at a time, in the order in which the rounds came.

    Times are those of `Askers.given`. `given_up_at`: when the call under way began, if its round has given up on the
    model; None otherwise. `cut_off_at`: when the call was sent that ended by its deadline and on which the model's
    process may still work; None if there is none.
    """

    def __init__(self, started_at: float) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0
        """The rounds that wait for the lock."""
        self.began_at = started_at
        self.given_up_at: float | None = None
        self.cut_off_at: float | None = started_at  # a call of an owner that died may still be under way


class Askers:
    """The calls under way in all rounds, and the clock of the time that models really had."""

    def __init__(self, gateway: ModelGateway, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.gateway = gateway
        self.monotonic = monotonic
        self.tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._stalled_seconds = 0.0
        self._beat_due = self._loop.time() + BEAT_SECONDS
        self._beating = asyncio.create_task(self._beat(), name="beat")
        started_at = self.given()
        self.tables = asyncio.Semaphore(TABLES_AT_ONCE)
        self.turns: defaultdict[str, Turn] = defaultdict(lambda: Turn(started_at))
        """model_id -> its turn."""

    def given(self) -> float:
        """A clock in seconds that stands still while this process itself is held up.

        The difference of two readings is the time that a model really had.
        """
        # Besides the stalls that are measured, the one under way: the next beat is due and has not come yet.
        return self.monotonic() - self._stalled_seconds - max(0.0, self._loop.time() - self._beat_due)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._beat_due - self._loop.time())
            self._stalled_seconds += max(0.0, self._loop.time() - self._beat_due)
            self._beat_due = self._loop.time() + BEAT_SECONDS

    async def close(self) -> None:
        """Cancel the calls under way."""
        tasks = [*self.tasks, self._beating]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Asking:
    """The calls of one round. The round is `over` once every model has finished or timed out, and all answers were
    taken.
    """

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
        """Start the calls.

        `seconds` is the time for all calls of one model together. A model that had less than `fair_seconds` and was
        late is ABSENT by the node's fault.
        """
        self._askers = askers
        self._gateway, self._monotonic = askers.gateway, askers.monotonic
        self._data, self._method = data, contract.call_method
        self._output_max_bytes = contract.output_max_bytes
        self._began, self._given = self._monotonic(), askers.given()
        self._until = self._began + seconds
        self._fair_seconds = fair_seconds
        self._answers: Replies = {}
        """The answers that came and were not returned by `next` yet."""
        self._in_turn: set[str] = set()
        """The models that are called now. The others of `_waiting` wait until an earlier round is done with them."""
        self._waiting: dict[str, asyncio.Task[None] | None] = dict.fromkeys(model_ids)
        self._all_done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not model_ids:
            self._all_done.set_result(None)
        self._calls = calls or Calls(data, contract, raw=True)
        self._queued: dict[str, float] = {}
        """model_id -> how long (s) the node let it wait before it sent it a table."""
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
        """Whether every model has finished or timed out, and `next` has returned all answers."""
        return not self._waiting and not self._answers

    async def next(self, is_superseded: Callable[[], Awaitable[bool]]) -> Replies:
        """The next batch of answers to record; with the last batch `over` becomes true.

        A round that is superseded by a newer input ends: the models that are not done are DEADLINE.
        """
        while not self._all_done.done():
            before, elapsed = len(self._answers), self._monotonic() - self._began
            quiet = min(max(QUIET_SECONDS_MIN, QUIET_SHARE * elapsed), QUIET_SECONDS_MAX)
            await asyncio.wait([self._all_done], timeout=quiet)
            if self._all_done.done() or len(self._answers) > before:
                continue  # an answer came in the pause: others may follow it soon
            if self._answers:
                break
            late = self._monotonic() - self._until > OVERTIME_SECONDS
            if late or await is_superseded():
                self._give_up("no answer came at all" if late else NEWER_INPUT)
        if self._all_done.done():
            self._all_done.result()  # raises if a call failed by our own bug
        answers, self._answers = self._answers, {}
        return answers

    def _give_up(self, detail: str) -> None:
        had = self._askers.given() - self._given
        for model_id, task in list(self._waiting.items()):
            own = had - self._queued.get(model_id, 0.0)
            self._finish(model_id, self._all(self._late(model_id, Outcome.DEADLINE, detail, own)))
            turn = self._askers.turns[model_id]
            if task is None:
                continue
            if model_id in self._in_turn:
                turn.given_up_at = turn.began_at
            else:
                task.cancel()  # it still waits for its turn, and its answer would not be used

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._askers.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)  # our own bug: it ends the round and the worker

    async def _ask_in_turn(self, model_id: str, turn: Turn) -> None:
        if not await self._has_turn(turn):
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

    async def _has_turn(self, turn: Turn) -> bool:
        """Wait for the model's turn; False if the round's time is over before."""
        if not turn.waiting and not turn.lock.locked():
            # It is had at once. A timer for each of a hundred models would cost as much as their calls.
            await turn.lock.acquire()
            return True
        turn.waiting += 1
        try:
            async with asyncio.timeout(max(0.0, self._until - self._monotonic())):
                await turn.lock.acquire()
        except TimeoutError:
            return False
        finally:
            turn.waiting -= 1
        return True

    async def _ask(self, model_id: str, turn: Turn) -> None:
        call = self._call if self._calls.table is None else self._call_with_table
        ticked = await call(model_id, turn, self._method.tick, self._calls.tick(model_id), 0)
        if ticked.outcome is not Outcome.OK:
            self._finish(model_id, self._all(ticked))
            return
        replies: dict[str, ModelReply] = {}
        for scope, arguments in self._calls.predicts(model_id):
            if model_id not in self._waiting:
                return  # given up: further answers would not be recorded
            replies[scope.scope_key] = await self._call(
                model_id, turn, self._method.predict, arguments, self._output_max_bytes
            )
        self._finish(model_id, replies)

    async def _call_with_table(
        self, model_id: str, turn: Turn, method: str, arguments: list[Any], output_max_bytes: int
    ) -> ModelReply:
        """As `_call`, once few enough other tables are on their way."""
        began, slots = self._monotonic(), self._askers.tables
        try:
            async with asyncio.timeout(max(0.0, self._until - began)):
                await slots.acquire()
        except TimeoutError:
            return ModelReply(model_id, "", Outcome.ABSENT, "node", detail=NOT_SENT)
        given_back = asyncio.get_running_loop().create_future()
        given_back.add_done_callback(lambda _: slots.release())
        timer = asyncio.get_running_loop().call_later(TABLE_SECONDS, given_back.cancel)
        self._queued[model_id] = self._monotonic() - began
        try:
            return await self._call(model_id, turn, method, arguments, output_max_bytes)
        finally:
            timer.cancel()
            given_back.cancel()

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
            # It still works on a call that was cut off. It pays if that call has had a fair time by now, even if the
            # call itself had less when it was cut off.
            return self._late(model_id, reply.outcome, reply.detail, self._askers.given() - turn.cut_off_at)
        if reply.outcome is Outcome.DEADLINE:
            # The oldest call that was cut off: its process works on that one first.
            turn.cut_off_at = sent_at if turn.cut_off_at is None else turn.cut_off_at
            return self._overdue(model_id, reply.outcome, reply.detail)
        if reply.outcome is not Outcome.BUSY:
            turn.cut_off_at = None
        return reply

    def _overdue(self, model_id: str, outcome: Outcome, detail: str) -> ModelReply:
        """The reply of a model when the round's time is used up. The model had that time, less the node's own
        stalls.
        """
        held_up = (self._monotonic() - self._began) - (self._askers.given() - self._given)
        held_up += self._queued.get(model_id, 0.0)
        return self._late(model_id, outcome, detail, self._until - self._began - held_up)

    def _late(self, model_id: str, outcome: Outcome, detail: str, had_seconds: float) -> ModelReply:
        """A reply for a model that did not answer in time: its own fault, unless it had less than a fair time."""
        fault: Fault = "model"
        if had_seconds < self._fair_seconds:
            fault, outcome = "node", Outcome.ABSENT
            detail = f"the node left it {max(had_seconds, 0):.3f} s: {detail}"
        return ModelReply(model_id, "", outcome, fault, detail=detail)

    def _finish(self, model_id: str, replies: Mapping[str, ModelReply]) -> None:
        if model_id not in self._waiting:
            return  # it was given up, and has its reply
        del self._waiting[model_id]
        self._answers[model_id] = replies
        if not self._waiting and not self._all_done.done():
            self._all_done.set_result(None)

    def _fail(self, error: BaseException) -> None:
        if not self._all_done.done():
            self._all_done.set_exception(error)

    def _all(self, reply: ModelReply) -> dict[str, ModelReply]:
        return {scope.scope_key: reply for scope in self._data.scopes}


def turn_of(data: InputReceivedData) -> str:
    """Rounds with an equal one follow each other: those of a subject, or of a posted question."""
    return data.subject if data.question is None else data.question.input_id


def fair_seconds(data: InputReceivedData, contract: CrunchContract) -> float:
    """FAIR_SHARE of the time that the contract gives a model: until its deadline, or the next input if that is
    sooner.
    """
    asked = {scope.scope_key for scope in data.scopes}
    intervals = [
        schedule.interval_seconds for schedule in contract.schedules() if schedule.scope_key in asked
    ]
    return FAIR_SHARE * min([contract.deadline_seconds, *intervals])
