"""A worker that is killed by an answer: the next process knows which model gave it, and charges that model alone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.predict_scene import Scene
from tests.streams.build import T0, received

from coordinator.infra.models.crash_notes import CrashNotes
from coordinator.streams.predictions.replies import WORKER_DIED
from coordinator.streams.predictions.stage import NODE_RESTARTED

DIES = """
import os, sys
from pathlib import Path
from coordinator.infra.models.crash_notes import CrashNotes
hand = CrashNotes(Path(sys.argv[1]))
with hand.holding("innocent"):
    pass
if sys.argv[2]:
    with hand.holding(sys.argv[2]):
        os.kill(os.getpid(), 9)
os._exit(1)
"""


def dies_holding(path: Path, model_id: str) -> None:
    subprocess.run([sys.executable, "-Ic", DIES, str(path), model_id], check=False)


def test_the_next_process_knows_which_models_answer_the_killed_one_was_reading(tmp_path: Path):
    path = tmp_path / "data" / "in-hand"
    assert CrashNotes(path).left_behind == ""
    dies_holding(path, "a long name")
    dies_holding(path, "b")
    assert CrashNotes(path).left_behind == "b"
    assert CrashNotes(path).left_behind == ""  # reported once: the process before was not killed by an answer
    dies_holding(path, "")
    assert CrashNotes(path).left_behind == ""


def test_if_it_cannot_be_written_the_worker_goes_on(tmp_path: Path):
    (tmp_path / "file").write_text("")
    hand = CrashNotes(tmp_path / "file" / "in-hand")
    with hand.holding("a"):
        assert hand.left_behind == ""


async def test_the_round_that_killed_the_worker_is_failed_for_its_model_and_absent_by_the_nodes_fault_for_others(
    tmp_path: Path,
):
    async def never(method: str, _arguments: Any) -> Any:
        await asyncio.Event().wait()

    dies_holding(tmp_path / "in-hand", "b")
    play = Scene()
    play.gateway.join("a", never)
    play.gateway.join("b", never)
    await play.start()
    play.asked(received(T0))
    delivering = asyncio.create_task(play.deliver())
    await play.until(lambda: ["RoundOpened"] in play.kinds())
    delivering.cancel()
    await asyncio.gather(delivering, return_exceptions=True)

    play.in_hand = CrashNotes(tmp_path / "in-hand")
    await play.start()
    await play.deliver()
    assert sorted(play.missed()) == [("a", "node", NODE_RESTARTED), ("b", "model", WORKER_DIED)]
    assert play.tenure is not None
    await play.tenure.close()
