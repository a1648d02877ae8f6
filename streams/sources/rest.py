"""Requests to a REST server: one good answer, after as many attempts as `Patience` allows.

Raises by whose fault it is: WorldError if the server does not answer or cannot, RefusedError if it is useless to ask
again soon, NoHistoryError for a route that no longer exists, OperatorError for a request that the server refuses (a
wrong symbol, a missing key). Headers hold secrets, and are never part of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from types import MappingProxyType

import httpx

from coordinator.streams.clock import wall_ms
from coordinator.streams.log.errors import NoHistoryError, OperatorError, RefusedError, WorldError
from coordinator.streams.net.outbound import http_client
from coordinator.streams.sources.waiting import (
    BusyError,
    Patience,
    Probe,
    attempts,
    is_busy,
    plain_refusal,
    read_retry_after,
    reason_of,
)

NOTHING: Mapping[int, str] = MappingProxyType({})
Params = Mapping[str, str | int | Sequence[str]]


class Rest:
    """The REST server at one base URL.

    Texts for statuses: `advice` says what the operator must change, if a status is the operator's fault; `lasting`
    explains a refusal of the world that does not end by itself; `gone` is for a route that no longer exists.
    """

    def __init__(
        self,
        source: str,
        base_url: str,
        patience: Patience,
        headers: Mapping[str, str] | None = None,
        advice: Mapping[int, str] = MappingProxyType({400: ""}),
        refusal_text: Callable[[bytes], str] = plain_refusal,
        lasting: Mapping[int, str] = NOTHING,
        gone: Mapping[int, str] = NOTHING,
    ) -> None:
        self._source = source
        self.base_url = base_url
        self._patience = patience
        self._headers = dict(headers or {})
        self._advice = advice
        self._refusal_text = refusal_text
        self._lasting = lasting
        self._gone = gone

    def client(self) -> httpx.AsyncClient:
        """A client for a series of requests; close it."""
        return http_client(
            self.base_url,
            timeout=self._patience.request_timeout_seconds,
            headers=self._headers,
        )

    async def get(self, client: httpx.AsyncClient, path: str, params: Params) -> httpx.Response:
        """The answer, which has status 200."""
        try:
            async for attempt in attempts(self._patience, self._patience.attempts):
                with attempt:
                    response = await client.get(path, params=dict(params))
                    if is_busy(response.status_code):
                        raise self.busy(response, response.content)
        except BusyError as error:
            message = f"{self._source}: {self.base_url}{path}: {error}"
            asked_seconds = error.retry_after_seconds or 0.0
            if error.is_refusal or asked_seconds > self._patience.retry_after_seconds_max:
                raise RefusedError(message, asked_seconds or self._patience.refused_seconds) from error
            raise WorldError(message) from error
        except httpx.TransportError as error:
            raise WorldError(f"{self._source}: {self.base_url}{path}: {reason_of(error)}") from error
        self.check(response.status_code, path, params, response.content)
        return response

    def check(self, status: int, path: str, params: Params, body: bytes) -> None:
        """Raise the error that a status other than 200 means."""
        if status == httpx.codes.OK:
            return
        text = self.refusal(body)
        if status in self._advice:
            params_text = " ".join(f"{name}={value}" for name, value in params.items())
            advice = self._advice[status]
            raise OperatorError(
                f"{self._source} refuses {path} {params_text}: {text or f'status {status}'}"
                + (f"; {advice}" if advice else "")
            )
        remark = self._gone.get(status) or self._lasting.get(status)
        reason = f"{text}; {remark}" if remark else text
        message = f"{self._source}: {self.base_url}{path}: status {status}: {reason}"
        if status in self._gone:
            raise NoHistoryError(message)
        raise RefusedError(message, self._patience.refused_seconds)

    def busy(self, response: httpx.Response, body: bytes) -> BusyError:
        """The error for an answer other than 200, with the server's own reason."""
        retry_after_seconds = read_retry_after(response.headers.get("Retry-After"), wall_ms())
        return BusyError(response.status_code, retry_after_seconds, self.refusal(body))

    def refusal(self, body: bytes) -> str:
        """The server's reason as one line, without secrets."""
        return self._without_secrets(self._refusal_text(body))

    def _without_secrets(self, text: str) -> str:
        """Replace the secrets of the headers: a server may send back what it received."""
        for value in self._headers.values():
            text = text.replace(value.rpartition(" ")[2], "***")
        return text

    async def time_ms(self, path: str) -> int:
        """The server's time in ms, from the Date header of an answer. Raises WorldError."""
        try:
            async with self.client() as client:
                response = await client.get(path)
            return int(parsedate_to_datetime(response.headers["Date"]).timestamp() * 1000)
        except httpx.HTTPError as error:
            raise WorldError(f"{self._source}: {self.base_url}{path}: {reason_of(error)}") from error
        except (KeyError, ValueError):
            raise WorldError(f"{self._source}: {self.base_url}{path}: the answer has no Date") from None

    async def probe(self, path: str, timeout_seconds: float) -> Probe:
        """Whether the server answers in time. Asks once; does not raise for a fault of the world."""
        try:
            async with self.client() as client:
                response = await client.get(path, timeout=timeout_seconds)
        except httpx.TimeoutException:
            return Probe(False, f"no answer from {self.base_url} within {timeout_seconds:g} s")
        except httpx.HTTPError as error:
            return Probe(False, f"{self.base_url}: {reason_of(error)}")
        if response.status_code != httpx.codes.OK:
            return Probe(False, f"{self.base_url}: {self.busy(response, response.content)}")
        return Probe(True)
