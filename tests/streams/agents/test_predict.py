"""The predict worker's shell over a log in memory, with models that are functions: which models are asked, and when
their answers are recorded.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from pydantic import field_validator
from tests.fakes import FakeGateway
from tests.predict_scene import Scene
from tests.streams.build import HASH, MINUTE, T0, received
from tests.waiting import LIMIT_SECONDS

from coordinator.streams import events as ev
from coordinator.streams.agents.predict import departed_models
from coordinator.streams.agents.predict.asking import NEWER_INPUT, STILL_AT_WORK, Askers, Asking
from coordinator.streams.contract import CallMethod, CrunchContract, InferenceOutput, ScheduledPrediction
from coordinator.streams.ports import Outcome
from coordinator.streams.predictions.stage import FELL_BEHIND, NODE_LATE, NODE_RESTARTED

MakeScene = Callable[..., Awaitable[Scene]]


@pytest.fixture
async def scene() -> AsyncIterator[MakeScene]:
    scenes: list[Scene] = []

    async def make(contract: CrunchContract | None = None, **models: Any) -> Scene:
        scene = Scene(contract)
        scenes.append(scene)
        for model_id, behaviour in models.items():
            scene.gateway.join(model_id, behaviour)
        await scene.start()
        return scene

    yield make
    for scene in scenes:
        assert scene.tenure is not None
        await scene.tenure.close()


def good(method: str, _arguments: Any) -> Any:
    return None if method == "tick" else {"value": 0.5}


def second(number: int) -> int:
    return T0 + number * 1000


FAST = CrunchContract(
    scheduled_predictions=[ScheduledPrediction(scope_key="60s", interval_seconds=1)], deadline_seconds=10
)


async def test_a_round_is_opened_and_answered_in_two_decisions(scene):
    play = await scene(a=good, b=good)
    play.asked(received(T0))
    await play.deliver()
    assert play.kinds() == [["RoundOpened"], ["PENDING", "PENDING", "RoundAnswered"]]


async def test_a_slow_model_does_not_delay_other_answers(scene):
    gate = asyncio.Event()

    async def slow(method: str) -> Any:
        if method == "predict":
            await gate.wait()
        return None if method == "tick" else {"value": -0.5}

    play = await scene(a=good, b=lambda method, _: slow(method), c=good)
    play.asked(received(T0, scopes={"60s": 60, "5m": 300}))
    delivering = asyncio.create_task(play.deliver())
    await play.until(lambda: len(play.kinds()) == 2)
    part = play.answers()[1]
    assert [(entry.status, entry.model_id) for _, entry in part] == [
        *[("PENDING", "a"), ("PENDING", "c")] * 2
    ]
    assert play.decisions()[1][-1].data.models == [0, 2]
    gate.set()
    await delivering
    assert play.kinds()[2] == ["PENDING", "PENDING", "RoundAnswered"]
    assert {entry.model_id for _, entry in play.answers()[2]} == {"b"}


async def test_models_left_by_a_dead_owner_are_absent_and_recorded_answers_stay(scene):
    async def never(method: str) -> Any:
        if method == "predict":
            await asyncio.Event().wait()

    play = await scene(a=good, b=lambda method, _: never(method))
    play.asked(received(T0))
    delivering = asyncio.create_task(play.deliver())
    await play.until(lambda: len(play.kinds()) == 2)
    delivering.cancel()
    await asyncio.gather(delivering, return_exceptions=True)
    play.gateway.join("b", good)
    await play.start()
    await play.deliver()
    assert play.kinds() == [
        ["RoundOpened"],
        ["PENDING", "RoundAnsweredInPart"],
        ["ABSENT", "RoundAnswered"],
    ]
    assert play.missed() == [("b", "node", NODE_RESTARTED)]


async def test_of_waiting_inputs_the_newest_of_each_subject_is_asked(scene):
    play = await scene(a=good)
    play.asked(received(T0), received(T0, "ETHUSDT"), received(T0 + MINUTE), received(T0 + 2 * MINUTE))
    await play.deliver()
    assert sorted(kinds[0] for kinds in play.kinds()) == [
        *["ABSENT"] * 2,
        *["PENDING"] * 2,
        *["RoundOpened"] * 4,
    ]
    assert play.missed() == [("a", "node", FELL_BEHIND)] * 2


async def test_newer_inputs_are_looked_for_while_the_opened_round_becomes_durable(scene, monkeypatch):
    play = await scene(a=good)
    look, flush, looked = play.tenure._ahead.is_newer, play.tenure.owned.flush, asyncio.Event()

    async def looks(data: ev.InputReceivedData) -> bool:
        looked.set()
        return await look(data)

    async def durable_after_the_look() -> None:
        await looked.wait()
        await flush()

    monkeypatch.setattr(play.tenure._ahead, "is_newer", looks)
    monkeypatch.setattr(play.tenure.owned, "flush", durable_after_the_look)
    play.asked(received(T0))
    await play.deliver()
    assert play.kinds() == [["RoundOpened"], ["PENDING", "RoundAnswered"]]


async def test_a_replay_skips_nothing(scene):
    play = await scene(a=good)
    play.asked(received(T0, rehearsal=True), received(T0 + MINUTE, rehearsal=True))
    await play.deliver()
    assert play.missed() == []


async def test_a_model_too_slow_for_its_schedule_is_cut_off_by_the_next_input_and_busy_in_its_round(scene):
    gate = asyncio.Event()

    async def slow(method: str) -> Any:
        if method == "predict":
            await gate.wait()

    play = await scene(FAST, a=good, b=lambda method, _: slow(method))
    play.asked(received(second(0)))
    delivering = asyncio.create_task(play.deliver())
    await play.until(lambda: len(play.kinds()) == 2)
    play.now += 1.0  # the second that the schedule allows has passed
    play.asked(received(second(1)))
    await delivering
    await play.deliver()
    assert [(model, reason) for model, _, reason in play.missed()] == [
        ("b", f"DEADLINE: {NEWER_INPUT}"),
        ("b", f"BUSY: {STILL_AT_WORK}"),
    ]
    assert {fault for _, fault, _ in play.missed()} == {"model"}
    assert sum(kinds.count("PENDING") for kinds in play.kinds()) == 2
    gate.set()


async def test_the_subjects_of_a_point_are_asked_side_by_side(scene):
    """A model that hangs in one subject costs the others nothing in any subject, and itself only its own answers."""
    gate = asyncio.Event()
    ticked: list[str] = []

    async def hangs_in_btc(method: str, arguments: Any) -> Any:
        if method == "predict":
            ticked.append(arguments[0])
            if arguments[0] == "BTCUSDT":
                await gate.wait()
        return None if method == "tick" else {"value": -0.5}

    play = await scene(a=good, b=hangs_in_btc, c=good)
    play.asked(received(T0), received(T0, "ETHUSDT"), received(T0, "SOLUSDT"))
    delivering = asyncio.create_task(play.deliver())
    recorded = lambda: [kinds.count("PENDING") for kinds in play.kinds()]  # noqa: E731
    await play.until(lambda: sum(recorded()) == 6)
    assert ticked == ["BTCUSDT"]  # calls to one model never overlap
    gate.set()
    await delivering
    assert (sum(recorded()), play.missed(), ticked) == (9, [], ["BTCUSDT", "ETHUSDT", "SOLUSDT"])
    assert [kinds for kinds in play.kinds() if "RoundOpened" in kinds] == [["RoundOpened"]] * 3


async def test_rounds_that_a_dead_owner_left_open_are_each_closed_once(scene):
    async def never_in_btc(method: str, arguments: Any) -> Any:
        if method == "predict" and arguments[0] == "BTCUSDT":
            await asyncio.Event().wait()
        return None if method == "tick" else {"value": -0.5}

    play = await scene(b=never_in_btc)
    play.gateway.join("a", good)
    play.asked(received(T0), received(T0, "ETHUSDT"), received(T0, "SOLUSDT"))
    delivering = asyncio.create_task(play.deliver())
    await play.until(lambda: sum(kinds.count("PENDING") for kinds in play.kinds()) == 3)
    delivering.cancel()
    await asyncio.gather(delivering, return_exceptions=True)
    await play.start()
    await play.deliver()
    assert play.missed() == [("b", "node", NODE_RESTARTED)] * 3
    answered = [kinds for kinds in play.kinds() if "RoundAnswered" in kinds]
    assert len(answered) == 3
    await play.start()
    assert len(play.kinds()) == 3 + 3 + 3


async def test_a_node_that_is_late_does_not_excuse_a_model_that_failed(scene):
    def late(method: str) -> Any:
        play.tick(T0 + 10 * MINUTE)
        return None if method == "tick" else {"value": 0.5}

    def fails(method: str) -> Any:
        late(method)
        raise RuntimeError

    play = await scene(a=lambda method, _: late(method), b=lambda method, _: fails(method))
    play.tick(T0)
    play.asked(received(T0))
    await play.deliver()
    assert sorted(play.missed()) == [
        ("a", "node", f"ABSENT: {NODE_LATE}"),
        ("b", "model", "MODEL_FAILED: FAILED"),
    ]


async def test_the_clock_is_read_while_the_answers_are_judged(scene, monkeypatch):
    """One waits for a thread, the other for the broker, and neither needs the other's result."""
    called, judging = asyncio.Event(), threading.Event()

    class Judged(InferenceOutput):
        @field_validator("value")
        @classmethod
        def _begins(cls, value: float) -> float:
            judging.set()
            return value

    def answers(method: str) -> Any:
        called.set()
        return good(method, None)

    async def read_while_judging() -> int:
        if called.is_set():
            assert await asyncio.to_thread(judging.wait, LIMIT_SECONDS)
        return await read()

    play = await scene(CrunchContract(output_type=Judged), a=lambda method, _: answers(method))
    read = play.tenure._clock.read
    monkeypatch.setattr(play.tenure._clock, "read", read_while_judging)
    play.asked(received(T0))
    await play.deliver()
    assert play.kinds() == [["RoundOpened"], ["PENDING", "RoundAnswered"]]


