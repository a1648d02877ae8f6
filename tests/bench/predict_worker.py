"""The predict worker with models that answer at once, in this process: what a round costs without models.

All but the gateway is the worker as it is. Says when a round's answers are durable:
`{"event":"answered","input_id":..,"mono":s}`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from coordinator.infra.processes.json_logs import set_up_logging
from coordinator.streams.agents.owning.faust_app import end_process
from coordinator.streams.agents.owning.ownership import OwnedTopic
from coordinator.streams.agents.predict.models_asked import ModelsAsked
from coordinator.streams.agents.predict.worker import PredictTenure
from coordinator.streams.agents.workers import Worker
from coordinator.streams.events import AnyEvent, RoundAnswered
from coordinator.streams.settings import read_settings
from fakes import InProcessGateway

send_as_it_is = OwnedTopic.send


async def send(self: OwnedTopic, events: list[AnyEvent], *rest: Any) -> asyncio.Future[int]:
    sent = await send_as_it_is(self, events, *rest)
    if events and isinstance(events[-1], RoundAnswered):
        input_id = events[-1].data.input_id

        def say(_: asyncio.Future[int]) -> None:
            line = {"event": "answered", "input_id": input_id, "mono": time.monotonic()}
            sys.stdout.write(json.dumps(line) + "\n")

        sent.add_done_callback(say)
    return sent


async def main(models: int) -> None:
    try:
        worker = Worker(read_settings(os.environ), "predict")
        asked = ModelsAsked(InProcessGateway(models))
        worker.keep(
            "predict",
            "inputs",
            lambda: PredictTenure(worker.io, worker.owner, asked, worker.shelf),
        )
        await worker.run()
    except Exception as error:
        end_process("predict", error)
    end_process("predict", None)


OwnedTopic.send = send  # type: ignore[method-assign]
set_up_logging("predict")
asyncio.run(main(int(sys.argv[1])))
