"""The chain as a Solana node tells it: JSON-RPC 2.0 over HTTP, read only.

`getSignatureStatuses` (with the search in history) says how a transaction stands. `getSignaturesForAddress` lists
what touched the crunch's account: that is all that can be read without the on-chain program's layout, so no
transaction is attributed to one of our checkpoints here, and none is called CLAIMABLE or PAID.

Every answer is bounded (time, bytes) and checked; what does not fit is a WorldError, never a guess. The URL may hold
a key: only its host is ever written anywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

import httpx
import msgspec
import stamina

from coordinator.streams.log.errors import UNREADABLE_JSON, WorldError
from coordinator.streams.net.outbound import http_client
from coordinator.streams.ports import ChainCheckpoint, ChainState, TxState, TxStatus
from coordinator.streams.setting_checks import http_host

SIGNATURES_PER_CALL = 256
PAGE = 1000
PAGES_MAX = 20
ANSWER_BYTES_MAX = 4 * 1024 * 1024
CALL_SECONDS_MAX = 10.0
ATTEMPTS = 3
FINALIZED = "finalized"
RETRY_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
RETRY_CODES = frozenset({-32004, -32005, -32014, -32603})
"""Block not available, node is behind, status not available yet, internal error: worth asking again."""
T = TypeVar("T")


class _Status(msgspec.Struct, rename="camel"):
    slot: int
    err: Any
    confirmations: int | None = None
    confirmation_status: str | None = None


class _Statuses(msgspec.Struct):
    value: list[_Status | None]


class _Signature(msgspec.Struct, rename="camel"):
    signature: str
    slot: int
    err: Any
    block_time: int | None = None
    confirmation_status: str | None = None


class _RpcError(msgspec.Struct):
    code: int
    message: str = ""


class _Answer(msgspec.Struct):
    id: int
    result: msgspec.Raw = msgspec.Raw(b"")
    error: _RpcError | None = None


class _AgainError(Exception):
    """Worth another try within the bounds."""


class SolanaChain:
    """A `ChainPort` over one RPC URL. `attempts` tries per call, each `call_seconds_max` at most."""

    name = "solana"

    def __init__(
        self,
        url: str,
        *,
        call_seconds_max: float = CALL_SECONDS_MAX,
        attempts: int = ATTEMPTS,
        retry_wait_seconds: float = 0.2,
    ) -> None:
        self.host, _ = http_host("SOLANA_RPC_URL", url)
        self._url = url
        self._seconds = call_seconds_max
        self._attempts = attempts
        self._wait = retry_wait_seconds
        self._id = 0
        # No redirects and no netrc: the URL is the operator's, and only it is asked.
        self._client = http_client(url)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def status_of(self, tx_hashes: Sequence[str]) -> dict[str, TxStatus]:
        """See `ChainPort`. A null is UNKNOWN; an error is FAILED only once its block is finalized."""
        status_of_hash: dict[str, TxStatus] = {}
        hashes = list(dict.fromkeys(tx_hashes))
        for start in range(0, len(hashes), SIGNATURES_PER_CALL):
            some = hashes[start : start + SIGNATURES_PER_CALL]
            answer = await self._call(
                "getSignatureStatuses", [some, {"searchTransactionHistory": True}], _Statuses
            )
            if len(answer.value) != len(some):
                raise self._wrong(f"{len(answer.value)} statuses for {len(some)} signatures")
            status_of_hash.update(zip(some, map(_status, answer.value), strict=True))
        return status_of_hash

    async def checkpoints_of(self, crunch: str, since_ms: int) -> list[ChainCheckpoint]:
        """Finalized and confirmed transactions that touched the crunch's account since then, newest first.

        None is attributed to a checkpoint. A block without a time counts as recent: if one were left out, a payment
        that was made could be missed and made again.
        """
        checkpoints: list[ChainCheckpoint] = []
        before: str | None = None
        for _ in range(PAGES_MAX):
            options: dict[str, Any] = {"limit": PAGE, "commitment": "confirmed"}
            if before is not None:
                options["before"] = before
            page = await self._call("getSignaturesForAddress", [crunch, options], list[_Signature])
            for signature in page:
                at_ms = None if signature.block_time is None else signature.block_time * 1000
                if at_ms is not None and at_ms < since_ms:
                    return checkpoints
                # Until its block is final, the same transaction may still succeed in another block: an early FAILED
                # would let it be paid twice.
                failed = signature.err is not None and signature.confirmation_status == FINALIZED
                state = ChainState.FAILED if failed else ChainState.SUBMITTED
                checkpoints.append(ChainCheckpoint(signature.signature, state, at_ms=at_ms))
            if len(page) < PAGE:
                return checkpoints
            before = page[-1].signature
        raise self._wrong(f"more than {PAGE * PAGES_MAX} transactions since the oldest open checkpoint")

    def _wrong(self, what: str) -> WorldError:
        return WorldError(f"the Solana node at {self.host}: {what}")

    async def _call(self, method: str, params: list[Any], shape: type[T]) -> T:
        try:
            async for attempt in stamina.retry_context(
                on=(
                    _AgainError,
                    httpx.RequestError,
                ),  # DecodingError (a broken gzip body) is one, and no TransportError
                attempts=self._attempts,
                wait_initial=self._wait,
                wait_jitter=self._wait,
                wait_max=2.0,
            ):
                with attempt:
                    body = await self._post(method, params)
        except _AgainError as error:
            raise self._wrong(f"{method}: {error}") from None
        except httpx.RequestError as error:
            raise self._wrong(f"{method}: {type(error).__name__}") from None
        try:
            return msgspec.json.decode(body, type=shape)
        except UNREADABLE_JSON as error:
            raise self._wrong(f"{method}: an answer of another shape: {error}") from None

    async def _post(self, method: str, params: list[Any]) -> msgspec.Raw:
        self._id += 1
        asked = {"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}
        try:
            body = await self._bytes(asked)
        except TimeoutError:
            raise _AgainError(f"no answer within {self._seconds:g} s") from None
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except UNREADABLE_JSON as error:
            raise self._wrong(f"{method}: no JSON-RPC answer: {error}") from None
        if answer.id != self._id:
            raise self._wrong(f"{method}: an answer to another question")
        if answer.error is not None:
            text = f"error {answer.error.code}: {answer.error.message[:200]}"
            if answer.error.code in RETRY_CODES:
                raise _AgainError(text)
            raise self._wrong(f"{method}: {text}")
        if not bytes(answer.result):
            raise self._wrong(f"{method}: neither result nor error")
        return answer.result

    async def _bytes(self, asked: dict[str, Any]) -> bytes:
        """The body within the bounds. httpx bounds each read; the bound on the whole stops a server that sends
        slowly.
        """
        async with (
            asyncio.timeout(self._seconds),
            self._client.stream("POST", self._url, json=asked, timeout=self._seconds) as answer,
        ):
            if answer.status_code in RETRY_STATUSES:
                raise _AgainError(f"HTTP {answer.status_code}")
            if answer.status_code != httpx.codes.OK:
                raise self._wrong(f"HTTP {answer.status_code}")
            body = bytearray()
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > ANSWER_BYTES_MAX:
                    raise self._wrong(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
            return bytes(body)


def _status(status: _Status | None) -> TxStatus:
    if status is None:
        return TxStatus(TxState.UNKNOWN)
    error = "" if status.err is None else msgspec.json.encode(status.err).decode()[:300]
    # Old nodes tell no confirmationStatus; a null in `confirmations` then means rooted, which is finalized.
    final = status.confirmation_status == FINALIZED or (
        status.confirmation_status is None and status.confirmations is None
    )
    if not final:
        return TxStatus(TxState.SEEN, error)
    return TxStatus(TxState.FAILED if error else TxState.FINALIZED, error)