async def test_a_model_that_got_too_little_time_does_not_pay_for_being_late(scene):
    async def slow(method: str) -> Any:
        if method == "predict":
            await asyncio.Event().wait()

    long = CrunchContract(
        scheduled_predictions=[ScheduledPrediction(scope_key="60s", interval_seconds=3600)],
        deadline_seconds=3600,
    )
    play = await scene(long, a=good, b=lambda method, _: slow(method))
    play.asked(received(T0))
    delivering = asyncio.create_task(play.deliver())
    await play.until(lambda: len(play.kinds()) == 2)
    play.asked(received(T0 + MINUTE))
    await delivering
    ((model, fault, reason),) = play.missed()
    assert (model, fault) == ("b", "node")
    assert reason.startswith("ABSENT: the node left it ")


async def test_one_second_schedules_are_each_asked_once(scene):
    play = await scene(FAST, a=good)
    for number in range(5):
        play.asked(received(second(number)))
        await play.deliver()
    recorded = [kinds for kinds in play.kinds() if "PENDING" in kinds]
    assert (len(recorded), play.missed()) == (5, [])


async def test_methods_and_arguments_follow_the_contract(scene):
    contract = CrunchContract(
        call_method=CallMethod(
            tick="feed_update",
            predict="forecast",
            predict_arguments=("scope_key", "asof_ts", "subject"),
        )
    )
    play = await scene(contract, a=lambda method, _: None if method == "feed_update" else {"value": 0.1})
    play.asked(received(T0))
    await play.deliver()
    assert [(call.method, call.arguments) for call in play.gateway.calls] == [
        ("feed_update", ({},)),
        ("forecast", ("60s", T0, "BTCUSDT")),
    ]


