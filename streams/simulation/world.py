"""The world around the node in a simulation: the time, a market and the models, all as the schedule says.

`Source` and `Gateway` are what a process of the node sees of it; `judge_run.py` compares the log with what really
happened.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.trial_answers import answers_to_try, more_answers
from coordinator.streams.granularity import granularity_ms
from coordinator.streams.log.errors import WorldError
from coordinator.streams.ports import (
    FeedRecord,
    ModelInfo,
    ModelNotice,
    ModelReply,
    Outcome,
    SourceHealth,
    Subscription,
)
from coordinator.streams.settings import Settings
from coordinator.streams.simulation import faults as f
from coordinator.streams.simulation.transport import SimulatedLogIO

START_MS = 1_700_000_000_000 // 3_600_000 * 3_600_000
"""A full hour, where periods begin."""
WARM_UP = 160
"""Records of the past, before the run begins."""
ARRIVES_SECONDS = 0.05
SLOW_SECONDS = 2.5
ROUNDING_MS = 0.01
SOURCE = "simulated"


class Delivery(msgspec.Struct, frozen=True):
    """A record and when it comes (s). `streamed`: the stream has it. `kept`: the history has it."""

    at: float
    record: FeedRecord
    streamed: bool = True
    kept: bool = True


class World:
    """The world of one run. Its time is the event loop's; all else follows from the schedule."""

    def __init__(
        self,
        schedule: f.Schedule,
        contract: CrunchContract,
        settings: Settings,
        seconds: float,
        rules: Mapping[str, str],
    ) -> None:
        """`rules`: the name of rules that the operator may apply -> the hash of their contract."""
        self.schedule, self.contract, self.settings, self.rules = schedule, contract, settings, rules
        self.deliveries = sorted(
            self._deliveries(seconds), key=lambda delivery: (delivery.at, delivery.record.subject)
        )
        """The records of all subjects, in order of arrival."""
        self.models = ModelsOutside(self)

    def of(self, kind: type[Any]) -> Iterator[Any]:
        """The schedule's faults of one kind."""
        return (fault for fault in self.schedule.faults if isinstance(fault, kind))

    def during(self, kind: type[Any]) -> Iterator[Any]:
        """The schedule's faults of one kind that last, and are going on now."""
        now = self.now
        return (fault for fault in self.of(kind) if fault.at <= now < fault.at + fault.seconds)

    # --- the time ----------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return asyncio.get_running_loop().time()

    def true_ms(self) -> int:
        """The time, in ms since 1970."""
        return START_MS + self.uptime_ms()

    def uptime_ms(self) -> int:
        """The time since the start, in ms. Unlike the wall clock it never jumps."""
        return int(self.now * 1000 + ROUNDING_MS)  # a timer may come a rounding early

    def wall_ms(self) -> int:
        """What the wall clock of the processes shows, in ms since 1970. It may be wrong."""
        return self.true_ms() + int(sum(jump.by_seconds for jump in self.during(f.ClockJumps)) * 1000)

    # --- the market --------------------------------------------------------------------------------

    def _deliveries(self, seconds: float) -> Iterator[Delivery]:
        length = granularity_ms(self.settings.feed_granularity)
        fates = {(fault.at, fault.what): fault for fault in self.of(f.RecordIs)}
        for subject in self.settings.feed_subjects:
            of = Subscription(SOURCE, subject, self.settings.feed_kind, self.settings.feed_granularity)
            rng = random.Random(f"{self.schedule.seed} {subject}")
            price = 10_000
            for number in range(-WARM_UP, int(seconds * 1000 / length) + 1):
                opened, price = price, max(100, price + rng.randint(-30, 30))
                at = START_MS + number * length
                record = of.record(at - length, at, _candle(opened, price))
                known_at = (at - START_MS) / 1000
                comes = (
                    known_at + ARRIVES_SECONDS + number * 73 % 311 / 1000
                )  # never as the node's own second ends
                here = {what: fates[known_at, what] for what in _WHATS if (known_at, what) in fates}
                if "never" in here:
                    continue
                if "late" in here:
                    comes += here["late"].seconds
                yield Delivery(comes, record, streamed="lost" not in here)
                if "twice" in here:
                    yield Delivery(comes + 0.5, record)
                if "corrected" in here:
                    corrected = msgspec.structs.replace(record, values=_candle(opened, price + 7))
                    yield Delivery(comes + here["corrected"].seconds, corrected)

    def feed_is_away(self) -> bool:
        """Is the source away now?"""
        return any(self.during(f.FeedAway))


