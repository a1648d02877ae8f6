"""Versions of what we bring ourselves to a contract: our defaults, strategies and types.

A contract's hash names them with a version and does not look into their text, so that a release of ours leaves every
contract what it was. A version goes up when, and only when, the meaning changes: the same call gives something else, or
a field that a contract leaves unset stands for another value. `tests/streams/contract/test_contract_meaning.py` pins
each meaning to its version, and fails when a text changed and nobody said whether its meaning did.
"""

from __future__ import annotations

from typing import Any

CHANGED: dict[str, int] = {}
"""Version of what has changed its meaning; what is not in here has version 1.

Keys: `module.name` of a function or class (`defaults.score_prediction`, `strategies._softmax`), or `Class.field` of a
value that a contract may leave unset (`CrunchContract.grace_seconds`, `Aggregation.ranking_key`).
"""


def version_of(key: str) -> int:
    """The version of one meaning of ours."""
    return CHANGED.get(key, 1)


def our_key(thing: Any) -> str:
    """The key of a function or class of ours: without its folder, since folders move and meanings stay."""
    return f"{thing.__module__.rpartition('.')[2]}.{thing.__qualname__}"
