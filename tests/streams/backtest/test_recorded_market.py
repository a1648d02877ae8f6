"""A backtest over a node's backup: its feed word for word, and a new model ranked among the recorded ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.broker.backtested import differences
from tests.infra.test_blobs import blob_of
from tests.shelf import Shelf
from tests.streams.asked import asks
from tests.streams.backtest.test_model_processes import CONTRACT, folder_of
from tests.streams.build import MINUTE, T0
from tests.streams.questions import post, question, resolve

from coordinator.infra.blobs.folder import BlobFolder
from coordinator.infra.contracts.archive import pack
from coordinator.infra.contracts.loading import ContractShelf, load_contract
from coordinator.infra.contracts.meaning import contract_hash, scoring_hash
from coordinator.infra.log import copy_file
from coordinator.infra.log.copy_file import Copied, CopiedBlob, Entry, Head, Tail
from coordinator.infra.models.host.model_folder import models_of
from coordinator.streams.backtest.entry_point import backtest
from coordinator.streams.backtest.recorded_market import RecordedLog
from coordinator.streams.backtest.run import Plan, run_backtest
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions
from coordinator.streams.events import ApplyContract, ApplyContractData
from coordinator.streams.log.envelope import encode_event
from coordinator.streams.log.errors import LogError, OperatorError
from coordinator.streams.ports import Subscription
from coordinator.streams.settings import Settings
from coordinator.streams.sources.generated import generated_candles
from coordinator.streams.topology import TOPICS

BASE = "coordinator.scaffolds.challenge.tracker.TrackerBase"
BODY = "    def predict(self, s, h, t): return {'value': 0.2}\n"
OF = Subscription("generated", "BTCUSDT", "candle", "1m")
MINUTES = 40


def node() -> Engine:
    """Forty minutes with a gap, and two models, one of which fails in some rounds."""
    calls = iter(range(1000))
    models = {
        "bold": lambda data, call: {"value": 0.9},
        "frail": lambda data, call: {"value": -0.1 / (next(calls) % 5)},
    }
    engine = Engine(lambda _: CONTRACT, Functions(models))
    settings = Settings(
        feed_source="generated", snapshot_interval_seconds=600, checkpoint_interval_seconds=1200
    )
    engine.configure(make_terms(CONTRACT, contract_hash(CONTRACT), settings, 0))
    for number, candle in enumerate(generated_candles(OF, T0, T0 + MINUTES * MINUTE, seed=5)):
        engine.feed(candle.at, [] if number in (7, 8) else [candle])
    return engine


def write_copy(engine: Engine, path: Path, *blobs: bytes, altered: bool = False) -> Path:
    digest, count = hashlib.sha256(), 0
    ends = {topic: engine.log.end(topic) for topic in TOPICS}
    with gzip.open(path, "wb") as file:

        def put(entry: Entry) -> bytes:
            encoded = copy_file._encode(entry)
            file.write(copy_file.LENGTH.pack(len(encoded)) + encoded)
            return encoded

        put(Head(copy_file.FORMAT, "engine", "b" * 32, ends))
        for topic in TOPICS:
            for offset, record in enumerate(engine.log[topic]):
                digest.update(put(Copied(topic, offset, 0, record)))
                count += 1
        for content in blobs:
            digest.update(put(CopiedBlob(content)))
            count += 1
        put(Tail(count, "0" * 64 if altered else digest.hexdigest()))
    return path


def test_a_new_model_is_ranked_among_those_of_the_log(tmp_path):
    engine = node()
    result = backtest(
        [folder_of(tmp_path, "mine", body=BODY) / "mine"],
        CONTRACT,
        BASE,
        log=write_copy(engine, tmp_path / "log"),
    )
    by_id = {line.model_id: line for line in result.models}
    assert set(by_id) == {"bold", "frail", "mine"}
    assert sorted(line.rank for line in result.models) == [1, 2, 3]
    # The recorded models have the very numbers that they had without the new one.
    alone = {snapshot.model_id: snapshot.windows_units for snapshot in engine.end_now().snapshots}
    now = {snapshot.model_id: snapshot.windows_units for snapshot in result.ending.snapshots}
    assert {name: now[name] for name in alone} == alone
    assert len({line.of.scored + line.of.failed for line in result.models}) == 1
    assert by_id["frail"].of.failed > by_id["bold"].of.failed == by_id["mine"].of.failed > 0
    # A gap of the feed is a gap here too: no truth for any model.
    assert by_id["mine"].of.scored == by_id["bold"].of.scored < MINUTES
    assert result.rounds == sum(
        type(event).__name__ == "RoundOpened" for event in engine.log.events("predictions")
    )


def test_a_name_that_is_in_the_log_is_refused(tmp_path):
    with pytest.raises(OperatorError, match="the log has a model 'bold' too"):
        backtest(
            [folder_of(tmp_path, "bold", body=BODY)], CONTRACT, BASE, log=write_copy(node(), tmp_path / "log")
        )


def test_an_incomplete_copy_is_refused(tmp_path):
    models = [folder_of(tmp_path, "mine", body=BODY)]
    path = write_copy(node(), tmp_path / "log", altered=True)
    with pytest.raises(LogError, match="was altered"):
        backtest(models, CONTRACT, BASE, log=path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(LogError, match="cut"):
        backtest(models, CONTRACT, BASE, log=path)
    path.write_bytes(b"no gzip")
    with pytest.raises(OperatorError, match="not a backup"):
        backtest(models, CONTRACT, BASE, log=path)


# --- the rules of the log --------------------------------------------------------------------------------

RULES = """
from coordinator.streams.contract import CrunchContract