_WHATS = ("late", "twice", "lost", "never", "corrected")


def _candle(opened: int, closed: int) -> dict[str, str]:
    low, high = sorted((opened, closed))
    cents = {"open": opened, "high": high + 3, "low": low - 3, "close": closed}
    return {name: f"{value // 100}.{value % 100:02d}" for name, value in cents.items()} | {"volume": "1.5"}


class Source:
    """One process's `FeedSource`."""

    name = SOURCE

    def __init__(self, world: World, line: SimulatedLogIO) -> None:
        self._world, self._line = world, line
        self.health = SourceHealth()
        if world.schedule.has_clock:
            self.time_ms = self._time_ms

    async def _reached(self) -> None:
        await self._line.ready()
        if self._world.feed_is_away():
            raise WorldError("simulated: the source is away")

    async def _time_ms(self) -> int:
        await self._reached()
        return self._world.true_ms()

    async def history(self, of: Subscription, start_ms: int, end_ms: int) -> AsyncIterator[FeedRecord]:
        """The newest version of each record that has come so far, in the order of `at`."""
        await self._reached()
        newest: dict[int, FeedRecord] = {}
        for delivery in self._world.deliveries:
            if delivery.at > self._world.now:
                break
            if delivery.record.subject == of.subject and start_ms <= delivery.record.at <= end_ms:
                newest[delivery.record.at] = delivery.record
        for at in sorted(newest):
            yield newest[at]

    async def stream(self, subscriptions: Sequence[Subscription]) -> AsyncIterator[FeedRecord]:
        """The records that come from now on, without those that come while the source is away."""
        world, health = self._world, self.health
        subjects = {subscription.subject for subscription in subscriptions}
        began = world.now
        upcoming = [
            delivery
            for delivery in world.deliveries
            if delivery.at > began and delivery.streamed and delivery.record.subject in subjects
        ]
        away = sorted(
            {
                when
                for fault in world.of(f.FeedAway)
                for when in (fault.at, fault.at + fault.seconds)
                if when > began
            }
        )
        self._look()
        for delivery in upcoming:
            while away and away[0] <= delivery.at:
                await asyncio.sleep(away.pop(0) - world.now)
                self._look()
            await asyncio.sleep(delivery.at - world.now)
            await self._line.ready()
            if health.state == "connected":
                yield delivery.record
        await asyncio.Event().wait()

    def _look(self) -> None:
        state = "reconnecting" if self._world.feed_is_away() else "connected"
        if state == "connected" and self.health.state != state:
            self.health.connections += 1
        self.health.state, self.health.reason = state, "" if state == "connected" else "simulated: away"


