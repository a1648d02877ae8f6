"""Calls that nobody would write, against the real application behind a real socket."""

from __future__ import annotations

import subprocess
import sys
import time

import httpx
import pytest
from tests.api.fuzz_server import KEY
from tests.api.fuzzing import findings, fuzz, links_covered
from tests.loopback import NO_CERTIFICATES
from tests.waiting import LIMIT_SECONDS

from coordinator.infra.kafka.embedded import free_ports


@pytest.fixture
def server(tmp_path):
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.api.fuzz_server", str(port), str(tmp_path / "data")]
    )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        try:
            httpx.get(f"{address}/healthz", verify=NO_CERTIFICATES)
            break
        except httpx.TransportError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield address
    process.terminate()
    process.wait(LIMIT_SECONDS)


def test_calls_drawn_by_the_document_find_nothing_that_it_does_not_allow(server, tmp_path):
    code, calls, output = fuzz(
        server, KEY, examples=1, folder=tmp_path, seconds_max=900, phases="examples,fuzzing"
    )
    assert code == 0, findings(output)
    assert calls >= 150, output[-2000:]


@pytest.mark.slow  # the test above calls each operation as well, with fewer values
def test_a_thousand_calls_find_nothing_that_the_document_does_not_allow(server, tmp_path):
    code, calls, output = fuzz(server, KEY, examples=1, folder=tmp_path, seconds_max=900)
    assert code == 0, findings(output)
    assert calls >= 1_000, output[-2000:]
    assert links_covered(output) >= 8, output[-2000:]
