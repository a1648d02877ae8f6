"""What the model host keeps in memory: a process of its own, beside a node's workers, should be small."""

from __future__ import annotations

import subprocess
import sys

HOST = "coordinator.infra.models.host.__main__, coordinator.infra.models.host.read_side"
HEAVY = (
    "coordinator.streams.contract",
    "faust",
    "aiokafka",
    "pydantic",
    "structlog",
    "rich",
    "fastapi",
    "grpc",
)


def test_the_model_host_imports_neither_a_contract_nor_what_only_a_worker_needs():
    code = f"import sys, {HOST}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-Ic", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
