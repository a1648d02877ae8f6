"""Versions of the defaults, strategies and types that the node itself provides to contracts.

The hash of a contract contains their names and versions, not their source. So a new release of the node does not change
the hash of any contract. A version is raised if, and only if, the meaning changes: the same call returns another
result, or the default of a field is another value. `tests/streams/contract/test_contract_meaning.py` pins a digest of
the code to each version, and fails if the code changed and its digest was not updated.
"""

from __future__ import annotations

from typing import Any

CHANGED: dict[str, int] = {}
"""Key -> version, for each meaning that has changed. A key that is not in here has version 1.

A key is `module.name` of a function or class (`defaults.score_prediction`, `strategies._softmax`), or `Class.field` of
a field with a default (`CrunchContract.grace_seconds`, `Aggregation.ranking_key`).
"""


def version_of(key: str) -> int:
    """The version of a function, class or default of the node."""
    return CHANGED.get(key, 1)


def our_key(thing: Any) -> str:
    """The key of a function or class of the node. It has no folder, so that moving a module changes no hash."""
    return f"{thing.__module__.rpartition('.')[2]}.{thing.__qualname__}"
