"""The predict worker's shell: asks the models, and records what they said.

Driven by `inputs`; knows the time from `feeds` and the models from the gateway. For each input: read the clock,
put what the gateway noticed into `models`, make RoundOpened durable, tick all, ask each for every scope, read
the clock again, record. Nothing is ever asked twice, and nothing is asked with hindsight: what was opened by a
dead owner, or opens too late, is ABSENT by the node's fault.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog

from coordinator.streams.agents.log_io import LogIO, Reader
from coordinator.streams.agents.ownership import LostOwnershipError, OwnedTopic
from coordinator.streams.agents.tenure import OnGarbage, Tenure
from coordinator.streams.contract import CrunchContract
from coordinator.streams.counting import Counter, Decision
from coordinator.streams.envelope import Need
from coordinator.streams.events import (
    AnyEvent,
    ClockTicked,
    InputReceived,
    InputReceivedData,
    InputScope,
    RoundOpened,
)
from coordinator.streams.ports import ModelGateway, ModelNotice, ModelReply, Outcome
from coordinator.streams.prediction import NODE_LATE, NODE_RESTARTED, PredictStage, all_missed, judge
from coordinator.streams.registry import ModelsStage

BUDGET_SHARE = 0.8
"""The part of what is left until the deadline that calls may use: the rest is for recording in time."""

NOTICE_SECONDS = 0.5

log = structlog.get_logger()


class FeedClock:
    """The time as `feeds` tells it, read to its end on demand."""

    def __init__(self, io: LogIO) -> None:
        self._io = io
        self._reader: Reader | None = None
        self._counter = Counter("feeds")
        self.now = -1

    async def start(self, start: Need) -> None:
        """Begin reading where the inputs' own need stands: the clock there is not later than any input's."""
        if self._reader is None:
            self._reader = await self._io.reader("feeds", start.offset)
            self._counter = Counter("feeds", start)

    async def read(self) -> int:
        """The last tick in `feeds` as of now, in ms."""
        if self._reader is None:
            return self.now
        end = await self._reader.end()
        while batch := await self._reader.read(end):
            for offset, record in batch:
                decision = self._counter.read(offset, record)
                if decision is not None:
                    self.now = max([self.now, *(e.at for e in decision.events if isinstance(e, ClockTicked))])
        return self.now

    async def close(self) -> None:
        """End the reader."""
        if self._reader is not None:
            await self._reader.close()


class PredictTenure(Tenure):
    """The claim on `predictions` and on `models`, and the rounds."""

    stage: PredictStage

    def __init__(
        self,
        io: LogIO,
        owner: str,
        gateway: ModelGateway,
        contracts: Callable[[str], CrunchContract],
        noticed: list[ModelNotice],
        on_garbage: OnGarbage | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(io, PredictStage(), owner, on_garbage)
        self._gateway = gateway
        self._contracts = contracts
        self._monotonic = monotonic
        self._clock = FeedClock(io)
        self.models = ModelsStage()
        self._models_owned = OwnedTopic(io, "models", owner)
        self._recovering: set[str] = set()
        self._noticed = noticed
        self._noticing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Claim, resume, and then notice models even while no input comes."""
        await super().start()
        self._noticing = asyncio.create_task(self._notice_often(), name="notice-models")
        self._tails.append(self._noticing)

    async def _notice_often(self) -> None:
        try:
            while not self.owned.lost.done():
                async with self._lock:
                    await self._clock.read()
                    await self.notice()
                await asyncio.sleep(NOTICE_SECONDS)
        except LostOwnershipError as why:
            self.owned.give_up(why)

    async def resumed_memory(self) -> None:
        """Claim `models` too; its fold is the roster."""
        await self.claim_also(self._models_owned, self.models.remember)

    async def process(self, decision: Decision) -> None:
        """Ask the models for each input that is not decided yet."""
        if "feeds" in decision.need:
            await self._clock.start(decision.need["feeds"])
        for index, event in enumerate(decision.events):
            position = (decision.offset, index)
            if isinstance(event, InputReceived) and not self.stage.decided("inputs", position):
                await self._round(event.data, position, decision.before)

    async def notice(self) -> None:
        """Put what the gateway noticed into `models`, durably: a roster names only models that the log knows."""
        new = self._gateway.notices()
        self._noticed.extend(new)  # kept by the worker: a notice outlives the tenure that could not record it
        for one in new:
            if one.change == "recovering":
                self._recovering.add(one.info.model_id)
            elif one.change in ("seen", "left"):
                self._recovering.discard(one.info.model_id)
        draft = self.models.offer(self._noticed, max(self._clock.now, 0))
        if draft is not None:
            self.models.remember(draft)
            await self._models_owned.send(list(draft.events), {}, {})
            await self._models_owned.flush()
        self._noticed.clear()

    async def _round(self, data: InputReceivedData, position: tuple[int, int], need: Need) -> None:
        stage = self.stage
        clock = await self._clock.read()
        if stage.open is not None:
            # A dead owner opened it: what its models said is lost, and they do not pay for that.
            if stage.open.data.input_id != data.input_id:
                message = f"round {stage.open.data.input_id} is open, but {data.input_id} is next"
                raise RuntimeError(message)
            events: list[AnyEvent] = [*all_missed(stage.open, NODE_RESTARTED, "node", clock)]
        else:
            await self.notice()
            draft = stage.opened(data, self.models.registry.roster(), clock)
            stage.remember(draft)
            await self.owned.send(list(draft.events), dict(stage.upto), dict(stage.need))
            await self.owned.flush()
            if stage.open is None:
                raise RuntimeError
            opened: RoundOpened = stage.open
            if clock > data.deadline_at:
                events = [*all_missed(opened, NODE_LATE, "node", clock)]
            else:
                replies = await self._ask(data, opened, clock)
                clock = await self._clock.read()
                events = self._judged(data, opened, replies, clock)
        done = stage.answered(events, clock, position, need)
        stage.remember(done)
        await self.owned.send(list(done.events), dict(stage.upto), dict(stage.need))

    async def _ask(
        self, data: InputReceivedData, opened: RoundOpened, clock: int
    ) -> dict[str, Mapping[str, ModelReply]]:
        """Tick all, then every scope in sequence (calls to one model never overlap), within one deadline."""
        contract = self._contracts(data.contract_hash)
        until = self._monotonic() + BUDGET_SHARE * (data.deadline_at - clock) / 1000
        asked = [entry.model_id for entry in opened.data.roster]
        payload: Any = msgspec.json.decode(data.payload)
        ticked = await self._gateway.call(contract.call_method.tick, [payload], self._left(until), asked)
        missed = {model_id: reply for model_id, reply in ticked.items() if reply.outcome is not Outcome.OK}
        answers: dict[str, Mapping[str, ModelReply]] = {}
        for scope in data.scopes:
            going = [model_id for model_id in asked if model_id not in missed]
            left = self._left(until)
            if left <= 0:
                replies = {
                    one: ModelReply(one, "", Outcome.DEADLINE, detail="no time was left") for one in going
                }
            else:
                replies = await self._gateway.call(
                    contract.call_method.predict, _arguments(data, scope), left, going
                )
            answers[scope.scope_key] = {**missed, **replies}
        return answers

    def _left(self, until: float) -> float:
        return until - self._monotonic()

    def _judged(
        self,
        data: InputReceivedData,
        opened: RoundOpened,
        replies: dict[str, Mapping[str, ModelReply]],
        clock: int,
    ) -> list[AnyEvent]:
        if clock > data.deadline_at:
            return [*all_missed(opened, NODE_LATE, "node", clock)]
        contract = self._contracts(data.contract_hash)
        events: list[AnyEvent] = []
        for scope in data.scopes:
            of_scope = {
                model_id: self._whose_fault(model_id, reply)
                for model_id, reply in replies[scope.scope_key].items()
            }
            events += judge(
                opened, scope.scope_key, of_scope, contract.output_type, contract.output_max_bytes, clock
            )
        return events

    def _whose_fault(self, model_id: str, reply: ModelReply) -> ModelReply:
        """Words of `prediction.judge`: a model that recovers is absent by its own fault, one out of reach is not."""
        if reply.outcome in (Outcome.ABSENT, Outcome.CRASHED) and not self._gateway.connected:
            return msgspec.structs.replace(
                reply, outcome=Outcome.ABSENT, detail=f"no orchestrator: {reply.detail}"
            )
        if reply.outcome is Outcome.ABSENT and model_id in self._recovering:
            return msgspec.structs.replace(reply, detail=f"recovering: {reply.detail}")
        return reply

    async def close(self) -> None:
        """End both claims and the clock."""
        await super().close()
        await self._models_owned.close()
        await self._clock.close()


def _arguments(data: InputReceivedData, scope: InputScope) -> list[Any]:
    return [data.subject, scope.horizon_seconds, scope.step_seconds]
