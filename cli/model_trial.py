"""Tries one model: a real child process, real gRPC, real ticks, and every check that the node would make.

Starts the child by the model host's own code and asks it as the node does: Setup, then round by round the tick and
each scope's predict. Every check has a row; the first fault ends the trial.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import msgspec
from model_runner_client.grpc.generated import dynamic_subclass_pb2, dynamic_subclass_pb2_grpc

from coordinator.infra.models.host import variants
from coordinator.infra.models.host.model_folder import ModelEntry
from coordinator.infra.models.host.process import (
    Child,
    ChildFailedError,
    Limits,
    child_server,
    end_child,
    log_path,
    start_child,
)
from coordinator.infra.rotated_log import read_end
from coordinator.streams.contract import CrunchContract, ScheduledPrediction
from coordinator.streams.net.outbound import keep_this_machine_from_proxies
from coordinator.streams.predictions.calls import NONE
from coordinator.streams.predictions.replies import check_output
from coordinator.streams.predictions.sendable import VariantError
from coordinator.streams.predictions.stage import BUDGET_SHARE

HOST = "127.0.0.1"
LOG_BYTES_MAX = 4000


class Tick(msgspec.Struct, frozen=True):
    """The input of one round: the subject, its time (`asof_ts`, ms), and the payload as plain data."""

    subject: str
    asof_ts: int
    data: Any


class Check(msgspec.Struct, frozen=True):
    """One row: what was checked, how it went, and what was measured."""

    name: str
    ok: bool
    measured: str


class Trial(msgspec.Struct, frozen=True):
    """The verdict on one model. `reason` is empty when all is well; `log_tail` is what the model itself printed."""

    entry: ModelEntry
    checks: list[Check]
    reason: str
    log_tail: str


class FaultFoundError(Exception):
    """The model did something that the node would count as its fault."""


class ModelTrial:
    """One trial. `run` gives its verdict and raises nothing for what the model does."""

    def __init__(
        self,
        entry: ModelEntry,
        contract: CrunchContract,
        base_classname: str,
        ticks: Sequence[Tick],
        limits: Limits,
        log_dir: Path,
    ) -> None:
        self._entry, self._contract, self._base_classname = entry, contract, base_classname
        self._ticks, self._limits, self._log_dir = ticks, limits, log_dir
        self._budget_seconds = BUDGET_SHARE * contract.deadline_seconds
        self._checks: list[Check] = []
        self._now = "its process starts"

    async def run(self, on_round: Callable[[int, int], None]) -> Trial:
        """The verdict; `on_round` gets (rounds finished, rounds)."""
        reason = ""
        child: Child | None = None
        forks = child_server()
        try:
            child = await start_child(forks, self._entry, self._limits, self._log_dir)
            self._passed("its process starts", f"pid {child.pid}")
            keep_this_machine_from_proxies()
            options = [variants.MESSAGE_OPTION]
            async with grpc.aio.insecure_channel(f"{HOST}:{child.port}", options) as channel:
                stub = dynamic_subclass_pb2_grpc.DynamicSubclassServiceStub(channel)
                await self._set_up(stub)
                await self._rounds(stub, on_round)
            self._memory(child)
        except (FaultFoundError, ChildFailedError) as fault:
            reason = str(fault)
            self._checks.append(Check(self._now, ok=False, measured=reason))
        finally:
            if child is not None:
                await end_child(child)
            forks.stop()
        tail = read_end(log_path(self._log_dir, self._entry.model_id), LOG_BYTES_MAX) if reason else ""
        return Trial(self._entry, self._checks, reason, tail.strip())

    async def _set_up(self, stub: Any) -> None:
        self._now = "Setup: one model class, constructed"
        began = time.monotonic()
        request = dynamic_subclass_pb2.SetupRequest(className=self._base_classname)
        answer = await self._call(stub.Setup, request, self._limits.setup_limit_seconds)
        _demand(answer.status)
        self._passed(self._now, f"{time.monotonic() - began:.2f} s")

    async def _rounds(self, stub: Any, on_round: Callable[[int, int], None]) -> None:
        schedules, method = self._contract.schedules(), self._contract.call_method
        seconds: list[float] = []
        sizes: list[int] = []
        for number, tick in enumerate(self._ticks):
            began = time.monotonic()
            until = began + self._budget_seconds
            values = method.tick_values(tick.data, tick.subject, tick.asof_ts, NONE)
            self._now = f"{method.tick}()"
            await self._ask(stub, method.tick, values, until)  # what it returns nobody looks at
            for schedule in schedules:
                if schedule.scope.asks(tick.subject):
                    self._now = f"{method.predict}() for {schedule.scope_key}"
                    answer = await self._ask(stub, method.predict, self._arguments(schedule, tick), until)
                    sizes.append(self._judge(answer))
            seconds.append(time.monotonic() - began)
            on_round(number + 1, len(self._ticks))
        self._passed(
            f"{method.tick}() and {method.predict}()", f"{len(seconds)} rounds, {len(sizes)} answers"
        )
        self._passed("answers: type, fields, finite", f"{self._contract.output_type.__name__}, all valid")
        self._passed("answers: size", f"at most {max(sizes)} of {self._contract.output_max_bytes} bytes")
        ordered = sorted(seconds)
        middle, late = ordered[len(ordered) // 2], ordered[min(len(ordered) * 95 // 100, len(ordered) - 1)]
        self._passed(
            "time of a round",
            f"p50 {middle * 1000:.1f} ms, p95 {late * 1000:.1f} ms, max {ordered[-1] * 1000:.1f} ms "
            f"of {self._budget_seconds * 1000:.0f} ms",
        )

    def _arguments(self, schedule: ScheduledPrediction, tick: Tick) -> list[Any]:
        return self._contract.call_method.predict_values(
            *(tick.subject, tick.asof_ts, schedule.scope_key),
            horizon_seconds=schedule.scope.horizon_seconds,
            step_seconds=schedule.scope.step_seconds,
            params=schedule.params,
            performance=NONE,
        )

    async def _ask(self, stub: Any, name: str, arguments: list[Any], until: float) -> Any:
        left = until - time.monotonic()
        if left <= 0:
            raise FaultFoundError(f"the {self._budget_seconds:g} s of the round were over before this call")
        request = dynamic_subclass_pb2.CallRequest(
            methodName=name, methodArguments=variants.encode_arguments(arguments)
        )
        answer = await self._call(stub.Call, request, left)
        _demand(answer.status)
        return answer.methodResponse

    async def _call(self, method: Any, request: Any, seconds: float) -> Any:
        try:
            return await method(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            match error.code():
                case grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise FaultFoundError(f"no answer within the {seconds:.2f} s that were left") from error
                case grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise FaultFoundError(
                        "its answer is larger than 8 MB, the most that can be sent"
                    ) from error
                case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
                    raise FaultFoundError("its process ended during the call") from error
                case code:
                    raise FaultFoundError(f"{code.name}: {error.details()}") from error

    def _judge(self, answer: Any) -> int:
        try:
            output = variants.decode_answer(answer, self._contract.output_max_bytes)
        except VariantError as error:
            raise FaultFoundError(f"its answer cannot be read: {error}") from error
        plain, fault = check_output(output, self._contract.output_type, self._contract.output_max_bytes)
        if plain is None:
            raise FaultFoundError(fault)
        return len(msgspec.json.encode(plain))

    def _memory(self, child: Child) -> None:
        peak_mb = _peak_mb(child.pid)
        if peak_mb is not None:
            limit = self._limits.memory_limit_mb
            self._passed("memory", f"{peak_mb:.0f} MB at most, address space limited to {limit} MB")

    def _passed(self, name: str, measured: str) -> None:
        self._checks.append(Check(name, ok=True, measured=measured))


def _demand(status: Any) -> None:
    if status.code != "SUCCESS":
        raise FaultFoundError(f"{status.code}: {status.message}" if status.message else status.code)


def _peak_mb(pid: int) -> float | None:
    """The most memory that the process ever held; None where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    peaks_kb = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peaks_kb[0]) / 1024 if peaks_kb else None