class ModelsOutside:
    """The models m0, m1, .. They outlive every process of the node. `given` is model -> all answers that it gave."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.model_ids = [f"m{number}" for number in range(world.schedule.models)]
        output_type = world.contract.output_type
        tried = [*more_answers(output_type, 64), *answers_to_try(output_type)]
        self._answers = [answer.model_dump(mode="json", by_alias=True) for answer in tried]
        self.given: defaultdict[str, list[Any]] = defaultdict(list)
        self._ticks: dict[str, bytes] = {}

    def info(self, model_id: str) -> ModelInfo:
        """The identity of a model."""
        return ModelInfo(model_id, model_id, f"{model_id}-1", f"{model_id}-cruncher", f"{model_id}-cruncher")

    def does(self, model_id: str) -> set[str]:
        """The faults that a model has now, as `ModelDoes.what`."""
        return {
            fault.what
            for fault in self.world.during(f.ModelDoes)
            if self.model_ids[fault.model % len(self.model_ids)] == model_id
        }

    @property
    def reachable(self) -> bool:
        """Whether the orchestrator answers now."""
        return not any(self.world.during(f.ModelsAway))

    def present(self) -> dict[str, None]:
        """The models that run now, in order."""
        return {model_id: None for model_id in self.model_ids if "left" not in self.does(model_id)}

    async def call(
        self, model_id: str, method: str, arguments: Sequence[Any], timeout_seconds: float
    ) -> ModelReply:
        """Call one model. Gives the reply that a gateway would give."""
        deployment = f"{model_id}-1"
        does = self.does(model_id)
        if not self.reachable or "left" in does:
            return ModelReply(model_id, deployment, Outcome.ABSENT, "node", detail="not connected")
        waits = timeout_seconds if "hangs" in does else SLOW_SECONDS if "slow" in does else 0.0
        if waits >= timeout_seconds:
            await asyncio.sleep(timeout_seconds)
            return ModelReply(model_id, deployment, Outcome.DEADLINE, "model", detail="DEADLINE_EXCEEDED")
        await asyncio.sleep(waits)
        if "raises" in does:
            return ModelReply(model_id, deployment, Outcome.MODEL_FAILED, "model", detail="raised")
        if method == self.world.contract.call_method.tick:
            self._ticks[model_id] = msgspec.json.encode(arguments)
            return ModelReply(model_id, deployment, Outcome.OK)
        if "number" in does:
            return ModelReply(model_id, deployment, Outcome.OK, output={"value": None, "none": 1})
        # If there are three or more models, the last one answers like the first, so that there are ties.
        is_copy = model_id == self.model_ids[-1] and len(self.model_ids) > 2  # noqa: PLR2004
        answers_as = self.model_ids[0] if is_copy else model_id
        digest = hashlib.blake2b(
            b"|".join([answers_as.encode(), self._ticks.get(model_id, b""), msgspec.json.encode(arguments)]),
            digest_size=8,
        )
        output = self._answers[int.from_bytes(digest.digest(), "big") % len(self._answers)]
        self.given[model_id].append(output)
        return ModelReply(model_id, deployment, Outcome.OK, output=output)


class Gateway:
    """One process's `ModelGateway`."""

    def __init__(self, models: ModelsOutside, line: SimulatedLogIO) -> None:
        self._models, self._line = models, line
        self._known: Mapping[str, None] = {}

    @property
    def connected(self) -> bool:
        """Whether the orchestrator answers now."""
        return self._models.reachable

    @property
    def announced(self) -> Collection[str] | None:
        """The models that the orchestrator named last."""
        return list(self._known)

    async def start(self) -> None:
        """Nothing to do."""

    async def stop(self) -> None:
        """Nothing to do."""

    def notices(self) -> list[ModelNotice]:
        """The models that came or left since the last call; none while the orchestrator is away."""
        if not self._models.reachable:
            return []
        before, self._known = self._known, self._models.present()
        seen = [
            ModelNotice("seen", self._models.info(model_id))
            for model_id in self._known
            if model_id not in before
        ]
        left = [
            ModelNotice("left", self._models.info(model_id), reason="stopped")
            for model_id in before
            if model_id not in self._known
        ]
        return [*seen, *left]

    async def call(
        self,
        method: str,
        arguments: Sequence[Any],
        timeout_seconds: float,
        model_ids: Collection[str],
        output_max_bytes: int = 0,  # noqa: ARG002 - every answer is small
    ) -> dict[str, ModelReply]:
        """Call all models concurrently."""
        await self._line.ready()
        calls = (self._models.call(model_id, method, arguments, timeout_seconds) for model_id in model_ids)
        return {reply.model_id: reply for reply in await asyncio.gather(*calls)}

    async def report_failure(self, model_id: str, code: str, reason: str) -> bool:  # noqa: ARG002
        """Nobody is stopped here."""
        return False
