"""btc-up: the default challenge. It sets only the fields that the cases of the challenge set."""

from __future__ import annotations

from typing import Any

from coordinator.streams.contract import CrunchContract


def contract(**fields: Any) -> CrunchContract:
    """The default contract, with the fields of a case."""
    return CrunchContract(**fields)


CONTRACT = contract()
