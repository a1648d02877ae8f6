"""The ports: what the stages ask of the world, in the domain's own words.

Adapters live in `infra/` (models, chain) and `streams/sources/` (feeds); tests bring fakes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from coordinator.streams.events import ApplyContract, Blob, Fault, Terms, TermSettings

if TYPE_CHECKING:
    from coordinator.streams.settings import Settings


class Subscription(msgspec.Struct, frozen=True):
    """One stream of a feed: the four dimensions."""

    source: str
    subject: str
    kind: str
    granularity: str

    def record(self, ts_event: int, at: int, values: dict[str, str], revision: int = 0) -> FeedRecord:
        """A record of it, as FeedRecord has it."""
        return FeedRecord(
            self.source, self.subject, self.kind, self.granularity, ts_event, at, values, revision
        )


def subscriptions_of(settings: Settings) -> list[Subscription]:
    """What these settings follow."""
    return [
        Subscription(settings.feed_source, subject, settings.feed_kind, settings.feed_granularity)
        for subject in settings.feed_subjects
    ]


class FeedRecord(msgspec.Struct, frozen=True):
    """One fact from a feed.

    `ts_event` is the record's own time in ms (a candle's open); `at` is when it became known, in ms
    (a candle's close = open + granularity; a tick's own time). `values` holds decimals as text
    (`{"open": "23141.57", ...}`; a tick has `price`), because floats lose what was quoted.
    `revision` grows when a source corrects a record; the identity stays.
    """

    source: str
    subject: str
    kind: str
    granularity: str
    ts_event: int
    at: int
    values: dict[str, str]
    revision: int = 0
    backfilled: bool = False


class SourceHealth(msgspec.Struct):
    """How a source's live side stands; the source changes it, whoever asks reads it.

    `state` is "not started", "connecting", "connected", "reconnecting", "refused" (by the other side, and for longer)
    or "ended"; `reason` says why it is not connected. `connections` counts those that delivered something: when it
    grows past 1, what came between the last record and now may be missing, and `history` is to be asked. `refused`
    counts what went to `on_garbage`.
    `time_ms` is what the source's own clock said last (the time of a message, an HTTP Date header), -1 before that.
    """

    state: str = "not started"
    reason: str = ""
    connections: int = 0
    refused: int = 0
    gone: dict[str, str] = {}
    """Subject -> why the other side serves it no more, while it serves others."""
    unknown: dict[str, str] = {}
    """Subject -> why the other side knows none of this name, while it knows others."""
    time_ms: int = -1


class FeedSource(Protocol):
    """A source of records: a live stream, and history where the source has one.

    A source may also have `health: SourceHealth`. The class may say what it delivers: `about`, one line, and
    `offers`, kind -> granularities; `keeps_to_the_clock = True`, where its records are made by this machine's clock and
    so confirm none. These are read without making an instance. `async time_ms() -> int`, where it has it, asks the
    source's own clock, in ms; it raises WorldError when that does not answer.
    """

    name: str

    def stream(self, subscriptions: Sequence[Subscription]) -> AsyncIterator[FeedRecord]:
        """Records as they become known, in order of `at` per subscription, until cancelled."""
        ...

    def history(self, subscription: Subscription, start_ms: int, end_ms: int) -> AsyncIterator[FeedRecord]:
        """Records with start_ms <= at <= end_ms, in order of `at`. Raises WorldError when it cannot be had."""
        ...


class AppliedContracts(Protocol):
    """The contracts that the feed worker applies (`infra/contracts/node_contracts.py`)."""

    def apply_proposed(self, at: int, told: TermSettings | None) -> ApplyContract:
        """The command that applies the first contract of a new crunch; `at` in ms. Raises OperatorError."""
        ...

    def terms_of(self, command: ApplyContract, held: Terms | None = None) -> Terms:
        """The terms of the contract that a command applies; `held` are those before. Raises OperatorError."""
        ...

    def terms_under(self, contract_hash: str, told: TermSettings | None) -> Terms:
        """The terms of a contract that was applied, with these settings. Raises OperatorError."""
        ...

    def settings_remark(self, held: Terms) -> str:
        """What to tell the operator of settings that are not applied; "" if there is nothing to say."""
        ...

    def remark(self, applied: str) -> str:
        """What to tell the operator of a contract that is not applied; "" if there is nothing to say."""
        ...


class Outcome(StrEnum):
    """How one call to one model ended. The reply, and not the outcome, says whose fault it is."""

    OK = "OK"
    MODEL_FAILED = "MODEL_FAILED"
    BAD_OUTPUT = "BAD_OUTPUT"
    DEADLINE = "DEADLINE"
    BUSY = "BUSY"
    CRASHED = "CRASHED"
    TOO_BIG = "TOO_BIG"
    ABSENT = "ABSENT"


NO_ANSWER = (Outcome.DEADLINE, Outcome.BUSY, Outcome.CRASHED, Outcome.ABSENT)
"""Outcomes that a lost connection may be the reason of."""


class ModelInfo(msgspec.Struct, frozen=True):
    """The identity of a model, as the orchestrator announces it."""

    model_id: str
    model_name: str
    deployment_id: str
    cruncher_id: str = ""
    cruncher_name: str = ""
    wallet_pubkey: str = ""
    hotkey: str = ""


class ModelNotice(msgspec.Struct, frozen=True):
    """A change the gateway saw: `seen` (running), `left` (STOPPED), `recovering`, `failed` (reported, with code)."""

    change: str
    info: ModelInfo
    code: str = ""
    reason: str = ""


class ModelReply(msgspec.Struct, frozen=True):
    """One model's answer to one call. `output` is plain JSON data, only with OK.

    `fault` says who could have acted otherwise, and is given with every outcome but OK: nothing that a model sends
    (a status, a text) makes it the node's. `detail` is for people, and nothing is decided by it.
    Raises ValueError for an outcome without a fault, or OK with one.
    """

    model_id: str
    deployment_id: str
    outcome: Outcome
    fault: Fault | None = None
    output: Any = None
    detail: str = ""
    exec_time_us: int = 0

    def __post_init__(self) -> None:
        if (self.outcome is Outcome.OK) is not (self.fault is None):
            message = f"a reply {self.outcome} with fault {self.fault}"
            raise ValueError(message)


TABLE_BYTES_MAX = 60_000_000
"""The largest size of a table for models. With the rest of a call it must fit into one message of 64 MiB, the limit of
a model's host.
"""


class Table(msgspec.Struct, frozen=True, eq=False, weakref=True):
    """A table for models: a whole Parquet file. It travels as the keyword `table`, which a method without a parameter
    of this name does not get.
    """

    parquet: bytes


class BlobReader(Protocol):
    """Bytes that are kept outside of the log (`infra/blobs/`)."""

    def read(self, blob: Blob) -> bytes:
        """Whole and unaltered. Raises BlobLostError; WorldError where the store is out of reach."""
        ...


class BlobLook(Protocol):
    """Whether a blob is there."""

    def look(self, blob: Blob) -> None:
        """Raises BlobLostError for one that is missing or altered; WorldError where the store is out of reach."""
        ...

    def given_up(self, sha256: str) -> str:
        """Why the operator looks for it no more; "" if nobody said so. Raises WorldError."""
        ...

    def notes(self) -> Collection[str]:
        """The SHA-256 of all for which that was said, as far as the store can list them."""
        ...

    def take_back(self, sha256: str) -> None:
        """Forget that it was said: the blob is back. Raises OperatorError if that cannot be, WorldError."""
        ...


class Blobs(BlobReader, Protocol):
    """The store of them."""

    def put(self, content: bytes) -> str:
        """Keep them; their SHA-256. Raises OperatorError, WorldError."""
        ...


class ModelGateway(Protocol):
    """The way to the models. One caller; calls to one model never overlap.

    `connected` says whether the orchestrator answers: while it does not, an absence is not the model's fault.
    """

    @property
    def connected(self) -> bool: ...

    @property
    def announced(self) -> Collection[str] | None:
        """The models that the orchestrator last named, running or recovering; None before its first list."""
        ...

    async def start(self) -> None:
        """Connect. Returns at once; models appear as notices. Raises WorldError if no host answers in its bounds."""
        ...

    async def stop(self) -> None: ...

    def notices(self) -> list[ModelNotice]:
        """What changed since the last call, in order; empties the list."""
        ...

    async def call(
        self,
        method: str,
        arguments: Sequence[Any],
        timeout_seconds: float,
        model_ids: Collection[str],
        output_max_bytes: int = 0,
    ) -> dict[str, ModelReply]:
        """Call `method` on the models named, side by side. Every id gets a reply; the unreachable get ABSENT.

        `output_max_bytes` is what the contract lets an answer have: one that cannot be that is refused before it is
        decoded. 0: what the method returns is not looked at, and `output` is None.

        Arguments are plain Python values (str, int, float, dict/list as JSON) or the JSON itself (`msgspec.Raw`), sent
        in order; a `Table` is no argument by position, wherever it stands. The same object given again soon is not
        encoded again, and must not have changed. An empty `model_ids` calls nobody.
        """
        ...

    async def report_failure(self, model_id: str, code: str, reason: str) -> bool:
        """Ask the orchestrator to stop a model; False if it is not connected. Gives a `failed` notice."""
        ...


class TxState(StrEnum):
    """What a chain says of one transaction. Only FINALIZED and FAILED never change any more."""

    UNKNOWN = "UNKNOWN"
    """It does not know it: never sent, dropped, not there yet, or forgotten by this node of the chain."""
    SEEN = "SEEN"
    """It is in a block that may still be dropped."""
    FINALIZED = "FINALIZED"
    FAILED = "FAILED"
    """It is in a final block, with an error: it had no effect and never will."""


class TxStatus(msgspec.Struct, frozen=True):
    """One transaction. `error` is the chain's own text."""

    state: TxState
    error: str = ""


class ChainState(StrEnum):
    """How far a checkpoint on chain is, where the adapter can tell."""

    SUBMITTED = "SUBMITTED"
    CLAIMABLE = "CLAIMABLE"
    PAID = "PAID"
    FAILED = "FAILED"


class ChainCheckpoint(msgspec.Struct, frozen=True):
    """One transaction that settles a checkpoint of a crunch, or may.

    `checkpoint_id` is empty if the chain does not say which checkpoint of this crunch it is. `at_ms` is the block's
    time, None where it is not known.
    """

    tx_hash: str
    state: ChainState
    checkpoint_id: str = ""
    at_ms: int | None = None


class ChainPort(Protocol):
    """The chain, read only. Nothing is signed and nothing is sent through it."""

    name: str

    async def status_of(self, tx_hashes: Sequence[str]) -> dict[str, TxStatus]:
        """What the chain says of each transaction now; every hash has its entry. Raises WorldError."""
        ...

    async def checkpoints_of(self, crunch: str, since_ms: int) -> list[ChainCheckpoint]:
        """Everything that the chain has recorded for this crunch since then. More is harmless, less is not. Raises
        WorldError if the list cannot be complete: an empty list means that there is nothing.
        """
        ...

    async def close(self) -> None: ...
