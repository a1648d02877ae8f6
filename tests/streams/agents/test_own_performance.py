"""A model receives its own performance in the last closed period, and the round records from which period it was."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest
from tests.fakes import FakeGateway
from tests.predict_scene import Scene
from tests.streams.build import HOUR, MINUTE, T0, period_closed, received, snapshot

from coordinator.streams import events as ev
from coordinator.streams.contract import CallMethod, CrunchContract
from coordinator.streams.log.envelope import ENVELOPE_VERSION, Append, encode_append, encode_decision

TOLD = CrunchContract(call_method=CallMethod(tick_arguments=("data", "performance")))
MakePlay = Callable[..., Awaitable["Play"]]


class Play(Scene):
    """`told_each` has the arguments of each model's ticks, after the data."""

    def __init__(self, contract: CrunchContract = TOLD) -> None:
        super().__init__(contract, FakeGateway())
        self.told_each: dict[str, list[Any]] = {}
        self._snapshots = 0
        for model_id in "ab":
            self.gateway.join(model_id, lambda *call, model_id=model_id: self._answer(model_id, *call))

    def _answer(self, model_id: str, method: str, arguments: Sequence[Any]) -> Any:
        place = {"tick": self.contract.call_method.tick_arguments}.get(
            method, self.contract.call_method.predict_arguments
        )
        if "performance" in place:
            self.told_each.setdefault(model_id, []).append(arguments[place.index("performance")])
        return None if method == "tick" else {"value": 0.5}

    def closed(self, *taken: ev.SnapshotTaken, start: int = T0 - HOUR) -> None:
        records = self.log.records["snapshots"]
        if not records:
            records.append(encode_append(Append(e=ENVELOPE_VERSION, epoch=1, seq=0, claim="score")))
        self._snapshots += 1
        events = [*taken, period_closed(start, start + HOUR, len(taken))]
        records.extend(encode_decision(events, epoch=1, seq=self._snapshots, upto={}, need={}))

    async def round(self, point: int) -> ev.RoundPerformance | None:
        self.asked(received(point))
        await self.deliver()
        opened = [e for events in self.decisions() for e in events if isinstance(e, ev.RoundOpened)]
        return opened[-1].data.performance


@pytest.fixture
async def play() -> AsyncIterator[MakePlay]:
    plays: list[Play] = []

    async def make(contract: CrunchContract = TOLD) -> Play:
        play = Play(contract)
        plays.append(play)
        await play.start()
        return play

    yield make
    for play in plays:
        assert play.tenure is not None
        await play.tenure.close()


def taken(model_id: str, value: float, start: int = T0 - HOUR) -> ev.SnapshotTaken:
    return snapshot(model_id, start, round(value * 10**9))


async def test_each_model_receives_its_own_and_the_round_records_its_period(play):
    scene = await play()
    first = await scene.round(T0)
    assert scene.told_each == {"a": [{}], "b": [{}]}
    assert first == ev.RoundPerformance(snapshots_seq=-1, sha256=hashlib.sha256(b"[{},{}]").hexdigest())

    scene.closed(taken("a", 0.25), taken("b", -0.5))
    second = await scene.round(T0 + MINUTE)
    a, b = scene.told_each["a"][-1], scene.told_each["b"][-1]
    assert (a["period_end"], a["summary"]["value"], b["summary"]["value"]) == (T0, 0.25, -0.5)
    assert set(a) == {"period_end", "windows", "boards", "summary", "counts"}
    assert set(a["counts"]) == {"scored", "failed", "absent"}
    assert second is not None
    assert second.snapshots_seq == 1
    body = msgspec.json.Encoder(order="deterministic").encode([a, b])
    assert second.sha256 == hashlib.sha256(body).hexdigest()


async def test_a_model_without_a_snapshot_of_the_last_period_receives_none(play):
    scene = await play()
    scene.closed(taken("a", 0.25), taken("b", 0.25))
    scene.closed(taken("b", 0.75, T0), start=T0)
    await scene.round(T0 + HOUR)
    assert (scene.told_each["a"][-1], scene.told_each["b"][-1]["summary"]["value"]) == ({}, 0.75)


async def test_a_new_owner_passes_the_same(play):
    scene = await play()
    scene.closed(taken("a", 0.25))
    first = await scene.round(T0)
    await scene.start()
    assert await scene.round(T0 + MINUTE) == first


async def test_predict_may_receive_it_too(play):
    method = CallMethod(predict_arguments=("subject", "performance"))
    scene = await play(CrunchContract(call_method=method))
    scene.closed(taken("a", 0.25))
    await scene.round(T0)
    assert [told["summary"]["value"] for told in scene.told_each["a"]] == [0.25]


async def test_if_no_method_has_the_argument_nothing_is_looked_up(play):
    scene = await play(CrunchContract())
    scene.log.records["snapshots"].append(b"no record at all")
    assert await scene.round(T0) is None
