"""Modules in the memory of the model host and its models' processes, since a small machine runs fifty of them."""

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

SERVE = """
import os, sys, threading
from coordinator.infra.models.host import child
from coordinator.infra.models.host.serving import Serving
before = set(sys.modules)
reading, writing = os.pipe()
serving = Serving(os.getcwd(), "127.0.0.1", 30.0, 30.0, 0, 0, [sys.prefix, sys.base_prefix], [], [])
threading.Thread(target=child.serve, args=(serving, writing), daemon=True).start()
os.read(reading, 1000)
print(sorted(set(sys.modules) - before), flush=True)
os._exit(0)
"""


def test_the_model_host_imports_neither_a_contract_nor_what_only_a_worker_needs():
    code = f"import sys, {HOST}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-Ic", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_models_process_imports_nothing_more_to_serve(tmp_path):
    done = subprocess.run(
        [sys.executable, "-Ic", SERVE], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "[]"
