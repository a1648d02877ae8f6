"""The predict worker: asks the models and records their answers.

Driven by `inputs`. Reads the time from `feeds`, the models from the gateway and the operator's bans from `commands`.
Emits `predictions` and `models`. For each input it reads the clock, records changes of the models in `models`, makes
RoundOpened durable, asks (`asking.py`), reads the clock again and records the answers. Rounds of several subjects run
in parallel, so that a model that hangs loses only its own answers.

No round is asked twice, and none with hindsight: a round that an owner opened before it died, that opens too late, or
that waits behind a newer input is ABSENT by the node's fault.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
import structlog

from coordinator.infra.models.in_hand import InHand
from coordinator.streams.agents.owning.ahead import FeedClock, InputsAhead
from coordinator.streams.agents.owning.log_io import LogIO, Reader
from coordinator.streams.agents.owning.ownership import LostOwnershipError, OwnedTopic, pump
from coordinator.streams.agents.owning.tenure import OnGarbage, Tenure
from coordinator.streams.agents.predict.asking import Askers, Asking, Replies
from coordinator.streams.agents.predict.feed_history import FeedHistory
from coordinator.streams.agents.predict.own_performance import OwnPerformance
from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import (
    InputReceived,
    InputReceivedData,
    RosterEntry,
    RoundHistory,
    RoundOpened,
)
from coordinator.streams.inputs.ground_truth import TypedRecords
from coordinator.streams.inputs.windows import first_tick
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.plain_topics import PlainCounter
from coordinator.streams.log.stage import Draft, Told
from coordinator.streams.models.stage import ModelStage, timed
from coordinator.streams.ports import ModelGateway, ModelInfo, ModelNotice, ModelReply, Outcome
from coordinator.streams.predictions.calls import NONE, Calls, FirstTick
from coordinator.streams.predictions.judging import Answers, all_missed, holding_nothing, judge
from coordinator.streams.predictions.stage import (
    BUDGET_SHARE,
    FELL_BEHIND,
    NODE_LATE,
    NODE_RESTARTED,
    Answered,
    AnsweredInPart,
    Asked,
    PredictionStage,
)
from coordinator.streams.predictions.strikes import Strikes

log = structlog.get_logger()

FAIR_SHARE = 0.5
NOTICE_SECONDS = 0.5
GONE_SECONDS = 60.0
GONE = "the orchestrator does not name it any more"


class PredictTenure(Tenure):
    """The claim on `predictions` and on `models`, and the rounds."""

    stage: PredictionStage

    def __init__(
        self,
        io: LogIO,
        owner: str,
        gateway: ModelGateway,
        contracts: Callable[[str], CrunchContract],
        noticed: list[ModelNotice],
        on_garbage: OnGarbage | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        strikes: Strikes | None = None,
        in_hand: InHand | None = None,
    ) -> None:
        super().__init__(io, PredictionStage(), owner, on_garbage)
        self._gateway = gateway
        self._contracts = contracts
        self._monotonic = monotonic
        self._clock = FeedClock(io)
        self._ahead = InputsAhead(io)
        self._history = FeedHistory(io)
        self._typed = TypedRecords(contracts)
        self._performance = OwnPerformance(io)
        self._restarted: set[str] = set()
        """The models that the orchestrator restarted and that had no tick since. They lost what earlier ticks told
        them, even if the deployment is the same."""
        self._askers = Askers(gateway, monotonic)
        self._strikes = strikes or Strikes()
        self._in_hand = in_hand
        self._holding = holding_nothing if in_hand is None else in_hand.holding
        self.models = ModelStage()
        self._models_owned = OwnedTopic(io, "models", owner)
        self._commands: Reader | None = None
        self._commands_counter = PlainCounter("commands")
        self._missing_since: dict[str, float] = {}
        self._noticed = noticed
        self._noticing: asyncio.Task[None] | None = None
        self._rounds: dict[asyncio.Task[None], InputReceivedData] = {}
        """The rounds under way."""
        # Rounds run in parallel, but decisions must be sent whole, and in the order in which the stage folds them.
        self._sending = asyncio.Lock()

    async def start(self) -> None:
        """Claim and resume. From then on, record changes of the models even while no input comes."""
        await super().start()
        self._noticing = asyncio.create_task(self._notice_often(), name="notice-models")
        self._tails.append(self._noticing)

    async def _notice_often(self) -> None:
        try:
            while not self.owned.lost.done():
                async with self._lock:
                    await self._look_around()
                await asyncio.sleep(NOTICE_SECONDS)
        except LostOwnershipError as why:
            self.owned.give_up(why)

    async def resumed_memory(self) -> None:
        """Claim `models`, too. Its fold gives the roster, and which commands are decided."""
        await self.claim_also(self._models_owned, self.models.remember, self.models)
        start = self.models.need["commands"]
        self._commands = await self._io.reader("commands", start.offset)
        self._commands_counter = PlainCounter("commands", start)

    async def process(self, decision: Decision) -> None:
        """Ask the models for each input that is not decided yet."""
        if "feeds" in decision.need:
            await self._clock.start(decision.need["feeds"])
        self._ahead.learn(decision)
        self._history.learn(decision)
        for told in self.stage.unfold(decision):
            if isinstance(told.event, InputReceived) and not self.stage.decided("inputs", told.position):
                self._clock.unless_ticked(told.event.at)
                await self._round(told.event.data, told)

    async def _look_around(self) -> int:
        """Record changes of the models, and return the clock in ms. Both topics are read at the same time, because each
        read is a round trip to the broker.
        """
        clock, commands_end = await asyncio.gather(self._clock.read(), self._end_of_commands())
        await self.notice(commands_end)
        return clock

    async def _end_of_commands(self) -> int:
        return await self._commands.end() if self._commands is not None else 0

    async def notice(self, commands_end: int) -> None:
        """Record in `models`, durably, the operator's commands up to this offset and the gateway's notices.

        It comes before a round opens, because a roster may name only models that the log has.
        """
        at = max(self._clock.now, 0)
        await self._read_commands(at, commands_end)
        # The gateway hands out each notice once. The worker keeps them in `_noticed`, so that a notice which this
        # tenure could not record is recorded by the next one.
        notices = self._gateway.notices()
        self._restarted.update(notice.info.model_id for notice in notices if notice.change == "recovering")
        self._noticed.extend([*notices, *self._gone()])
        draft = self.models.offer(self._noticed, at)
        if draft is not None:
            await self._send_models(draft)
            await self._models_owned.flush()
        self._noticed.clear()

    async def _read_commands(self, at: int, end: int) -> None:
        """Decide each ban and readmission of `commands`, once."""
        if self._commands is None:
            return
        while batch := await self._commands.read(end):
            for offset, record in batch:
                decision = self._commands_counter.read(offset, record)
                if decision is not None:
                    self.models.absorb(timed(decision, at))
                    await pump(self.models, self._models_owned)

    async def _send_models(self, draft: Draft) -> None:
        self.models.remember(draft)
        await self._models_owned.send(list(draft.events), dict(self.models.upto), dict(self.models.need))

    def _gone(self) -> list[ModelNotice]:
        """Notices for the models that the orchestrator has not named for GONE_SECONDS: they left while no worker
        listened.

        The delay is for models that only restart.
        """
        announced = self._gateway.announced
        if announced is None or not self._gateway.connected:
            self._missing_since.clear()
            return []
        now, seen = self._monotonic(), self.models.models.seen
        missing = [entry for entry in self.models.models.roster() if entry.model_id not in announced]
        since = {entry.model_id: self._missing_since.get(entry.model_id, now) for entry in missing}
        self._missing_since = since
        return [
            ModelNotice(
                "left",
                ModelInfo(model_id, seen[model_id].data.model_name, seen[model_id].data.deployment_id),
                reason=GONE,
            )
            for model_id, missing_since in since.items()
            if now - missing_since >= GONE_SECONDS
        ]

    async def _round(self, data: InputReceivedData, told: Told) -> None:
        """Open the round of an input, and ask its models in a task of its own.

        A newer input of the same subject ends the older one's round, and waits until that is recorded. In a replay, a
        point waits for all rounds of the point before.
        """
        stage, state = self.stage, self.stage.state
        stage.fold(state, told)
        if state.is_answered(data.input_id):
            return
        left_open = state.open_rounds.get(data.input_id)
        if left_open is not None:
            clock = await self._clock.read()
            # An owner opened this round and died. The answers that it had not recorded are lost, by the node's fault;
            # but if decoding one model's answer killed the process, that model pays.
            killer = {self._in_hand.left_behind} if self._in_hand is not None else set()
            answers = all_missed(
                left_open.opened, NODE_RESTARTED, "node", but=left_open.answered_ids, died_of=killer
            )
            await self._report(answers, self._contracts(data.contract_hash).model_strikes_max)
            await self._answered(data, answers, clock)
            return
        if self._in_hand is not None:
            # The rounds that the process before left open are closed. A later round cannot have lost an answer by it.
            self._in_hand.left_behind = ""
        await self._wait_for(
            [
                task
                for task, other in self._rounds.items()
                if other.subject == data.subject
                or (data.rehearsal and other.point < data.point)
                or state.is_full
            ]
        )
        clock = await self._look_around()
        roster, models_seq = self.models.models.roster(), self._models_owned.seq
        history, first = await self._first_tick(data, roster)
        contract, performance, each = self._contracts(data.contract_hash), None, NONE
        if contract.call_method.asks_performance:
            performance, each = (await self._performance.read()).told(roster, self._contracts)
        calls = Calls(data, contract, first, each, raw=True)
        async with self._sending:
            await self._send(stage.hear(Asked(data, roster, clock, models_seq, history, performance)))
            await self.owned.flush()
        opened = state.open_rounds[data.input_id].opened
        if clock > data.deadline_at:
            await self._answered(data, all_missed(opened, NODE_LATE, "node"), clock)
        elif await self._is_superseded(data):
            await self._answered(data, all_missed(opened, FELL_BEHIND, "node"), clock)
        else:
            task = asyncio.create_task(self._ask(data, opened, clock, calls), name=f"round-{data.input_id}")
            self._rounds[task] = data
            self._tails.append(task)
            task.add_done_callback(self._round_ended)

    def _round_ended(self, task: asyncio.Task[None]) -> None:
        del self._rounds[task]
        if task.cancelled() or task.exception() is None:
            self._tails.remove(task)
        elif isinstance(error := task.exception(), LostOwnershipError):
            self._tails.remove(task)
            self.owned.give_up(error)
        # Any other error is our own bug: the task stays among the tails, and a tail that fails ends the worker.

    async def _wait_for(self, rounds: list[asyncio.Task[None]]) -> None:
        """Wait for these rounds. Raises what one of them raised."""
        await asyncio.gather(*rounds)

    async def settled(self) -> None:
        """Wait until no round is under way. Raises what one of them raised."""
        await self._wait_for(list(self._rounds))

    async def _answered(self, data: InputReceivedData, answers: Answers, clock: int) -> None:
        async with self._sending:
            await self._send(self.stage.hear(Answered(data.input_id, answers, clock)))

    async def _send(self, draft: Draft | None) -> None:
        if draft is None:
            return
        self.stage.remember(draft)
        await self.owned.send(list(draft.events), dict(self.stage.upto), dict(self.stage.need))

    async def _is_superseded(self, data: InputReceivedData) -> bool:
        """Whether a newer input of this subject came. Never in a replay, which waits for each round."""
        return not data.rehearsal and await self._ahead.is_newer(data)

    async def _first_tick(
        self, data: InputReceivedData, roster: list[RosterEntry]
    ) -> tuple[RoundHistory | None, FirstTick | None]:
        """(what RoundOpened records of the longer first tick, the tick with the models that get it).

        Each is None if the contract has no longer first tick, the second also if no model needs it.
        """
        if data.history is None:
            return None, None
        lacking = self.stage.state.own.first_ticks.lacking(data.subject, roster)
        restarted = {index for index, entry in enumerate(roster) if entry.model_id in self._restarted}
        self._restarted.difference_update(entry.model_id for entry in roster)
        models = sorted(restarted.union(lacking))
        if not models:
            return RoundHistory(subject=data.subject, models=[]), None
        windows = await self._history.windows(data.history, data.point)
        # In a thread: a month of minutes takes long to encode, and would hold up the event loop.
        history, payload = await asyncio.to_thread(first_tick, data, models, windows, self._typed)
        if history.reason:
            log.warning("first_tick_failed", input_id=data.input_id, reason=history.reason)
        return history, FirstTick(payload, {roster[index].model_id for index in history.models})

    async def _ask(self, data: InputReceivedData, opened: RoundOpened, clock: int, calls: Calls) -> None:
        """Ask all models, and record their answers in batches; the last batch closes the round."""
        contract = self._contracts(data.contract_hash)
        asked = [entry.model_id for entry in opened.data.roster]
        seconds = BUDGET_SHARE * (data.deadline_at - clock) / 1000
        asking = Asking(self._askers, asked, data, contract, seconds, _fair_seconds(data, contract), calls)
        while True:
            replies = await asking.next(lambda: self._is_superseded(data))
            clock = await self._clock.read()
            # In a thread: a large answer takes some ms to judge, while the time of other models runs.
            answers = await asyncio.to_thread(self._judged, data, opened, replies, clock)
            await self._report(answers, contract.model_strikes_max)
            if asking.over:
                await self._answered(data, answers, clock)
                return
            async with self._sending:
                await self._send(
                    self.stage.hear(AnsweredInPart(data.input_id, answers, replies.keys(), clock))
                )

    def _judged(self, data: InputReceivedData, opened: RoundOpened, replies: Replies, clock: int) -> Answers:
        """Judge the replies of these models: scope_key -> answers, in the order of the roster."""
        others = {entry.model_id for entry in opened.data.roster} - replies.keys()
        contract = self._contracts(data.contract_hash)
        late = clock > data.deadline_at
        return {
            scope.scope_key: judge(
                opened,
                {
                    model_id: self._excused(of_model[scope.scope_key], late=late)
                    for model_id, of_model in replies.items()
                },
                contract.output_type,
                contract.output_max_bytes,
                but=others,
                holding=self._holding,
            )
            for scope in data.scopes
        }

    async def _report(self, answers: Answers, strikes_max: int) -> None:
        """Report to the orchestrator the models that keep failing. It stops them, and answers with a notice."""
        for strike in self._strikes.note(answers, strikes_max):
            if await self._gateway.report_failure(strike.model_id, strike.code, strike.reason):
                self._strikes.reported(strike.model_id)

    def _excused(self, reply: ModelReply, *, late: bool) -> ModelReply:
        """The reply with the fault moved to the node, if the node is at fault: it was too late itself, or the model
        could not be reached because the orchestrator is not connected.
        """
        if late and reply.outcome is Outcome.OK:
            return msgspec.structs.replace(
                reply, outcome=Outcome.ABSENT, fault="node", output=None, detail=NODE_LATE
            )
        if reply.outcome in (Outcome.ABSENT, Outcome.CRASHED) and not self._gateway.connected:
            detail = f"no orchestrator: {reply.detail}"
            return msgspec.structs.replace(reply, outcome=Outcome.ABSENT, fault="node", detail=detail)
        return reply

    async def close(self) -> None:
        """End both claims, the calls under way and the readers."""
        await super().close()
        await self._askers.close()
        await self._models_owned.close()
        await self._clock.close()
        await self._ahead.close()
        await self._history.close()
        await self._performance.close()
        if self._commands is not None:
            await self._commands.close()


def _fair_seconds(data: InputReceivedData, contract: CrunchContract) -> float:
    """FAIR_SHARE of the time that the contract gives a model: until its deadline, or the next input if that is
    sooner.
    """
    asked = {scope.scope_key for scope in data.scopes}
    intervals = [
        schedule.interval_seconds for schedule in contract.schedules() if schedule.scope_key in asked
    ]
    return FAIR_SHARE * min([contract.deadline_seconds, *intervals])
