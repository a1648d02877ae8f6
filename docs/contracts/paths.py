"""Paths of prices: which are refused, and the CRPS of their changes compared with the real ones."""

from __future__ import annotations

from typing import Any

import numpy as np

BP, VOLATILITY, BLOCK_SIZES = 1e4, 5.25, 3
DIGITS_MAX = 8
TENS = np.array([float(f"1e{power}") for power in range(23)])
"""All powers of ten that a float holds exactly."""
TENS_MIN, INT_MAX = 1e-14, 2.0**53
"""Between these sizes a price, multiplied or divided by one of `TENS`, gives its first 8 digits as an exact integer."""
PRICE_MIN, PRICE_MAX = (float(np.finfo(np.float32).smallest_subnormal), float(np.finfo(np.float32).max))
"""Prices are stored as float32."""


def paths_of(answer: list[Any], prompt: dict[str, Any], *, characters: bool) -> Any:
    """The prices, shape (simulations, points), or the reason why they are refused, a text.

    A price has at most 8 digits. With `characters` all written digits count, otherwise only the significant ones.
    """
    points = prompt["length"] // prompt["increment"] + 1
    if [type(number) for number in answer[:2]] != [int, int] or answer[:2] != [
        prompt["start"],
        prompt["increment"],
    ]:
        return "start or increment"
    if len(answer) - 2 != prompt["simulations"]:
        return "number of paths"
    if any(not isinstance(path, list) or len(path) != points for path in answer[2:]):
        return "number of points"
    prices = [price for path in answer[2:] for price in path]
    if not all_fit(prices, characters=characters):
        return "not a number of at most 8 digits"
    return "zero price" if 0 in prices else np.array(answer[2:], dtype=float)


def all_fit(prices: list[Any], *, characters: bool) -> bool:
    """`_fits` for many prices at once: for exact m and 10**k, m / 10**k is the nearest float."""
    if not {int, float}.issuperset(map(type, prices)):
        return False
    if characters:
        texts = repr(prices)[1:-1].replace(".", "").split(", ")
        return max(map(len, texts)) <= DIGITS_MAX and all(abs(price) <= PRICE_MAX for price in prices)
    try:
        sizes = np.abs(np.array(prices, dtype=float))
    except OverflowError:
        return False
    plain = (sizes >= TENS_MIN) & (sizes <= INT_MAX)
    if not all(_fits(prices[i], characters=False) for i in np.flatnonzero(~plain & (sizes != 0))):
        return False
    sizes = sizes[plain]
    power = DIGITS_MAX - 1 - np.floor(np.log10(sizes)).astype(int)
    up, down = TENS[np.maximum(power, 0)], TENS[np.maximum(-power, 0)]
    return bool((np.round(sizes * up / down) * down / up == sizes).all())


def _fits(price: Any, *, characters: bool) -> bool:
    if isinstance(price, bool) or not isinstance(price, (int, float)) or not abs(price) <= PRICE_MAX:
        return False
    if characters:
        return len(str(price).replace(".", "")) <= DIGITS_MAX
    return float(f"{price:.{DIGITS_MAX - 1}e}") == price and (price == 0 or abs(price) >= PRICE_MIN)


def pairs_crps(samples: Any, real: float) -> float:
    """Mean |y - x| - 1/2 mean |y - y'|, over all pairs."""
    n = len(samples)
    spread = 2 * np.dot(2 * np.arange(n) - n + 1, np.sort(samples)) / n**2
    return float(np.abs(samples - real).mean() - spread / 2)


def crps(paths: Any, real: Any, prompt: dict[str, Any]) -> float:
    """The sum over the intervals: changes in basis points; prices (`_abs`) relative to the last real one; changes from
    the start (`_gaps`); and the volatility of blocks. Points without a real price are left out.
    """
    total, increment = 0.0, prompt["increment"]
    for name, seconds in prompt["intervals"].items():
        k = seconds // increment
        if name.endswith("_abs"):
            k = min(k, len(real) - 1)
            priced = [i for i in range(k, len(real), k) if not np.isnan(real[i])]
            last = real[~np.isnan(real)][-1:]
            total += sum(pairs_crps(paths[:, i], real[i]) / last[0] * BP for i in priced)
            continue
        for end in range(k, len(real), k)[: 1 if name.endswith("_gaps") else None]:
            change = bp(real, end - k, end)
            if not np.isnan(change):
                total += pairs_crps(bp(paths.T, end - k, end), change)
    for seconds in prompt.get("vol_blocks", ()):
        k = seconds // increment
        blocks = (len(real) - 1) // k
        for start in range(0, blocks * k, k):
            seen = steps_bp(real[start : start + k + 1])
            if np.count_nonzero(~np.isnan(seen)) > 1:
                of_paths = np.std(steps_bp(paths[:, start : start + k + 1]), axis=1, ddof=1)
                weight = VOLATILITY / (BLOCK_SIZES * blocks)
                total += weight * pairs_crps(of_paths, float(np.nanstd(seen, ddof=1)))
    return total


def bp(prices: Any, first: int, last: int) -> Any:
    """The change in basis points."""
    return (prices[last] - prices[first]) / prices[first] * BP


def steps_bp(prices: Any) -> Any:
    """The change of each step in basis points, along the last axis."""
    return np.diff(prices, axis=-1) / prices[..., :-1] * BP
