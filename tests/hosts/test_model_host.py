"""The models' host far away, cut off, lost: rounds go on, the models are not blamed, and they come back by themselves.

The model host runs on a host of its own, with its models. The predict worker's tenure and its gateway run in this
process, over a log in memory, and reach it by a real cable.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.hosts.network import Network, why_no_hosts
from tests.hosts.wires import Manner
from tests.infra.models.stage import CRUNCH_ID, PREDICT, model_source, write_model
from tests.infra.models.test_survival import on_roster, play
from tests.predict_scene import Scene
from tests.waiting import limit, until

from coordinator.infra.models.gateway import RunnerClientGateway
from coordinator.streams.contract import CrunchContract

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "hosts can be had"),
]
PORT = 9100
GOOD, ALL = ("good1", "good2"), ("good1", "good2", "slow")
ROUND_MS = 3_000
BACK_SECONDS_MAX = 20.0


class FarModels:
    """A host of models, and the scene whose gateway calls them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.network = Network(["models"])
        self.gateway = RunnerClientGateway(self.network.address("models"), PORT, CRUNCH_ID)
        self.scene = Scene(CrunchContract(deadline_seconds=ROUND_MS / 1000), self.gateway)
        self._rounds = 0
        self._starts = 0

    async def open(self) -> None:
        for name in GOOD:
            write_model(self._folder / "models", name, model_source(PREDICT["good"]))
        write_model(self._folder / "models", "slow", model_source("import time; time.sleep(9)"))
        self.network.open()
        await self.start_host()
        await self.gateway.start()
        await self.scene.start()
        await self.scene.until(lambda: set(ALL) <= set(on_roster(self.scene)))

    async def start_host(self) -> None:
        self._starts += 1
        file = self._folder / f"host-{self._starts}.log"
        options = [
            "--models",
            self._folder / "models",
            "--log-dir",
            self._folder / "logs",
            "--crunch",
            CRUNCH_ID,
        ]
        listening = ["--listen", self.network.address("models"), "--port", str(PORT)]
        command = [sys.executable, "-Im", "coordinator.infra.models.host", *options, *listening]
        with file.open("wb") as out:
            self.network.start("models", command, os.environ, out, self._folder)
        await until(lambda: "listening on" in file.read_text(), 0.1, file.read_text)

    async def close(self) -> None:
        if self.scene.tenure is not None:
            await self.scene.tenure.close()
        await self.gateway.stop()
        self.network.close()

    async def play(self, count: int) -> list[tuple[str, str, str]]:
        """Plays this many rounds. Returns (model, fault, reason) of each missing answer."""
        before = len(self.scene.missed())
        await play(self.scene, self._rounds, count, ROUND_MS)
        self._rounds += count
        return self.scene.missed()[before:]

    async def answers_again(self) -> float:
        """Plays rounds until the good models answer. Returns the seconds that it took."""
        began = time.monotonic()
        async with limit():
            while {model for model, _, _ in await self.play(1)} & set(GOOD):
                await asyncio.sleep(0.1)
        return time.monotonic() - began


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[FarModels]:
    opened = FarModels(tmp_path)
    try:
        await opened.open()
        yield opened
    finally:
        await opened.close()


def blamed(missed: list[tuple[str, str, str]]) -> set[str]:
    return {model for model, fault, _ in missed if fault == "model"}


async def test_a_far_model_host_answers_and_only_its_slow_model_is_charged(far):
    for delay_ms in (0, 50, 200):
        far.network.carry(["models"], Manner(delay_ms=delay_ms, jitter_ms=delay_ms / 4))
        missed = await far.play(2)
        assert {model for model, _, _ in missed} == {"slow"}, missed
        assert blamed(missed) == {"slow"}, missed


async def test_models_whose_host_is_cut_off_are_not_blamed_and_answer_when_it_is_back(far):
    await far.play(1)
    for rounds in (2, 8):
        far.network.cut("models")
        missed = await far.play(rounds)
        assert {model for model, _, _ in missed} == set(ALL)
        assert not blamed(missed), missed
        far.network.mend("models")
        seconds = await far.answers_again()
        print(
            f"cut off for {rounds} rounds of {ROUND_MS / 1000:g} s, answers {seconds:.1f} s after it is back"
        )
        assert seconds < BACK_SECONDS_MAX
    await until(lambda: far.gateway.connected)
    assert blamed(await far.play(1)) == {"slow"}


async def test_answers_to_calls_sent_before_the_host_was_cut_off_are_not_the_models_fault(far):
    playing = asyncio.create_task(far.play(1))
    await asyncio.sleep(1)  # the good ones have answered, and the slow one has the call
    far.network.cut("models")
    missed = await playing
    assert not blamed(missed), missed


@pytest.mark.parametrize("way", ["out", "back"])
async def test_a_cable_that_carries_only_one_way_is_not_the_models_fault(far, way):
    lost = {"out": (Manner(lost_share=1), Manner()), "back": (Manner(), Manner(lost_share=1))}
    far.network.carry(["models"], *lost[way])
    assert not blamed(await far.play(3))
    far.network.carry(["models"], Manner())
    assert await far.answers_again() < BACK_SECONDS_MAX


async def test_models_whose_host_is_lost_are_not_blamed_and_are_called_on_the_new_one(far):
    await far.play(1)
    far.network.lose("models")
    missed = await far.play(3)
    assert not blamed(missed), missed
    far.network.mend("models")
    await far.start_host()
    seconds = await far.answers_again()
    print(f"a host that was lost answers {seconds:.1f} s after its models run again")
    assert seconds < BACK_SECONDS_MAX
