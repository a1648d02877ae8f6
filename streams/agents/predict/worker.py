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

import structlog

from coordinator.infra.together import together
from coordinator.streams.agents.owning.log_io import LogIO, Reader, decisions_until
from coordinator.streams.agents.owning.ownership import LostOwnershipError, OwnedTopic, fold_and_send, pump
from coordinator.streams.agents.owning.tenure import OnGarbage, Tenure
from coordinator.streams.agents.predict.asking import Askers, Asking, fair_seconds, turn_of
from coordinator.streams.agents.predict.departed_models import DepartedModels
from coordinator.streams.agents.predict.feed_history import FeedHistory
from coordinator.streams.agents.predict.judging import Judging
from coordinator.streams.agents.predict.models_asked import ModelsAsked
from coordinator.streams.agents.predict.own_performance import OwnPerformance
from coordinator.streams.agents.predict.question_tables import table_of
from coordinator.streams.agents.predict.read_ahead import FeedClock, InputsAhead
from coordinator.streams.agents.predict.submissions import Submissions
from coordinator.streams.contract.contract import Contracts
from coordinator.streams.events import (
    InputClosed,
    InputReceived,
    InputReceivedData,
    RoundOpened,
)
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.plain_topics import PlainCounter
from coordinator.streams.log.stage import Draft, PlacedEvent
from coordinator.streams.models.stage import ModelStage, timed
from coordinator.streams.ports import Blobs
from coordinator.streams.predictions.calls import NONE, Calls
from coordinator.streams.predictions.questions import to_ask
from coordinator.streams.predictions.replies import Answers, all_missed
from coordinator.streams.predictions.stage import (
    BUDGET_SHARE,
    FELL_BEHIND,
    NODE_LATE,
    NODE_RESTARTED,
    Answered,
    AnsweredInPart,
    PredictionStage,
    Round,
    RoundAsked,
)

log = structlog.get_logger()

NOTICE_SECONDS = 0.5


