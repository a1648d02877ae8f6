"""Rounds with real models: a process each, a real host, real gRPC; our way to ask them beside the library's bare one.

Three ways take turns round by round, so that the machine's mood is the same for all: the client library alone (tick on
all, then predict on all), the predict worker's way (`agents/predict/asking.py` over the gateway), and our own stubs on the same
wire (a channel per model, no library), which the node does not use.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import msgspec
from tests.streams.build import T0, received

from coordinator.infra.models.gateway import RunnerClientGateway
from coordinator.infra.models.host import variants
from coordinator.streams.agents.predict.asking import Askers, Asking
from coordinator.streams.contract import CrunchContract
from coordinator.streams.events import InputReceivedData
from coordinator.streams.ports import Outcome

MODEL = """from coordinator.scaffolds.challenge.tracker import TrackerBase


class Model(TrackerBase):
    def predict(self, subject, horizon_seconds, step_seconds):
        return {"value": 0.1}
"""
CANDLES = 60
ROUND_SECONDS_MAX = 30.0
START_SECONDS_MAX = 120.0
CALLS_PER_MODEL = 2


class Way(msgspec.Struct, frozen=True):
    """Rounds of one way: times in ms, and calls a second."""

    p50_ms: float
    p95_ms: float
    calls_per_second: float


class Found(msgspec.Struct, frozen=True):
    """All three; `overhead` is what the predict worker's way costs more than the library alone, as a ratio."""

    models: int
    rounds: int
    library: Way
    node: Way
    stubs: Way
    overhead: float


def measure(folder: Path, models: int, rounds: int) -> Found:
    """Start a host with so many models and play rounds."""
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
    try:
        assert host.stdout is not None
        port = int(host.stdout.readline().rpartition(":")[2])
        return asyncio.run(_measure(port, models, rounds))
    finally:
        host.terminate()
        host.wait(30)


async def _measure(port: int, models: int, rounds: int) -> Found:
    gateway = RunnerClientGateway("127.0.0.1", port, "bench")
    await gateway.start()
    cluster: Any = gateway._runner.model_cluster
    async with asyncio.timeout(START_SECONDS_MAX):
        while len(cluster.models_run) < models:
            await asyncio.sleep(0.05)
    ways = {"library": Library(gateway), "node": Node(gateway), "stubs": Stubs(gateway)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    try:
        for number in range(-2, rounds):  # the first two warm up
            for name, way in ways.items():
                began = time.perf_counter()
                await way.round(number)
                if number >= 0:
                    times[name].append(time.perf_counter() - began)
    finally:
        await ways["stubs"].close()
        await gateway.stop()
    measured_ways = {name: _way(of, models) for name, of in times.items()}
    overhead = sum(times["node"]) / sum(times["library"]) - 1
    return Found(
        models, rounds, measured_ways["library"], measured_ways["node"], measured_ways["stubs"], overhead
    )


def _way(seconds: list[float], models: int) -> Way:
    late = quantiles(seconds, n=20)[18] if len(seconds) > 1 else seconds[0]
    calls = CALLS_PER_MODEL * models * len(seconds) / sum(seconds)
    return Way(1000 * median(seconds), 1000 * late, calls)


def asked(number: int) -> InputReceivedData:
    """An input with 60 candles, about 5.5 kB."""
    candle = {"open": 20000.1, "high": 20010.2, "low": 19990.3, "close": 20005.4, "volume": 12.345}
    candles = [{"ts": T0 + i * 60_000, **candle} for i in range(CANDLES)]
    data = {"symbol": "BTCUSDT", "asof_ts": T0 + number, "candles": candles}
    return msgspec.structs.replace(received(T0 + number).data, payload=msgspec.Raw(msgspec.json.encode(data)))


class Library:
    """`model-runner-client` alone."""

    def __init__(self, gateway: RunnerClientGateway) -> None:
        self._runner = gateway._runner

    async def round(self, number: int) -> None:
        data = asked(number)
        for method, values in (
            ("tick", [msgspec.json.decode(data.payload)]),
            ("predict", [data.subject, 60, 15]),
        ):
            results = await self._runner.call(
                method, arguments=(variants.encode_arguments(values), []), timeout=ROUND_SECONDS_MAX
            )
            assert {result.status.value for result in results.values()} == {"SUCCESS"}


class Node:
    """As the predict worker asks."""

    def __init__(self, gateway: RunnerClientGateway) -> None:
        self._askers = Askers(gateway)
        self._contract = CrunchContract()
        self._ids = sorted(gateway.announced or ())

    async def round(self, number: int) -> None:
        asking = Asking(self._askers, self._ids, asked(number), self._contract, ROUND_SECONDS_MAX, 0.0)
        answered = 0
        while not asking.over:
            answers = await asking.next(_never)
            answered += sum(reply.outcome is Outcome.OK for of in answers.values() for reply in of.values())
        assert answered == len(self._ids)


class Stubs:
    """Our own stubs on the same wire protocol."""

    def __init__(self, gateway: RunnerClientGateway) -> None:
        import grpc
        from model_runner_client.grpc.generated import dynamic_subclass_pb2, dynamic_subclass_pb2_grpc

        self._request = dynamic_subclass_pb2.CallRequest
        runners = gateway._runner.model_cluster.models_run.values()
        self._channels = [grpc.aio.insecure_channel(f"{runner.ip}:{runner.port}") for runner in runners]
        self._stubs = [
            dynamic_subclass_pb2_grpc.DynamicSubclassServiceStub(channel) for channel in self._channels
        ]

    async def round(self, number: int) -> None:
        data = asked(number)
        tick = self._request(
            methodName="tick", methodArguments=variants.encode_arguments([msgspec.json.decode(data.payload)])
        )
        predict = self._request(
            methodName="predict", methodArguments=variants.encode_arguments([data.subject, 60, 15])
        )

        async def predict_by(stub: Any) -> Any:
            await stub.Call(tick, timeout=ROUND_SECONDS_MAX)
            return variants.decode((await stub.Call(predict, timeout=ROUND_SECONDS_MAX)).methodResponse)

        outputs = await asyncio.gather(*(predict_by(stub) for stub in self._stubs))
        assert all(output == {"value": 0.1} for output in outputs)

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


async def _never() -> bool:
    return False