def score(prediction, truth):
    return {{"value": {factor} * prediction.value * truth.return_}}

CONTRACT = CrunchContract(score_prediction=score, absence_policy="{absence}", crunch_pubkey="1" * 32)
"""
MUTE = "    def predict(self, s, h, t): raise ValueError\n"


@pytest.fixture
def other_rules(tmp_path, monkeypatch):
    """Two contracts that score and charge differently, as (path, contract), and neither is the one that is named."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    rules = []
    for name, factor, absence in (("rules_before", 100, "worst"), ("rules_after", 40, "zero")):
        (tmp_path / f"{name}.py").write_text(RULES.format(factor=factor, absence=absence))
        rules.append((f"{name}:CONTRACT", load_contract(f"{name}:CONTRACT")))
    yield rules
    for name in ("rules_before", "rules_after"):
        sys.modules.pop(name, None)


def node_of(rules):
    """A node whose rules are changed in the middle, and whose log keeps both contracts."""
    (_, first), (path, second) = rules
    shelf, calls = ContractShelf(), iter(range(1000))
    models = {
        "bold": lambda data, call: {"value": 0.9},
        "frail": lambda data, call: {"value": -0.1 / (next(calls) % 5)},
    }
    settings = Settings(
        feed_source="generated", snapshot_interval_seconds=600, checkpoint_interval_seconds=1200
    )

    def terms_of(contract):
        return make_terms(contract, shelf.put(contract), settings, 0, scoring_hash=scoring_hash(contract))

    engine = Engine(shelf, Functions(models), crunch_id="of-the-log")
    for path, contract in rules:
        data = ApplyContractData(
            contract_hash=contract_hash(contract), path=path, archive=pack(contract, path)
        )
        engine.log.append("commands", encode_event(ApplyContract(id=f"cmd/{path}", at=T0, data=data)))
    engine.configure(terms_of(first))
    for number, candle in enumerate(generated_candles(OF, T0, T0 + 75 * MINUTE, seed=5)):
        if number == 25:
            engine.configure(terms_of(second))
        engine.feed(candle.at, [candle])
    return engine


