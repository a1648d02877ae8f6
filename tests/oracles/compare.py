"""Compares a node's result with what an oracle's case expects, within the tolerances that its file states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SMALL = 1e-9
FLOATS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def floats(value: Any) -> Any:
    """JSON in which the floats that an oracle writes as words are floats."""
    match value:
        case dict():
            return {key: floats(member) for key, member in value.items()}
        case list():
            return [floats(item) for item in value]
        case str():
            return FLOATS.get(value, value)
        case _:
            return value


def differences(
    expected: Any, actual: Any, tolerances: Mapping[str, float | str], path: tuple[str, ...] = ()
) -> Iterator[str]:
    """Each difference in words. Objects must have the same keys, lists the same length. Rows of a ranking are compared by
    model and not by position, because ties have no order. A row with `why_not` pays nothing and is left out. For refusals
    only the models are compared: each file has its own wording.
    """
    where = ".".join(path) or "it"
    if path and path[-1] == "refused" and isinstance(expected, dict) and isinstance(actual, dict):
        expected, actual = dict.fromkeys(expected), dict.fromkeys(actual)
    match expected, actual:
        case dict(), dict():
            for key in expected.keys() | actual.keys():
                if key not in actual or key not in expected:
                    yield f"{where}: {key} is {'missing' if key in expected else 'not expected'}"
                else:
                    yield from differences(expected[key], actual[key], tolerances, (*path, str(key)))
        case list(), list():
            if all(isinstance(row, dict) and "rank" in row for row in (*expected, *actual)):
                rows_by_model = [
                    {row["model"]: row for row in rows if row.get("why_not") is None}
                    for rows in (expected, actual)
                ]
                yield from differences(*rows_by_model, tolerances, path)
                return
            if len(expected) != len(actual):
                yield f"{where}: {len(actual)} where {len(expected)} are expected"
            for i, (expected_item, actual_item) in enumerate(zip(expected, actual, strict=False)):
                yield from differences(expected_item, actual_item, tolerances, (*path, str(i)))
        case (int() | float(), int() | float()) if not isinstance(expected, bool):
            if not abs(expected - actual) <= _tolerance(path, tolerances, expected):
                yield f"{where} is {actual!r}, expected {expected!r}"
        case _:
            if expected != actual or type(expected) is not type(actual):
                yield f"{where} is {actual!r}, expected {expected!r}"


def _tolerance(path: tuple[str, ...], tolerances: Mapping[str, float | str], expected: float) -> float:
    """The tolerance of the innermost name of the path that the file lists (`micro` also covers `retained_micro`). A text
    such as "1e-8 times the stake" is read as that fraction of the expected number itself, which is stricter.
    """
    for name in reversed(path):
        for listed_name, tolerance in tolerances.items():
            if name == listed_name or name.endswith(f"_{listed_name}"):
                return (
                    float(tolerance.split()[0]) * abs(expected) if isinstance(tolerance, str) else tolerance
                )
    if path and path[-1] == "key":
        return float(tolerances.get("aggregates", SMALL))
    return 0 if isinstance(expected, int) else SMALL
