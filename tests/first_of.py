"""Cases of which `make test` plays the first ones, and `make test-all` every one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def first_of(count: int, cases: Iterable[Any]) -> list[Any]:
    """The cases for `parametrize`: those behind the first `count` are marked slow."""
    return [
        case if place < count else pytest.param(case, marks=pytest.mark.slow)
        for place, case in enumerate(cases)
    ]
