"""Many participants in one process: an orchestrator's list, and a gRPC server for each model, on the real protocol.

`stub_models.py PORT COUNT`. Each takes a table by its tick, reads the columns `id` and `f0`, and answers a number for
each row. Servers share their threads and what they read of the same table: what is measured is the node.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import grpc
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from model_runner_client.grpc.generated import commons_pb2, dynamic_subclass_pb2, dynamic_subclass_pb2_grpc
from websockets.asyncio.server import ServerConnection, serve

from coordinator.infra.models.host import variants

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
SUCCESS = commons_pb2.Status(code="SUCCESS")
_tables: dict[str, tuple[list[str], Any]] = {}


def _read(parquet: bytes) -> tuple[list[str], Any]:
    digest = hashlib.sha256(parquet).hexdigest()
    if digest not in _tables:
        table = pq.read_table(pa.BufferReader(parquet), columns=["id", "f0"], use_threads=False)
        _tables[digest] = (table["id"].to_pylist(), table["f0"].to_numpy())
    return _tables[digest]


class Stub(dynamic_subclass_pb2_grpc.DynamicSubclassServiceServicer):
    """One participant; the higher its number, the less it goes by the feature that counts."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._answer: Any = None

    def Setup(self, request: Any, context: Any) -> Any:  # noqa: N802 (the protocol's name)
        """It needs none."""
        return dynamic_subclass_pb2.SetupResponse(status=SUCCESS)

    def Call(self, request: Any, context: Any) -> Any:  # noqa: N802
        """`tick` takes the table, any other method answers it."""
        if request.methodName == "tick":
            for argument in request.methodKwArguments:
                names, feature = _read(argument.data.value)
                noise = np.random.default_rng(self._number).normal(size=len(names)) * (1 + self._number)
                prediction = 1 / (1 + np.exp(-(feature + 0.1 * noise)))
                self._answer = {"columns": {"id": names, "prediction": prediction.tolist()}}
            answer = None
        else:
            answer = self._answer
        return dynamic_subclass_pb2.CallResponse(status=SUCCESS, methodResponse=variants.encode(answer))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=16)


def opened(number: int) -> tuple[Any, dict[str, Any]]:
    """(the server, the model as the orchestrator lists it)."""
    server = grpc.server(
        _threads(), options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
    )
    dynamic_subclass_pb2_grpc.add_DynamicSubclassServiceServicer_to_server(Stub(number), server)
    healthy = health.HealthServicer()
    healthy.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    name = f"stub-{number:03}"
    return server, {
        "deployment_id": f"{name}_1",
        "model_id": name,
        "state": "RUNNING",
        "ip": "127.0.0.1",
        "port": port,
        "infos": {"model_name": name, "cruncher_id": f"cruncher-{number:03}", "cruncher_name": name},
    }


async def main(port: int, count: int) -> None:
    """Serve until the process is ended."""
    servers = [opened(number) for number in range(count)]

    async def talk(connection: ServerConnection) -> None:
        states = [state for _, state in servers]
        await connection.send(msgspec.json.encode({"event": "init", "data": states}).decode())
        async for _ in connection:
            pass

    async with serve(talk, "127.0.0.1", port):
        sys.stdout.write('{"event": "listening"}\n')
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:3])))
