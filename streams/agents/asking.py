"""Asking the models of one round: for each model its tick, then its scopes one after another, all models side by side.

Reads the gateway's replies; gives them in batches to be recorded: all there are as soon as a quiet pause says that
the rest takes longer. So one slow model holds back nobody's answer. Calls to one model never overlap: a model that
is still at work on an earlier round is BUSY in this one. Whoever was given less than a fair time by the node does
not pay for being late.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import InputReceivedData, InputScope
from coordinator.streams.ports import ModelGateway, ModelReply, Outcome

QUIET_SECONDS_MIN = 0.005
QUIET_SECONDS_MAX = 0.2
QUIET_SHARE = 0.25
"""A pause of this part of the time since the round began, without any answer, is quiet. So what is recorded in parts
is late by at most half of the time that it took, and one slow model makes few parts."""
OVERTIME_SECONDS = 5.0
"""Calls end by their own deadlines; a gateway that lets one run on for so long is not waited for."""

STILL_AT_WORK = "still at work on an earlier round"
NEWER_INPUT = "not done when the next input came"

Answers = dict[str, Mapping[str, ModelReply]]
"""model_id -> scope_key -> reply."""


class Askers:
    """The calls under way, over all rounds."""

    def __init__(self, gateway: ModelGateway, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.gateway = gateway
        self.monotonic = monotonic
        self.at_work: dict[str, tuple[asyncio.Task[None], float]] = {}
        """model_id -> its calls under way, and when they began."""

    async def close(self) -> None:
        """End what is still under way."""
        tasks = [task for task, _ in self.at_work.values()]
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
    ) -> None:
        """Begin. `seconds` is the time for all calls of one model together; one that was late after less than
        `fair_seconds` is ABSENT by the node's fault.
        """
        self._askers = askers
        self._gateway, self._monotonic = askers.gateway, askers.monotonic
        self._data, self._method = data, contract.call_method
        self._began = self._monotonic()
        self._until = self._began + seconds
        self._fair_seconds = fair_seconds
        self._answers: Answers = {}
        """What came and was not given yet."""
        self._waiting = dict.fromkeys(model_ids)
        self._all_done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not model_ids:
            self._all_done.set_result(None)
        payload = msgspec.json.decode(data.payload)
        # The same list objects for every model: the gateway encodes them once.
        self._tick_arguments = self._method.tick_values(payload, data.subject, data.point)
        self._predict_arguments = [(scope, self._arguments(scope)) for scope in data.scopes]
        for model_id in model_ids:
            before, since = askers.at_work.get(model_id, (None, 0.0))
            if before is not None and not before.done():
                busy = self._late(model_id, Outcome.BUSY, STILL_AT_WORK, self._began - since)
                self._finish(model_id, self._all(busy))
            else:
                task = asyncio.create_task(self._ask(model_id))
                askers.at_work[model_id] = (task, self._began)
                task.add_done_callback(self._ended)

    @property
    def over(self) -> bool:
        """Is every model done or given up, and its answer taken?"""
        return not self._waiting and not self._answers

    async def next(self, is_superseded: Callable[[], Awaitable[bool]]) -> Answers:
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
        had = self._monotonic() - self._began
        for left in list(self._waiting):
            self._finish(left, self._all(self._late(left, Outcome.DEADLINE, detail, had)))

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)  # our own bug: it ends the round, and the worker

    async def _ask(self, model_id: str) -> None:
        ticked = await self._call(model_id, self._method.tick, self._tick_arguments)
        if ticked.outcome is not Outcome.OK:
            self._finish(model_id, self._all(ticked))
            return
        replies = {
            scope.scope_key: await self._call(model_id, self._method.predict, arguments)
            for scope, arguments in self._predict_arguments
        }
        self._finish(model_id, replies)

    async def _call(self, model_id: str, method: str, arguments: list[Any]) -> ModelReply:
        left = self._until - self._monotonic()
        if left <= 0:
            return self._late(model_id, Outcome.DEADLINE, "no time was left", self._until - self._began)
        reply = (await self._gateway.call(method, arguments, left, [model_id]))[model_id]
        if reply.outcome is Outcome.DEADLINE:
            return self._late(model_id, reply.outcome, reply.detail, self._until - self._began)
        return reply

    def _late(self, model_id: str, outcome: Outcome, detail: str, had_seconds: float) -> ModelReply:
        if had_seconds < self._fair_seconds:
            detail = f"the node left it {max(had_seconds, 0):.3f} s: {detail}"
            return ModelReply(model_id, "", Outcome.ABSENT, detail=detail)
        return ModelReply(model_id, "", outcome, detail=detail)

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

    def _arguments(self, scope: InputScope) -> list[Any]:
        return self._method.predict_values(
            *(self._data.subject, self._data.point, scope.scope_key),
            horizon_seconds=scope.horizon_seconds,
            step_seconds=scope.step_seconds,
        )
