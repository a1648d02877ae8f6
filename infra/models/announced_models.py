"""Turns what the orchestrator says about models into notices.

Reads ModelStates from the wire, emits `ModelNotice`s. It does no I/O: the gateway passes messages on.
A model counts as `seen` only once it can be called; a model whose Setup fails is `seen` just before
its `failed`, so that its names are known. What is said about a deployment that was replaced is ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from coordinator.streams.events import Fault
from coordinator.streams.ports import ModelInfo, ModelNotice

NOT_CONNECTED = (
    "CONNECTION_FAILED"  # the protocol's code: the process was never reached, or refused our credentials
)
UNLISTED = "not in the orchestrator's list"


class AnnouncedModels:
    """The models by id, each as last announced, and the notices not yet taken."""

    def __init__(self) -> None:
        self._infos: dict[str, ModelInfo] = {}  # as last announced RUNNING or RECOVERING
        self._seen: dict[str, ModelInfo] = {}  # as last noticed
        self._recovering: set[str] = set()
        self._reported: dict[str, str] = {}  # the code that the announced deployment was reported with
        self._called: set[str] = set()  # could be called since the orchestrator's last whole list
        self._unlisted: set[str] = set()  # left because a new list of the orchestrator did not name them
        self._told: set[str] = set()  # seen at some time and not left since: only they can recover or leave
        self._notices: list[ModelNotice] = []

    def take(self) -> list[ModelNotice]:
        """The notices since the last call, in order."""
        taken, self._notices = self._notices, []
        return taken

    def deployment_of(self, model_id: str) -> str:
        """The deployment last announced, or an empty string."""
        info = self._infos.get(model_id)
        return info.deployment_id if info is not None else ""

    @property
    def announced_ids(self) -> Collection[str]:
        """The models last announced running or recovering."""
        return self._infos.keys()

    def absence(self, model_id: str) -> tuple[Fault, str]:
        """Why a model cannot be called now, and whose fault that is.

        It is the model's fault once this node could call it: it crashed, was reported, was replaced or stopped by its
        owner, or lost its setup. Before that it is the node's fault: the connection is being made, or cannot be made. A
        new list of the orchestrator resets this, because a model host that died has ended its models too.
        """
        if model_id in self._recovering:
            return "model", "recovering"
        code = self._reported.get(model_id)
        if code is not None and (code != NOT_CONNECTED or model_id in self._called):
            return "model", f"reported: {code}"
        if model_id in self._unlisted:
            return "node", UNLISTED
        if model_id not in self._called:
            return "node", "not connected yet"
        return "model", "being set up anew" if model_id in self._infos else "stopped"

    def latest_of_each(self, states: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """One state per model: during a replacement `init` holds two, and the later deployment counts."""
        latest: dict[str, dict[str, Any]] = {}
        for state in states:
            model_id = str(state.get("model_id"))
            other = latest.get(model_id)
            if other is None or str(state.get("deployment_id")) > str(other.get("deployment_id")):
                latest[model_id] = state
        return list(latest.values())

    def only(self, model_ids: Collection[str]) -> None:
        """A new list: a model that is not on it was stopped while we were not connected. The others are connected
        again.
        """
        self._called.clear()
        for model_id in [running_id for running_id in self._infos if running_id not in model_ids]:
            self._leave(model_id, UNLISTED)
            self._unlisted.add(model_id)

    def announced(self, state: dict[str, Any]) -> None:
        """One ModelState as it came."""
        info = _info(state)
        current = self._infos.get(info.model_id)
        same = current is not None and current.deployment_id == info.deployment_id
        match state.get("state"):
            case "RUNNING":
                if not same:
                    self._reported.pop(info.model_id, None)
                self._unlisted.discard(info.model_id)
                self._infos[info.model_id] = info
                self._recovering.discard(info.model_id)
            case "RECOVERING" if same and info.model_id not in self._recovering:
                self._recovering.add(info.model_id)
                self._seen.pop(info.model_id, None)
                if info.model_id in self._told:
                    self._notices.append(ModelNotice("recovering", info))
            case "STOPPED" if same:
                self._leave(info.model_id, "stopped")

    def set_up(self, model_id: str, deployment_id: str, *, reported: bool = False) -> None:
        """The model can be called, or was `reported` before it could. A change of name too is `seen`."""
        info = self._infos.get(model_id)
        if info is None or info.deployment_id != deployment_id:
            return
        if not reported:
            self._called.add(model_id)
        if self._seen.get(model_id) == info:
            return
        self._seen[model_id] = info
        self._told.add(model_id)
        self._notices.append(ModelNotice("seen", info))

    def failed(self, model_id: str, deployment_id: str, code: str, reason: str) -> None:
        """A failure was reported to the orchestrator, by the client library or by us."""
        self.set_up(model_id, deployment_id, reported=True)
        info = self._infos.get(model_id) or ModelInfo(model_id, "", deployment_id)
        self._reported[model_id] = code
        self._notices.append(ModelNotice("failed", info, code, reason))

    def _leave(self, model_id: str, reason: str) -> None:
        info = self._infos.pop(model_id)
        self._recovering.discard(model_id)
        self._reported.pop(model_id, None)
        self._seen.pop(model_id, None)
        if model_id in self._told:
            self._told.remove(model_id)
            self._notices.append(ModelNotice("left", info, reason=reason))


def _info(state: dict[str, Any]) -> ModelInfo:
    infos = state.get("infos") or {}
    return ModelInfo(
        model_id=str(state.get("model_id")),
        model_name=str(infos.get("model_name") or ""),
        deployment_id=str(state.get("deployment_id")),
        cruncher_id=str(infos.get("cruncher_id") or ""),
        cruncher_name=str(infos.get("cruncher_name") or ""),
        wallet_pubkey=str(infos.get("cruncher_wallet_pubkey") or ""),
        hotkey=str(infos.get("cruncher_hotkey") or ""),
    )
