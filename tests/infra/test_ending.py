"""A process that is told to end does end, whatever blocks its event loop."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.waiting import LIMIT_SECONDS

PROGRAM = """
import asyncio, os, signal, threading
from coordinator.infra.processes import ending
from coordinator.infra.processes.json_logs import set_up_logging

async def swallows():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

async def blocks():
    threading.Event().wait()

async def ends():
    pass

async def main():
    stop = asyncio.Event()
    ending.end_when_told(stop)
    os.kill(os.getpid(), signal.{signal})
    await stop.wait()
    await {end}()

ending.END_SECONDS_MAX = {seconds}
set_up_logging("score")
asyncio.run(main())
print("the end")
"""


@pytest.mark.parametrize(
    ("signal", "end", "seconds", "message"),
    [
        ("SIGTERM", "swallows", 0.2, "end_forced"),
        ("SIGINT", "blocks", 0.2, "end_forced"),
        ("SIGTERM", "ends", 3600, "the end"),
    ],
)
def test_an_end_that_takes_too_long_is_forced(signal, end, seconds, message):
    program = PROGRAM.format(signal=signal, end=end, seconds=seconds)
    ended = subprocess.run(
        [sys.executable, "-Ic", program], capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert message in ended.stdout
    assert ("the end" in ended.stdout) == (end == "ends")