async def test_free_arguments_of_a_schedule_are_passed_by_name(scene):
    contract = CrunchContract(
        scheduled_predictions=[
            ScheduledPrediction(scope_key="60s", params={"steps": [300, 3600], "asset": "BTC"}),
            ScheduledPrediction(scope_key="5m", params={"steps": [60], "asset": "ETH"}),
        ],
        call_method=CallMethod(predict_arguments=("asset", "horizon_seconds", "steps", "params")),
    )
    play = await scene(contract, a=lambda method, _: None if method == "tick" else {"value": 0.1})
    play.asked(received(T0, scopes={"60s": 60, "5m": 300}))
    await play.deliver()
    assert [call.arguments for call in play.gateway.calls if call.method == "predict"] == [
        ("BTC", 60, [300, 3600], {"steps": [300, 3600], "asset": "BTC"}),
        ("ETH", 300, [60], {"steps": [60], "asset": "ETH"}),
    ]


REFUSED_PARAMS = {
    "an argument that no schedule has": ({"steps": [1]}, ("asset",), "neither of"),
    "an argument that one schedule lacks": ({}, ("steps",), "neither of"),
    "a name that is taken": ({"subject": "x"}, ("subject",), "have a meaning already"),
    "no JSON": ({"x": object()}, ("x",), "no plain JSON"),
    "a key that is no text when read back": ({"x": {1: 2}}, ("x",), "plain JSON"),
    "not finite": ({"x": float("nan")}, ("x",), "plain JSON"),
    "too large": ({"x": "y" * 9000}, ("x",), "at most 8192 bytes"),
}


