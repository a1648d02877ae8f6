"""How many round trips to a broker far away follow one another until a stage is taken over: each costs the whole delay."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tests.hosts.cluster import CLUSTER_ID, NEEDS_HOSTS
from tests.hosts.network import Network
from tests.hosts.wires import Manner
from tests.waiting import until

from coordinator.infra.fetch import ensure_runtime
from coordinator.infra.kafka.topics import create_topics
from coordinator.streams.agents.owning.log_io import KafkaLog
from coordinator.streams.agents.owning.tenure import Tenure
from coordinator.streams.contract import CrunchContract
from coordinator.streams.scores.stage import ScoreStage

pytestmark = NEEDS_HOSTS
CRUNCH = "far"
ROUND_TRIP_SECONDS = 0.3
ROUND_TRIPS_MAX = 12
"""A claim and the opening of two sources: 5 were measured, 24 with clients opened for it; a busy machine adds to each."""
LOOK_ROUND_TRIPS_MAX = 45
"""Whether all nine topics are whole: 36 were measured, and 63 with one client for all of them."""


async def test_a_standby_takes_over_within_few_round_trips(tmp_path: Path):
    ensure_runtime()
    network = Network(["broker-1"])
    network.open()
    try:
        address = network.address("broker-1")
        script, log_of_broker = Path(__file__).with_name("broker_host.py"), tmp_path / "broker.log"
        command = [sys.executable, "-I", script, tmp_path / "broker", "1", CLUSTER_ID, address]
        with log_of_broker.open("wb") as out:
            network.start("broker-1", command, os.environ, out, tmp_path)
        await until(lambda: "ready" in log_of_broker.read_text(), 0.2, log_of_broker.read_text)
        await create_topics(f"{address}:9092", CRUNCH)
        io = KafkaLog(f"{address}:9092", CRUNCH)
        await io.keep_ready()  # as a standby that has run for a while
        network.carry(["broker-1"], Manner(delay_ms=1000 * ROUND_TRIP_SECONDS / 2))
        began, starting = time.monotonic(), KafkaLog(f"{address}:9092", CRUNCH)
        await starting.connect()
        look = (time.monotonic() - began) / ROUND_TRIP_SECONDS
        print(f"a worker that starts has looked at the topics after {look:.1f} round trips")
        await starting.close()
        tenure = Tenure(io, ScoreStage(lambda _: CrunchContract()), "standby")
        began = time.monotonic()
        await tenure.start()
        round_trips = (time.monotonic() - began) / ROUND_TRIP_SECONDS
        print(f"taken over after {round_trips:.1f} round trips")
        await tenure.close()
        await io.close()
    finally:
        network.close()
    assert round_trips < ROUND_TRIPS_MAX
    assert look < LOOK_ROUND_TRIPS_MAX
