"""Is what a node made what an oracle's case expects, to the tolerances that its file names?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SMALL = 1e-9
FLOATS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def floats(value: Any) -> Any:
    """JSON with the floats that an oracle writes as words."""
    match value:
        case dict():
            return {key: floats(one) for key, one in value.items()}
        case list():
            return [floats(one) for one in value]
        case str():
            return FLOATS.get(value, value)
        case _:
            return value


def differences(
    expected: Any, made: Any, tolerances: Mapping[str, float | str], path: tuple[str, ...] = ()
) -> Iterator[str]:
    """Each difference in words. Objects have the same keys, lists the same length; rows that name a model are compared
    by it, whatever their order, since places that are tied have none. A row that says `why_not` pays nothing, and is none.
    Of what was refused only who is compared: the words are a file's own.
    """
    where = ".".join(path) or "it"
    if path and path[-1] == "refused" and isinstance(expected, dict) and isinstance(made, dict):
        expected, made = dict.fromkeys(expected), dict.fromkeys(made)
    match expected, made:
        case dict(), dict():
            for key in expected.keys() | made.keys():
                if key not in made or key not in expected:
                    yield f"{where}: {key} is {'missing' if key in expected else 'not expected'}"
                else:
                    yield from differences(expected[key], made[key], tolerances, (*path, str(key)))
        case list(), list():
            if all(isinstance(one, dict) and "rank" in one for one in (*expected, *made)):
                of = [
                    {row["model"]: row for row in rows if row.get("why_not") is None}
                    for rows in (expected, made)
                ]
                yield from differences(*of, tolerances, path)
                return
            if len(expected) != len(made):
                yield f"{where}: {len(made)} where {len(expected)} are expected"
            for i, (one, other) in enumerate(zip(expected, made, strict=False)):
                yield from differences(one, other, tolerances, (*path, str(i)))
        case (int() | float(), int() | float()) if not isinstance(expected, bool):
            if not abs(expected - made) <= _tolerance(path, tolerances, expected):
                yield f"{where} is {made!r}, expected {expected!r}"
        case _:
            if expected != made or type(expected) is not type(made):
                yield f"{where} is {made!r}, expected {expected!r}"


def _tolerance(path: tuple[str, ...], tolerances: Mapping[str, float | str], expected: float) -> float:
    """That of the innermost name of the path that the file tells (`micro` is also that of `retained_micro`). A text such
    as "1e-8 times the stake" is taken as so much of the expected number itself, which is stricter.
    """
    for name in reversed(path):
        for told, tolerance in tolerances.items():
            if name == told or name.endswith(f"_{told}"):
                return (
                    float(tolerance.split()[0]) * abs(expected) if isinstance(tolerance, str) else tolerance
                )
    if path and path[-1] == "key":
        return float(tolerances.get("aggregates", SMALL))
    return 0 if isinstance(expected, int) else SMALL
