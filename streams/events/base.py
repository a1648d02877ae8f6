"""The fields of every event, `{kind, id, at, v, data}`, and the values that several kinds share."""

from __future__ import annotations

from typing import Literal

import msgspec

Fault = Literal["model", "node", "nobody"]
"""Whose fault a missing score is. `nobody`: the contract has no score for the answer yet; only in `scores`."""
FinalStatus = Literal["SCORED", "FAILED", "ABSENT"]


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind", tag=True):
    """The fields of every event; `kind` is the class name.

    Events hold plain data and so can be in no cycle: `gc=False` spares the collector hundreds of thousands of them.
    """

    id: str
    at: int
    v: Literal[1] = 1


class Data(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The facts of one event."""
