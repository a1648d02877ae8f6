"""Answers as large as a contract may allow, over real gRPC: recorded and scored, or refused by their model's fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel
from tests.given import given
from tests.infra.models.stage import OpenStage, model_source, write_model
from tests.predict_scene import Scene
from tests.streams.build import HASH, T0, received, resolved, shelf

from coordinator.infra.models.host.process import Limits
from coordinator.streams import events as ev
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.log.envelope import encode_event
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.settings import Settings

LARGE = "return {'value': 0.5, 'path': [0.1234567] * %d}"
"""Ten bytes an element when recorded, eleven on the wire."""
MODELS = {"fits": 390_000, "exceeds": 410_000, "floods": 900_000}


class Paths(BaseModel):
    value: float
    path: list[float]


def score_round(answers: Any, truth: Any, context: Any) -> Any:
    return [None if output is None else output.value * len(output.path) for output in answers.outputs]


async def test_an_answer_of_nearly_4_mb_is_recorded_and_scored_and_a_larger_one_is_its_models_fault(
    open_stage: OpenStage, tmp_path: Path
):
    contract = CrunchContract(output_type=Paths, output_max_bytes=4_000_000, score_round=score_round)
    for name, count in MODELS.items():
        write_model(tmp_path / "models", name, model_source(LARGE % count))
    stage = await open_stage(tmp_path / "models", Limits(call_limit_seconds=30.0))
    scene = Scene(contract, stage.gateway)
    await scene.start()
    assert scene.tenure is not None
    roster = scene.tenure.models.models.roster
    await scene.until(lambda: {model.model_id for model in roster()} == set(MODELS))
    asked = received(T0)
    payload = msgspec.Raw(b'{"symbol": "BTCUSDT", "asof_ts": 0, "candles": []}')
    data = msgspec.structs.replace(asked.data, deadline_at=T0 + 30_000, payload=payload)
    scene.tick(T0)
    scene.asked(msgspec.structs.replace(asked, data=data))
    await scene.deliver()
    await scene.tenure.close()

    (missed, answered) = (scene.missed(), [entry for decision in scene.answers() for _, entry in decision])
    sizes = {
        entry.model_id: memoryview(entry.output).nbytes for entry in answered if entry.status == "PENDING"
    }
    assert sizes.keys() == {"fits"}
    assert 3_900_000 < sizes["fits"] < 3_910_000
    assert {model_id: (fault, reason.split(":")[0]) for model_id, fault, reason in missed} == {
        "exceeds": ("model", "BAD_OUTPUT"),
        "floods": ("model", "TOO_BIG"),
    }

    terms = make_terms(contract, HASH, Settings(feed_subjects=("BTCUSDT",)), 0)
    scores = given(ScoreStage(shelf(contract)))
    scores.when("inputs", ev.CrunchConfigured(id="terms", at=0, data=terms))
    for decision in scene.decisions():
        scores.when("predictions", *decision)
    scores.when("inputs", received(T0))
    scores.when("inputs", resolved(T0))
    (scored,) = scores.all(ev.RoundScored)
    units = {row.model_id: row.units.get("value") for row in scored.data.entries()}
    assert units == {"exceeds": None, "fits": 195_000 * 10**9, "floods": None}
    # The record of its scores is small: only one record of the log contains the answer.
    assert len(encode_event(scored)) < 1000
