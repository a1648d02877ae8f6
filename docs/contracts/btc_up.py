"""btc-up: the default challenge. What its cases set is all that is set here."""

from __future__ import annotations

from typing import Any

from coordinator.streams.contract import CrunchContract


def contract(**fields: Any) -> CrunchContract:
    """The default contract, with the fields of a case."""
    return CrunchContract(**fields)


CONTRACT = contract()
