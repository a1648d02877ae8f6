"""One model on this host: its state, its process, and what the protocol says of it. Starts and ends nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from coordinator.infra.models.host.model_folder import ModelEntry
from coordinator.infra.models.host.process import Child, Limits

HOST = "127.0.0.1"


class Failure(msgspec.Struct, frozen=True):
    """Why a model was stopped."""

    code: str
    reason: str


class HostedModel:
    """A model and its state: STARTING, or one of the protocol's RUNNING, RECOVERING and STOPPED."""

    def __init__(self, entry: ModelEntry, ip: str = HOST) -> None:
        self.entry = entry
        self.ip = ip
        self.state = "STARTING"
        self.deployment_id = ""
        self.port = 0
        self.child: Child | None = None
        self.failure: Failure | None = None
        self.settled = asyncio.Event()  # RUNNING or STOPPED for the first time
        self.deaths: deque[float] = deque()
        """When its processes died within the restart window, in seconds of the monotonic clock."""
        self.submissions = 1

    @property
    def stopped(self) -> bool:
        """Whether it was stopped: it runs again only with other code."""
        return self.state == "STOPPED"

    def died(self, now_seconds: float, limits: Limits) -> bool:
        """Count a death of its process; whether the budget allows another start."""
        self.deaths.append(now_seconds)
        while self.deaths[0] < now_seconds - limits.restart_window_seconds:
            self.deaths.popleft()
        return len(self.deaths) <= limits.restarts_max

    def deploy(self, child: Child) -> None:
        """Take over a new process: each is a deployment of its own, on a port of its own.

        The deployment id is `{model_id}_{YYYYmmdd_HHMMSS_mmm}`, UTC. The clock may step back, but the ids must not: an
        id that is not greater than the one before gets a suffix.
        """
        self.child, self.port = child, child.port
        time_text = datetime.now(UTC).strftime("%Y%m%d_%H%M%S_%f")[:-3]
        successor = f"{self.deployment_id}0" if self.deployment_id else ""
        self.deployment_id = max(f"{self.entry.model_id}_{time_text}", successor)

    async def process_end(self) -> str:
        """Wait until the current process ends, and say how. A process that was replaced meanwhile does not count."""
        while True:
            child = self.child
            if child is None:
                return "its process is gone"
            code = await child.wait()
            if self.child is child:
                return child.ended_for or f"its process ended with {code}"

    def on_wire(self) -> dict[str, Any]:
        """The protocol's ModelState."""
        entry = self.entry
        return {
            "deployment_id": self.deployment_id,
            "model_id": entry.model_id,
            "state": self.state,
            "ip": self.ip,
            "port": str(self.port),
            "infos": {
                "model_name": entry.model_name,
                "cruncher_id": entry.cruncher_id,
                "cruncher_name": entry.cruncher_name,
                "cruncher_wallet_pubkey": entry.wallet_pubkey or None,
                "cruncher_hotkey": entry.hotkey or None,
            },
        }


def message_of(event: str, models: Iterable[HostedModel]) -> str:
    """An `init` or `update` message of the protocol, as JSON."""
    return msgspec.json.encode({"event": event, "data": [model.on_wire() for model in models]}).decode()
