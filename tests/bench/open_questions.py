"""How long a new predict worker needs to its first decision: many old commands, many questions still open.

    python -Im tests.bench.open_questions [COMMANDS QUESTIONS MODELS ROUNDS]

The log is in memory, as in `resuming.py`. Every question was asked ROUNDS times and answered by all MODELS, and stays
open for 60 days. The commands are posts of the operator, decided long ago; nobody handed in answers. Two lines: the
first owner, which reads all commands once, and the one after it. CPU and memory are those of this process.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import psutil
import structlog
from tests.bench.resuming import READ_AT_A_TIME, with_states
from tests.fakes import FakeGateway
from tests.memory_io import MemoryLog
from tests.streams.asked import Q, asked, asks, the_round
from tests.streams.build import MINUTE, T0

from coordinator.streams import events as ev
from coordinator.streams.agents.predict.models_asked import ModelsAsked
from coordinator.streams.agents.predict.worker import PredictTenure
from coordinator.streams.log import ids
from coordinator.streams.log.envelope import (
    ENVELOPE_VERSION,
    Append,
    Need,
    encode_append,
    encode_decision,
    encode_event,
)
from coordinator.streams.predictions.stage import PredictionStage

SIZES = (200_000, 10_000, 100, 1)
CLOSES = T0 + 60 * 24 * 60 * MINUTE


def commands_of(count: int) -> Iterator[bytes]:
    """Posts of one question each."""
    for number in range(count):
        question = ev.PostedQuestion(
            question_id=f"q{number}",
            payload=msgspec.Raw(b'{"title":"Will it rain in Paris tomorrow?","source":"a list of events"}'),
            opens_at=T0,
            closes_at=CLOSES,
        )
        data = ev.PostQuestionsData(round_id="r1", questions=[question])
        yield encode_event(ev.PostQuestions(id=f"cmd/{number}", at=T0 + number, data=data))


def the_log(commands: int, questions: int, models: int, rounds: int) -> MemoryLog:
    """Its topics as the workers before left them."""
    log = MemoryLog(batch_max=READ_AT_A_TIME)
    claim = encode_append(Append(e=ENVELOPE_VERSION, epoch=1, seq=0, claim="bench"))
    log.records["commands"] += commands_of(commands)
    tick = ev.ClockTicked(id=f"tick/{T0}", at=T0, data=ev.ClockTickedData(rehearsal=False))
    log.records["feeds"] += [claim, *encode_decision([tick], epoch=1, seq=1, upto={}, need={})]
    inputs, predictions = log.records["inputs"], [claim]
    inputs.append(claim)
    answers: Any = {f"model-{number:04}": 0.5 for number in range(models)}
    seq = 0
    for asking in range(1, rounds + 1):
        for number in range(questions):
            seq += 1
            question = Q.replace("q1", f"q{number}")
            event = asked(asking, T0 + asking, question=question, closes_at=CLOSES)
            inputs += encode_decision([event], epoch=1, seq=seq, upto={}, need={"feeds": Need()})
            suffix = ids.asking_suffix(event.data.input_id)
            at = len(inputs) - 1
            predictions += encode_decision(
                the_round(suffix, answers, T0 + asking, question=question, closes_at=CLOSES),
                epoch=1,
                seq=seq,
                upto={"inputs": (at, 0)},
                need={"inputs": Need(at, 1, seq - 1)},
            )
    log.records["predictions"], _ = with_states(PredictionStage(), predictions)
    return log


async def begun(log: MemoryLog) -> dict[str, Any]:
    """One owner, from nothing to the first look at the commands being over."""
    contract, process = asks(), psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    began, cpu = time.perf_counter(), time.process_time()
    tenure = PredictTenure(log, "bench", ModelsAsked(FakeGateway()), lambda _: contract)
    await tenure.start()
    claimed = time.perf_counter()
    await tenure._look_around()
    await tenure._decide_submissions()
    figures = {
        "seconds": time.perf_counter() - began,
        "of_them_to_claim": claimed - began,
        "cpu_seconds": time.process_time() - cpu,
        "grown_mb": (process.memory_info().rss - before) / 1e6,
        "predictions_mb": sum(map(len, log.records["predictions"])) / 1e6,
        "predictions_read_from": tenure.owned.read_from / len(log.records["predictions"]),
        "open_questions": len(tenure.stage.state.own.questions),
        "commands_needed_from": tenure.stage.need["commands"].offset,
    }
    await tenure.close()
    return figures


async def measure(commands: int, questions: int, models: int, rounds: int) -> list[dict[str, Any]]:
    """The first owner, and the next."""
    log = the_log(commands, questions, models, rounds)
    return [await begun(log), await begun(log)]


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    sizes = [*map(int, sys.argv[1:]), *SIZES[len(sys.argv) - 1 :]]
    for line in asyncio.run(measure(*sizes)):
        print(json.dumps({name: round(v, 3) if isinstance(v, float) else v for name, v in line.items()}))