def test_the_models_of_the_log_have_the_nodes_own_integers_also_where_its_rules_changed(
    tmp_path, other_rules
):
    engine = node_of(other_rules)
    log = RecordedLog(write_copy(engine, tmp_path / "log"), BlobFolder(tmp_path / "blobs"), CONTRACT)
    plan = Plan(
        models_of(folder_of(tmp_path, "mute", body=MUTE) / "mute"),
        *(log.contract, log.terms.contract_hash, Settings(), BASE),
        log=log,
    )
    played: dict[str, list[Any]] = {}

    def take(decision):
        events = played.setdefault(decision.topic, [])
        events.extend(json.loads(encode_event(event)) for event in decision.events)

    run_backtest(plan, log.drafts(), tmp_path / "work", on_decision=take)
    recorded = {
        topic: [json.loads(encode_event(event)) for event in engine.log.events(topic)]
        for topic in ("predictions", "scores", "snapshots", "checkpoints")
    }
    hashes = {
        event["data"]["contract_hash"] for event in recorded["scores"] if event["kind"] == "RoundScored"
    }
    assert hashes == {contract_hash(contract) for _, contract in other_rules}
    compared, differing = differences(recorded, played, added={"mute"})
    assert differing == []
    assert min(compared[table] for table in ("predictions", "scores", "snapshots", "checkpoints")) >= 3


def test_a_log_whose_contract_nobody_has_is_refused(tmp_path):
    other = CONTRACT.model_copy(update={"grace_seconds": CONTRACT.grace_seconds + 1})
    models = [folder_of(tmp_path, "mine", body=BODY)]
    with pytest.raises(OperatorError, match="which is neither in the log nor the one that you named"):
        backtest(models, other, BASE, log=write_copy(node(), tmp_path / "log"))


# --- questions with a table ------------------------------------------------------------------------------

SUMS = """    def tick(self, data, table=None): self.sum = 0.0 if table is None else float(table["f"].sum())
    def predict(self, s, h, t): return {'value': self.sum}
"""


class Summing:
    """The same model as an object."""

    def tick(self, _data: Any, table: Any = None) -> None:
        self.sum = 0.0 if table is None else float(table["f"].sum())

    def predict(self, *_call: Any) -> dict[str, float]:
        return {"value": self.sum}


def test_a_question_with_a_table_is_answered_in_a_backtest_as_it_was_live(tmp_path):
    """The models of the backtest answer it from the table in the backup. Without the table nobody can."""
    contract, sink = asks(), io.BytesIO()
    pq.write_table(pa.table({"f": [0.25, 0.5]}), sink)
    table = sink.getvalue()
    shelf = Shelf()
    shelf.put(table)
    engine = Engine(lambda _: contract, Functions({"there": Summing()}, blobs=shelf))
    settings = Settings(
        feed_source="generated", snapshot_interval_seconds=600, checkpoint_interval_seconds=1200
    )
    engine.configure(make_terms(contract, contract_hash(contract), settings, 0))
    for number, candle in enumerate(generated_candles(OF, T0, T0 + MINUTES * MINUTE, seed=5)):
        engine.feed(candle.at, [candle])
        if number == 2:
            times = {"opens_at": candle.at + 1, "closes_at": candle.at + 5 * MINUTE}
            engine.command(post(question("q1", blob=blob_of(table), **times), at=candle.at))
        if number == 10:
            engine.command(resolve({"q1": {"outcome": 1.0}}, at=candle.at))
    models = [folder_of(tmp_path, "mine", body=SUMS) / "mine"]
    result = backtest(models, contract, BASE, log=write_copy(engine, tmp_path / "log", table))
    assert {line.model_id: line.mean_units for line in result.models} == {
        "there": (1 - 0.25**2) * 1e9,
        "mine": (1 - 0.25**2) * 1e9,
    }
    lacking = backtest(models, contract, BASE, log=write_copy(engine, tmp_path / "log"))
    (mine,) = [line for line in lacking.models if line.model_id == "mine"]
    assert [reason for _, reason in mine.of.missing] == [
        f"BLOB_LOST: blob {blob_of(table).sha256} is missing"
    ]
