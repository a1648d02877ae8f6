"""The way to the models: the `ModelGateway` port on the client library `model-runner-client`.

Reads the orchestrator's websocket (who is alive, and where) and calls each model over gRPC; emits
notices and replies. The library is used unchanged; this module works around its traps:

- its messages are handled one by one, so a slow or dead model would hold up every other (80 s and
  more): here each model's entry is applied in a task of its own;
- its `call` decodes what a model sent before anybody can bound it (a table of some kB is gigabytes), on the event
  loop, skips models for timeouts that were the node's, and names every gRPC error by a text: here each model is called
  by its own stub, and the library only keeps the connections;
- a server that lets go of it politely is asked again at once, in a loop: `orchestrator.py` has the pause;
- a process that restarted unannounced answers "call Setup first" for ever: it is set up again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Coroutine, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import grpc
import msgspec
from model_runner_client.grpc.generated.dynamic_subclass_pb2 import CallRequest

from coordinator.infra.models.announced_models import NOT_CONNECTED, AnnouncedModels
from coordinator.infra.models.host import variants
from coordinator.infra.models.orchestrator import Answering, take_over
from coordinator.infra.models.outcomes import (
    BAD_IMPLEMENTATION,
    NOT_SET_UP,
    reply_from_error,
    reply_from_response,
)
from coordinator.infra.models.runner_library import AuthError, Runner
from coordinator.infra.models.setup import keep_reasons, reason_of
from coordinator.infra.models.shared_values import SharedValues
from coordinator.streams.log.errors import OperatorError
from coordinator.streams.net.outbound import keep_this_machine_from_proxies
from coordinator.streams.ports import ModelNotice, ModelReply, Outcome, Table

log = logging.getLogger(__name__)

DEFAULT_BASE_CLASSNAME = "coordinator.scaffolds.challenge.tracker.TrackerBase"
RETRY_SECONDS = 1.0
TRIES_PER_WARNING = 10
CALL_TIMEOUT_SECONDS = 60.0
EARLY_SHARE = 0.9
"""A deadline that comes before this part of its time is the other side's word, not the clock's."""
DECODED_AT_ONCE_BYTES = 16_384
"""What is larger is decoded beside the event loop."""
NO_CONNECTION = "there is no connection to its process"


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What this node shows to the models and to the orchestrator.

    `secure_cert_dir` is a folder for mutual TLS to each model, `gateway_key_pem` a key for TLS to a gateway before
    them; at most one of the two is given. With `token` a local model host accepts this node's reports of failures.
    """

    secure_cert_dir: str | None = None
    gateway_key_pem: bytes | None = None
    token: str = ""


class _WithTable(NamedTuple):
    """A call with a table, and what it was made of."""

    method: str
    positional: Sequence[Any]
    request: CallRequest

    def is_of(self, method: str, positional: Sequence[Any]) -> bool:
        """Whether it was made from the same values. Comparing large values would cost more than sending them."""
        same = len(positional) == len(self.positional) and all(
            value is other or (isinstance(value, str | int | float) and value == other)
            for value, other in zip(positional, self.positional, strict=True)
        )
        return same and method == self.method


