"""Fakes of the ports: a gateway that behaves as a test tells it, and one that only answers, for benches."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from coordinator.streams.events import Fault
from coordinator.streams.ports import ModelInfo, ModelNotice, ModelReply, Outcome

Behaviour = Callable[[str, Sequence[Any]], Any]
"""(method, arguments) -> output, or an Outcome, or an awaitable of either. Raising is MODEL_FAILED."""


class GatewayCall(msgspec.Struct, frozen=True):
    """A call that the fake received."""

    method: str
    arguments: tuple[Any, ...]
    timeout_seconds: float
    model_ids: tuple[str, ...]


def model_info(model_id: str, **fields: str) -> ModelInfo:
    """A ModelInfo whose names derive from the id."""
    defaults = {
        "model_name": f"model-{model_id}",
        "deployment_id": f"{model_id}_1",
        "cruncher_id": f"cruncher-{model_id}",
        "cruncher_name": f"name-{model_id}",
    }
    return ModelInfo(model_id=model_id, **(defaults | fields))


class FakeGateway:
    """A `ModelGateway` whose models are functions. `calls` lists the calls it received."""

    def __init__(self, behaviours: Mapping[str, Behaviour] | None = None) -> None:
        self.calls: list[GatewayCall] = []
        self.connected = True
        self._behaviours: dict[str, Behaviour] = {}
        self._infos: dict[str, ModelInfo] = {}
        self._notices: list[ModelNotice] = []
        self._away: set[str] = set()
        self._recovering: set[str] = set()
        self.reports: list[tuple[str, str, str]] = []
        self.announced: set[str] | None = set()
        for model_id, behaviour in (behaviours or {}).items():
            self.join(model_id, behaviour)

    def join(self, model_id: str, behaviour: Behaviour, info: ModelInfo | None = None) -> None:
        """A model, or a new deployment of it (pass its info), appears."""
        self._behaviours[model_id] = behaviour
        self._infos[model_id] = info or model_info(model_id)
        self._away.discard(model_id)
        self._recovering.discard(model_id)
        if self.announced is not None:
            self.announced.add(model_id)
        self._notices.append(ModelNotice("seen", self._infos[model_id]))

    def recover(self, model_id: str) -> None:
        """The model's process dies; it is absent until `join`."""
        self._away.add(model_id)
        self._recovering.add(model_id)
        self._notices.append(ModelNotice("recovering", self._infos[model_id]))

    def leave(self, model_id: str) -> None:
        """The model is stopped."""
        self._away.add(model_id)
        if self.announced is not None:
            self.announced.discard(model_id)
        self._notices.append(ModelNotice("left", self._infos[model_id], reason="stopped"))

    def fail(self, model_id: str, code: str, reason: str = "") -> None:
        """A failure of the model is reported."""
        self._notices.append(ModelNotice("failed", self._infos[model_id], code, reason))

    async def report_failure(self, model_id: str, code: str, reason: str) -> bool:
        self.reports.append((model_id, code, reason))
        if model_id in self._away or model_id not in self._infos:
            return False
        self.fail(model_id, code, reason)
        return True

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def notices(self) -> list[ModelNotice]:
        taken, self._notices = self._notices, []
        return taken

    async def call(
        self,
        method: str,
        arguments: Sequence[Any],
        timeout_seconds: float,
        model_ids: Collection[str],
        output_max_bytes: int = 0,
    ) -> dict[str, ModelReply]:
        ids = tuple(dict.fromkeys(model_ids))
        arguments = [
            msgspec.json.decode(argument) if isinstance(argument, msgspec.Raw) else argument
            for argument in arguments
        ]
        self.calls.append(GatewayCall(method, tuple(arguments), timeout_seconds, ids))
        replies = await asyncio.gather(
            *(self._one(model_id, method, arguments, timeout_seconds) for model_id in ids)
        )
        return {reply.model_id: reply for reply in replies}

    async def _one(
        self, model_id: str, method: str, arguments: Sequence[Any], timeout_seconds: float
    ) -> ModelReply:
        info = self._infos.get(model_id)
        deployment_id = info.deployment_id if info is not None else ""
        if info is None or model_id in self._away:
            fault: Fault = "model" if model_id in self._recovering else "node"
            return ModelReply(model_id, deployment_id, Outcome.ABSENT, fault, detail="not connected")
        if timeout_seconds <= 0:
            return ModelReply(
                model_id, deployment_id, Outcome.DEADLINE, "node", detail="no time was left to ask"
            )
        try:
            output = self._behaviours[model_id](method, arguments)
            if inspect.isawaitable(output):
                async with asyncio.timeout(timeout_seconds):
                    output = await output
        except TimeoutError:
            return ModelReply(model_id, deployment_id, Outcome.DEADLINE, "model", detail="DEADLINE_EXCEEDED")
        except Exception:
            return ModelReply(model_id, deployment_id, Outcome.MODEL_FAILED, "model", detail="FAILED")
        if isinstance(output, Outcome):
            scripted: Fault = "node" if output is Outcome.ABSENT else "model"
            return ModelReply(model_id, deployment_id, output, scripted, detail=f"scripted {output}")
        return ModelReply(model_id, deployment_id, Outcome.OK, output=output)


class InProcessGateway:
    """`n` models that all give the same answer at once. It shows the cost of a round without models."""

    def __init__(self, n: int, output: Any = None) -> None:
        self._infos = [model_info(f"m{index:05d}") for index in range(n)]
        self._deployments = {info.model_id: info.deployment_id for info in self._infos}
        self._output = {"value": 0.1} if output is None else output
        self.connected = True
        self.announced = set(self._deployments)
        self._new = True

    @property
    def model_ids(self) -> list[str]:
        return list(self._deployments)

    async def report_failure(self, model_id: str, code: str, reason: str) -> bool:
        return False

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def notices(self) -> list[ModelNotice]:
        new, self._new = self._new, False
        return [ModelNotice("seen", info) for info in self._infos] if new else []

    async def call(
        self,
        method: str,
        arguments: Sequence[Any],
        timeout_seconds: float,
        model_ids: Collection[str],
        output_max_bytes: int = 0,
    ) -> dict[str, ModelReply]:
        output = None if method == "tick" else self._output
        return {
            model_id: ModelReply(model_id, self._deployments[model_id], Outcome.OK, output=output)
            if model_id in self._deployments
            else ModelReply(model_id, "", Outcome.ABSENT, "node", detail="not connected")
            for model_id in model_ids
        }
