"""The shapes of `/reports/invariants` and `/reports/chain`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from coordinator.api.shapes import Id, Shape, Zulu

AlertKind = Literal[
    "invariant",
    "command",
    "feed",
    "stage",
    "worker",
    "lag",
    "log",
    "store",
    "disk",
    "blob",
    "kafka",
    "checkpoint",
    "chain",
    "task",
    "webhook",
    "shadow",
    "clock",
    "models",
]


class Invariant(Shape):
    """What must hold, and what was found. `checked` is false for a background check that has not run yet; without
    `withholds` a broken one is an alert alone.
    """

    name: str = Field(examples=["predictions"])
    about: str
    ok: bool
    detail: str
    counts: dict[str, int]
    checked: bool
    withholds: bool


class AlertRow(Shape):
    """What a person should know now, and since when."""

    kind: AlertKind
    name: str
    text: str
    since: Zulu


class Invariants(Shape):
    """`withholding` names the broken ones because of which the next checkpoint is withheld."""

    ok: bool
    looked_at: Zulu | None
    withholding: list[str]
    invariants: list[Invariant]
    alerts: list[AlertRow]


class ChainTransaction(Shape):
    """The transaction of an open checkpoint, as the chain tells it."""

    checkpoint_id: Id
    tx_hash: str
    state: Literal["UNKNOWN", "SEEN", "FINALIZED", "FAILED"]
    error: str


class ChainConcern(Shape):
    """What a person must look at before money moves."""

    name: str
    checkpoint_id: Id
    text: str


class Chain(Shape):
    """`adapter` is null where the chain is not watched. As of `checked_at` nothing PENDING here was on chain."""

    adapter: str | None
    checked_at: Zulu | None
    error: str | None
    transactions: list[ChainTransaction]
    concerns: list[ChainConcern]
