"""One model's fault stays its own: the predict worker with real models over real gRPC, one of them misbehaving.

In each case the good models play some rounds alone, then the bad one joins and they go on. Every model of every round's
roster has exactly one final event per scope, the bad one's events say what is wrong and whose fault it is, and no answer
of a good one waits for the bad one.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter as Counts
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from tests.infra.models.stage import (
    CRUNCH_ID,
    HEAD,
    PREDICT,
    OpenStage,
    Stage,
    model_source,
    write_model,
)
from tests.predict_scene import Scene
from tests.streams.build import MINUTE, T0, received
from websockets.asyncio.server import ServerConnection, serve

from coordinator.infra.models.gateway import RunnerClientGateway
from coordinator.infra.models.host.host import ModelHost
from coordinator.infra.models.host.model_folder import model_alone
from coordinator.infra.models.host.process import Limits
from coordinator.streams import events as ev
from coordinator.streams.contract import CrunchContract

ROUNDS = 3
GOOD = ("good1", "good2", "good3")
BUDGET_MS = 2500
"""The time of a round with the bad model: short, because a silent model is waited for, and long enough for a good one
on a busy machine.
"""
SCOPES = {"60s": 60, "5m": 300}
LIMITS = Limits(call_limit_seconds=6.0, restarts_max=100, start_limit_seconds=60.0)

OpenPlay = Callable[..., Awaitable[tuple[Stage, Scene]]]


@pytest.fixture
async def open_play(tmp_path: Path, open_stage: OpenStage) -> AsyncIterator[OpenPlay]:
    scenes: list[Scene] = []

    async def open_(*good: str, contract: CrunchContract | None = None) -> tuple[Stage, Scene]:
        for name in good:
            write_model(tmp_path / "models", name, model_source(PREDICT["good"]))
        stage = await open_stage(tmp_path / "models", LIMITS)
        scene = Scene(contract, stage.gateway)
        scenes.append(scene)
        await scene.start()
        await scene.until(lambda: set(good) <= set(on_roster(scene)))
        return stage, scene

    yield open_
    for scene in scenes:
        assert scene.tenure is not None
        await scene.tenure.close()


def on_roster(scene: Scene) -> list[str]:
    assert scene.tenure is not None
    return [entry.model_id for entry in scene.tenure.models.models.roster()]


async def play(scene: Scene, first: int, count: int = ROUNDS, budget_ms: int = BUDGET_MS) -> None:
    """Rounds first .. first + count - 1, each with this much time for its calls."""
    for number in range(first, first + count):
        point = T0 + number * MINUTE
        input_received = received(point, scopes=SCOPES)
        payload = msgspec.Raw(
            msgspec.json.encode({"symbol": input_received.data.subject, "asof_ts": point, "candles": []})
        )
        data = msgspec.structs.replace(input_received.data, deadline_at=point + budget_ms, payload=payload)
        scene.tick(point)
        scene.asked(msgspec.structs.replace(input_received, data=data))
        await scene.deliver()


def check_counts(scene: Scene) -> None:
    """Every roster entry has one final event per scope of its round, and nothing else has any."""
    wanted: Counts[tuple[str, str, str]] = Counts()
    counts: Counts[tuple[str, str, str]] = Counts()
    for event in (event for decision in scene.decisions() for event in decision):
        if isinstance(event, ev.RoundOpened):
            wanted.update(
                (event.data.input_id, key, entry.model_id)
                for key in event.data.scope_keys
                for entry in event.data.roster
            )
    for event, entry in (answer for decision in scene.answers() for answer in decision):
        counts[event.data.input_id, event.data.scope_key, entry.model_id] += 1
    assert counts == wanted, scene.missed()[:4]
    assert set(counts.values()) <= {1}


def recorded(scene: Scene, model_id: str) -> int:
    return sum(
        entry.status == "PENDING" and entry.model_id == model_id
        for decision in scene.answers()
        for _, entry in decision
    )


def final_in_order(scene: Scene) -> dict[str, list[str]]:
    """Round -> its models in the order of their final events in the log."""
    model_ids: dict[str, list[str]] = {}
    for event, entry in (answer for decision in scene.answers() for answer in decision):
        model_ids.setdefault(event.data.input_id, []).append(entry.model_id)
    return model_ids


ANY = ""
BAD = {
    # source of main.py -> what its events say: the fault, and how the reason begins
    "raises in predict": (model_source("raise RuntimeError('no')"), "model", "MODEL_FAILED"),
    "raises in __init__": (
        model_source(PREDICT["good"]) + "    def __init__(self):\n        raise ValueError\n",
        None,
        "MULTIPLE_FAILED",
    ),
    "no subclass": ("x = 1\n", None, "BAD_IMPLEMENTATION"),
    "two subclasses": (
        model_source(PREDICT["good"]) + "class Other(TrackerBase):\n    pass\n",
        None,
        "BAD_IMPLEMENTATION",
    ),
    "syntax error": ("def (:\n", None, "BAD_IMPLEMENTATION"),
    "missing method": (HEAD + "class Model(TrackerBase):\n    predict = None\n", "model", ANY),
    "hangs for ever": (model_source("import time; time.sleep(1e6)"), "model", ANY),
    "slow past the deadline": (
        model_source("import time; time.sleep(4); return {'value': 0.1}"),
        "model",
        ANY,
    ),
    "crashes the process": (model_source(PREDICT["crashes"]), "model", ANY),
    "MemoryError": (model_source(PREDICT["hungry"]), "model", "MODEL_FAILED"),
    "returns None": (model_source("return None"), "model", "BAD_OUTPUT: a NoneType"),
    "returns a tuple": (model_source(PREDICT["tuple"]), "model", "MODEL_FAILED"),
    "wrong keys": (model_source("return {'price': 1.0}"), "model", "BAD_OUTPUT: none of the fields"),
    "NaN": (model_source(PREDICT["nan"]), "model", "BAD_OUTPUT: .value is not finite"),
    "infinity": (model_source("return {'value': float('inf')}"), "model", "BAD_OUTPUT: .value is not finite"),
    "a 9 MB answer": (model_source(PREDICT["large"]), "model", "TOO_BIG"),
    "above output_max_bytes": (
        model_source("return {'value': 0.1, 'more': 'x' * 100_000}"),
        "model",
        "BAD_OUTPUT",
    ),
}


SILENT = (BAD["hangs for ever"][0], BAD["slow past the deadline"][0])


@pytest.mark.parametrize(("source", "fault", "reason"), BAD.values(), ids=BAD)
async def test_one_models_fault_affects_no_other(
    open_play: OpenPlay, tmp_path: Path, source: str, fault: str | None, reason: str
):
    class Wide(CrunchContract.model_fields["output_type"].default):  # type: ignore[misc]
        more: str = ""

    stage, scene = await open_play(
        *GOOD, contract=CrunchContract(output_type=Wide, deadline_seconds=BUDGET_MS / 1000)
    )
    await play(scene, 0)
    bad = model_alone(write_model(tmp_path / "models", "bad", source))
    await stage.host.add(bad)
    assert scene.tenure is not None
    await scene.until(lambda: "bad" in scene.tenure.models.models.seen)
    await play(scene, ROUNDS)

    check_counts(scene)
    assert [recorded(scene, name) for name in GOOD] == [2 * ROUNDS * len(SCOPES)] * 3
    if fault is None:  # it could never be called, so it was reported and stopped
        await scene.until(lambda: "bad" not in on_roster(scene))
        reported = [e for d in scene.decisions("models") for e in d if isinstance(e, ev.ModelFailureReported)]
        assert [event.data.code for event in reported] == [reason]
        assert all(event.data.reason for event in reported)
    else:
        failures = [failure for failure in scene.missed() if failure[0] == "bad"]
        assert failures
        assert {failure[1] for failure in failures} == {fault}, failures
        assert any(failure[2].startswith(reason) for failure in failures), failures
    if source in SILENT:  # later it is still in a call, and this is answered at once
        first = next(order for order in final_in_order(scene).values() if "bad" in order)
        assert first[-len(SCOPES) :] == ["bad"] * len(SCOPES), first


@pytest.mark.parametrize("count", [12, pytest.param(50, marks=pytest.mark.slow)])
async def test_many_models_at_once(open_play: OpenPlay, count: int):
    names = [f"m{number:02}" for number in range(count)]
    _, scene = await open_play(*names)
    await play(scene, 0, budget_ms=60_000)
    check_counts(scene)
    assert {recorded(scene, name) for name in names} == {ROUNDS * len(SCOPES)}


async def test_a_model_that_joins_takes_part_from_the_next_round_on(open_play: OpenPlay, tmp_path: Path):
    stage, scene = await open_play(*GOOD)
    await play(scene, 0, 2, 30_000)
    await stage.host.add(model_alone(write_model(tmp_path / "models", "late", model_source(PREDICT["good"]))))
    await scene.until(lambda: "late" in on_roster(scene))
    await play(scene, 2, 2, 30_000)
    check_counts(scene)
    assert recorded(scene, "late") == 2 * len(SCOPES), scene.missed()[:3]


async def test_a_rename_and_a_replacement_lose_no_round(open_play: OpenPlay, tmp_path: Path):
    _, scene = await open_play(*GOOD)
    assert scene.tenure is not None
    await play(scene, 0, 1, 30_000)
    (tmp_path / "models/models.yaml").write_text("models: [{folder: good1, model_name: renamed}]")
    seen = scene.tenure.models.models.seen
    await scene.until(lambda: seen["good1"].data.model_name == "renamed")
    before = seen["good2"].data.deployment_id
    await play(scene, 1, 1, 30_000)
    (tmp_path / "models/good2/main.py").write_text(model_source("return {'value': 0.75}"))
    await scene.until(lambda: seen["good2"].data.deployment_id != before)
    await play(scene, 2, 1, 30_000)
    check_counts(scene)
    assert scene.missed() == []
    # A round is recorded in parts: the latest answer of each model, whichever part contains it.
    newest = {
        entry.model_id: entry for part in scene.answers() for _, entry in part if entry.status == "PENDING"
    }
    assert msgspec.json.decode(newest["good2"].output)["value"] == 0.75
    assert newest["good2"].deployment_id != before


@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.slow)])
async def test_rounds_go_on_while_the_orchestrator_is_away(open_play: OpenPlay, seconds: int):
    """The models still run. Only the websocket is gone, as when an orchestrator restarts."""
    stage, scene = await open_play(*GOOD)
    await play(scene, 0, 2, 30_000)
    server = stage.host._server
    assert server is not None
    server.close()
    await server.wait_closed()
    began = time.monotonic()
    await scene.until(lambda: not stage.gateway.connected)
    await play(scene, 2, 2, 30_000)
    await asyncio.sleep(max(0.0, seconds - (time.monotonic() - began)))
    stage.host._server = await serve(stage.host._serve_coordinator, "127.0.0.1", stage.port)
    await scene.until(lambda: stage.gateway.connected)
    await play(scene, 4, 2, 30_000)
    check_counts(scene)
    assert scene.missed() == []
    assert [kinds for kinds in scene.kinds("models") if "ModelLeft" in kinds] == []


async def test_without_an_orchestrator_at_the_start_the_node_waits_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    from coordinator.infra.models import gateway as model_gateway

    monkeypatch.setattr(model_gateway, "TRIES_PER_WARNING", 1)
    write_model(tmp_path / "models", "good", model_source(PREDICT["good"]))
    first = ModelHost(tmp_path / "models", CRUNCH_ID, 0, tmp_path / "logs")
    port = await first.start()
    await first.stop()
    gateway = RunnerClientGateway("127.0.0.1", port, CRUNCH_ID)
    scene = Scene(gateway=gateway)
    await gateway.start()
    await scene.start()
    host = ModelHost(tmp_path / "models", CRUNCH_ID, port, tmp_path / "logs")
    try:
        await play(scene, 0, 2)
        await scene.until(lambda: f"no model host answers at 127.0.0.1:{port} yet" in caplog.text)
        await host.start()
        await scene.until(lambda: on_roster(scene) == ["good"])
        await play(scene, 2, 1, 30_000)
        check_counts(scene)
        assert scene.missed() == []
        assert recorded(scene, "good") == len(SCOPES)
    finally:
        assert scene.tenure is not None
        await scene.tenure.close()
        await gateway.stop()
        await host.stop()


async def test_a_dead_model_in_the_first_list_delays_no_other(open_play: OpenPlay):
    stage, _ = await open_play("good1")
    alive = stage.host.models["good1"].on_wire()
    dead = alive | {"model_id": "dead", "deployment_id": "dead_1", "port": "1"}

    async def list_both(connection: ServerConnection) -> None:
        await connection.send(msgspec.json.encode({"event": "init", "data": [dead, alive]}).decode())
        await connection.wait_closed()

    async with serve(list_both, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        gateway = RunnerClientGateway("127.0.0.1", port, CRUNCH_ID)
        scene = Scene(gateway=gateway)
        await gateway.start()
        await scene.start()
        try:
            await scene.until(
                lambda: on_roster(scene) == ["good1"]
            )  # the library alone would delay it for 80 s
            await play(scene, 0, 2, 30_000)
            check_counts(scene)
            assert recorded(scene, "good1") == 2 * len(SCOPES)
        finally:
            assert scene.tenure is not None
            await scene.tenure.close()
            await gateway.stop()


async def test_one_models_authentication_error_does_not_fail_the_round(open_play: OpenPlay):
    from model_runner_client.security.wallet_gelegation import AuthError

    async def refuse(*_: object, **__: object) -> None:
        raise AuthError("wrong wallet")

    stage, scene = await open_play(*GOOD)
    stage.gateway._runner.model_cluster.models_run["good1"].grpc_stub = SimpleNamespace(Call=refuse)
    await play(scene, 0, 2)
    check_counts(scene)
    assert [recorded(scene, name) for name in GOOD[1:]] == [2 * len(SCOPES)] * 2
    assert {model_id for model_id, _, _ in scene.missed()} <= {"good1"}
    assert recorded(scene, "good1") == 0


async def test_redeploying_during_a_call_is_the_models_own_absence(open_play: OpenPlay, tmp_path: Path):
    """Otherwise an edit in a difficult minute would be a way to avoid a charge."""
    _, scene = await open_play("good1", "good2")
    assert scene.tenure is not None
    seen, main = scene.tenure.models.models.seen, tmp_path / "models/good2/main.py"
    before = seen["good2"].data.deployment_id
    main.write_text(model_source("import time; time.sleep(20); return 1"))
    await scene.until(lambda: seen["good2"].data.deployment_id != before)
    playing = asyncio.create_task(play(scene, 0, 1, 60_000))
    await scene.until(lambda: any("PENDING" in kinds for kinds in scene.kinds()))
    main.write_text(model_source("return 1  # a comment"))
    await playing
    check_counts(scene)
    assert {model_id for model_id, _, _ in scene.missed()} == {"good2"}
    assert {fault for _, fault, _ in scene.missed()} == {"model"}, scene.missed()


async def test_answers_that_expand_enormously_cost_the_node_nothing(open_play: OpenPlay, tmp_path: Path):
    """Those of the attack: 310 kB of JSON cost a gigabyte, and 2.8 MB killed the worker."""
    bombs = {
        "paths": "return {'value': 0.1, 'k' * 400_000: [0] * 800_000}",
        "lists": "return {'value': 0.1, 'x': [[]] * 300_000}",
        "ticks": "return {'value': 0.1}\n    def tick(self, data): return [[]] * 900_000",
        "deep": "return {'value': 0.1, 'x': __import__('json').loads('[' * 900 + ']' * 900)}",
        "digits": "return {'value': 10 ** 4000}",
    }
    stage, scene = await open_play("good1")
    for name, source in bombs.items():
        await stage.host.add(model_alone(write_model(tmp_path / "models", name, model_source(source))))
    await scene.until(lambda: set(bombs) <= set(on_roster(scene)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await play(scene, 0, 2, 30_000)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kb < 100_000
    check_counts(scene)
    assert recorded(scene, "good1") == recorded(scene, "ticks") == 2 * len(SCOPES)
    missed = {model_id: (fault, reason[:10]) for model_id, fault, reason in scene.missed()}
    assert missed == {
        "paths": ("model", "TOO_BIG: 2"),
        "lists": ("model", "TOO_BIG: 1"),
        "deep": ("model", "BAD_OUTPUT"),
        "digits": ("model", "BAD_OUTPUT"),
    }
