"""Explanations in a separate process: the same answers, and a contract that hangs or dies blocks no later question."""

from __future__ import annotations

import sys

import pytest
from tests.explained import MemoryAppends, fold
from tests.streams.build import MINUTE, T0
from tests.waiting import LIMIT_SECONDS

from coordinator.infra.contracts.archive import ArchiveFolder, pack
from coordinator.infra.contracts.loading import contract_hash, load_contract
from coordinator.infra.contracts.meaning import scoring_hash
from coordinator.infra.explaining import Explaining
from coordinator.projections.explaining.explainer import Explainer
from coordinator.streams.audit.explain.recomputing import explain_again
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions, candles
from coordinator.streams.settings import Settings

RULES = """
import os
from pathlib import Path
from coordinator.streams.contract import CrunchContract

def score(prediction, truth):
    print("not an answer")
    if Path(TOLD).exists():
        {does}
    return {{"value": prediction.value}}

CONTRACT = CrunchContract(score_prediction=score, crunch_pubkey="1" * 32)
"""


@pytest.fixture
def explainers(tmp_path, monkeypatch):
    """`made(does)` -> (an explainer in a child, one in this process, the read models, a prediction's id)."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    closing = []

    def make(does: str, name: str, seconds_max: float = LIMIT_SECONDS):
        told = tmp_path / "told"
        (tmp_path / f"{name}.py").write_text(f"TOLD = {str(told)!r}\n" + RULES.format(does=does))
        contract = load_contract(f"{name}:CONTRACT")
        key = contract_hash(contract)
        settings = Settings(data_dir=tmp_path / "data", contract=f"{name}:CONTRACT", feed_source="generated")
        settings.data_dir.mkdir()
        ArchiveFolder(settings.data_dir).put(key, pack(contract, settings.contract))
        engine = Engine({key: contract}.__getitem__, Functions({"one": lambda data, call: {"value": 0.25}}))
        engine.configure(make_terms(contract, key, settings, 0, scoring_hash=scoring_hash(contract)))
        for record in candles([100 + n % 7 for n in range(8)], start_ms=T0):
            engine.feed(record.at, [record])
        told.write_text("")
        read, appends = fold(engine.log, tmp_path / "stores"), MemoryAppends(engine.log)
        child = Explaining(settings, seconds_max)
        closing.extend((child, read))
        here = Explainer(appends, lambda facts: explain_again(facts, {key: contract}.__getitem__))
        return Explainer(appends, child), here, read, f"inp/BTCUSDT/{T0 + MINUTE}/60s/one", told

    yield make
    for models in closing:
        models.close()


def test_a_child_explains_like_this_process(explainers):
    child, here, read, prediction, told = explainers("pass", "calm_rules_explained")
    told.unlink()
    assert child.prediction(read, prediction) == here.prediction(read, prediction)
    assert child.prediction(read, prediction).agrees is True


@pytest.mark.parametrize(
    ("does", "says", "seconds_max"),
    [
        ("while True: pass", "did not end within 4 s", 4.0),
        ("os._exit(3)", "ended the process that ran it", LIMIT_SECONDS),
    ],
    ids=["hangs", "dies"],
)
def test_a_contract_that_hangs_or_dies_is_reported_and_blocks_no_later_question(
    explainers, does, says, seconds_max
):
    child, _, read, prediction, told = explainers(does, f"bad_rules_{says[:3]}", seconds_max)
    explanation = child.prediction(read, prediction)
    score = next(step for step in explanation.steps if step.name == "score")
    assert f"not computed again: the contract's code {says}" in score.note
    assert {value.name: value.exact for value in score.result}["value"] == "250000000"
    told.unlink()
    assert child.prediction(read, prediction).agrees is True
