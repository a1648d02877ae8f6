"""What evidence costs in CPU time: a bundle of many predictions, its verdict, and the proof of one. No broker.

`PYTHONPATH=tests python -P -m bench.evidence ROUNDS MODELS` plays the log with the engine, one checkpoint over all
rounds, and prints JSON. Beside the verdict stands the contract's own function over the same answers, and their types:
nobody who computes scores again can be faster. The proof of one prediction is timed with its appends at hand, as the
API has them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from bench.in_memory import MINUTE_MS, OF, children_seconds, made_up_settings, resident_mb
from coordinator.infra.contracts.archive import pack
from coordinator.infra.contracts.demo import CONTRACT
from coordinator.infra.contracts.meaning import contract_hash, scoring_hash
from coordinator.infra.evidence.bundling import write_bundle
from coordinator.infra.evidence.proving import TELLING, proof_from
from coordinator.infra.evidence.signing_keys import signing_keys
from coordinator.infra.evidence.tree_files import TreeFiles
from coordinator.infra.evidence.verdict import verdict
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions
from coordinator.streams.events import ApplyContract, ApplyContractData, InputResolved, ScopeAnswered
from coordinator.streams.evidence.bundle_judging import Trust
from coordinator.streams.evidence.leaves import LEAF_TOPICS
from coordinator.streams.evidence.prediction_proof import proved
from coordinator.streams.evidence.rows_in_memory import RowsInMemory
from coordinator.streams.log.counting import Decision
from coordinator.streams.log.envelope import encode_event
from coordinator.streams.log.plain_topics import counter_for
from coordinator.streams.settings import Settings
from coordinator.streams.sources.generated import generated_candles

PERIOD_MS = 7 * 86_400_000
START_MS = 2817 * PERIOD_MS
CRUNCH = "engine"
PROOFS = 200
AFTER = 10
"""Rounds after the period, which close it."""


class EvidenceCost(msgspec.Struct, frozen=True):
    """CPU seconds, and ms of one proof. `scoring_seconds` is the contract's function alone, over the same answers."""

    predictions: int
    leaves: int
    bytes_per_prediction: float
    played_seconds: float
    bundle_seconds: float
    verify_seconds: float
    scoring_seconds: float
    prove_ms: float
    check_ms: float
    resident_mb: float


class Source:
    """`LogSource` of the engine's log, with the command that applied the contract."""

    copy_of = ""

    def __init__(self, log: Any, commands: list[bytes]) -> None:
        self.log = log
        self._commands = commands

    async def decisions(self, topic: str) -> AsyncIterator[Decision]:
        """See `LogSource`."""
        if topic == "commands":
            counter = counter_for(topic)
            for offset, record in enumerate(self._commands):
                if (decision := counter.read(offset, record)) is not None:
                    yield decision
            return
        for decision in self.log.decisions(topic):
            yield decision


def measure(rounds: int, models: int, folder: Path) -> EvidenceCost:
    """Play, bundle, judge, prove. All rounds are in the checkpoint's period, so there are at most 10,080."""
    settings = made_up_settings(
        checkpoint_interval_seconds=PERIOD_MS // 1000, crunch_id=CRUNCH, data_dir=folder
    )
    began = time.process_time()
    source = _played(rounds, models, settings)
    played = time.process_time() - began
    path = folder / "checkpoint.bundle"
    began = time.process_time()
    bundled = asyncio.run(write_bundle(settings, source, "latest", path))
    bundle = time.process_time() - began
    key = signing_keys(settings).first.verifier
    began, children = time.process_time(), children_seconds()
    for _ in verdict(path, Trust((key,)), 3600.0):
        pass
    verify = time.process_time() - began + children_seconds() - children
    scored, scoring = _scoring(source.log)
    prove, check = _proofs(source.log, settings, key)
    return EvidenceCost(
        scored,
        bundled.leaves,
        path.stat().st_size / scored,
        played,
        bundle,
        verify,
        scoring,
        prove * 1e3,
        check * 1e3,
        resident_mb(),
    )


def _played(rounds: int, models: int, settings: Settings) -> Source:
    def of(number: int) -> Any:
        return lambda data, call: ((number * 7919 + data["asof_ts"] // MINUTE_MS * 31) % 1000) / 1000 - 0.5

    the_hash = contract_hash(CONTRACT)
    path = "coordinator.infra.contracts.demo:CONTRACT"
    data = ApplyContractData(contract_hash=the_hash, path=path, archive=pack(CONTRACT, path))
    engine = Engine(lambda _: CONTRACT, Functions({f"model-{i:03}": of(i) for i in range(models)}))
    engine.configure(make_terms(CONTRACT, the_hash, settings, 0, scoring_hash=scoring_hash(CONTRACT)))
    first = START_MS + PERIOD_MS - rounds * MINUTE_MS
    for candle in generated_candles(OF, first, START_MS + PERIOD_MS + AFTER * MINUTE_MS, seed=3):
        engine.feed(candle.at, [candle])
    return Source(engine.log, [encode_event(ApplyContract(id="cmd/apply/1", at=0, data=data))])


def _scoring(log: Any) -> tuple[int, float]:
    """(answers scored, CPU seconds) of the contract's function and the type of its argument."""
    truths = {
        event.data.input_id: CONTRACT.ground_truth_type.model_validate(event.data.truth)
        for event in log.events("inputs")
        if isinstance(event, InputResolved) and event.data.truth
    }
    decode = msgspec.json.Decoder().decode
    scored, seconds = 0, 0.0
    for decision in log.decisions("predictions"):
        for event in decision.events:
            if isinstance(event, ScopeAnswered) and event.data.input_id in truths:
                truth, raws = truths[event.data.input_id], event.data.outputs
                began = time.process_time()
                for raw in raws:
                    CONTRACT.score_prediction(CONTRACT.output_type.model_validate(decode(raw)), truth)
                seconds += time.process_time() - began
                scored += len(raws)
    return scored, seconds


def _proofs(log: Any, settings: Settings, key: Any) -> tuple[float, float]:
    """CPU seconds of making one proof and of checking it, over rounds spread evenly."""
    rows = RowsInMemory()
    told: dict[str, list[Any]] = {}
    for topic in LEAF_TOPICS:
        for decision in log.decisions(topic):
            row = rows.add(decision)
            for name in row.names if topic in TELLING else ():
                told.setdefault(name, []).append(decision)
    names = sorted(told)
    names = names[:: max(1, len(names) // PROOFS)]
    files = TreeFiles(settings.data_dir, signing_keys(settings))
    prove = check = 0.0
    proof_count = 0
    for name in names:
        scope = next(
            event.data.scope_key
            for decision in told[name]
            for event in decision.events
            if isinstance(event, ScopeAnswered)
        )
        prediction = f"{name}/{scope}/model-000"
        began = time.process_time()
        content = proof_from(files, told[name], prediction)
        prove += time.process_time() - began
        if content is None:
            continue  # a round after the period
        began = time.process_time()
        proved(content, [key], prediction)
        check += time.process_time() - began
        proof_count += 1
    return prove / len(names), check / proof_count


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="coordinator-bench-") as made_in:
        cost = measure(int(sys.argv[1]), int(sys.argv[2]), Path(made_in))
    sys.stdout.write(json.dumps(msgspec.to_builtins(cost)) + "\n")
