"""A worker process that does itself harm at a named instant: `crashing_worker.py WORKER`.

The plan comes in COORDINATOR_TEST_PLAN (see `crash.Plan`); without one it is the worker as it is. Everything that
is changed is changed here: the product has no hooks. A fake gateway takes the place of the model runners for
`predict`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from aiokafka.errors import KafkaTimeoutError  # noqa: E402 - found by the line above
from asked_models import behaviours  # noqa: E402 - found by the line above

from coordinator.infra.models import gateway as model_gateway  # noqa: E402
from coordinator.streams.agents import workers as run  # noqa: E402
from coordinator.streams.agents.owning import log_io, ownership, tenure  # noqa: E402
from coordinator.streams.contract import CrunchContract  # noqa: E402
from coordinator.streams.inputs.stage import InputStage  # noqa: E402
from coordinator.streams.settings import read_settings  # noqa: E402
from fakes import FakeGateway, InProcessGateway  # noqa: E402 - found by the line above

PLAN: dict[str, Any] = json.loads(os.environ.get("COORDINATOR_TEST_PLAN", "{}"))
SETTINGS = read_settings(os.environ)
phases: dict[str, str] = {}
calls = count(1)


def due(point: str, topic: str) -> bool:
    """Whether this is the instant. Counts the calls that the plan is about."""
    phase = phases.get(topic, "starting")
    if (PLAN.get("point"), PLAN.get("topic")) != (point, topic) or PLAN.get("phase", phase) != phase:
        return False
    return next(calls) == PLAN["count"]


def harm() -> None:
    name = PLAN.get("signal", "SIGKILL")
    sys.stdout.write(json.dumps({"event": "harmed", "plan": PLAN, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.Signals[name])


original_send = ownership.OwnedTopic.send
original_claim = ownership.OwnedTopic.claim
original_start = tenure.Tenure.start
original_take = tenure.Tenure._take
original_write = log_io.KafkaWriter.send


async def send(self: ownership.OwnedTopic, *args: Any) -> asyncio.Future[int]:
    if due("before-send", self.topic):
        harm()
    sent = await original_send(self, *args)
    if due("after-send", self.topic):
        harm()
    if due("durable-send", self.topic):
        await sent
        harm()
    return sent


async def claim(self: ownership.OwnedTopic, *args: Any) -> None:
    await original_claim(self, *args)
    phases[self.topic] = "catch-up"
    if due("claimed", self.topic):
        harm()


async def start(self: tenure.Tenure) -> None:
    await original_start(self)
    phases[self.stage.topic] = "live"


async def take(self: tenure.Tenure, *args: Any) -> None:
    if due("take", self.stage.topic):
        harm()
    await original_take(self, *args)


async def write(self: log_io.KafkaWriter, topic: str, value: bytes) -> asyncio.Future[int]:
    if b'"claim"' not in value[:80]:
        dropped, delivered = due("send-dropped", topic), due("send-delivered", topic)
        if dropped or delivered:
            if delivered:
                await (await original_write(self, topic, value))
            failed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            failed.set_exception(KafkaTimeoutError(f"a test failed this send to {topic}"))
            return failed
    return await original_write(self, topic, value)


class SlowGateway(InProcessGateway):
    """Models that take a moment, so that a kill can come in the middle of a round."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__(5)

    async def call(self, *args: Any) -> Any:
        if due("call", "predictions"):
            harm()
        await asyncio.sleep(0.005)
        return await super().call(*args)


class AskedGateway(FakeGateway):
    """The models that COORDINATOR_TEST_MODELS names."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__(behaviours(os.environ["COORDINATOR_TEST_MODELS"]))

    async def call(self, *args: Any) -> Any:
        if due("call", "predictions"):
            harm()
        return await super().call(*args)


def keep_inputs(worker: run.Worker) -> None:
    """The stage of `inputs` alone, under any hash by the default contract: `feeds` is what a test wrote there."""
    contract = CrunchContract()
    worker.keep(
        "input", "feeds", lambda: tenure.Tenure(worker.io, InputStage(lambda _: contract), worker.owner)
    )


run._SET_UP["inputs"] = keep_inputs
ownership.OwnedTopic.send = send  # type: ignore[method-assign]
ownership.OwnedTopic.claim = claim  # type: ignore[method-assign]
tenure.Tenure.start = start  # type: ignore[method-assign]
tenure.Tenure._take = take  # type: ignore[method-assign]
log_io.KafkaWriter.send = write  # type: ignore[method-assign]
model_gateway.RunnerClientGateway = (  # type: ignore[misc, assignment]
    AskedGateway if "COORDINATOR_TEST_MODELS" in os.environ else SlowGateway
)


async def flap(name: str) -> None:
    """Joins and leaves the group as lines on stdin say: `join` and `leave`. Each join is a separate worker."""
    stop: asyncio.Event | None = None
    running: asyncio.Task[None] | None = None
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        if line.strip() == b"join":
            worker = run.Worker(SETTINGS, name)
            run._SET_UP[name](worker)
            stop = asyncio.Event()
            running = asyncio.create_task(worker.run_until(stop))
        elif stop is not None and running is not None:
            stop.set()
            await running
            await worker.io.close()


if __name__ == "__main__":
    if os.environ.get("COORDINATOR_TEST_FLAP"):
        run.set_up_logging(sys.argv[1])
        asyncio.run(flap(sys.argv[1]))
    else:
        run.run_worker(sys.argv[1], SETTINGS)
