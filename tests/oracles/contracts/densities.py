"""Densities as participants give them: what is refused, and the density at a point or on a grid.

{"type": "builtin", "name": "norm", "params": {"loc": 0, "scale": 12.5}}
{"type": "mixture", "components": [{"density": .., "weight": 0.8}, ..]}
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

LEAVES_MAX, DEPTH_MAX = 3, 3
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


def crps(found: Leaves, x: float, half_width: float, points: int, *, normalise: bool) -> float:
    """The integral of (F - 1[z >= x])**2 over +-half_width, F the running sum of the density."""
    grid = np.linspace(-half_width, half_width, points)
    dz = grid[1] - grid[0]
    below = np.cumsum(pdf(found, grid)) * dz
    below = np.clip(below / below[-1] if normalise and below[-1] > 0 else below, 0, 1)
    return float(np.trapezoid((below - (grid >= x)) ** 2, dx=dz))
