"""The client library's runner as this node uses it: without pandas, and with channels for the largest answers.

The library imports pandas (50 MB) for its own decoding, which is not used here: it gets a stand-in, which imports
the real one when somebody uses it.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

from coordinator.infra.models.host.variants import MESSAGE_OPTION


class _Pandas(types.ModuleType):
    """Pandas, imported when somebody uses it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("pandas"), name)


def _import_library() -> tuple[Any, Any, Any]:
    """The library's runner, that of one model, and its AuthError. It keeps our stand-in of pandas, everybody else gets
    the real one.
    """
    stand_in = _Pandas("pandas")
    had = sys.modules.setdefault("pandas", stand_in)
    try:
        from model_runner_client.model_concurrent_runners import DynamicSubclassModelConcurrentRunner  # noqa: PLC0415
        from model_runner_client.model_runners import DynamicSubclassModelRunner  # noqa: PLC0415
        from model_runner_client.security.wallet_gelegation import AuthError as Refused  # noqa: PLC0415
    finally:
        if had is stand_in:
            del sys.modules["pandas"]
    return DynamicSubclassModelConcurrentRunner, DynamicSubclassModelRunner, Refused


_LibraryRunner, _LibraryModelRunner, AuthError = _import_library()


SILENT_OPTION = ("grpc.keepalive_timeout_ms", 10_000)
"""How long the other end may leave unacknowledged what was sent. The library's half second ended calls over a wire that
was slow, or lost two packets in a row.
"""


class _ModelRunner(_LibraryModelRunner):  # type: ignore[misc, valid-type]
    """One model's channels, which take the largest answer that a contract may allow, and bear a slow network."""

    @property
    def grpc_options(self) -> list[tuple[str, Any]]:
        return self._grpc_options

    @grpc_options.setter
    def grpc_options(self, options: list[tuple[str, Any]]) -> None:
        ours = (MESSAGE_OPTION, SILENT_OPTION)
        names = [name for name, _ in ours]
        self._grpc_options = [*(option for option in options if option[0] not in names), *ours]


class Runner(_LibraryRunner):  # type: ignore[misc, valid-type]
    """The library's, with our channels."""

    def create_model_runner(self, **options: Any) -> _ModelRunner:
        return _ModelRunner(
            self.base_classname,
            self.instance_args,
            self.instance_kwargs,
            secure_credentials=self.secure_credentials,
            gateway_credentials=self.gateway_credentials,
            **options,
        )
