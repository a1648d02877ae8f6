"""What a challenge needs, from what it costs here: a short run of the node's own stages is measured, then scaled.

`measure` plays a contract with stub models in memory, for two numbers of models and two lengths. Their differences are
the cost of a round and of a prediction, in bytes of each topic as the broker keeps them, bytes of the read models, and
seconds of CPU. `need` scales them. What no run in memory can show (the workers' memory, a model's call) stands here as
figures of `make bench`, and is named so.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from aiokafka.codec import gzip_encode, lz4_encode

from coordinator.infra.kafka.clients import compression
from coordinator.projections.folding.decisions import Folder
from coordinator.projections.views.all_views import open_read_models
from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.trial_answers import answers_to_try, more_answers, usual_answer
from coordinator.streams.durations import DAY_SECONDS
from coordinator.streams.engine import candles, play
from coordinator.streams.engine.play import Played
from coordinator.streams.evidence.leaves import LEAF_TOPICS
from coordinator.streams.log.errors import OperatorError

MODELS_MEASURED = (10, 50)
ROUNDS_MEASURED = (60, 180)
ROUNDS_A_PERIOD = 10
PER_PERIOD = ("snapshots", "checkpoints")
"""Topics that grow with snapshot periods and not with rounds."""
BATCH_BYTES = 75
"""What Kafka adds to a decision: it is sent in a batch of its own."""
LEAF_BYTES = 66.3
"""What the evidence tree's files hold of an append: its entry, the hash of that, and its part of the hashes above."""

BASE_MB = 456
"""The node at rest without models: Kafka, five workers, `up` (`make bench --only node`)."""
MODEL_MB = 17
"""A hosted model that only computes (`make bench --only node`)."""
CALL_SECONDS = 0.004
"""CPU of one model's tick and answer on both sides of gRPC (`make bench --only node`)."""
ROUND_SECONDS = 0.014
"""CPU of a round in Kafka and the workers, whoever is asked (`make bench --only node`)."""
ANSWER_BYTES = 70
"""What the score worker keeps of an answer while its round is open, beside the answer itself."""


class Costs(msgspec.Struct, frozen=True):
    """The measured costs of one challenge."""

    round_bytes: dict[str, float]
    """Topic -> bytes on the broker for a round of one scope, whoever is asked; for PER_PERIOD, for a period."""
    prediction_bytes: dict[str, float]
    """Topic -> bytes for each model in it."""
    view_round_bytes: float
    view_prediction_bytes: float
    round_leaves: float
    """Appends for a round of one scope that become leaves of the evidence tree."""
    prediction_cpu_seconds: float
    """The work of deciding, scoring and folding a prediction, without the model."""
    answer_bytes: float
    horizon_seconds: int


class Plan(msgspec.Struct, frozen=True):
    """What is to be run."""

    models: int
    scopes: int
    interval_seconds: int
    days: float
    snapshot_interval_seconds: int
    replication: int = 1


class CapacityNeeds(msgspec.Struct, frozen=True):
    """What that needs. Bytes are of the whole time."""

    predictions: int
    topic_bytes: dict[str, int]
    """On all brokers together."""
    view_bytes: int
    evidence_bytes: int
    """The size of the tree's files. None of it may be deleted, because signed notes commit to all of it."""
    memory_mb: int
    cores: float
    message_bytes_max: int

    @property
    def disk_bytes(self) -> int:
        """Topics, read models and the evidence tree."""
        return sum(self.topic_bytes.values()) + self.view_bytes + self.evidence_bytes


