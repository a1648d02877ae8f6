"""Twenty thousand calls that nobody would write, against a whole running node: its report worker, its log, its stages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.api.fuzzing import ALL_PHASES, RANDOM_PHASES, findings, fuzz, links_covered
from tests.candles import candle_file
from tests.waiting import LIMIT_SECONDS

from coordinator.api.keys import Scope, make_entry
from coordinator.infra.kafka.embedded import free_ports

pytestmark = [pytest.mark.broker, pytest.mark.slow]
CALLS_MIN = 20_000
EXAMPLES = 60
"""An operation and seed. Few: what hypothesis does to find the next example grows faster than their number."""
SEEDS_MAX = 40
AT_A_TIME = 2
LINKS_MIN = 10
"""Different links that one seed follows. Another seed follows others."""
SPEED = "60"
PERIODS = {"SNAPSHOT_INTERVAL_SECONDS": "600", "CHECKPOINT_INTERVAL_SECONDS": "1800"}
"""A minute in a second, a checkpoint in half a minute: all goes on meanwhile, and no export outgrows the calls."""
READY_SECONDS_MAX = 240


def test_a_running_node_answers_twenty_thousand_calls_as_its_document_says(
    kafka_bootstrap: str, crunch_id: str, tmp_path: Path
):
    key, entry = make_entry("fuzz", Scope.ADMIN, "s" * 43)
    (port,) = free_ports(1)
    said_by_node = tmp_path / "node.txt"
    with said_by_node.open("wb") as said_file:
        node = subprocess.Popen(
            [
                *(sys.executable, "-Im", "coordinator.cli.main", "up", "--kafka", kafka_bootstrap),
                *("--data-dir", str(tmp_path / "node"), "--port", str(port)),
                *("--candles", str(candle_file(tmp_path)), "--speed", SPEED),
            ],
            env={
                **os.environ,
                "CRUNCH_ID": crunch_id,
                "API_KEYS": entry,
                **PERIODS,
                "API_TRUSTED_NETWORKS": "",  # or calls from here would be let in without the key
                "API_REQUESTS_PER_SECOND": "0",
            },
            stdout=said_file,
            stderr=subprocess.STDOUT,
        )
    try:
        api = f"http://127.0.0.1:{port}"
        until_a_checkpoint(api, node)
        calls, links = many_calls(api, key, tmp_path)
        assert calls >= CALLS_MIN
        assert min(links) > 0
        assert max(links) >= LINKS_MIN
        health = httpx.get(f"{api}/healthz", timeout=LIMIT_SECONDS)
        assert health.status_code == 200, health.text
        metrics = httpx.get(f"{api}/metrics", timeout=LIMIT_SECONDS).text
        assert 'status="500"' not in metrics
    finally:
        node.send_signal(signal.SIGINT)
        node.wait(LIMIT_SECONDS)


def many_calls(api: str, key: str, tmp_path: Path) -> tuple[int, list[int]]:
    """(calls made, links followed by each seed): one seed after the other on each core, until there are enough."""

    def run(seed: int) -> tuple[int, int, str]:
        folder = tmp_path / f"seed-{seed}"
        folder.mkdir()
        phases = ALL_PHASES if seed == 1 else RANDOM_PHASES
        return fuzz(*(api, key), examples=EXAMPLES, folder=folder, seconds_max=900, phases=phases, seed=seed)

    calls, links = 0, []
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for first in range(1, SEEDS_MAX, AT_A_TIME):
            seeds = range(first, first + AT_A_TIME)
            for seed, (code, call_count, output) in zip(seeds, pool.map(run, seeds), strict=True):
                assert code == 0, f"seed {seed}: {findings(output)}"
                calls += call_count
                links.append(links_covered(output))
                print(f"seed {seed}: {call_count} calls, {links[-1]} links; {calls} so far", flush=True)
            if calls >= CALLS_MIN:
                break
    return calls, links


def until_a_checkpoint(api: str, node: subprocess.Popen[bytes]) -> None:
    """The node has scores and something to settle."""
    deadline = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < deadline:
        assert node.poll() is None
        try:
            listed = httpx.get(f"{api}/reports/checkpoints", timeout=LIMIT_SECONDS)
            if listed.is_success and listed.json():
                return
        except (httpx.TransportError, ValueError):
            pass
        time.sleep(0.5)
    raise AssertionError("no checkpoint came")
