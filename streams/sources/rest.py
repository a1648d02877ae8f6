"""Requests to a REST server: one good answer, after as many attempts as `Patience` allows.

Raises by whose fault it is: WorldError if the server does not answer or cannot, RefusedError if it is useless to ask
again soon, NoHistoryError for a route that no longer exists, OperatorError for a request that the server refuses (a
wrong symbol, a missing key). Headers hold secrets, and are never part of a message. A body is read up to
BODY_BYTES_MAX as it comes and as it unpacks, so that no server can fill the memory of a worker, and for
`Patience.answer_seconds` in all, so that one that trickles does not hold it.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx

from coordinator.streams.clock import wall_ms
from coordinator.streams.log.errors import NoHistoryError, OperatorError, RefusedError, WorldError, text_of
from coordinator.streams.net.outbound import http_client
from coordinator.streams.sources.waiting import (
    BusyError,
    Patience,
    Probe,
    attempts,
    is_busy,
    plain_refusal,
    read_retry_after,
)

BODY_BYTES_MAX = 64 * 1024 * 1024
"""The largest answer, measured without its compression: as much as the node itself accepts of a request."""
ENCODINGS = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
"""What is asked for and unpacked here, with zlib's name for it. httpx unpacks a part as a whole, however large."""
NOTHING: Mapping[int, str] = MappingProxyType({})
Params = Mapping[str, str | int | Sequence[str]]


class Refusals(NamedTuple):
    """What a refusal of this server means, by its status.

    `advice` says what the operator must change, if a status is the operator's fault; `lasting` explains a refusal of
    the world that does not end by itself; `gone` is for a route that no longer exists. `text_of` reads the reason out
    of an answer's body.
    """

    advice: Mapping[int, str] = MappingProxyType({400: ""})
    lasting: Mapping[int, str] = NOTHING
    gone: Mapping[int, str] = NOTHING
    text_of: Callable[[bytes], str] = plain_refusal


USUAL_REFUSALS = Refusals()