@pytest.mark.parametrize(("params", "arguments", "says"), REFUSED_PARAMS.values(), ids=REFUSED_PARAMS)
def test_free_arguments_are_plain_and_of_known_types(params, arguments, says):
    with pytest.raises(ValueError, match=says):
        CrunchContract(
            scheduled_predictions=[ScheduledPrediction(scope_key="60s", params=params)],
            call_method=CallMethod(predict_arguments=arguments),
        )


async def test_scopes_of_one_model_are_asked_one_after_another(scene):
    busy: set[str] = set()

    async def one_at_a_time(method: str) -> Any:
        assert "a" not in busy
        busy.add("a")
        await asyncio.sleep(0.01)
        busy.discard("a")
        return None if method == "tick" else {"value": 0.1}

    play = await scene(a=lambda method, _: one_at_a_time(method))
    play.asked(received(T0, scopes={"60s": 60, "5m": 300, "1h": 3600}))
    await play.deliver()
    assert play.kinds()[-1] == ["PENDING"] * 3 + ["RoundAnswered"]


@pytest.mark.parametrize(
    ("what", "fault"), [("recovering", "model"), ("unreachable", "node"), ("no orchestrator", "node")]
)
async def test_an_absence_is_at_the_fault_of_the_table(scene, what, fault):
    play = await scene(a=good)
    play.asked(received(T0))
    await play.deliver()
    if what == "recovering":
        play.gateway.recover("a")
        await play.start()  # a new tenure knows it too
    elif what == "unreachable":
        play.gateway.join("a", lambda _method, _arguments: Outcome.ABSENT)
    else:
        play.gateway.recover("a")
        play.gateway.connected = False
    play.asked(received(T0 + MINUTE))
    await play.deliver()
    assert [(model, of) for model, of, _ in play.missed()] == [("a", fault)]


