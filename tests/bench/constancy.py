"""What one score costs after many: the score stage, the aggregate stage and the leaderboard's fold, in one process.

`constancy.py FEW MANY STRETCHES`: CPU time per score, the least of so many stretches of two hours each, in a life of FEW
predictions and in one of MANY, measured in turn; and the memory of the long life at both. No broker: what is looked
for is state that grows, and a broker's noise would hide it. The log is made beside the measured stretch, through
bytes, as a worker would read it.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.synthetic import SyntheticLog
from bench.world import memory_of
from coordinator.infra.contracts.loading import ContractShelf, load_contracts
from coordinator.projections.folding.decisions import Folder
from coordinator.projections.views.all_views import open_projections
from coordinator.streams.log.counting import Counter
from coordinator.streams.log.envelope import encode_decision
from coordinator.streams.log.stage import Stage
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.settings import Settings
from coordinator.streams.snapshots.stage import SnapshotStage

MODELS = 100
COMMIT_ROUNDS = 20
PERIOD_ROUNDS = 60
"""A snapshot period: a stretch is made of whole ones, since closing one is part of what scores cost."""
STRETCH_ROUNDS = 2 * PERIOD_ROUNDS


class OwnTopic:
    """A stage and the records it writes, without a broker."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.seq = 0
        self.counters = {source: Counter(source) for source in stage.sources}

    def take(self, topic: str, record: bytes, offset: int) -> list[bytes]:
        """One record in; the records of all that it makes due."""
        decision = self.counters[topic].read(offset, record)
        if decision is None:
            return []
        self.stage.absorb(decision)
        out: list[bytes] = []
        while (draft := self.stage.step()) is not None:
            self.seq += 1
            out += encode_decision(
                list(draft.events),
                epoch=1,
                seq=self.seq,
                upto=dict(self.stage.upto),
                need=dict(self.stage.need),
            )
        return out


class Pipeline:
    """inputs and predictions -> scores -> snapshots, and the leaderboard of the scores."""

    def __init__(self, log: SyntheticLog, shelf: ContractShelf, folder: Path) -> None:
        self.score = OwnTopic(ScoreStage(shelf))
        self.aggregate = OwnTopic(SnapshotStage(shelf))
        self.projections = open_projections(folder, "bench", "bench", ["leaderboard"])
        self.folder = Folder(self.projections)
        self.offsets = dict.fromkeys(("inputs", "predictions", "scores", "models"), 0)
        head = log.head()
        for record in head["models"]:
            self.folder.fold("models", self._offset("models"), record)
        for stage in (self.score, self.aggregate):
            for counter in stage.counters.values():
                counter.epoch = 1
        self.folder.fold("scores", self._offset("scores"), head["inputs"][0])  # a claim is a claim
        for record in head["predictions"]:
            self._into_score("predictions", record)
        for record in head["inputs"]:
            self._into_score("inputs", record)

    def _offset(self, topic: str) -> int:
        self.offsets[topic] += 1
        return self.offsets[topic] - 1

    def _into_score(self, topic: str, record: bytes) -> None:
        offset = self._offset(topic)
        if topic == "inputs":
            self.folder.fold("inputs", offset, record)
        for record_of_scores in self.score.take(topic, record, offset):
            at = self._offset("scores")
            self.aggregate.take("scores", record_of_scores, at)
            self.folder.fold("scores", at, record_of_scores)

    def rounds(self, records: list[dict[str, list[bytes]]]) -> None:
        """Some minutes, with a commit of the board every COMMIT_ROUNDS."""
        for n, minute in enumerate(records):
            for record in minute["predictions"]:
                self._into_score("predictions", record)
            for record in minute["inputs"]:
                self._into_score("inputs", record)
            if n % COMMIT_ROUNDS == COMMIT_ROUNDS - 1:
                self.folder.commit()


class Life:
    """One pipeline and its log, gone through minute by minute."""

    def __init__(self, shelf: ContractShelf, settings: Settings, folder: Path) -> None:
        self.log = SyntheticLog(settings, MODELS)
        self.pipeline = Pipeline(self.log, shelf, folder)
        self.minutes = 0

    def go_on(self, minutes: int) -> float:
        """CPU microseconds per score of the next minutes; their records are made before the clock runs."""
        records = list(self.log.minutes(self.minutes, self.minutes + minutes, ("inputs", "predictions")))
        began = time.process_time()
        self.pipeline.rounds(records)
        used = time.process_time() - began
        self.minutes += minutes
        return used / (minutes * MODELS) * 1e6

    def go_to(self, minutes: int) -> float:
        """Up to minute `minutes`, in stretches; resident memory (MB) there."""
        while self.minutes < minutes:
            self.go_on(min(PERIOD_ROUNDS, minutes - self.minutes))
        gc.collect()
        return memory_of(os.getpid()).now_mb


def main(few: int, many: int, stretches: int, out: Callable[[str], object]) -> None:
    """A machine is not equally fast for minutes, so an old life and a young one are measured in turn, at the end."""
    settings = Settings(crunch_id="bench")
    shelf = load_contracts(settings.contract)
    with tempfile.TemporaryDirectory(prefix="coordinator-bench-") as folder:
        old = Life(shelf, settings, Path(folder) / "old")
        memory_few_mb = old.go_to(few // MODELS)
        memory_many_mb = old.go_to(many // MODELS)
        young = Life(shelf, settings, Path(folder) / "young")
        young.go_to(few // MODELS)
        pairs = [(young.go_on(STRETCH_ROUNDS), old.go_on(STRETCH_ROUNDS)) for _ in range(stretches)]
        for life in (old, young):
            for projection in life.pipeline.projections:
                projection.store.close()
    early_us, late_us = (min(costs) for costs in zip(*pairs, strict=True))
    line = {
        "event": "measured", "few": few, "many": many, "early_us": early_us, "late_us": late_us,
        "memory_few_mb": memory_few_mb, "memory_many_mb": memory_many_mb,
    }  # fmt: skip
    out(json.dumps(line) + "\n")


main(*(int(argument) for argument in sys.argv[1:]), sys.stdout.write)
