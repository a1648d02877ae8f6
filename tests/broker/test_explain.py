"""Explanations from a real Kafka: the API and the command agree, every step agrees, and nothing hidden is shown."""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace

import httpx
import pytest
from tests import forked
from tests.broker.report_node import started
from tests.loopback import NO_CERTIFICATES
from tests.streams.build import MINUTE, T0
from tests.waiting import LIMIT_SECONDS

from coordinator.infra.contracts.archive import ArchiveFolder, pack
from coordinator.infra.contracts.loading import contract_hash, load_contract, load_contracts
from coordinator.infra.contracts.meaning import scoring_hash
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions
from coordinator.streams.ports import Subscription
from coordinator.streams.settings import Settings, environment
from coordinator.streams.sources.generated import generated_candles

pytestmark = pytest.mark.broker
OF = Subscription("generated", "BTCUSDT", "candle", "1m")
ROUNDS = 150


def played(crunch_id, shelf=None, rounds=ROUNDS, more_models=()):
    """The log of a node of the default contract, or of another one, and two models, by the engine's own stages."""
    shelf = shelf or load_contracts(Settings().contract, kind="candle")
    settings = Settings(
        feed_source="generated", snapshot_interval_seconds=600, checkpoint_interval_seconds=7200
    )
    models = Functions(
        {"flat": lambda data, call: {"value": 0.1}, "bold": lambda data, call: {"value": -0.875}}
        | dict(more_models)
    )
    engine = Engine(shelf, models, crunch_id=crunch_id)
    current = shelf.current
    engine.configure(make_terms(current, shelf.current_hash, settings, 0, scoring_hash=scoring_hash(current)))
    for candle in generated_candles(OF, T0, T0 + (rounds - 1) * MINUTE, seed=3):
        engine.feed(candle.at, [candle])
    # A topic on a broker has its own birth record.
    return SimpleNamespace(records={topic: records[1:] for topic, records in engine.log.topics.items()})


def explain(node, *words, code=0):
    env = {**os.environ, **environment(node.settings)}
    done = forked.run(["explain", *words], env=env, cwd=node.settings.data_dir)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_the_command_and_the_api_explain_alike_from_a_real_log(kafka_bootstrap, crunch_id, tmp_path):
    node = started(kafka_bootstrap, crunch_id, tmp_path, played(crunch_id))

    def ask(path, **params):
        answer = httpx.get(
            f"{node.url}/reports/{path}", params=params or None, timeout=LIMIT_SECONDS, verify=NO_CERTIFICATES
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    try:
        rows = ask("predictions", projectIds="bold", limit=1000)
        scored = next(row["id"] for row in rows if row["status"] == "SCORED")
        hidden = next(row["id"] for row in rows if row["output_hidden"])
        checkpoint = ask("checkpoints")[0]["id"]
        for words, path in (
            ((scored,), f"predictions/{scored}"),
            ((checkpoint, "bold"), f"checkpoints/{checkpoint}/bold"),
            (("bold", str(T0 + 30 * MINUTE)), f"snapshots/bold/{T0 + 30 * MINUTE}"),
            (("board", "bold"), "board/bold"),
            (("copies", "bold", "--other", "flat"), "copies/bold?other=flat"),
        ):
            told = ask(f"explain/{path}")
            assert told["agrees"] is True, told
            assert json.loads(explain(node, *words, "--json")) == told
            text = explain(node, *words)
            assert told["title"].split()[0] in text
            assert "Every step that was computed again gives the recorded figure." in text
        # What others could still copy is told on no way; and what was hidden then, not as of then.
        assert "-0.875" in json.dumps(ask(f"explain/predictions/{scored}"))
        assert "-0.875" not in json.dumps(ask(f"explain/predictions/{hidden}"))
        assert "-0.875" not in explain(node, hidden, "--json")
        point = scored.split("/")[2]
        for told in (
            json.dumps(ask(f"explain/predictions/{scored}", as_of=point)),
            explain(node, scored, "--as-of", point, "--json"),
        ):
            assert "-0.875" not in told
            assert json.loads(told)["hidden_until_ms"] == int(point) + MINUTE
        assert "an id is inp/SUBJECT/POINT_MS/SCOPE/MODEL" in explain(node, "inp/17", code=2)
        assert "coordinator explain copies 7 --other 9" in explain(node, "copies", "bold", code=2)
        assert "coordinator explain copies 7 --other 9" in explain(
            node, "board", "bold", "--other", "flat", code=2
        )
    finally:
        node.stop()
    assert json.loads(explain(node, scored, "--json"))["agrees"] is True  # also while no report worker runs


HANGING = """
import time
from pathlib import Path
from coordinator.streams.contract import CrunchContract

def score(prediction, truth):
    if Path({told!r}).exists():
        time.sleep(3600)
    return {{"value": prediction.value}}

CONTRACT = CrunchContract(score_prediction=score, crunch_pubkey="1" * 32)
"""


@pytest.mark.slow  # tests/infra/test_explaining.py: a contract that hangs, with a shorter limit
def test_a_contract_that_hangs_is_reported_in_the_same_words_by_the_command_and_the_api(
    kafka_bootstrap, crunch_id, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    told = tmp_path / "told"
    (tmp_path / "hanging_rules.py").write_text(HANGING.format(told=str(told)))
    contract = load_contract("hanging_rules:CONTRACT")
    node = started(
        kafka_bootstrap, crunch_id, tmp_path, played(crunch_id, load_contracts("hanging_rules:CONTRACT"), 20)
    )
    ArchiveFolder(node.settings.data_dir).put(
        contract_hash(contract), pack(contract, "hanging_rules:CONTRACT")
    )
    try:
        scored = f"inp/BTCUSDT/{T0 + MINUTE}/60s/bold"
        assert json.loads(explain(node, scored, "--json"))["agrees"] is True
        told.write_text("")
        env = {**os.environ, **environment(node.settings)}
        done = forked.run(["explain", scored, "--json"], env=env, cwd=node.settings.data_dir)
        says = "not computed again: the contract's code did not end within 10 s"
        assert done.returncode == 2, done.stderr  # by the fault of who wrote the contract
        assert done.stderr.endswith(f"error: {says}; the figure is explained from the record\n")
        of_api = httpx.get(
            f"{node.url}/reports/explain/predictions/{scored}", timeout=LIMIT_SECONDS, verify=NO_CERTIFICATES
        ).json()
        assert json.loads(done.stdout) == of_api
        (score,) = [step for step in of_api["steps"] if step["name"] == "score"]
        assert (score["agrees"], score["note"]) == (None, says)
    finally:
        node.stop()
