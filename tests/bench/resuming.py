"""How long a new owner of each topic needs to its first decision, by the age of the log.

`resuming.py MINUTES AGE MODELS`: logs of MINUTES and of AGE times as many minutes, each topic's owner begun anew on
both. The log is in memory: what is looked for is work that grows with age, and a broker only adds what reading costs.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import structlog

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.memory_io import MemoryLog

from bench.synthetic import SyntheticLog
from coordinator.infra.contracts.loading import load_contracts
from coordinator.streams.agents.owning.tenure import Tenure
from coordinator.streams.checkpoints.stage import CheckpointStage
from coordinator.streams.feeds.stage import FeedStage
from coordinator.streams.inputs.stage import InputStage
from coordinator.streams.log.counting import Counter
from coordinator.streams.log.envelope import Append, Need, encode_append, encode_decision
from coordinator.streams.log.recorded_state import StateRecorder
from coordinator.streams.log.stage import AnyStage
from coordinator.streams.predictions.stage import PredictionStage
from coordinator.streams.scores.stage import ScoreStage
from coordinator.streams.settings import Settings
from coordinator.streams.snapshots.stage import SnapshotStage

READ_AT_A_TIME = 2000
Records = dict[str, list[bytes]]


def made_by(stage: AnyStage, sources: Records) -> list[bytes]:
    """What the stage writes over whole sources, one record of each in turn."""
    counters = {topic: Counter(topic) for topic in stage.sources if topic in sources}
    out = [encode_append(Append(e=1, epoch=1, seq=0, claim="bench"))]
    seq = 0
    for offset in range(max(map(len, (sources[topic] for topic in counters)))):
        for topic, counter in counters.items():
            records = sources[topic]
            # Two records a minute in predictions, one in inputs: in step, or a backlog is all that is measured.
            per = max(1, round(len(records) / min(len(sources[source]) for source in counters)))
            for at in range(offset * per, min((offset + 1) * per, len(records))):
                decision = counter.read(at, records[at])
                if decision is not None:
                    stage.absorb(decision)
        while (draft := stage.step()) is not None:
            seq += 1
            out += encode_decision(
                draft.events, epoch=1, seq=seq, upto=dict(stage.upto), need=dict(stage.need)
            )
    return out


def with_states(stage: AnyStage, records: list[bytes]) -> tuple[list[bytes], int]:
    """(a topic with the states that its owner would have recorded, how many bytes of it are states)."""
    counter, out = Counter(stage.topic), list[bytes]()
    states, all_states = StateRecorder(stage), 0
    for offset, record in enumerate(records):
        decision = counter.read(offset, record)
        out.append(record)
        if decision is None:
            continue
        stage.remember(decision)
        states.made(decision.seq, len(record))
        recorded = states.records_after(Need(len(out), 1, decision.seq), 1)
        out += recorded
        all_states += sum(map(len, recorded))
    return out, all_states


async def seconds_to_begin(topics: Records, new_stage: Callable[[], AnyStage]) -> float:
    """From nothing to a claim and all sources folded: the next record may be decided."""
    io = MemoryLog(batch_max=READ_AT_A_TIME)
    io.records.update({topic: list(records) for topic, records in topics.items()})
    tenure = Tenure(io, new_stage(), "bench")
    gc.collect()
    began = time.perf_counter()
    await tenure.start()
    seconds = time.perf_counter() - began
    await tenure.close()
    return seconds


def measure(minutes: int, models: int) -> Iterator[dict[str, Any]]:
    """One row a topic, in the order of the flow: each is made of those before it."""
    settings = Settings(crunch_id="bench")
    shelf = load_contracts(settings.contract)
    log = SyntheticLog(settings, models)
    log._payload = msgspec.Raw(b"{}")
    topics: Records = {topic: list(records) for topic, records in log.head().items()}
    for minute in log.minutes(0, minutes):
        for topic, records in minute.items():
            topics[topic] += records
    new: dict[str, Callable[[], AnyStage]] = {
        "feeds": FeedStage,
        "inputs": lambda: InputStage(shelf),
        "predictions": PredictionStage,
        "scores": lambda: ScoreStage(shelf),
        "snapshots": lambda: SnapshotStage(shelf),
        "checkpoints": lambda: CheckpointStage("bench", shelf),
    }
    for topic, new_stage in new.items():
        if topic not in topics:
            topics[topic] = made_by(new_stage(), topics)
        own, state_bytes = with_states(new_stage(), topics[topic])
        mine = {source: topics.get(source, []) for source in new_stage().sources} | {topic: own}
        seconds = asyncio.run(seconds_to_begin(mine, new_stage))
        yield {"topic": topic, "mb": sum(map(len, own)) / 1e6, "state_bytes": state_bytes, "seconds": seconds}


def main(minutes: int, age: int, models: int, out: Callable[[str], object]) -> None:
    """One JSON line: each topic young and old, and the slowest of them."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    young, old = (list(measure(length, models)) for length in (minutes, minutes * age))
    line = {
        "event": "measured",
        "models": models,
        "minutes": minutes * age,
        "young_seconds": max(row["seconds"] for row in young),
        "old_seconds": max(row["seconds"] for row in old),
        "state_bytes_per_prediction": sum(row["state_bytes"] for row in old) / (minutes * age * models),
        "young": young,
        "old": old,
    }
    out(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]), sys.stdout.write)