class PredictTenure(Tenure):
    """The claim on `predictions` and on `models`, and the rounds."""

    stage: PredictionStage

    def __init__(
        self,
        io: LogIO,
        owner: str,
        asked: ModelsAsked,
        contracts: Contracts,
        on_garbage: OnGarbage | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        blobs: Blobs | None = None,
    ) -> None:
        super().__init__(io, PredictionStage(), owner, on_garbage)
        self._followed = ("inputs",)  # `commands` is read before each round, for both stages
        self._gateway = gateway = asked.gateway
        self._contracts = contracts
        self._monotonic = monotonic
        self._clock = FeedClock(io)
        self._ahead = InputsAhead(io)
        self._history = FeedHistory(io, contracts)
        self._performance = OwnPerformance(io)
        self._askers = Askers(gateway, monotonic)
        self._judging = Judging(asked, contracts, blobs)
        self._in_hand = asked.in_hand
        self._blobs = blobs
        self.models = ModelStage()
        self._models_owned = OwnedTopic(io, "models", owner)
        self._also.append((self._models_owned, self.models))
        self._commands: Reader | None = None
        self._commands_counter = PlainCounter("commands")
        self._submissions = Submissions(self.stage, contracts, self._ahead, on_garbage, blobs)
        self._gone = DepartedModels(gateway)
        self._noticed = asked.noticed
        self._rounds: dict[asyncio.Task[None], InputReceivedData] = {}
        """The rounds under way. Their decisions are sent whole, in the order in which the stage folds them."""
        self._sending = asyncio.Lock()

    async def start(self) -> None:
        """Claim and resume. From then on, record changes of the models even while no input comes."""
        await super().start()
        self._tails.append(asyncio.create_task(self._notice_often(), name="notice-models"))

    async def _notice_often(self) -> None:
        try:
            while not self.owned.lost.done():
                async with self._lock:
                    await self._look_around()
                    await self._decide_submissions()
                await asyncio.sleep(NOTICE_SECONDS)
        except LostOwnershipError as why:
            self.owned.give_up(why)

    async def claim_others(self) -> None:
        """Claim `models`, too. Its fold gives the roster, and which commands are decided."""
        await together(super().claim_others(), self._open_commands())

    async def _open_commands(self) -> None:
        start = min(self.models.need["commands"], self.stage.need["commands"], key=lambda need: need.offset)
        self._commands = await self._io.reader("commands", start.offset)
        self._commands_counter = PlainCounter("commands", start)

    async def process(self, decision: Decision) -> None:
        """Ask the models for each input that is not decided yet."""
        if "feeds" in decision.need:
            await self._clock.start(decision.need["feeds"])
        self._ahead.learn(decision)
        self._history.learn(decision)
        for placed in self.stage.unfold(decision):
            if self.stage.decided("inputs", placed.position):
                continue
            if isinstance(placed.event, InputReceived):
                self._clock.unless_ticked(placed.event.at)
                await self._round(placed.event.data, placed)
            elif isinstance(placed.event, InputClosed):
                await self._look_around()  # what was handed in before the close comes before it
                await self._decide_submissions()
                await self._close(placed)

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
        # A notice that this tenure cannot record stays in `_noticed`, and the next tenure records it.
        notices = self._gateway.notices()
        self._history.restarted(notice.info.model_id for notice in notices if notice.change == "recovering")
        self._noticed.extend([*notices, *self._gone.notices(self._monotonic(), self.models.models)])
        draft = self.models.offer(self._noticed, at)
        if draft is not None:
            await fold_and_send(self.models, self._models_owned, draft)
            await self._models_owned.flush()
        self._noticed.clear()

    async def _read_commands(self, at: int, end: int) -> None:
        """Decide each ban and readmission of `commands`, once."""
        if self._commands is None:
            return
        async for decision in decisions_until(self._commands, self._commands_counter, end):
            self._submissions.take(decision)
            self.models.absorb(timed(decision, at))
            await pump(self.models, self._models_owned)

    async def _decide_submissions(self) -> None:
        """Record the answers that were handed in, as far as their questions are known."""
        clock, models_seq = max(self._clock.now, 0), self._models_owned.seq
        while (submission := await self._submissions.next(self.behind, clock, models_seq)) is not None:
            async with self._sending:
                await self._send(self.stage.decide(self.stage.state, submission))
        async with self._sending:
            await self._send(self._submissions.passed(self._commands_counter.state()))

    async def _close(self, placed: PlacedEvent) -> None:
        """Record that a question has all its answers, or remember that it closes with its last round."""
        async with self._sending:
            draft = self.stage.decide(self.stage.state, placed)
            if draft is None:
                self.stage.fold(self.stage.state, placed)
            await self._send(draft)

    async def _round(self, data: InputReceivedData, placed: PlacedEvent) -> None:
        """Open the round of an input, and ask its models in a task of its own.

        A newer input of the same subject ends the older one's round, and waits until that is recorded. In a replay, a
        point waits for all rounds of the point before.
        """
        stage, state = self.stage, self.stage.state
        stage.fold(state, placed)
        if state.is_answered(data.input_id):
            return
        left_open = state.open_round(data.input_id)
        if left_open is not None:
            await self._end_left_open(data, left_open)
            return
        if self._in_hand is not None:
            # The rounds that the process before left open are closed. A later round cannot have lost an answer by it.
            self._in_hand.left_behind = ""
        earlier = (
            task
            for task, other in self._rounds.items()
            if turn_of(other) == turn_of(data)
            or (data.rehearsal and other.point < data.point)
            or state.is_full
        )
        await asyncio.gather(*earlier)  # raises what one of them raised
        clock = await self._look_around()
        roster = to_ask(state.own.questions, data.question, self.models.models.roster())
        models_seq = self._models_owned.seq
        history, first = await self._history.first_tick(data, roster, state.own.first_ticks)
        contract, performance, each = self._contracts(data.contract_hash), None, NONE
        if contract.call_method.asks_performance:
            performance, each = (await self._performance.read()).told(roster, self._contracts)
        table, lost = await table_of(data, self._blobs)
        calls = Calls(data, contract, first, each, raw=True, table=table)
        async with self._sending:
            await self._send(stage.hear(RoundAsked(data, roster, clock, models_seq, history, performance)))
            # Each is a round trip to the broker, and neither needs the other's answer.
            _, superseded = await asyncio.gather(self.owned.flush(), self._is_superseded(data))
        opened = state.own.rounds[data.input_id].opened
        too_late = NODE_LATE if clock > data.deadline_at else FELL_BEHIND if superseded else ""
        if reason := lost or too_late:
            await self._answered(data, all_missed(opened, reason, "node"), clock)
            return
        task = asyncio.create_task(self._ask(data, opened, clock, calls), name=f"round-{data.input_id}")
        self._rounds[task] = data
        self._tails.append(task)
        task.add_done_callback(self._round_ended)

    async def _end_left_open(self, data: InputReceivedData, left_open: Round) -> None:
        """Close a round that an owner opened before it died.

        The answers that it had not recorded are lost, by the node's fault; but if decoding one model's answer killed
        the process, that model pays.
        """
        clock = await self._clock.read()
        killer = {self._in_hand.left_behind} if self._in_hand is not None else set()
        answers = all_missed(
            left_open.opened, NODE_RESTARTED, "node", but=left_open.answered_ids, died_of=killer
        )
        await self._judging.report(data, answers)
        await self._answered(data, answers, clock)

    def _round_ended(self, task: asyncio.Task[None]) -> None:
        del self._rounds[task]
        if task.cancelled() or task.exception() is None:
            self._tails.remove(task)
        elif isinstance(error := task.exception(), LostOwnershipError):
            self._tails.remove(task)
            self.owned.give_up(error)
        # Any other error is our own bug: the task stays among the tails, and a tail that fails ends the worker.

    async def settled(self) -> None:
        """Wait until no round is under way. Raises what one of them raised."""
        await asyncio.gather(*self._rounds)

    async def _answered(self, data: InputReceivedData, answers: Answers, clock: int) -> None:
        async with self._sending:
            await self._send(self.stage.hear(Answered(data.input_id, answers, clock)))

    async def _send(self, draft: Draft | None) -> None:
        if draft is not None:
            await fold_and_send(self.stage, self.owned, draft)

    async def _is_superseded(self, data: InputReceivedData) -> bool:
        """Whether a newer input of this subject came. Never of a question, nor in a replay, which waits for each."""
        return not data.rehearsal and data.question is None and await self._ahead.is_newer(data)

    async def _ask(self, data: InputReceivedData, opened: RoundOpened, clock: int, calls: Calls) -> None:
        """Ask all models, and record their answers in batches; the last batch closes the round."""
        contract = self._contracts(data.contract_hash)
        asked = [entry.model_id for entry in opened.data.roster]
        seconds = BUDGET_SHARE * (data.deadline_at - clock) / 1000
        asking = Asking(self._askers, asked, data, contract, seconds, fair_seconds(data, contract), calls)
        while True:
            replies = await asking.next(lambda: self._is_superseded(data))
            # In a thread: a large answer takes some ms. The clock is read meanwhile, a round trip to the broker. If it
            # shows that the node was late, which is rare, all is judged again, and lost by the node's fault.
            judging = asyncio.to_thread(self._judging.answers, data, opened, replies, late=False)
            clock, answers = await asyncio.gather(self._clock.read(), judging)
            if clock > data.deadline_at:
                answers = await asyncio.to_thread(self._judging.answers, data, opened, replies, late=True)
            await self._judging.report(data, answers)
            if asking.over:
                await self._answered(data, answers, clock)
                return
            in_part = AnsweredInPart(data.input_id, answers, replies.keys(), clock)
            async with self._sending:
                await self._send(self.stage.hear(in_part))

    async def close(self) -> None:
        """End both claims, the calls under way and the readers."""
        await super().close()
        await self._askers.close()
        await self._clock.close()
        await self._ahead.close()
        await self._history.close()
        await self._performance.close()
        if self._commands is not None:
            await self._commands.close()
