"""Hermes' stream of prices, without end: it reconnects by itself.

A connection counts once it has sent a price; comments that only keep it open do not count, and a connection without a
price for `idle_seconds_min` is closed. An error event gives the reason why the server ends the stream. Ids that Hermes
no longer knows are left out and reported (`health.gone`); they are requested again with the next connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack
from random import uniform

import httpx
import structlog
from httpx_sse import ServerSentEvent, SSEError, aconnect_sse

from coordinator.streams.log.errors import OperatorError, RefusedError, text_of
from coordinator.streams.ports import SourceHealth
from coordinator.streams.sources.pyth.messages import ids_named
from coordinator.streams.sources.rest import Params, Rest
from coordinator.streams.sources.waiting import (
    BusyError,
    Patience,
    attempts,
    is_busy,
    plain_refusal,
    trouble_of,
    wait_after,
)

SOURCE = "pyth"
STREAM_PATH = "/v2/updates/price/stream"

log = structlog.get_logger(__name__)


class IdsGoneError(Exception):
    """Hermes no longer knows some of the ids; the text is its own."""


class HermesStream:
    """One stream of the server `rest`; it keeps `health` up to date."""

    def __init__(self, rest: Rest, patience: Patience, health: SourceHealth) -> None:
        self._rest = rest
        self._patience = patience
        self._health = health

    async def events(self, wanted: Mapping[str, str]) -> AsyncGenerator[str, None]:
        """The data of every event about `wanted` (id -> its subject), without end.

        Raises OperatorError for a request that Hermes refuses before it has ever sent a price; later it is retried.
        """
        ids, lenient = list(wanted), False
        while True:
            try:
                stack, events, first = await self._connected(ids, lenient=lenient)
            except IdsGoneError as error:
                named = ids_named(str(error), ids)
                if (named or not lenient) and len(named) < len(ids):
                    self._leave_out([wanted[id_] for id_ in named], str(error))
                    ids, lenient = [id_ for id_ in ids if id_ not in named], True
                    continue
                await self._wait(OperatorError(f"pyth refuses {STREAM_PATH}: {error}"))
                continue
            except (OperatorError, RefusedError) as error:
                await self._wait(error)
                continue
            async with stack:
                self._health.state, self._health.reason = "connected", ""
                self._health.connections += 1
                try:
                    yield first
                    while True:
                        yield await self._next_of(events)
                except httpx.TransportError as error:
                    reason = text_of(error)
            self._health.state, self._health.reason = "reconnecting", reason
            log.warning("feed_connection_lost", source=SOURCE, reason=reason)
            await asyncio.sleep(uniform(0, self._patience.wait_initial_seconds))
            ids, lenient = list(wanted), False  # an id that was left out may be served again

    def _leave_out(self, subjects: Sequence[str], reason: str) -> None:
        for subject in subjects:
            if subject not in self._health.gone:
                log.warning("feed_subject_gone", source=SOURCE, subject=subject, reason=reason)
            self._health.gone[subject] = f"pyth serves {subject} no more: {reason}"

    async def _wait(self, error: OperatorError | RefusedError) -> None:
        """Wait before the next try. Raises the OperatorError if no price was ever sent."""
        if isinstance(error, OperatorError):
            if not self._health.connections:
                raise error
            error = RefusedError(str(error), self._patience.refused_seconds)
        await wait_after(error, SOURCE, self._health, self._patience)

    async def _connected(
        self, ids: Sequence[str], *, lenient: bool
    ) -> tuple[AsyncExitStack, AsyncGenerator[ServerSentEvent, None], str]:
        """(what closes the stream, its events, its first price)."""
        params = {"ids[]": list(ids), "parsed": "true", "benchmarks_only": "true", "allow_unordered": "false"}
        if lenient:
            params["ignore_invalid_price_ids"] = "true"
        timeout = httpx.Timeout(self._patience.request_timeout_seconds, read=self._patience.idle_seconds_min)
        async for attempt in attempts(self._patience, None):
            with attempt:
                try:
                    async with AsyncExitStack() as trial:
                        client = await trial.enter_async_context(self._rest.client())
                        opening = aconnect_sse(client, "GET", STREAM_PATH, params=params, timeout=timeout)
                        source = await trial.enter_async_context(opening)
                        await self._check(source.response, params)
                        events = source.aiter_sse()
                        first = await self._next_of(events)
                        stack = trial.pop_all()
                except (httpx.TransportError, BusyError) as error:
                    self._health.state, self._health.reason = trouble_of(error)
                    raise
        return stack, events, first

    async def _check(self, response: httpx.Response, params: Params) -> None:
        if response.status_code == httpx.codes.OK:
            return
        body = await response.aread()
        if is_busy(response.status_code):
            raise self._rest.busy(response, body)
        if response.status_code == httpx.codes.NOT_FOUND:
            raise IdsGoneError(self._rest.refusal(body) or "status 404")
        self._rest.check(response.status_code, STREAM_PATH, params, body)

    async def _next_of(self, events: AsyncGenerator[ServerSentEvent, None]) -> str:
        """The data of the next event with a price.

        Raises httpx.TransportError if the stream ends, announces its end, or sends no price for too long.
        """
        try:
            async with asyncio.timeout(self._patience.idle_seconds_min):
                while True:
                    event = await anext(events)
                    if event.event == "error":
                        raise httpx.RemoteProtocolError(
                            f"Hermes ends it: {plain_refusal(event.data.encode())}"
                        )
                    if event.event == "message":
                        return event.data
        except StopAsyncIteration:
            raise httpx.RemoteProtocolError("the server ended the stream") from None
        except TimeoutError:
            silence = f"no price came for {self._patience.idle_seconds_min:g} s"
            raise httpx.ReadTimeout(silence) from None
        except SSEError as error:
            raise httpx.RemoteProtocolError(str(error)) from error
