"""Tests of every gateway: the fake behaves like the real one where a stage can see it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import FakeGateway, InProcessGateway
from tests.infra.models.stage import PREDICT, OpenStage, gather_notices, model_source, write_model

from coordinator.streams.ports import ModelGateway, ModelNotice, Outcome

ASK = ("BTCUSDT", 60, 15)
NAMES = ("good", "nan", "raises", "slow")


async def slow() -> dict[str, float]:
    import asyncio

    await asyncio.sleep(1.2)
    return {"value": 0.1}


def raises() -> None:
    raise RuntimeError


FAKES = {
    "good": lambda: {"value": 0.25},
    "nan": lambda: {"value": math.nan},
    "raises": raises,
    "slow": slow,
}


def scripted(name: str) -> Any:
    return lambda method, _arguments: FAKES[name]() if method == "predict" else None


@pytest.fixture(params=["fake", "real"])
async def gateway(
    request: pytest.FixtureRequest, tmp_path: Path, open_stage: OpenStage
) -> tuple[ModelGateway, list[ModelNotice]]:
    """A gateway with the four models, and the notices until all can be called."""
    if request.param == "fake":
        fake = FakeGateway({name: scripted(name) for name in NAMES})
        await fake.start()
        return fake, fake.notices()
    for name in NAMES:
        write_model(tmp_path / "models", name, model_source(PREDICT[name]))
    stage = await open_stage(tmp_path / "models")
    return stage.gateway, await gather_notices(stage.gateway, lambda all_: len(all_) >= len(NAMES))


async def test_every_gateway_keeps_the_contract_of_the_port(gateway: tuple[ModelGateway, list[ModelNotice]]):
    models, notices = gateway
    assert [notice.change for notice in notices] == ["seen"] * 4
    assert {notice.info.model_id for notice in notices} == set(NAMES)
    assert all(notice.info.model_name and notice.info.cruncher_id for notice in notices)
    assert models.notices() == []
    assert await models.call("predict", ASK, 1.0, []) == {}

    ticks = await models.call("tick", [{"symbol": "BTCUSDT"}], 1.0, NAMES)
    assert {(reply.outcome, reply.output) for reply in ticks.values()} == {(Outcome.OK, None)}

    replies = await models.call("predict", ASK, 0.6, [*NAMES, "nobody", "good"], 65_536)
    assert {model_id: reply.outcome for model_id, reply in replies.items()} == {
        "good": Outcome.OK,
        "nan": Outcome.OK,
        "raises": Outcome.MODEL_FAILED,
        "slow": Outcome.DEADLINE,
        "nobody": Outcome.ABSENT,
    }
    assert replies["good"].output == {"value": 0.25}
    assert math.isnan(replies["nan"].output["value"])
    assert all(replies[name].output is None for name in ("raises", "slow", "nobody"))
    deployments = {notice.info.model_id: notice.info.deployment_id for notice in notices}
    assert {name: replies[name].deployment_id for name in NAMES} == deployments

    late = await models.call("predict", ASK, 0.0, ["good", "nobody"])
    assert [reply.outcome for reply in late.values()] == [Outcome.DEADLINE, Outcome.ABSENT]


async def test_the_fakes_notices_are_the_tests_to_send():
    fake = FakeGateway({"a": lambda _method, _arguments: Outcome.CRASHED})
    fake.recover("a")
    assert (await fake.call("predict", ASK, 1.0, ["a"]))["a"].outcome is Outcome.ABSENT
    fake.join("a", lambda _method, _arguments: Outcome.CRASHED)
    assert (await fake.call("predict", ASK, 1.0, ["a"]))["a"].outcome is Outcome.CRASHED
    fake.fail("a", "MULTIPLE_FAILED")
    fake.leave("a")
    assert [notice.change for notice in fake.notices()] == ["seen", "recovering", "seen", "failed", "left"]
    assert [call.model_ids for call in fake.calls] == [("a",), ("a",)]


async def test_the_bench_gateway_answers_for_all_its_models():
    bench = InProcessGateway(3)
    assert len(bench.notices()) == 3
    assert bench.notices() == []
    replies = await bench.call("predict", ASK, 1.0, [*bench.model_ids, "nobody"])
    assert [reply.outcome for reply in replies.values()] == [Outcome.OK] * 3 + [Outcome.ABSENT]
