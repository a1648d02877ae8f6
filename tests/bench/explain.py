"""How long an explanation takes over a log of a million predictions, as the report worker answers it.

    python tests/bench/explain.py [ROUNDS MODELS QUESTIONS]

The stages make a week of minutes (10,140 rounds) with 100 models, which is sent to a Kafka of its own and folded into
stores. Then random predictions, periods and shares are explained, each from a view of this moment and from Kafka, one at
a time. CPU time is that of this process, and the broker's apart; on a busy machine only they mean something.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import psutil
from tests.explained import fold

from coordinator.infra.contracts.loading import load_contracts
from coordinator.infra.contracts.meaning import scoring_hash
from coordinator.infra.kafka.clients import make_producer
from coordinator.infra.kafka.embedded import EmbeddedBroker
from coordinator.infra.kafka.topics import create_topics
from coordinator.infra.log.appends import KafkaAppends
from coordinator.projections.explaining.explainer import Explainer
from coordinator.projections.folding.as_of import Cut, PastReadModels, cuts_at, folded_until
from coordinator.streams.audit.explain.recomputing import explain_again
from coordinator.streams.contract.terms import make_terms
from coordinator.streams.engine import Engine, Functions
from coordinator.streams.ports import Subscription
from coordinator.streams.settings import Settings
from coordinator.streams.sources.generated import generated_candles
from coordinator.streams.topology import topic_name

START_MS, MINUTE_MS, HOUR_MS = 2818 * 604_800_000, 60_000, 3_600_000
WEEK_MINUTES = 10_080
CRUNCH = "explain-bench"


def percentile(values: list[float], percent: int) -> float:
    """Nearest rank."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def say(event: str, **facts: Any) -> None:
    """One line."""
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


def answer(value: float, _data: Any, _call: Any) -> dict[str, float]:
    """The same in each round."""
    return {"value": value}


def played_engine(rounds: int, models: int) -> tuple[Engine, Any]:
    """The log, and the contracts that it was made by."""
    shelf = load_contracts("coordinator.infra.contracts.demo:CONTRACT", kind="candle")
    settings = Settings(
        feed_source="generated",
        snapshot_interval_seconds=3600,
        checkpoint_interval_seconds=604_800 if rounds > WEEK_MINUTES else 21_600,
    )
    answers = {f"m{i:03}": partial(answer, i / models - 0.5) for i in range(models)}
    engine = Engine(shelf, Functions(answers), crunch_id=CRUNCH)
    current = shelf.current
    engine.configure(make_terms(current, shelf.current_hash, settings, 0, scoring_hash=scoring_hash(current)))
    of = Subscription("generated", "BTCUSDT", "candle", "1m")
    for candle in generated_candles(of, START_MS, START_MS + (rounds - 1) * MINUTE_MS, seed=1):
        engine.feed(candle.at, [candle])
    return engine, shelf


async def send(bootstrap: str, engine: Engine) -> None:
    """The log onto the broker; each topic has a birth record of its own there."""
    await create_topics(bootstrap, CRUNCH)
    producer = make_producer(bootstrap)
    await producer.start()
    for topic, records in engine.log.topics.items():
        for i in range(1, len(records), 500):
            sent = [await producer.send(topic_name(CRUNCH, topic), record) for record in records[i : i + 500]]
            await asyncio.gather(*sent)
    await producer.stop()


def main(rounds: int = 10_140, models: int = 100, questions: int = 500) -> None:
    """All of it."""
    draw = random.Random(1)
    began = time.process_time()
    engine, shelf = played_engine(rounds, models)
    say(
        "made",
        rounds=rounds,
        models=models,
        predictions=rounds * models,
        cpu_seconds=round(time.process_time() - began, 1),
    )
    with tempfile.TemporaryDirectory() as folder:
        broker = EmbeddedBroker(Path(folder) / "kafka")
        broker.start()
        broker.wait_ready()
        try:
            asyncio.run(send(broker.bootstrap, engine))
            began = time.process_time()
            live = fold(engine.log, Path(folder) / "stores", CRUNCH)
            say("folded", cpu_seconds=round(time.process_time() - began, 1))
            explainer = Explainer(
                KafkaAppends(broker.bootstrap, CRUNCH), partial(explain_again, contracts=shelf)
            )
            # The log that the stages made is in this process, and in no report worker: a full collection of garbage
            # walks through it, which was three quarters of the slowest answers.
            gc.collect()
            gc.freeze()
            java = next(
                child for child in psutil.Process().children(recursive=True) if "java" in child.name()
            )
            last, hours = rounds - 3, rounds // 60 - 1
            (checkpoint, *_) = [row.checkpoint.checkpoint_id for row in live.checkpoints.newest()] or [""]

            def prediction(read: Any) -> Any:
                point = START_MS + draw.randrange(last) * MINUTE_MS
                return explainer.prediction(read, f"inp/BTCUSDT/{point}/60s/m{draw.randrange(models):03}")

            def period(read: Any) -> Any:
                at = START_MS + draw.randrange(hours) * HOUR_MS
                return explainer.snapshot(read, f"m{draw.randrange(models):03}", at)

            def share(read: Any) -> Any:
                return explainer.share(read, checkpoint, f"m{draw.randrange(models):03}")

            def place(read: Any) -> Any:
                return explainer.place(read, f"m{draw.randrange(models):03}")

            def early(ask: Any) -> Any:
                """The same question, about the first half of the log."""

                def asked(read: Any) -> Any:
                    nonlocal last, hours
                    last, hours = rounds // 2, rounds // 120
                    return ask(read)

                return asked

            def past() -> dict[str, Cut]:
                """A moment in the last third of the log, when all that is asked in the past was known."""
                at = START_MS + draw.randrange(rounds * 2 // 3, rounds) * MINUTE_MS
                return cuts_at(live, at, folded_until(live))

            def live_view() -> None:
                """The read models of now themselves, whose board is in memory: as the API answers."""

            def now() -> dict[str, Cut]:
                return {topic: Cut(end) for topic, end in folded_until(live).items()}

            for name, ask, moment in (
                ("prediction", prediction, now),
                ("period", period, now),
                ("share", share, now),
                ("place", place, live_view),
                ("place as of the past", place, past),
                ("prediction as of the past", early(prediction), past),
                ("period as of the past", early(period), past),
            ):
                if name == "share" and not checkpoint:
                    continue
                cpu, wall, agreed = [], [], 0
                before = sum(java.cpu_times()[:2])
                for _ in range(questions):
                    began, began_wall = time.process_time(), time.perf_counter()
                    cuts = moment()
                    read = live if cuts is None else PastReadModels(live, cuts)
                    agreed += ask(read).agrees is True
                    cpu.append((time.process_time() - began) * 1000)
                    wall.append((time.perf_counter() - began_wall) * 1000)
                say(
                    name,
                    questions=questions,
                    agreed=agreed,
                    cpu_ms_p50=round(percentile(cpu, 50), 1),
                    cpu_ms_p99=round(percentile(cpu, 99), 1),
                    broker_cpu_ms_mean=round(1000 * (sum(java.cpu_times()[:2]) - before) / questions, 1),
                    wall_ms_p50=round(percentile(wall, 50), 1),
                    wall_ms_p99=round(percentile(wall, 99), 1),
                )
            live.close()
        finally:
            broker.stop()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
