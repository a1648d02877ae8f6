"""Keeps the reason of a failed Setup: the client library reports its code and drops the text."""

from __future__ import annotations

from typing import Any

from coordinator.streams.log.reasons import as_reason

REASON_CHARS_MAX = 500
SILENT = {
    "BAD_IMPLEMENTATION": "its class cannot be used; its own log says why",
    "MULTIPLE_FAILED": "it failed again and again; its own log says why",
    "CONNECTION_FAILED": "it could not be connected to, or did not finish its setup in time",
}
"""Code of a failure -> what can be said of it where the model itself said nothing."""


def keep_reasons(cluster: Any) -> None:
    """Let every runner that the library's `cluster` makes keep what its model says of a setup, as `said`."""
    make = cluster.model_factory

    def made(**options: Any) -> Any:
        runner = make(**options)
        runner.said = ""
        setup = runner.setup

        async def heard(channel: Any) -> Any:
            return await setup(_Heard(channel, runner))

        runner.setup = heard
        return runner

    cluster.model_factory = made


def reason_of(runner: Any, code: str, reason: str | None) -> str:
    """Why a model failed: the word that was given, else what it said of its setup, else what the code means."""
    return as_reason(reason or getattr(runner, "said", "") or SILENT.get(code, code), REASON_CHARS_MAX)


class _Heard:
    """A channel that also notes the answer to a Setup call."""

    def __init__(self, channel: Any, runner: Any) -> None:
        self._channel, self._runner = channel, runner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def unary_unary(self, method: str, *positional: Any, **named: Any) -> Any:
        call = self._channel.unary_unary(method, *positional, **named)
        if not method.endswith("/Setup"):
            return call

        async def heard(*request: Any, **options: Any) -> Any:
            response = await call(*request, **options)
            self._runner.said = str(response.status.message or "")
            return response

        return heard
