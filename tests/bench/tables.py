"""A round over a table of 3,000 rows x 1,150 features: real models in processes of their own, real host, real gRPC.

    python -Im tests.bench.tables MODELS [ROWS FEATURES]

Each model gets the table as a DataFrame in its tick and answers a number for each row. CPU is that of the asking
process, and of the host with its models; memory is the highest PSS of both while two rounds are asked.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet
from tests.streams.build import T0, received

from coordinator.infra.blobs.folder import BlobFolder
from coordinator.infra.models.gateway import RunnerClientGateway
from coordinator.infra.rounds.files import read_content
from coordinator.infra.rounds.tables import TableBlob, kept
from coordinator.streams.agents.predict.asking import Askers, Asking
from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import Blob
from coordinator.streams.ports import Outcome, Table
from coordinator.streams.predictions.calls import Calls

MODEL = """from coordinator.scaffolds.challenge.tracker import TrackerBase


class Model(TrackerBase):
    def tick(self, data, table=None):
        self.answer = (table["f0"] * 0.1).tolist()

    def predict(self, subject, horizon_seconds, step_seconds):
        return {"value": self.answer}
"""
ROUNDS = 2
ROUND_SECONDS_MAX = 900.0


def the_table(rows: int, features: int) -> bytes:
    """Random features in float32, as Parquet."""
    chance = np.random.default_rng(7)
    columns: dict[str, Any] = {"id": [f"row-{row}" for row in range(rows)]}
    columns |= {f"f{number}": chance.normal(size=rows).astype(np.float32) for number in range(features)}
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue().to_pybytes())


def post(folder: Path, rows: int, features: int) -> tuple[Blob, dict[str, Any]]:
    """Make the table, and read and keep it as `rounds post` does."""
    content = the_table(rows, features)
    began = time.process_time()
    table = kept(read_content(content))
    BlobFolder(folder / "blobs").put(table.content)
    return table.blob, {
        "table_mb": len(content) / 1e6,
        "posting_cpu_seconds": time.process_time() - began,
        "posting_resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }


class Watch(threading.Thread):
    """The highest PSS in bytes of this process, and of the host and its models together."""

    def __init__(self, host: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.host, self.own_max, self.theirs_max, self.over = host, 0, 0, threading.Event()

    def run(self) -> None:
        """Look every two seconds."""
        while not self.over.wait(2):
            self.own_max = max(self.own_max, _pss([psutil.Process()]))
            self.theirs_max = max(self.theirs_max, _pss([self.host, *self.host.children(recursive=True)]))


def _pss(processes: list[psutil.Process]) -> int:
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def _cpu(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


async def measure(folder: Path, models: int, rows: int, features: int) -> list[dict[str, Any]]:
    """Play the rounds; a dict of figures for each."""
    for number in range(models):
        model_folder = folder / "models" / f"m{number:03}"
        model_folder.mkdir(parents=True)
        (model_folder / "main.py").write_text(MODEL)
    host = subprocess.Popen(
        [
            *(sys.executable, "-Im", "coordinator.infra.models.host", "--models", str(folder / "models")),
            *("--port", "0", "--crunch", "bench", "--log-dir", str(folder / "logs"), "--die-with-parent"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert host.stdout is not None
    gateway = RunnerClientGateway("127.0.0.1", int(host.stdout.readline().rpartition(":")[2]), "bench")
    await gateway.start()
    cluster: Any = gateway._runner.model_cluster
    async with asyncio.timeout(300):
        while len(cluster.models_run) < models:
            await asyncio.sleep(0.1)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as poster:
        blob, posted = poster.submit(post, folder, rows, features).result()
    figures: list[dict[str, Any]] = [posted]
    store = BlobFolder(folder / "blobs")
    watch = Watch(psutil.Process(host.pid))
    watch.start()
    askers = Askers(gateway)
    contract = CrunchContract(output_max_bytes=4_000_000)
    for number in range(ROUNDS):
        processes = [psutil.Process(host.pid), *psutil.Process(host.pid).children(recursive=True)]
        began, own, theirs = time.monotonic(), time.process_time(), _cpu(processes)
        payload = msgspec.Raw(msgspec.json.encode(TableBlob(blob, b"").payload()))
        data = msgspec.structs.replace(received(T0 + number).data, payload=payload)
        calls = Calls(data, contract, raw=True, table=Table(store.read(blob)))
        names = [f"m{number:03}" for number in range(models)]
        asking = Asking(askers, names, data, contract, ROUND_SECONDS_MAX, 1.0, calls)
        good = 0
        others: dict[str, int] = {}
        while not asking.over:
            replies = await asking.next(_never)
            for of_model in replies.values():
                for reply in of_model.values():
                    fits = reply.outcome is Outcome.OK and len(reply.output["value"]) == rows
                    good += fits
                    if not fits:
                        others[f"{reply.outcome} {reply.detail[:80]}"] = 1 + others.get(reply.outcome, 0)
        figures.append(
            {
                "round": number + 1,
                "models": models,
                "answers": good,
                "others": others,
                "wall_seconds": time.monotonic() - began,
                "asking_cpu_seconds": time.process_time() - own,
                "host_and_models_cpu_seconds": _cpu(processes) - theirs,
            }
        )
    watch.over.set()
    watch.join()
    figures.append({"asking_pss_mb": watch.own_max / 1e6, "host_and_models_pss_mb": watch.theirs_max / 1e6})
    await askers.close()
    await gateway.stop()
    host.terminate()
    host.wait(30)
    return figures


async def _never() -> bool:
    return False


if __name__ == "__main__":
    models_, rows_, features_ = [*map(int, sys.argv[1:]), *(100, 3000, 1150)[len(sys.argv) - 1 :]]
    with tempfile.TemporaryDirectory() as scratch:
        for line in asyncio.run(measure(Path(scratch), models_, rows_, features_)):
            print(json.dumps({name: round(v, 2) if isinstance(v, float) else v for name, v in line.items()}))
