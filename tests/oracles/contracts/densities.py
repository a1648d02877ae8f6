"""Densities as participants give them: what is refused, and the density at a point or on a grid.

{"type": "builtin", "name": "norm", "params": {"loc": 0, "scale": 12.5}}
{"type": "mixture", "components": [{"density": .., "weight": 0.8}, ..]}
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

LEAVES_MAX, DEPTH_MAX = 3, 3
ROWS_AT_ONCE = 32
"""What fits a cache: of 100 answers with five densities this takes half of the time that one by one takes."""
Leaves = list[tuple[float, str, dict[str, float]]]
"""[(weight, name, parameters)]"""


class Refused(ValueError):  # noqa: N818 - it is an answer that is refused, by its model's fault
    """Why a density is none."""


def _t(z: Any, df: float) -> Any:
    log = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    return np.exp(log - (df + 1) / 2 * np.log1p(z * z / df))


KNOWN = {
    "norm": lambda z: np.exp(-z * z / 2) / math.sqrt(2 * math.pi),
    "laplace": lambda z: np.exp(-np.abs(z)) / 2,
    "logistic": lambda z: 1 / (4 * np.cosh(np.clip(z / 2, -350, 350)) ** 2),
    "cauchy": lambda z: 1 / (math.pi * (1 + z * z)),
}
"""Of loc 0 and scale 1."""


def leaves(density: Any, digits: int | None = None) -> Leaves:
    """[(weight, name, parameters)]; weights are absolute and sum to 1, parameters have so many significant digits.
    Raises Refused.
    """
    found = _leaves(density, 1.0, 1)
    if len(found) > LEAVES_MAX:
        raise Refused(f"more than {LEAVES_MAX} components")
    total = sum(weight for weight, *_ in found)
    checked = []
    for weight, name, params in found:
        rounded = {one: float(f"{value:.{digits}g}") if digits else value for one, value in params.items()}
        if (
            not rounded.get("scale", 1.0) > 0
            or (name == "t" and not rounded.get("df", 0.0) > 0)
            or not total > 0
        ):
            raise Refused("bad parameters")
        checked.append((weight / total, name, rounded))
    return checked


def _leaves(density: Any, weight: float, depth: int) -> Leaves:
    try:
        if density["type"] == "mixture":
            if depth > DEPTH_MAX:
                raise Refused(f"nested deeper than {DEPTH_MAX}")
            parts = [(abs(float(one["weight"])), one["density"]) for one in density["components"]]
            total = sum(part for part, _ in parts)
            if not total > 0:
                raise Refused("bad parameters")
            return [leaf for part, one in parts for leaf in _leaves(one, weight * part / total, depth + 1)]
        if density["type"] != "builtin" or (density["name"] not in KNOWN and density["name"] != "t"):
            raise Refused("unknown density")
        params = {str(name): float(value) for name, value in density["params"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise error if isinstance(error, Refused) else Refused("no density") from error
    if not all(math.isfinite(value) for value in (*params.values(), weight)):
        raise Refused("bad parameters")
    return [(weight, density["name"], params)]


def pdf(found: Leaves, x: Any) -> Any:
    """The density at x, a number or an array."""
    total = np.zeros_like(np.asarray(x, dtype=float))
    for weight, name, params in found:
        scale = params.get("scale", 1.0)
        z = (np.asarray(x, dtype=float) - params.get("loc", 0.0)) / scale
        total = total + weight * (_t(z, params["df"]) if name == "t" else KNOWN[name](z)) / scale
    return total


def pdfs(many: Sequence[Leaves], x: Any) -> Any:
    """`pdf` of n densities at once, each on its own row of x: shape (n, points)."""
    total = np.zeros_like(x)
    for place in range(LEAVES_MAX):
        rows_of: dict[str, list[int]] = {}
        for row, found in enumerate(many):
            if place < len(found):
                name = found[place][1] if found[place][1] in KNOWN else f"alone {row}"
                rows_of.setdefault(name, []).append(row)
        for name, rows in rows_of.items():
            if name not in KNOWN:
                total[rows] += pdf([many[rows[0]][place]], x[rows])
                continue
            weight, loc, scale = np.array(
                [
                    (w, params.get("loc", 0.0), params.get("scale", 1.0))
                    for w, _, params in (many[row][place] for row in rows)
                ]
            ).T[:, :, None]
            total[rows] += weight * KNOWN[name]((x[rows] - loc) / scale) / scale
    return total


def crps(many: Sequence[tuple[Leaves, float, float]], points: int, *, normalise: bool) -> list[float]:
    """The integral of (F - 1[z >= x])**2 over +-half_width, F the running sum of the density, of each of many
    (density, x, half_width).
    """
    found: list[float] = []
    for start in range(0, len(many), ROWS_AT_ONCE):
        part = many[start : start + ROWS_AT_ONCE]
        half, x = (np.array([one[i] for one in part], dtype=float)[:, None] for i in (2, 1))
        grid = np.linspace(-half[:, 0], half[:, 0], points, axis=1)
        dz = grid[:, 1:2] - grid[:, :1]
        below = np.cumsum(pdfs([one[0] for one in part], grid), axis=1) * dz
        if normalise:
            below = below / np.where(below[:, -1:] > 0, below[:, -1:], 1.0)
        away = (np.clip(below, 0, 1) - (grid >= x)) ** 2
        found += (np.trapezoid(away, axis=1) * dz[:, 0]).tolist()
    return found