class Rest:
    """The REST server at one base URL."""

    def __init__(
        self,
        source: str,
        base_url: str,
        patience: Patience,
        headers: Mapping[str, str] | None = None,
        refusals: Refusals = USUAL_REFUSALS,
    ) -> None:
        self._source = source
        self.base_url = base_url
        self._patience = patience
        self._headers = dict(headers or {})
        self._refusals = refusals

    def client(self) -> httpx.AsyncClient:
        """A client for a series of requests; close it."""
        return http_client(
            self.base_url,
            timeout=self._patience.request_timeout_seconds,
            headers={"Accept-Encoding": "gzip, deflate", **self._headers},
        )

    async def get(self, client: httpx.AsyncClient, path: str, params: Params) -> bytes:
        """The body of the answer, which has status 200. Raises RefusedError too if it is larger than BODY_BYTES_MAX."""
        try:
            async for attempt in attempts(self._patience, self._patience.attempts):
                with attempt:
                    response, body = await self._answer(client, path, params=dict(params))
                    if is_busy(response.status_code):
                        raise self.busy(response, body)
        except BusyError as error:
            message = f"{self._source}: {self.base_url}{path}: {error}"
            asked_seconds = error.retry_after_seconds or 0.0
            if error.is_refusal or asked_seconds > self._patience.retry_after_seconds_max:
                raise RefusedError(message, asked_seconds or self._patience.refused_seconds) from error
            raise WorldError(message) from error
        except httpx.TransportError as error:
            raise WorldError(f"{self._source}: {self.base_url}{path}: {text_of(error)}") from error
        self.check(response.status_code, path, params, body)
        return body

    async def _answer(
        self, client: httpx.AsyncClient, path: str, **options: Any
    ) -> tuple[httpx.Response, bytes]:
        """The answer to one request, and its body. Raises what httpx raises, and RefusedError."""
        body = bytearray()
        try:
            async with (
                asyncio.timeout(self._patience.answer_seconds),
                client.stream("GET", path, **options) as response,
            ):
                async for part in response.aiter_raw():
                    body += part
                    if len(body) > BODY_BYTES_MAX:
                        raise self._too_large(path)
        except TimeoutError as error:
            message = f"the answer was not whole within {self._patience.answer_seconds:g} s"
            raise httpx.ReadTimeout(message) from error
        return response, self._unpacked(path, response.headers.get("Content-Encoding", ""), bytes(body))

    def _unpacked(self, path: str, encoding: str, body: bytes) -> bytes:
        """The body without its compression. Raises RefusedError for one that cannot be unpacked, or to too much."""
        encoding = encoding.strip().lower()
        if encoding in ("", "identity") or not body:
            return body
        if encoding not in ENCODINGS:
            raise self._refused(path, f"the answer is packed as {encoding[:40]!r}, which was not asked for")
        unpacking = zlib.decompressobj(ENCODINGS[encoding])
        try:
            unpacked = unpacking.decompress(body, BODY_BYTES_MAX + 1)
        except zlib.error as error:
            raise self._refused(
                path, f"the answer is not the {encoding} that it says it is: {error}"
            ) from error
        if len(unpacked) > BODY_BYTES_MAX:
            raise self._too_large(path)
        if not unpacking.eof:
            raise self._refused(path, f"the answer's {encoding} is cut short")
        return unpacked

    def _too_large(self, path: str) -> RefusedError:
        return self._refused(path, f"the answer has more than {BODY_BYTES_MAX:,} bytes, and is not read")

    def _refused(self, path: str, why: str) -> RefusedError:
        return RefusedError(f"{self._source}: {self.base_url}{path}: {why}", self._patience.refused_seconds)

    def check(self, status: int, path: str, params: Params, body: bytes) -> None:
        """Raise the error that a status other than 200 means."""
        if status == httpx.codes.OK:
            return
        text = self.refusal(body)
        if status in self._refusals.advice:
            params_text = " ".join(f"{name}={value}" for name, value in params.items())
            advice = self._refusals.advice[status]
            raise OperatorError(
                f"{self._source} refuses {path} {params_text}: {text or f'status {status}'}"
                + (f"; {advice}" if advice else "")
            )
        remark = self._refusals.gone.get(status) or self._refusals.lasting.get(status)
        reason = "; ".join(part for part in (text, remark) if part)
        message = f"{self._source}: {self.base_url}{path}: status {status}: {reason}"
        if status in self._refusals.gone:
            raise NoHistoryError(message)
        raise RefusedError(message, self._patience.refused_seconds)

    def busy(self, response: httpx.Response, body: bytes) -> BusyError:
        """The error for an answer other than 200, with the server's own reason."""
        retry_after_seconds = read_retry_after(response.headers.get("Retry-After"), wall_ms())
        return BusyError(response.status_code, retry_after_seconds, self.refusal(body))

    def refusal(self, body: bytes) -> str:
        """The server's reason as one line, without secrets."""
        return self._without_secrets(self._refusals.text_of(body))

    def _without_secrets(self, text: str) -> str:
        """Replace the secrets of the headers: a server may send back what it received."""
        for value in self._headers.values():
            text = text.replace(value.rpartition(" ")[2], "***")
        return text

    async def time_ms(self, path: str) -> int:
        """The server's time in ms, from the Date header of an answer. Raises WorldError."""
        try:
            async with self.client() as client:
                response, _ = await self._answer(client, path)
            return int(parsedate_to_datetime(response.headers["Date"]).timestamp() * 1000)
        except httpx.HTTPError as error:
            raise WorldError(f"{self._source}: {self.base_url}{path}: {text_of(error)}") from error
        except (KeyError, ValueError):
            raise WorldError(
                f"{self._source}: {self.base_url}{path}: the answer has no Date header"
            ) from None

    async def probe(self, path: str, timeout_seconds: float) -> Probe:
        """Whether the server answers in time. Asks once; does not raise for a fault of the world."""
        try:
            async with self.client() as client:
                response, body = await self._answer(client, path, timeout=timeout_seconds)
        except httpx.TimeoutException:
            return Probe(False, f"no answer from {self.base_url} within {timeout_seconds:g} s")
        except httpx.HTTPError as error:
            return Probe(False, f"{self.base_url}: {text_of(error)}")
        except RefusedError as error:
            return Probe(False, str(error))
        if response.status_code != httpx.codes.OK:
            return Probe(False, f"{self.base_url}: {self.busy(response, body)}")
        return Probe(True)
