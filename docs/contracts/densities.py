"""Densities in the form of an answer: which are refused, the density at a point, and its CRPS on a grid.

    {"type": "builtin", "name": "norm", "params": {"loc": 0, "scale": 12.5}}
    {"type": "mixture", "components": [{"density": .., "weight": 0.8}, ..]}

Names and parameters are those of scipy.stats. Its documentation has the formulas, each for loc 0 and scale 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

DEPTH_MAX = 3
ROWS_AT_ONCE = 32
"""So many fit into a cache: 100 answers with five densities then take half of the time."""
Leaf = tuple[float, str, tuple[float, ...]]
"""(weight, name, (loc, scale, *shapes))"""

log_gamma = np.vectorize(math.lgamma, otypes=[float])


class Refused(ValueError):  # noqa: N818 - it is an answer that is refused, by its model's fault
    """Why a density is refused."""


def _t(z: Any, df: Any) -> Any:
    log = log_gamma((df + 1) / 2) - log_gamma(df / 2) - 0.5 * np.log(df * math.pi)
    return np.exp(log - (df + 1) / 2 * np.log1p(z * z / df))


def _log_beta(a: Any, b: Any) -> Any:
    return log_gamma(a) + log_gamma(b) - log_gamma(a + b)


def _positive(
    log_density: Callable[..., Any], low: float = 0.0, high: float = math.inf
) -> Callable[..., Any]:
    """The density whose logarithm is `log_density` between low and high; 0 elsewhere."""

    def density(z: Any, *shapes: Any) -> Any:
        inside = (z > low) & (z < high)
        return np.where(
            inside, np.exp(log_density(np.where(inside, z, low + min(1.0, high / 2)), *shapes)), 0.0
        )

    return density


_LOG_ROOT_2PI = math.log(2 * math.pi) / 2
FAMILIES: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
    "norm": ((), lambda z: np.exp(-z * z / 2 - _LOG_ROOT_2PI)),
    "laplace": ((), lambda z: np.exp(-np.abs(z)) / 2),
    "logistic": ((), lambda z: 1 / (4 * np.cosh(np.clip(z / 2, -350, 350)) ** 2)),
    "cauchy": ((), lambda z: 1 / (math.pi * (1 + z * z))),
    "t": (("df",), _t),
    "expon": ((), _positive(lambda z: -z)),
    "rayleigh": ((), _positive(lambda z: np.log(z) - z * z / 2)),
    "lognorm": (("s",), _positive(lambda z, s: -((np.log(z) / s) ** 2) / 2 - _LOG_ROOT_2PI - np.log(z * s))),
    "weibull_min": (("c",), _positive(lambda z, c: np.log(c) + (c - 1) * np.log(z) - z**c)),
    "weibull_max": (("c",), lambda z, c: FAMILIES["weibull_min"][1](-z, c)),
    "gamma": (("a",), _positive(lambda z, a: (a - 1) * np.log(z) - z - log_gamma(a))),
    "chi": (("df",), lambda z, k: 2 * z * FAMILIES["chi2"][1](np.where(z > 0, z * z, 0.0), k)),
    "chi2": (("df",), lambda z, k: FAMILIES["gamma"][1](z / 2, k / 2) / 2),
    "beta": (("a", "b"), _positive(
        lambda z, a, b: (a - 1) * np.log(z) + (b - 1) * np.log1p(-z) - _log_beta(a, b), 0.0, 1.0)),
    "pareto": (("b",), _positive(lambda z, b: np.log(b) - (b + 1) * np.log(z), 1.0)),
    "f": (("dfn", "dfd"), _positive(lambda z, m, n: m / 2 * np.log(m / n) + (m / 2 - 1) * np.log(z)
                                    - (m + n) / 2 * np.log1p(m * z / n) - _log_beta(m / 2, n / 2))),
}  # fmt: skip
"""Name -> (names of its shapes, all above 0; the density of loc 0 and scale 1)."""


def leaves(density: Any, digits: int | None = None, leaves_max: int | None = None) -> list[Leaf]:
    """The components; weights are absolute and sum to 1, numbers have `digits` significant digits. Raises Refused."""
    try:
        components = _leaves(density, 1.0, 1, digits)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise error if isinstance(error, Refused) else Refused("no density") from error
    if leaves_max is not None and len(components) > leaves_max:
        raise Refused(f"more than {leaves_max} components")
    for weight, _, (_, *positive) in components:
        if not (math.isfinite(weight) and min(positive) > 0):
            raise Refused("bad parameters")
    return components


def _leaves(density: Any, weight: float, depth: int, digits: int | None) -> list[Leaf]:
    def number(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise Refused("bad parameters")
        return float(f"{value:.{digits}g}") if digits else float(value)

    if density["type"] == "mixture":
        if depth > DEPTH_MAX:
            raise Refused(f"nested deeper than {DEPTH_MAX}")
        parts = [
            (abs(number(component["weight"])), component["density"]) for component in density["components"]
        ]
        total = sum(part for part, _ in parts)
        if not 0 < total < math.inf:
            raise Refused("bad parameters")
        return [
            leaf for part, inner in parts for leaf in _leaves(inner, weight * part / total, depth + 1, digits)
        ]
    if density["type"] not in ("builtin", "scipy") or density["name"] not in FAMILIES:
        raise Refused("unknown density")
    params, (shapes, _) = density["params"], FAMILIES[density["name"]]
    numbers = (params.get("loc", 0.0), params.get("scale", 1.0), *(params[name] for name in shapes))
    return [(weight, density["name"], tuple(map(number, numbers)))]


def pdf(components: Sequence[Leaf], x: float) -> float:
    """The density at x."""
    return float(pdfs([components], np.array([[x]]))[0, 0])


def pdfs(many: Sequence[Sequence[Leaf]], x: Any) -> Any:
    """The densities of n answers, each on its own row of x: shape (n, points)."""
    total = np.zeros_like(x, dtype=float)
    rows_of: dict[tuple[int, str], list[int]] = {}
    for row, components in enumerate(many):
        for place, (_, name, _) in enumerate(components):
            rows_of.setdefault((place, name), []).append(row)
    for (place, name), rows in rows_of.items():
        told = [(many[row][place][0], *many[row][place][2]) for row in rows]
        weight, loc, scale, *shapes = np.array(told).T[:, :, None]
        total[rows] += weight * FAMILIES[name][1]((x[rows] - loc) / scale, *shapes) / scale
    return total


def crps(many: Sequence[tuple[Sequence[Leaf], float, float]], points: int, *, normalise: bool) -> list[float]:
    """The integral of (F - 1[z >= x])**2 over +-half_width, F the running sum of the density, for each of many
    (density, x, half_width). With `normalise` a density is first divided by its integral over the grid.
    """
    integrals: list[float] = []
    for start in range(0, len(many), ROWS_AT_ONCE):
        part = many[start : start + ROWS_AT_ONCE]
        half, x = (np.array([asked[i] for asked in part], dtype=float)[:, None] for i in (2, 1))
        grid = np.linspace(-half[:, 0], half[:, 0], points, axis=1)
        dz = grid[:, 1:2] - grid[:, :1]
        density = pdfs([asked[0] for asked in part], grid)
        if normalise:
            mass = np.trapezoid(density, grid, axis=1)[:, None]
            density = density / np.where(mass > 0, mass, 1.0)
        below = np.clip(np.cumsum(density, axis=1) * dz, 0, 1)
        integrals += (np.trapezoid((below - (grid >= x)) ** 2, axis=1) * dz[:, 0]).tolist()
    return integrals
