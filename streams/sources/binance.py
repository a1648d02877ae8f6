"""Binance: candles live over one websocket, and their history over REST.

Reads the exchange, gives `FeedRecord`s of closed candles only: whether history's last candle has closed is
asked of the exchange's clock, never of ours, because a candle taken too early would be frozen half-made.

Whose fault a failure is decides what happens: a lost connection, 429, 418 and 5xx are the world's, and are
retried with backoff, jitter and the server's Retry-After (the stream for ever, history a bounded number of
times); a symbol or a URL that the other side refuses is the operator's; a message that cannot be read goes
to `on_garbage`, and the next one is read. What was missed between two connections is not looked for here:
the feed worker sees the hole and asks `history`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from random import uniform
from types import MappingProxyType
from typing import Any, ClassVar

import httpx
import msgspec
import stamina
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from coordinator.streams.errors import OperatorError, WorldError
from coordinator.streams.granularity import granularity_ms
from coordinator.streams.ports import FeedRecord, Subscription
from coordinator.streams.sources.binance_messages import (
    INTERVALS,
    candle_of_message,
    candle_of_row,
    interval_of,
    refusal_text,
    rows_of_page,
    stream_path,
)
from coordinator.streams.sources.candle_values import OnGarbage

REST_URL = "https://api.binance.com"
WEBSOCKET_URL = "wss://stream.binance.com:9443"
PAGE_ROWS_MAX = 1_000
_BUSY_STATUSES = (418, 429)
_SERVER_ERRORS_FROM = 500

log = structlog.get_logger(__name__)


class Patience(msgspec.Struct, frozen=True):
    """How long this source waits, and for what; the tests wait less."""

    request_timeout_seconds: float = 10.0
    attempts: int = 6
    wait_initial_seconds: float = 0.5
    wait_max_seconds: float = 30.0
    wait_jitter_seconds: float = 1.0
    retry_after_seconds_max: float = 120.0
    idle_seconds_min: float = 60.0
    ping_seconds: float = 20.0


class Probe(msgspec.Struct, frozen=True):
    """Whether a source answered, and if not, why not."""

    ok: bool
    reason: str = ""


class _BusyError(Exception):
    """The exchange answered that it cannot now; with the pause that it asks for, if it said one."""

    def __init__(self, status: int, retry_after_seconds: float | None) -> None:
        pause = "" if retry_after_seconds is None else f", asks to wait {retry_after_seconds:g} s"
        super().__init__(f"status {status}{pause}")
        self.retry_after_seconds = retry_after_seconds


class BinanceSource:
    """The feed source `binance`. Subjects are symbols as the exchange writes them, e.g. BTCUSDT."""

    name = "binance"
    about = "Binance, over one websocket for all subjects; history over REST"
    offers: ClassVar[Mapping[str, tuple[str, ...]]] = MappingProxyType({"candle": INTERVALS})

    def __init__(
        self,
        rest_url: str = REST_URL,
        websocket_url: str = WEBSOCKET_URL,
        on_garbage: OnGarbage | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._rest_url = _checked_url("rest_url", rest_url, ("http", "https"))
        self._websocket_url = _checked_url("websocket_url", websocket_url, ("ws", "wss"))
        self._on_garbage = on_garbage or _log_garbage
        self._patience = patience or Patience()
        self.state = "not started"

    async def probe(self, timeout_seconds: float = 3.0) -> Probe:
        """Whether the REST side answers in time; asked once, never retried, never raises for the world."""
        try:
            async with asyncio.timeout(timeout_seconds), self._client() as client:
                response = await client.get("/api/v3/ping")
        except TimeoutError:
            return Probe(False, f"no answer from {self._rest_url} within {timeout_seconds:g} s")
        except httpx.HTTPError as error:
            return Probe(False, f"{self._rest_url}: {_reason(error)}")
        if response.status_code != httpx.codes.OK:
            return Probe(False, f"{self._rest_url}: status {response.status_code}")
        return Probe(True)

    async def history(
        self, subscription: Subscription, start_ms: int, end_ms: int
    ) -> AsyncIterator[FeedRecord]:
        """Candles with start_ms <= at <= end_ms that have closed by the exchange's clock, in order.

        Raises WorldError when they cannot be had, OperatorError when the exchange refuses the request.
        """
        length_ms = granularity_ms(interval_of(subscription))
        async with self._client() as client:
            end_ms = min(end_ms, await self._exchange_time_ms(client))
            next_ms = -(-(start_ms - length_ms) // length_ms) * length_ms
            last_ms = end_ms - length_ms
            while next_ms <= last_ms:
                page = await self._page(client, subscription, next_ms, last_ms)
                records = [record for row in page if (record := self._candle(row, subscription)) is not None]
                fresh = [record for record in records if next_ms <= record.ts_event <= last_ms]
                if page and not fresh:
                    raise WorldError(
                        f"binance: the page of {subscription.subject} from {next_ms} holds nothing of use"
                    )
                if not page:
                    return
                for record in sorted(fresh, key=lambda candle: candle.ts_event):
                    if record.ts_event >= next_ms:
                        next_ms = record.at
                        yield record

    async def stream(self, subscriptions: Sequence[Subscription]) -> AsyncIterator[FeedRecord]:
        """Closed candles as they close, for ever; reconnects by itself."""
        if not subscriptions:
            return
        wanted = {(one.subject.upper(), interval_of(one)): one for one in subscriptions}
        idle_seconds = max(
            self._patience.idle_seconds_min,
            2 * min(granularity_ms(one.granularity) for one in subscriptions) / 1000,
        )
        url = self._websocket_url + stream_path(subscriptions)
        while True:
            socket, message = await self._connected(url, idle_seconds)
            try:
                self.state = "connected"
                while True:
                    record = self._message_candle(message, wanted)
                    if record is not None:
                        yield record
                    message = await _next_message(socket, idle_seconds)
            except (OSError, WebSocketException) as error:
                self.state = f"reconnecting: {_reason(error)}"
                log.warning("feed_connection_lost", source=self.name, reason=_reason(error))
            finally:
                await socket.close()
            # One pause before the first new attempt, so that many nodes do not come back in one instant.
            await asyncio.sleep(uniform(0, self._patience.wait_initial_seconds))

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self._rest_url, timeout=self._patience.request_timeout_seconds)

    async def _exchange_time_ms(self, client: httpx.AsyncClient) -> int:
        response = await self._get(client, "/api/v3/time", {})
        try:
            return msgspec.json.decode(response.content, type=dict[str, int])["serverTime"]
        except (msgspec.DecodeError, KeyError) as error:
            raise WorldError(f"binance: its clock cannot be read: {response.text[:100]!r}") from error

    async def _page(
        self, client: httpx.AsyncClient, subscription: Subscription, first_ms: int, last_ms: int
    ) -> list[list[Any]]:
        response = await self._get(
            client,
            "/api/v3/klines",
            {
                "symbol": subscription.subject.upper(),
                "interval": interval_of(subscription),
                "startTime": first_ms,
                "endTime": last_ms,
                "limit": PAGE_ROWS_MAX,
            },
        )
        try:
            return rows_of_page(response.content)
        except ValueError as error:
            raise WorldError(f"binance: {error}") from error

    async def _get(
        self, client: httpx.AsyncClient, path: str, params: dict[str, str | int]
    ) -> httpx.Response:
        """The good answer to one request, after as many attempts as patience allows."""
        try:
            async for attempt in self._attempts(self._patience.attempts):
                with attempt:
                    response = await client.get(path, params=params)
                    status = response.status_code
                    if status in _BUSY_STATUSES or status >= _SERVER_ERRORS_FROM:
                        raise _BusyError(status, _retry_after_seconds(response.headers.get("Retry-After")))
        except (httpx.TransportError, _BusyError) as error:
            raise WorldError(f"binance: {self._rest_url}{path}: {_reason(error)}") from error
        if status == httpx.codes.BAD_REQUEST:
            asked = " ".join(f"{name}={value}" for name, value in params.items())
            raise OperatorError(f"binance refuses {path} {asked}: {refusal_text(response.content)}")
        if status != httpx.codes.OK:
            raise WorldError(f"binance: {path}: status {status}: {refusal_text(response.content)}")
        return response

    async def _connected(self, url: str, idle_seconds: float) -> tuple[ClientConnection, str | bytes]:
        """A connection that has already said something: one that opens and falls silent counts as failed."""
        async for attempt in self._attempts(None):
            with attempt:
                socket = await self._open_socket(url)
                try:
                    first = await _next_message(socket, idle_seconds)
                except BaseException:
                    await socket.close()
                    raise
        return socket, first

    async def _open_socket(self, url: str) -> ClientConnection:
        try:
            return await connect(
                url,
                open_timeout=self._patience.request_timeout_seconds,
                ping_interval=self._patience.ping_seconds,
                ping_timeout=self._patience.ping_seconds,
                close_timeout=1,
            )
        except InvalidStatus as error:
            self.state = f"reconnecting: {_reason(error)}"
            status, headers = error.response.status_code, error.response.headers
            raise _BusyError(status, _retry_after_seconds(headers.get("Retry-After"))) from error
        except (OSError, WebSocketException) as error:
            self.state = f"reconnecting: {_reason(error)}"
            raise

    def _attempts(self, attempts: int | None) -> AsyncIterator[stamina.Attempt]:
        patience = self._patience
        return aiter(
            stamina.retry_context(
                on=partial(self._pause_after, for_ever=attempts is None),
                attempts=attempts,
                timeout=None,
                wait_initial=patience.wait_initial_seconds,
                wait_max=patience.wait_max_seconds,
                wait_jitter=patience.wait_jitter_seconds,
            )
        )

    def _pause_after(self, error: Exception, *, for_ever: bool) -> bool | float:
        """Whether to try again: True for the usual backoff, seconds where the server asked for them."""
        if isinstance(error, _BusyError):
            asked_seconds = error.retry_after_seconds
            if asked_seconds is None:
                return True
            if asked_seconds > self._patience.retry_after_seconds_max and not for_ever:
                return False
            return asked_seconds + uniform(0, self._patience.wait_jitter_seconds)
        return isinstance(error, httpx.TransportError | OSError | WebSocketException)

    def _candle(self, row: Sequence[Any], subscription: Subscription) -> FeedRecord | None:
        try:
            return candle_of_row(row, subscription)
        except ValueError as error:
            self._on_garbage(f"binance history: {error}", msgspec.json.encode(row).decode())
            return None

    def _message_candle(
        self, message: str | bytes, wanted: dict[tuple[str, str], Subscription]
    ) -> FeedRecord | None:
        try:
            return candle_of_message(message, wanted)
        except ValueError as error:
            text = message if isinstance(message, str) else message.decode(errors="backslashreplace")
            self._on_garbage(f"binance stream: {error}", text)
            return None


def _checked_url(option: str, text: str, schemes: tuple[str, ...]) -> str:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise OperatorError(f"binance: {option} {text!r} is no URL: {error}") from error
    if url.scheme not in schemes or not url.host:
        raise OperatorError(f"binance: {option} {text!r} should begin with {' or '.join(schemes)}://HOST")
    return text.rstrip("/")


async def _next_message(socket: ClientConnection, idle_seconds: float) -> str | bytes:
    try:
        async with asyncio.timeout(idle_seconds):
            return await socket.recv()
    except TimeoutError:
        raise TimeoutError(f"silent for {idle_seconds:g} s") from None


def _retry_after_seconds(header: str | None) -> float | None:
    """The server's Retry-After (seconds or an HTTP date) as seconds from now; None if it is not clear."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - time.time())


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _log_garbage(reason: str, text: str) -> None:
    log.warning("feed_garbage_received", reason=reason, text=text[:200])
