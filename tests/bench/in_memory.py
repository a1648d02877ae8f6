"""The engine without a broker: what a round of a backtest and a prediction of a plan cost, in CPU time.

Beside each stands a bare loop in this process: the same inputs given to the same model, the answer typed, scored by the
contract's own function, and written as JSON. It keeps no log, no windows, no board, and its model may take it along; a
backtest pays for a model that is a process of its own.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from coordinator.infra.contracts.demo import CONTRACT
from coordinator.infra.contracts.meaning import contract_hash, scoring_hash
from coordinator.infra.models.host.discovery import find_model_class, import_base_class
from coordinator.infra.models.host.model_folder import models_of
from coordinator.streams.backtest.run import Plan, run_backtest
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions
from coordinator.streams.engine.plan import plan_rules
from coordinator.streams.engine.rerun import NewRules, RecordedCrunch
from coordinator.streams.events import InputReceived, InputResolved, ScopeAnswered
from coordinator.streams.feeds.order import merge_by_time
from coordinator.streams.ports import Subscription
from coordinator.streams.settings import Settings, read_settings
from coordinator.streams.sources.generated import generated_candles

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "scaffolds" / "challenge" / "examples" / "trend_following"
START_MS = 1_704_067_200_000
MINUTE_MS = 60_000
OF = Subscription("generated", "BTCUSDT", "candle", "1m")


class BacktestCost(msgspec.Struct, frozen=True):
    """CPU ms of a round: of this process, of the model's, and of the bare loop; MB at a third and at the end."""

    ms: float
    model_ms: float
    bare_ms: float
    third_mb: float
    end_mb: float


class PlanCost(msgspec.Struct, frozen=True):
    """Predictions a second of CPU, and those of the bare loop."""

    predictions: int
    per_second: float
    bare_per_second: float


def _candles(rounds: int) -> Any:
    return generated_candles(OF, START_MS, START_MS + (rounds - 1) * MINUTE_MS, seed=3)


def made_up_settings(**options: Any) -> Settings:
    """The node's settings over the made-up market."""
    return read_settings({}, feed_source="generated", feed_subjects="BTCUSDT", **options)


def backtest(rounds: int) -> BacktestCost:
    """One example model in a process of its own over a made-up market."""
    settings = made_up_settings()
    plan = Plan(
        models_of(EXAMPLE), CONTRACT, contract_hash(CONTRACT), settings, settings.model_base_classname
    )
    sizes: list[float] = []

    def on_progress(played: int, _at: int) -> None:
        if played * 3 >= rounds and not sizes:
            sizes.append(resident_mb())

    children = children_seconds()
    began = time.process_time()
    with tempfile.TemporaryDirectory(prefix="coordinator-bench-") as folder:
        run_backtest(plan, merge_by_time([_candles(rounds)]), Path(folder), on_progress)
    own, theirs = time.process_time() - began, children_seconds() - children
    end_mb = resident_mb()
    bare = _bare_backtest(rounds, settings)
    return BacktestCost(
        *(own / rounds * 1e3, theirs / rounds * 1e3, bare / rounds * 1e3),
        sizes[0] if sizes else end_mb,
        end_mb,
    )


def _bare_backtest(rounds: int, settings: Settings) -> float:
    """CPU seconds of the bare loop, without making the inputs."""
    log = _played(rounds, 0, settings)
    inputs = {
        event.data.input_id: event.data for event in log.events("inputs") if isinstance(event, InputReceived)
    }
    truths = [
        event.data for event in log.events("inputs") if isinstance(event, InputResolved) and event.data.truth
    ]
    sys.path.insert(0, str(EXAMPLE))  # where its module is found, as in a process of its own
    model: Any = find_model_class(EXAMPLE, import_base_class(settings.model_base_classname))()
    encode, typed = msgspec.json.Encoder().encode, CONTRACT.ground_truth_type.model_validate
    began = time.process_time()
    for truth in truths:
        model.tick(msgspec.json.decode(inputs[truth.input_id].payload))
        output = CONTRACT.output_type.model_validate(model.predict("BTCUSDT", 60, 15))
        encode(CONTRACT.score_prediction(output, typed(truth.truth)))
    return time.process_time() - began


def plan(rounds: int, models: int) -> PlanCost:
    """A rule change that pays otherwise, over a log of so many models' answers."""
    settings = made_up_settings(checkpoint_interval_seconds=21_600)
    log = _played(rounds, models, settings)
    new = CONTRACT.model_copy(update={"min_participation": 0.5, "absence_policy": "zero"})
    terms = make_terms(new, "1" * 64, settings, 0, scoring_hash=scoring_hash(new))
    began = time.process_time()
    planned = plan_rules(RecordedCrunch(log, lambda _: CONTRACT, "engine"), NewRules(terms, new))
    seconds = time.process_time() - began
    truths = {
        event.data.input_id: CONTRACT.ground_truth_type.model_validate(event.data.truth)
        for event in log.events("inputs")
        if isinstance(event, InputResolved) and event.data.truth
    }
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode
    scored, began = 0, time.process_time()
    for decision in log.decisions("predictions"):
        for event in decision.events:
            if isinstance(event, ScopeAnswered) and event.data.input_id in truths:
                truth = truths[event.data.input_id]
                outputs = [CONTRACT.output_type.model_validate(decode(raw)) for raw in event.data.outputs]
                encode([CONTRACT.score_prediction(output, truth) for output in outputs])
                scored += len(outputs)
    bare = time.process_time() - began
    return PlanCost(planned.answers_count, planned.answers_count / seconds, scored / bare)


def _played(rounds: int, models: int, settings: Settings) -> Any:
    def of(number: int) -> Any:
        return lambda data, call: ((number * 7919 + data["asof_ts"] // MINUTE_MS * 31) % 1000) / 1000 - 0.5

    engine = Engine(lambda _: CONTRACT, Functions({f"model-{i:03}": of(i) for i in range(models)}))
    engine.configure(make_terms(CONTRACT, "0" * 64, settings, 0, scoring_hash=scoring_hash(CONTRACT)))
    for candle in _candles(rounds):
        engine.feed(candle.at, [candle])
    return engine.log


def children_seconds() -> float:
    """CPU seconds of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def resident_mb() -> float:
    """MB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


if __name__ == "__main__":  # a process of its own, for the memory's sake
    rounds_asked, models_asked = int(sys.argv[2]), int(sys.argv[3])
    cost = backtest(rounds_asked) if sys.argv[1] == "backtest" else plan(rounds_asked, models_asked)
    sys.stdout.write(json.dumps({"event": "measured", **msgspec.to_builtins(cost)}) + "\n")
