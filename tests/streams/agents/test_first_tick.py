"""More history with a model's first tick: which models get it, and that its bytes are a function of the log."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest
from tests.fakes import model_info
from tests.predict_scene import Scene
from tests.streams.build import MINUTE, T0, configured, record, scope, tick

from coordinator.streams import events as ev
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.defaults import build_input

CONTRACT = CrunchContract(input_records=3, input_records_first=10)
MakePlay = Callable[..., Awaitable["Play"]]


class Play(Scene):
    """Minutes of a market, each asked and answered. `seen` are the candles of each tick, by model."""

    def __init__(self, contract: CrunchContract = CONTRACT, **terms: Any) -> None:
        super().__init__(contract)
        self.told(configured(input_records_max=10, **terms))
        self.seen: dict[str, list[int]] = {}
        self.closes: dict[str, list[float]] = {}
        self.broken: set[str] = set()

    def join(self, model_id: str, **fields: str) -> None:
        def behaviour(method: str, arguments: Sequence[Any]) -> Any:
            if method == "tick":
                candles = arguments[0]["candles"]
                self.seen.setdefault(model_id, []).append(len(candles))
                self.closes[model_id] = [candle["close"] for candle in candles]
                return None
            return {"value": "no number" if model_id in self.broken else 0.5}

        self.gateway.join(model_id, behaviour, model_info(model_id, **fields))

    async def minute(self, *numbers: int) -> None:
        for number in numbers:
            at = T0 + number * MINUTE
            self.told(record(at, 100.0 + number), tick(at))
            await self.inputs_made()
            await self.deliver()

    def histories(self) -> list[ev.RoundHistory | None]:
        return [
            e.data.history for events in self.decisions() for e in events if isinstance(e, ev.RoundOpened)
        ]


@pytest.fixture
async def play() -> AsyncIterator[MakePlay]:
    plays: list[Play] = []

    async def make(contract: CrunchContract = CONTRACT, **terms: Any) -> Play:
        play = Play(contract, **terms)
        plays.append(play)
        await play.start()
        return play

    yield make
    for play in plays:
        assert play.tenure is not None
        await play.tenure.close()


async def test_the_first_tick_is_longer_and_later_ones_are_not(play):
    scene = await play()
    await scene.minute(*range(12))  # no model is there yet
    scene.join("a")
    await scene.minute(12, 13)
    scene.join("b")
    await scene.minute(14, 15)
    assert scene.seen == {"a": [10, 3, 3, 3], "b": [10, 3]}
    assert scene.closes["b"] == [113.0, 114.0, 115.0]
    assert [history.models for history in scene.histories()[-4:] if history] == [[0], [], [1], []]


async def test_with_fewer_records_it_has_all_there_are(play):
    scene = await play()
    scene.join("a")
    await scene.minute(0, 1, 2, 3)
    assert scene.seen == {"a": [1, 2, 3, 3]}


async def test_a_model_without_a_valid_answer_gets_it_again(play):
    scene = await play()
    scene.join("a")
    scene.join("b")
    await scene.minute(*range(11))
    scene.broken.add("a")
    await scene.minute(11, 12)
    scene.broken.clear()
    await scene.minute(13, 14)
    assert scene.seen["a"][-4:] == [3, 10, 10, 3]
    assert scene.seen["b"][-4:] == [3, 3, 3, 3]


@pytest.mark.parametrize("deployment_id", ["a_2", "a_1"])
async def test_a_restarted_model_gets_it_once(play, deployment_id):
    """Our host names a restarted process as a new deployment. Another orchestrator may keep the name."""
    scene = await play()
    scene.join("a")
    await scene.minute(*range(12))
    scene.gateway.recover("a")
    scene.join("a", deployment_id=deployment_id)
    await scene.minute(12, 13)
    assert scene.seen["a"][-3:] == [3, 10, 3]


async def test_the_models_that_followed_are_known_from_the_log_alone(play):
    scene = await play()
    scene.join("a")
    await scene.minute(*range(12))
    await scene.start()
    scene.join("b")
    await scene.minute(12)
    assert (scene.seen["a"][-1], scene.seen["b"]) == (3, [10])


async def test_its_bytes_depend_on_the_log_alone(play):
    """The log has appends of many records, later ones that correct what a tick showed, and owners that start at any
    input.
    """

    async def begun() -> Play:
        scene = await play(scopes=[scope(interval_seconds=5, horizon_seconds=1)])
        scene.join("a")
        scene.broken.add("a")  # so that each tick is a first tick
        return scene

    live = await begun()
    for number in range(140):
        if number % 11 not in (0, 9):
            continue  # nine records in one append, two in the next
        ats = [T0 + (number + i) * 1000 for i in range(2 if number % 11 else 9)]
        live.told(*(record(at, 100.0 + at / 1000 % 50) for at in ats), tick(ats[0], rehearsal=True))
        await live.inputs_made()
        await live.deliver()
        live.told(record(ats[1], 5.0, revision=1))
    histories = live.histories()
    assert live.seen["a"] == [1, 6, *[10] * (len(histories) - 2)]
    assert len(histories) > 20
    assert all(history and history.sha256 and history.models for history in histories)

    late, restarted = await begun(), await begun()
    for scene in (late, restarted):
        scene.log.records["feeds"] = live.log.records["feeds"]
        scene.log.records["inputs"] = live.log.records["inputs"]
    await late.deliver()
    assert late.histories() == histories
    for _ in live.log.records["inputs"]:
        await restarted.deliver(1)
        await restarted.start()
    assert restarted.histories() == histories


async def test_the_digest_is_that_of_the_ticks_data(play):
    scene = await play()
    got: list[Any] = []
    scene.gateway.join("a", lambda method, arguments: got.append(arguments[0]) if method == "tick" else None)
    await scene.minute(0, 1)
    (last,) = scene.histories()[-1:]
    assert last is not None
    assert last.sha256 == hashlib.sha256(msgspec.json.encode(got[-1])).hexdigest()


async def test_a_first_tick_that_cannot_be_made_is_reported_and_costs_nobody(play):
    def of_three(records: Sequence[Any]) -> dict[str, Any]:
        if len(records) > 3:
            raise ValueError("more than three")
        return build_input(records)

    scene = await play(CONTRACT.model_copy(update={"build_input": of_three}))
    scene.join("a")
    await scene.minute(*range(5))
    assert scene.seen == {"a": [1, 2, 3, 3, 3]}
    scene.join("b")
    await scene.minute(5)
    (last,) = scene.histories()[-1:]
    assert last is not None
    assert (last.models, last.sha256) == ([], "")
    assert last.reason == "build_input: ValueError: more than three"
    assert scene.seen["b"] == [3]


async def test_without_such_a_contract_nothing_of_it_is_recorded(play):
    scene = await play(CrunchContract())
    scene.join("a")
    await scene.minute(0, 1)
    assert scene.histories() == [None, None]
    assert scene.tenure is not None
    assert scene.tenure.stage.state.own.first_ticks.following == {}