def measure(contract: CrunchContract, models: tuple[int, int] = MODELS_MEASURED) -> Costs:
    """The costs of a contract on this machine. Raises OperatorError if it asks nothing on a grid."""
    schedules = contract.schedules()
    if not schedules:
        raise OperatorError("the contract has no schedule: capacity is planned for rounds on a grid")
    # One scope, asked every minute: a round costs the same at any interval, and this way few candles make many.
    schedule = schedules[0].model_copy(update={"interval_seconds": 60})
    contract = contract.model_copy(update={"scheduled_predictions": [schedule]})
    horizon = -(-schedule.scope.horizon_seconds // 60)
    sizes = {
        (count, rounds): _measured(contract, count, rounds, horizon)
        for count in models
        for rounds in ROUNDS_MEASURED
    }
    (few, many), (short, long) = models, ROUNDS_MEASURED
    slopes: dict[int, dict[str, float]] = {}
    for count in models:
        before, after = sizes[count, short], sizes[count, long]
        slopes[count] = {name: (after[name] - before[name]) / (long - short) for name in after}
    each = {name: (slopes[many][name] - slopes[few][name]) / (many - few) for name in slopes[few]}
    fixed = {name: slopes[few][name] - each[name] * few for name in each}
    topics = [name for name in each if name not in ("views", "leaves", "cpu")]
    periods = {name: ROUNDS_A_PERIOD if name in PER_PERIOD else 1 for name in topics}
    return Costs(
        {name: max(0.0, fixed[name]) * periods[name] for name in topics},
        {name: max(0.0, each[name]) * periods[name] for name in topics},
        max(0.0, fixed["views"]),
        max(0.0, each["views"]),
        slopes[few]["leaves"],
        max(0.0, each["cpu"]),
        len(msgspec.json.encode(usual_answer(contract.output_type))),
        schedule.scope.horizon_seconds,
    )


def need(costs: Costs, plan: Plan) -> CapacityNeeds:
    """What a plan needs by these costs."""
    seconds = plan.days * DAY_SECONDS
    rounds = seconds / plan.interval_seconds * plan.scopes
    periods = seconds / plan.snapshot_interval_seconds
    topic_bytes = {}
    for name, fixed in costs.round_bytes.items():
        times = periods if name in PER_PERIOD else rounds
        topic_bytes[name] = round(
            times * (fixed + costs.prediction_bytes[name] * plan.models) * plan.replication
        )
    open_rounds = (costs.horizon_seconds // plan.interval_seconds + 1) * plan.scopes
    open_mb = open_rounds * plan.models * (ANSWER_BYTES + costs.answer_bytes) / 1e6
    predictions_a_second = plan.models * plan.scopes / plan.interval_seconds
    cores = predictions_a_second * (CALL_SECONDS + costs.prediction_cpu_seconds)
    cores += plan.scopes / plan.interval_seconds * ROUND_SECONDS
    return CapacityNeeds(
        round(rounds * plan.models),
        topic_bytes,
        round(rounds * (costs.view_round_bytes + costs.view_prediction_bytes * plan.models)),
        round(rounds * costs.round_leaves * LEAF_BYTES),
        round(BASE_MB + MODEL_MB * plan.models + open_mb),
        cores,
        8 * 1024 * 1024,
    )


def _measured(contract: CrunchContract, count: int, rounds: int, horizon: int) -> dict[str, float]:
    """Topic -> bytes; `views` -> bytes of the read models; `leaves` -> appends in the tree; `cpu` -> CPU seconds of
    deciding and folding.
    """
    began = time.process_time()
    played = played_with(contract, count, rounds, horizon)
    log = played.engine.log
    with tempfile.TemporaryDirectory(prefix="coordinator-capacity-") as folder:
        models = open_read_models(Path(folder), "capacity", "engine")
        # Rows of the tree's leaves leave their read model at each checkpoint: they do not grow with the log.
        folder_of = Folder([projection for projection in models.all() if projection is not models.evidence])
        for topic in folder_of.readers:
            for offset, record in enumerate(log[topic]):
                folder_of.fold(topic, offset, record)
        folder_of.commit()
        models.close()
        views = sum(path.stat().st_size for path in Path(folder).rglob("*.sst"))
    cpu = time.process_time() - began
    sizes: dict[str, float] = {topic: kept_bytes(log[topic]) for topic in log.topics}
    leaves = sum(len(log[topic]) for topic in LEAF_TOPICS)
    return sizes | {"views": views, "leaves": leaves, "cpu": cpu}


def played_with(contract: CrunchContract, count: int, rounds: int, horizon: int) -> Played:
    """The contract played over generated candles by stub models, each with an answer of its own."""
    subjects = list(contract.schedules()[0].scope.together) or [
        contract.schedules()[0].scope.name or "BTCUSDT"
    ]
    answers = [
        answer.model_dump(mode="json", by_alias=True)
        for answer in more_answers(contract.output_type, count) or answers_to_try(contract.output_type)
    ] or [usual_answer(contract.output_type)]
    models: Mapping[str, Any] = {
        f"m{number:05}": lambda _data, _call, answer=answers[number % len(answers)]: answer
        for number in range(count)
    }
    warm = contract.input_records
    records = [
        record
        for number, subject in enumerate(subjects)
        for record in candles(list(islice(_walk(number), warm + rounds + horizon)), subject=subject)
    ]
    return play(contract, records, models, snapshot_interval_seconds=ROUNDS_A_PERIOD * 60)


def kept_bytes(records: list[bytes]) -> int:
    """The size of records as the broker keeps them: each decision compressed by itself, as it is sent."""
    encode = lz4_encode if compression() == "lz4" else gzip_encode
    return sum(len(encode(record)) + BATCH_BYTES for record in records)


def _walk(seed: int) -> Iterator[str]:
    steps, price = random.Random(seed), 20_000.0
    while True:
        yield f"{price:.2f}"
        price *= 1 + steps.gauss(0, 0.0005)
