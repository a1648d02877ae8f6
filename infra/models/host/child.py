"""One model in one process: the runner's gRPC side.

Reads calls on one address (127.0.0.1 unless told otherwise; any free port), emits answers; writes `{"port", "pid"}`
on a pipe when it serves, because stdout belongs to the model. It imports gRPC and the generated messages and nothing
heavier: fifty of these share a small machine.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# The second by name: gRPC imports it when it first serves. Each process would compile it, since none may write to the
# cache of compiled modules.
import grpc
import grpc._server
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from model_runner_client.grpc.generated import commons_pb2, dynamic_subclass_pb2, dynamic_subclass_pb2_grpc

from coordinator.infra.models.host import variants
from coordinator.infra.models.host.confine import confine, seal
from coordinator.infra.models.host.discovery import (
    BadImplementationError,
    ModelFault,
    UnknownBaseClassError,
    find_model_class,
    import_base_class,
    method_of,
)
from coordinator.infra.models.host.limits import CallClock, limit_resources
from coordinator.infra.models.host.refusals import told
from coordinator.infra.models.host.serving import Serving
from coordinator.infra.processes.forking import forked
from coordinator.streams.predictions.sendable import VariantError

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
THREADS = 3  # one for the model; the others keep health and "busy" answers prompt
NOT_SET_UP = commons_pb2.Status(code="FAILED_PRECONDITION", message="call Setup first")


class DynamicSubclassServicer:
    """The service `DynamicSubclassService`: Setup once, then Call, one at a time."""

    def __init__(
        self, folder: Path, clock: CallClock, call_limit_seconds: float, setup_limit_seconds: float
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._call_limit_seconds = call_limit_seconds
        self._setup_limit_seconds = setup_limit_seconds
        self._lock = threading.Lock()
        self._model: Any = None
        self._recipe: tuple[type, list[Any], dict[str, Any]] | None = None

    def Setup(self, request: Any, context: Any) -> Any:  # noqa: N802 (the protocol's name)
        """Find and construct the model. Again on a live model: SUCCESS, and nothing changes."""
        with _BusyLock(self._lock, context):
            status = commons_pb2.Status(code="SUCCESS")
            if self._model is None:
                with self._clock.running("Setup", self._setup_limit_seconds):
                    status = self._set_up(request)
            return dynamic_subclass_pb2.SetupResponse(status=status)

    def Call(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Call one method of the model. Keywords that its signature does not know are dropped."""
        with _BusyLock(self._lock, context):
            with self._clock.running(f"Call {request.methodName}", self._call_limit_seconds):
                status, response = self._call(request)
            return dynamic_subclass_pb2.CallResponse(status=status, methodResponse=response)

    def Rest(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """Constructs the model again ("reset")."""
        with _BusyLock(self._lock, context):
            if self._recipe is None:
                return dynamic_subclass_pb2.RestResponse(status=NOT_SET_UP)
            with self._clock.running("Rest", self._setup_limit_seconds):
                return dynamic_subclass_pb2.RestResponse(status=self._construct(*self._recipe))

    def _set_up(self, request: Any) -> Any:
        if not request.className:
            return _status("INVALID_ARGUMENT", "className is empty")
        try:
            positional = variants.decode_arguments(request.instanceArguments)
            keywords = variants.decode_keywords(request.instanceKwArguments)
            model_class = find_model_class(self._folder, import_base_class(request.className))
        except (UnknownBaseClassError, VariantError) as error:
            return _status("INVALID_ARGUMENT", str(error))
        except BadImplementationError as error:
            return _status("BAD_IMPLEMENTATION", str(error))
        return self._construct(model_class, positional, keywords)

    def _construct(self, model_class: type, positional: list[Any], keywords: dict[str, Any]) -> Any:
        try:
            self._model = model_class(*positional, **_known(model_class, keywords))
        except ModelFault as error:
            traceback.print_exc()
            return _status("SETUP_FAILED", told(error))
        self._recipe = (model_class, positional, keywords)
        return _status("SUCCESS")

    def _call(self, request: Any) -> tuple[Any, Any]:
        name = request.methodName
        if self._model is None:
            return NOT_SET_UP, None
        if not name:
            return _status("INVALID_ARGUMENT", "methodName is empty"), None
        try:
            method = method_of(self._model, name)
            positional = variants.decode_arguments(request.methodArguments)
            # Only what the method takes is decoded: a table costs a model that does not want it nothing.
            keyword_arguments = _known(
                method, {argument.keyword: argument for argument in request.methodKwArguments}
            )
            keywords = variants.decode_keywords(keyword_arguments.values())
        except BadImplementationError as error:
            return _status("BAD_IMPLEMENTATION", str(error)), None
        except VariantError as error:
            return _status("INVALID_ARGUMENT", str(error)), None
        try:
            return _status("SUCCESS"), variants.encode(method(*positional, **keywords))
        except ModelFault as error:
            traceback.print_exc()
            return _status("MODEL_FAILED", told(error)), None


class _BusyLock:
    """A lock that never waits: a call that finds the model at work is answered "busy"."""

    def __init__(self, lock: threading.Lock, context: Any) -> None:
        self._lock, self._context = lock, context

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Server busy")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def serve(serving: Serving, ready_fd: int) -> None:
    """Bind, say so on the pipe, and serve until the process is ended."""
    folder = Path(serving.folder)
    # Before gRPC starts a thread, since a thread's confinement is that of the one which started it.
    confined = [confine(map(Path, serving.readable), map(Path, serving.listable), [folder])]
    clock = CallClock(os.getppid(), serving.call_limit_seconds)
    server = grpc.server(
        ThreadPoolExecutor(max_workers=THREADS),
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ],
    )
    servicer = DynamicSubclassServicer(folder, clock, serving.call_limit_seconds, serving.setup_limit_seconds)
    dynamic_subclass_pb2_grpc.add_DynamicSubclassServiceServicer_to_server(servicer, server)
    health_servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    health_servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    port = server.add_insecure_port(f"{serving.listen}:0")
    server.start()
    clock.start()
    # After gRPC: its own threads and buffers are not the model's, and the port that it listens on stays open.
    limit_resources(serving.memory_limit_mb, serving.disk_limit_mb)
    confined.append(seal())
    # Only now, so that a file of the model cannot replace a library of the host.
    sys.path[:] = [str(folder), *sys.path, *serving.path]
    os.write(ready_fd, _ready_line(port, confined))
    os.close(ready_fd)
    server.wait_for_termination()


def _ready_line(port: int, confined: list[str]) -> bytes:
    return json.dumps({"port": port, "pid": os.getpid(), "confined": confined}).encode() + b"\n"


def _known(target: Any, keywords: dict[str, Any]) -> dict[str, Any]:
    """The keywords that `target` accepts: how a challenge can grow without breaking older models."""
    if not keywords:
        return keywords
    parameters = inspect.signature(target).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return keywords
    return {name: value for name, value in keywords.items() if name in parameters}


def _status(code: str, message: str = "") -> Any:
    if message:
        sys.stderr.write(f"[child] {code}: {message}\n")
    return commons_pb2.Status(code=code, message=message)


def main() -> None:
    """Fork a process for each request of the host; in a fork, serve the model that the request names."""
    fork = forked(sys.argv)
    if fork is None:
        return
    request, (ready_fd,) = fork
    os.set_inheritable(ready_fd, False)
    serve(Serving(**request["serving"]), ready_fd)


if __name__ == "__main__":
    main()