async def test_a_ban_is_an_event_and_takes_the_model_off_the_next_roster(scene):
    play = await scene(a=good, b=good)
    play.asked(received(T0))
    await play.deliver()
    play.command(ev.BanModel(id="c1", at=T0, data=ev.BanModelData(model_id="b", reason="copied")))
    play.command(ev.BanModel(id="c2", at=T0, data=ev.BanModelData(model_id="b", reason="again")))
    play.asked(received(T0 + MINUTE))
    await play.deliver()
    await play.start()  # a decided ban is not decided again
    play.command(ev.ReadmitModel(id="c3", at=T0, data=ev.ReadmitModelData(model_id="b", reason="cleared")))
    play.asked(received(T0 + 2 * MINUTE))
    await play.deliver()
    rosters = [
        [entry.model_id for entry in event.data.roster]
        for decision in play.decisions()
        for event in decision
        if isinstance(event, ev.RoundOpened)
    ]
    assert rosters == [["a", "b"], ["a"], ["a", "b"]]
    kinds_of_bans = [kinds for kinds in play.kinds("models") if "ModelSeen" not in kinds]
    assert kinds_of_bans == [["ModelBanned"], [], ["ModelReadmitted"]]


async def test_a_checkpoints_command_changes_nothing_here(scene):
    play = await scene(a=good)
    asked = ev.AdvanceCheckpointData(checkpoint_id="c", status="PAID", tx_hash="")
    play.command(ev.AdvanceCheckpoint(id="c1", at=T0, data=asked))
    play.asked(received(T0))
    await play.deliver()
    assert [kinds for kinds in play.kinds("models") if "ModelSeen" not in kinds] == [[]]


async def test_a_good_tick_does_not_hide_a_model_that_fails_in_every_predict(scene):
    def failing(method: str, _arguments: Any) -> Any:
        return None if method == "tick" else {"value": float("nan")}

    play = await scene(CrunchContract(model_strikes_max=3), a=good, b=failing)
    for number in range(4):
        play.asked(received(T0 + number * MINUTE))
        await play.deliver()
    ((model_id, code, reason),) = play.gateway.reports
    assert (model_id, code) == ("b", "MULTIPLE_FAILED")
    assert (
        reason == "3 rounds in a row without a valid prediction; the last: BAD_OUTPUT: .value is not finite"
    )
    await play.until(lambda: any("ModelFailureReported" in kinds for kinds in play.kinds("models")))


async def test_a_model_that_the_orchestrator_no_longer_lists_leaves_after_a_while(scene):
    play = await scene(a=good, b=good)
    play.asked(received(T0))
    await play.deliver()
    play.gateway.announced.discard("b")
    play.asked(received(T0 + MINUTE))
    await play.deliver()
    play.now += departed_models.GONE_SECONDS + 1
    play.asked(received(T0 + 2 * MINUTE))
    await play.deliver()
    left = [e for decision in play.decisions("models") for e in decision if isinstance(e, ev.ModelLeft)]
    assert [(event.data.model_id, event.data.reason) for event in left] == [("b", departed_models.GONE)]
    rosters = [e.data.roster for d in play.decisions() for e in d if isinstance(e, ev.RoundOpened)]
    assert [len(roster) for roster in rosters] == [2, 2, 1]


async def test_without_an_orchestrator_no_model_is_taken_for_gone(scene):
    play = await scene(a=good)
    play.asked(received(T0))
    await play.deliver()
    play.gateway.announced.clear()
    play.gateway.connected = False
    play.now += 10 * departed_models.GONE_SECONDS
    play.asked(received(T0 + MINUTE))
    await play.deliver()
    assert [kinds for kinds in play.kinds("models") if "ModelLeft" in kinds] == []


