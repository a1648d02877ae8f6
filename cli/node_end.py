"""The end of a replay: wait until every stage has decided everything, and write what the run came to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic

from coordinator.infra.whole_file import write_whole
from coordinator.streams.log.errors import WorldError
from coordinator.streams.settings import Settings

IDLE_POLL_SECONDS = 0.5
STUCK_REMARK_SECONDS = 30.0


async def until_decided(settings: Settings, say: Callable[[str], None]) -> None:
    """Wait until no stage has anything left to decide; every STUCK_REMARK_SECONDS say what it waits for."""
    from coordinator.infra.log.positions import PipelineWatch, pipeline_waits_for  # noqa: PLC0415

    watch = PipelineWatch(settings.crunch_id)
    remarked_at = monotonic()
    while True:
        try:
            waits_for = await pipeline_waits_for(settings.kafka_bootstrap, watch)
        except WorldError as error:
            waits_for = [str(error)]  # the supervisor restarts the broker, or will
        if not waits_for:
            say("every stage has decided everything")
            return
        if monotonic() - remarked_at > STUCK_REMARK_SECONDS:
            remarked_at = monotonic()
            say(f"not over yet: {'; '.join(waits_for)}")
        await asyncio.sleep(IDLE_POLL_SECONDS)


async def write_summary(settings: Settings, restarts: Mapping[str, int], path: Path) -> None:
    """Write the run's summary as JSON, once the workers have ended and the log stands still.

    `restarts`: child -> how often it was restarted. The file appears whole or not at all.
    """
    from coordinator.cli.run_summary import make_summary  # noqa: PLC0415

    summary = await make_summary(settings.kafka_bootstrap, settings.crunch_id, restarts)
    write_whole(path, (json.dumps(summary, indent=2) + "\n").encode())