class RunnerClientGateway:
    """`ModelGateway` over websocket and gRPC, for a local model host and the hosted orchestrator alike."""

    def __init__(
        self,
        host: str,
        port: int,
        crunch_id: str,
        base_classname: str = DEFAULT_BASE_CLASSNAME,
        credentials: Credentials | None = None,
        *,
        call_seconds_max: float = CALL_TIMEOUT_SECONDS,
    ) -> None:
        credentials = credentials or Credentials()
        self._host, self._port, self._crunch_id, self._base_classname = host, port, crunch_id, base_classname
        self._secure_cert_dir, self._gateway_key_pem = (
            credentials.secure_cert_dir,
            credentials.gateway_key_pem,
        )
        self._call_seconds_max = call_seconds_max
        self._token = credentials.token
        self._encode = SharedValues().encode_arguments
        self._with_table: WeakKeyDictionary[Table, _WithTable] = WeakKeyDictionary()
        """The last call with each table; it goes with the table."""
        self._runner: Any = None
        self._orchestrator: Answering | None = None
        self._report: Any = None
        self._connection: asyncio.Task[None] | None = None
        self._announced = AnnouncedModels()
        self._tasks: set[asyncio.Task[None]] = set()
        self.listed = asyncio.Event()  # the orchestrator's first list has arrived

    async def start(self) -> None:
        """Begins connecting, and returns. It is retried without limit, with a warning every ten tries.

        Raises OperatorError for certificates or a key that cannot be used.
        """
        keep_this_machine_from_proxies()
        runner = Runner(
            timeout=self._call_seconds_max,
            crunch_id=self._crunch_id,
            host=self._host,
            port=self._port,
            base_classname=self._base_classname,
            report_failure=True,
            **self._credentials(),
        )
        socket = runner.model_cluster.ws_client
        socket.retry_interval = RETRY_SECONDS
        socket.max_retries = TRIES_PER_WARNING
        take_over(socket, self._crunch_id, self._on_event, RETRY_SECONDS, self._token)
        socket.disconnect_sync = _nothing  # the library hangs it on exit, when no loop is left to run it
        keep_reasons(runner.model_cluster)
        self._orchestrator = Answering(socket)
        self._report = runner.model_cluster.process_failure
        runner.model_cluster.process_failure = self._on_failure
        self._runner = runner
        self._connection = self._spawn(self._stay_connected())

    async def stop(self) -> None:
        """Close the websocket and every channel."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is None:
            return
        cluster = self._runner.model_cluster
        await cluster.ws_client.disconnect()
        runners = [*cluster.models_run.values(), *cluster.pending_model_runs.values()]
        await asyncio.gather(*(cluster.remove_model_runner(runner) for runner in runners))

    def notices(self) -> list[ModelNotice]:
        """What changed since the last call, in order; empties the list.

        `seen` comes when a model is set up and can be called, or just before its `failed`.
        """
        if self._connection is not None and self._connection.done() and not self._connection.cancelled():
            self._connection.result()  # it never ends by itself: a bug ended it
        return self._announced.take()

    @property
    def connected(self) -> bool:
        """Whether the orchestrator answers: without it, silence is not the models' fault."""
        return self._orchestrator is not None and self._orchestrator.connected

    @property
    def announced(self) -> Collection[str] | None:
        """The models that the orchestrator last named, running or recovering; None before its first list."""
        return self._announced.announced_ids if self.listed.is_set() else None

    async def call(
        self,
        method: str,
        arguments: Sequence[Any],
        timeout_seconds: float,
        model_ids: Collection[str],
        output_max_bytes: int = 0,
    ) -> dict[str, ModelReply]:
        """Call `method` on each model named, side by side; every id gets a reply. Raises VariantError
        for arguments that cannot be sent. With no time left (<= 0) nobody is called: DEADLINE, by the node's fault.
        """
        if not model_ids or self._runner is None:
            return {model_id: self._absent(model_id) for model_id in model_ids}
        request = self._request(method, arguments)
        timeout_seconds = min(timeout_seconds, self._call_seconds_max)
        if len(model_ids) == 1:
            (model_id,) = model_ids
            return {model_id: await self._call_one(model_id, request, timeout_seconds, output_max_bytes)}
        calls = (
            self._call_one(model_id, request, timeout_seconds, output_max_bytes)
            for model_id in dict.fromkeys(model_ids)
        )
        return {reply.model_id: reply for reply in await asyncio.gather(*calls)}

    def _request(self, method: str, arguments: Sequence[Any]) -> CallRequest:
        """The call on the wire. One with a table is made once for all models that get the same arguments: it holds a
        copy of the table as long as the call lasts. Raises VariantError.
        """
        tables = [argument for argument in arguments if isinstance(argument, Table)]
        positional = [argument for argument in arguments if not isinstance(argument, Table)]
        for table in tables:
            before = self._with_table.get(table)
            if before is not None and before.is_of(method, positional):
                return before.request
        request = CallRequest(
            methodName=method,
            methodArguments=self._encode(positional),
            methodKwArguments=[variants.table_argument(table.parquet) for table in tables],
        )
        for table in tables:
            self._with_table[table] = _WithTable(method, positional, request)
        return request

    async def report_failure(self, model_id: str, code: str, reason: str) -> bool:
        """Ask the orchestrator to stop a model; False if it is not connected. Gives a `failed` notice."""
        runner = self._runner.model_cluster.models_run.get(model_id) if self._runner else None
        if runner is not None:
            await self._on_failure(runner, code, reason)
        return runner is not None

    async def _call_one(
        self, model_id: str, request: CallRequest, timeout_seconds: float, output_max_bytes: int
    ) -> ModelReply:
        runner = self._runner.model_cluster.models_run.get(model_id)
        if runner is None:
            return self._absent(model_id)
        deployment_id = runner.deployment_id
        if timeout_seconds <= 0:
            return ModelReply(
                model_id, deployment_id, Outcome.DEADLINE, "node", detail="no time was left to ask"
            )
        began = time.monotonic()
        try:
            response = await self._send(runner, request, timeout_seconds)
        except AuthError as error:
            self._spawn(self._on_failure(runner, NOT_CONNECTED, str(error)))
            return ModelReply(
                model_id, deployment_id, Outcome.ABSENT, "model", detail=f"its authentication failed: {error}"
            )
        except grpc.aio.AioRpcError as error:
            code, detail = error.code().name, str(error.details() or "")
            reply = reply_from_error(model_id, deployment_id, code, detail)
            early = time.monotonic() - began < EARLY_SHARE * timeout_seconds
            if reply.outcome is Outcome.DEADLINE and (early or not _connected(runner)):
                # A deadline says that the model is slow only where it had the time: calls wait for a connection, and a
                # process may send this status at once.
                detail = "it ended the call before its time" if early else NO_CONNECTION
                reply = msgspec.structs.replace(reply, outcome=Outcome.CRASHED, detail=detail)
            if reply.outcome in (Outcome.CRASHED, Outcome.DEADLINE) and self._orchestrator is not None:
                await self._orchestrator.ask()  # who judges the reply looks whether it is `connected`
            return reply
        if response is None:  # the channel was closed under the call, because the model was taken away
            fault, why = self._announced.absence(model_id)
            return ModelReply(
                model_id, deployment_id, Outcome.ABSENT, fault, detail=f"it went away during the call: {why}"
            )
        exec_time_us = int((time.monotonic() - began) * 1e6)
        if response.methodResponse.ByteSize() > DECODED_AT_ONCE_BYTES and output_max_bytes:
            reply = await asyncio.to_thread(
                reply_from_response, model_id, deployment_id, response, output_max_bytes, exec_time_us
            )
        else:
            reply = reply_from_response(model_id, deployment_id, response, output_max_bytes, exec_time_us)
        if response.status.code == NOT_SET_UP:
            self._spawn(self._runner.model_cluster.reconnect_model_runner(runner))
        elif response.status.code == BAD_IMPLEMENTATION:
            self._spawn(self._on_failure(runner, BAD_IMPLEMENTATION, reply.detail))
        return reply

    async def _send(self, runner: Any, request: CallRequest, timeout_seconds: float) -> Any:
        """The model's response, or None where its channel was closed. Raises AioRpcError and AuthError."""
        try:
            return await runner.grpc_stub.Call(request, timeout=timeout_seconds, wait_for_ready=True)
        except grpc.aio.UsageError:
            return None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return None

    def _absent(self, model_id: str) -> ModelReply:
        fault, why = self._announced.absence(model_id)
        return ModelReply(
            *(model_id, self._announced.deployment_of(model_id), Outcome.ABSENT, fault),
            detail=f"not connected: {why}",
        )

    async def _stay_connected(self) -> None:
        while True:
            try:
                await self._runner.init()
                break
            except ConnectionError:
                log.warning("no model host answers at %s:%s yet; retrying", self._host, self._port)
        await self._runner.sync()

    async def _on_event(self, event: str, data: list[dict[str, Any]]) -> None:
        """One message of the orchestrator. Returns at once, so that no model waits for another."""
        cluster = self._runner.model_cluster
        if event == "init":
            data = self._announced.latest_of_each(data)
            present = {str(state.get("model_id")) for state in data}
            self._announced.only(present)
            for runner in [*cluster.models_run.values(), *cluster.pending_model_runs.values()]:
                if runner.model_id not in present:
                    self._spawn(cluster.remove_model_runner(runner))
        elif event != "update":
            log.warning("the orchestrator sent an unknown event %r, which is ignored", event)
            return
        for state in data:
            self._announced.announced(state)
            self._spawn(self._apply(state))
        self.listed.set()

    async def _apply(self, state: dict[str, Any]) -> None:
        from model_runner_client.errors import InvalidCoordinatorUsageError  # noqa: PLC0415

        try:
            await self._runner.model_cluster.update_model_runs([state])
        except InvalidCoordinatorUsageError as error:
            hint = f"MODEL_BASE_CLASSNAME={self._base_classname}"
            if "secure mode" in str(error):
                hint = "set SECURE_CERT_DIR (mutual TLS) or GATEWAY_CERT_DIR (a TLS gateway)"
            log.error(  # noqa: TRY400 (the operator needs the line, not our stack)
                "model %s refuses the setup of this node (%s): %s", state.get("model_id"), hint, error
            )
        runner = self._runner.model_cluster.models_run.get(str(state.get("model_id")))
        if runner is not None:
            self._announced.set_up(runner.model_id, runner.deployment_id)

    async def _on_failure(self, runner: Any, code: str, reason: str | None = None) -> None:
        if code == NOT_CONNECTED and not self.connected:
            # Its host is away with the orchestrator. It is set up again when both are back, and a report would stop it.
            await self._runner.model_cluster.remove_model_runner(runner)
            return
        reason = reason_of(runner, code, reason)
        self._announced.failed(runner.model_id, runner.deployment_id, code, reason)
        await self._report(runner, code, reason)

    def _credentials(self) -> dict[str, Any]:
        if self._secure_cert_dir is not None:
            from model_runner_client.security.credentials import SecureCredentials  # noqa: PLC0415

            try:
                return {"secure_credentials": SecureCredentials.from_directory(self._secure_cert_dir)}
            except (OSError, ValueError) as error:  # an SSLError is an OSError
                raise OperatorError(
                    f"SECURE_CERT_DIR={self._secure_cert_dir}: ca.crt, tls.crt and tls.key must be PEM, and tls.key "
                    f"the key of tls.crt: {error}"
                ) from error
        if self._gateway_key_pem is not None:
            from model_runner_client.security.gateway_credentials import GatewayCredentials  # noqa: PLC0415

            try:
                return {"gateway_credentials": GatewayCredentials.from_pem(key_pem=self._gateway_key_pem)}
            except (TypeError, ValueError) as error:
                raise OperatorError(
                    f"GATEWAY_CERT_DIR: key.pem must be an RSA key in PEM, without a password: {error}"
                ) from error
        return {}

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the model gateway failed", exc_info=error)


def _connected(runner: Any) -> bool:
    return bool(runner.grpc_channel.get_state().name == "READY")


def _nothing() -> None:
    return None