async def test_an_answer_that_comes_while_a_part_is_recorded_is_not_lost():
    gate = asyncio.Event()

    async def slow(method: str) -> Any:
        await gate.wait()
        return None if method == "tick" else {"value": -0.5}

    gateway = FakeGateway({"a": good, "b": lambda method, _: slow(method)})
    asking = Asking(Askers(gateway), ["a", "b"], received(T0).data, CrunchContract(), 30.0, 0.0)
    assert set(await asking.next(never)) == {"a"}
    gate.set()
    await asyncio.sleep(0.05)  # the shell records the part meanwhile
    assert not asking.over
    assert set(await asking.next(never)) == {"b"}
    assert asking.over


async def never() -> bool:
    return False


class Time:
    """Seconds that pass at the test's will."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


FAIR_SECONDS, BUDGET_SECONDS = 4.0, 8.0


@pytest.mark.parametrize(
    ("passed", "later", "fault"),
    [
        (
            0.5,
            1.0,
            "node",
        ),  # started late: the call it is busy with had half a second, and one second more since
        (0.5, 3.6, "model"),  # by now that call has had a fair time
        (BUDGET_SECONDS, 0.0, "model"),
    ],
)
async def test_a_busy_model_pays_after_the_call_it_is_busy_with_had_a_fair_time(passed, later, fault):
    clock, answer = Time(), Outcome.DEADLINE

    async def busy(method: str, _arguments: Any) -> Any:
        if answer is Outcome.DEADLINE:
            clock.now += passed
        return answer

    askers = Askers(FakeGateway({"a": busy}), clock)
    askers.turns["a"].cut_off_at = None
    first = Asking(askers, ["a"], received(T0).data, CrunchContract(), passed, FAIR_SECONDS)
    (cut_off,) = (await first.next(never))["a"].values()
    assert cut_off.fault == ("model" if passed > FAIR_SECONDS else "node")
    clock.now += later
    answer = Outcome.BUSY
    second = Asking(askers, ["a"], received(T0 + MINUTE).data, CrunchContract(), BUDGET_SECONDS, FAIR_SECONDS)
    (reply,) = (await second.next(never))["a"].values()
    assert (reply.fault, reply.outcome) == (fault, Outcome.BUSY if fault == "model" else Outcome.ABSENT)
    await askers.close()


async def test_a_model_still_busy_with_a_call_of_a_dead_owner_is_not_charged():
    clock = Time()
    askers = Askers(FakeGateway({"a": lambda *_: Outcome.BUSY}), clock)
    for now, fault in ((1.0, "node"), (FAIR_SECONDS + 1, "model")):
        clock.now = now
        asking = Asking(askers, ["a"], received(T0).data, CrunchContract(), BUDGET_SECONDS, FAIR_SECONDS)
        (reply,) = (await asking.next(never))["a"].values()
        assert reply.fault == fault
    await askers.close()


@pytest.mark.parametrize(
    ("stalled_seconds", "budget_seconds", "fault"),
    [
        (0.0, 3.0, "model"),
        (0.6, 0.8, "node"),
    ],  # a slow machine delays the node itself, by up to a second
)
async def test_time_in_which_the_node_itself_was_delayed_is_not_charged_to_the_model(
    stalled_seconds, budget_seconds, fault
):
    async def slow(_method: str, _arguments: Any) -> Any:
        time.sleep(stalled_seconds)  # the whole process pauses
        await asyncio.Event().wait()

    askers = Askers(FakeGateway({"a": slow}))
    asking = Asking(askers, ["a"], received(T0).data, CrunchContract(), budget_seconds, 0.3)
    (reply,) = (await asking.next(never))["a"].values()
    assert reply.fault == fault
    await askers.close()


async def test_a_bug_of_ours_is_raised():
    class Broken(FakeGateway):
        async def call(self, *_: Any) -> Any:
            raise ZeroDivisionError

    asking = Asking(Askers(Broken()), ["a"], received(T0).data, CrunchContract(), 30.0, 0.0)
    with pytest.raises(ZeroDivisionError):
        await asking.next(never)


def test_the_inputs_belong_to_the_contract_of_the_scene():
    assert received(T0).data.contract_hash == HASH
