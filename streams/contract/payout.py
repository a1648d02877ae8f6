"""Payout by rules: pools, who may be paid in each, and who gets the share that a rule does not give out.

    CrunchContract(
        payout=Payout(
            pools=[
                Pool(name="1h", key="3600", rule=top(4), above=0),
                Pool(name="24h", key="86400", rule=top(4), above=0),
            ],
            best_model_only=True,
            benchmarks=["17"],
        )
    )

A pool is paid by its own key: that of the checkpoint's ranking, or another number of the entries. The share that it
does not give out is retained, and stated in the checkpoint, in the prizes and in the JSON lines. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from coordinator.streams.contract.emission import PARTS, allocate
from coordinator.streams.contract.payout_rules import Rule, as_written, top
from coordinator.streams.events import PoolPaid
from coordinator.streams.log.finite import plain
from coordinator.streams.log.reasons import as_reason

__all__ = ["Payout", "Pool", "Taker", "pools_paid"]

POOLS_MAX = 64
WEIGHT_UNITS = 10**9
REASON_CHARS = 200
Placed = tuple[int, dict[str, Any]]
"""(position in the checkpoint's ranking, the entry with its key and rank in the pool)"""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Taker(_Strict):
    """A ranked model that takes on chain what the rules do not give out, for example the operator's own benchmark."""

    model_id: str = Field(min_length=1)
    """The recipient of the share that the rules do not give out."""


class Pool(_Strict):
    """A part of the whole, with the key and the rule that it is paid by."""

    name: str = Field(min_length=1, max_length=100)
    """Its name in the checkpoint and in what is said of it."""
    weight: float = Field(default=1.0, gt=0, le=1e6)
    """Its share of the whole is its weight divided by the sum of all pools' weights: 1 and 1 are halves. At most 9
    decimals. In money a pool is rounded down to the unit, and what is left of all is retained."""
    key: str = ""
    """The number that it ranks by: empty for the checkpoint's own key, or a name from an entry's `keys` (a board, a
    window, a summary field). A model without this number is not in the pool.
    """
    rule: Rule = top(10)
    """Which part each entry takes; see `payout_rules`. `(entries) -> parts`, numbers >= 0 that sum to at most 1."""
    above: float | None = Field(default=None, allow_inf_nan=False)
    """Only a model that is better than this number is paid: above it, or below it where the ranking ascends."""
    least_count: int = Field(default=0, ge=0)
    """Only a model with at least this many scores under this key in the period is paid."""
    eligible: Callable[[dict[str, Any]], str] | None = None
    """Your own condition: `(entry) -> reason` why it is not paid, empty where it may be."""

    @field_validator("weight")
    @classmethod
    def _has_nine_decimals(cls, weight: float) -> float:
        if (as_written(weight) * WEIGHT_UNITS).denominator != 1:
            raise ValueError(f"a pool's weight has at most 9 decimals, not {weight!r}")
        return weight


class Payout(_Strict):
    """How a period's ranking is paid. Where a contract has one, its `build_emission` is not called."""

    pools: list[Pool] = Field(min_length=1, max_length=POOLS_MAX)
    """What is paid apart, each with its own key and rule.

    An entry, as rules and `eligible` get it, is a dict:

        {"model_id": "17", "player": "alice",  # the model's own id where no player is known
         "rank": 1, "key": 0.66,               # in this pool; equal ranks are tied
         "direction": "desc",                  # "asc": less is better
         "keys": {"value": 0.61, ..},          # every number that the period has of it, by name
         "counts": {"3600": 1680, ..},         # scores under a board's name
         "prediction_count": 1700, "failed_count": 2, "absent_count": 0, "rounds_count": 1702,
         "hours_here": 2400.0}                 # from its player's first round to the period's end
    """
    best_model_only: bool = False
    """In each pool only the best eligible model of a player is paid; of tied ones the one with the lower id."""
    benchmarks: list[str] = []
    """Model ids that are ranked and never paid."""
    beat_benchmark: bool = False
    """Only a model that is better than the best benchmark of the pool is paid. Without a benchmark in the pool all may
    be paid.
    """
    warm_up_hours: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """A player is paid in periods that end at least so long after its first round."""
    unpaid_places: Literal["passed_on", "kept"] = "passed_on"
    """Places of those who may not be paid: taken by the next one, or kept, and their share retained."""
    retained: Literal["withhold", "share_out", "prizes_only"] | Taker = "withhold"
    """What happens to the retained share on chain, where shares must sum to exactly 1,000,000,000. `withhold`: the
    checkpoint is withheld with that reason. `share_out`: the paid models get it, in proportion. `Taker(model_id=..)`:
    that model. `prizes_only`: nobody; the checkpoint is offered, and paid by prizes or JSON lines alone. In prizes and
    JSON lines it is never given out.
    """

    @field_validator("pools")
    @classmethod
    def _names_are_distinct(cls, pools: list[Pool]) -> list[Pool]:
        names = [pool.name for pool in pools]
        if len(set(names)) != len(names):
            raise ValueError(f"two pools share a name: {names}")
        return pools


def pools_paid(payout: Payout, entries: Sequence[dict[str, Any]], direction: str) -> list[PoolPaid]:
    """The payment of each pool in integer parts. What is paid and what is retained sum to exactly `PARTS`.

    `entries`: all ranked entries in the order of the ranking, as `Payout` describes them, with the checkpoint's `key`.
    `direction`: `desc` if more is better, or `asc`. Raises ValueError if a rule returns parts that a pool cannot have,
    and what a function of the contract raises.
    """
    weights = [as_written(pool.weight) for pool in payout.pools]
    common = lcm(*(weight.denominator for weight in weights))
    return [
        _paid(payout, pool, int(weight * common), entries, direction)
        for pool, weight in zip(payout.pools, weights, strict=True)
    ]


def _paid(
    payout: Payout, pool: Pool, weight: int, entries: Sequence[dict[str, Any]], direction: str
) -> PoolPaid:
    # A position `i` is that of the entry in the checkpoint's ranking, also in the pool, which has an order of its own.
    placed = _placed(
        (
            (i, {**entry, "key": key, "direction": direction})
            for i, entry in enumerate(entries)
            if (key := entry["keys"].get(pool.key) if pool.key else entry["key"]) is not None
        ),
        direction,
    )
    why_not = _why_not(payout, pool, placed, direction)
    if payout.unpaid_places == "passed_on":
        placed = _placed(((i, entry) for i, entry in placed if i not in why_not), direction)
    by_rule = _as_parts(pool, pool.rule([entry for _, entry in placed]), len(placed))
    parts = [Fraction(0) if i in why_not else part for (i, _), part in zip(placed, by_rule, strict=True)]
    # One exact allocation over the entries and what they leave, so that nothing is lost by rounding.
    *paid, retained = allocate([*parts, 1 - sum(parts)], PARTS)
    unpaid: dict[str, list[int]] = {}
    for i, reason in sorted(why_not.items()):
        unpaid.setdefault(reason, []).append(i)
    return PoolPaid(
        name=pool.name,
        weight=weight,
        paid=[(i, entry["rank"], part) for (i, entry), part in zip(placed, paid, strict=True) if part],
        retained_parts=retained,
        unpaid=unpaid,
    )


def _placed(entries: Iterable[Placed], direction: str) -> list[Placed]:
    """In the order of the pool, with competition ranks (1, 1, 3). Tied entries stay in the order of the ranking."""
    sign = -1 if direction == "desc" else 1
    placed: list[Placed] = []
    for place, (i, entry) in enumerate(sorted(entries, key=lambda item: sign * item[1]["key"]), start=1):
        is_tied = bool(placed) and placed[-1][1]["key"] == entry["key"]
        placed.append((i, {**entry, "rank": placed[-1][1]["rank"] if is_tied else place}))
    return placed


def _why_not(payout: Payout, pool: Pool, placed: Sequence[Placed], direction: str) -> dict[int, str]:
    """Position -> reason, for each entry that may not be paid in this pool."""
    sign = -1 if direction == "desc" else 1
    # The entries are in order, so the first benchmark is the best one.
    benchmark_key = next(
        (entry["key"] for _, entry in placed if entry["model_id"] in payout.benchmarks), None
    )
    players: set[str] = set()
    reasons: dict[int, str] = {}
    # Of tied models the lower id comes first: if only the best model of a player is paid, it is that one.
    for i, entry in sorted(placed, key=lambda item: (item[1]["rank"], item[1]["model_id"])):
        key, count = entry["key"], entry["counts"].get(pool.key, entry["prediction_count"])
        if entry["model_id"] in payout.benchmarks:
            reasons[i] = "a benchmark"
        elif payout.beat_benchmark and benchmark_key is not None and sign * key >= sign * benchmark_key:
            reasons[i] = "not better than the benchmark"
        elif pool.above is not None and sign * as_written(key) >= sign * as_written(pool.above):
            reasons[i] = f"not better than {pool.above:g}"
        elif count < pool.least_count:
            reasons[i] = f"fewer than {pool.least_count} scores"
        elif entry["hours_here"] < payout.warm_up_hours:
            reasons[i] = f"in its first {payout.warm_up_hours:g} hours"
        elif pool.eligible is not None and (reason := str(pool.eligible(dict(entry)) or "")):
            reasons[i] = as_reason(reason, REASON_CHARS)
        elif payout.best_model_only and entry["player"] in players:
            reasons[i] = "another model of its player is better"
        else:
            players.add(entry["player"])
    return reasons


def _as_parts(pool: Pool, rule_output: Any, n: int) -> list[Fraction]:
    """What a rule returned, as exact fractions. Raises ValueError if it is not `n` numbers >= 0 with a sum of at most
    1.
    """
    parts: list[Fraction] = []
    for part in rule_output:
        try:
            number = part if isinstance(part, (int, float, Fraction, Decimal)) else plain(part)
            parts.append(as_written(number) if isinstance(number, float) else Fraction(number))
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ValueError(f"pool {pool.name}: part {len(parts)} is no finite number: {part!r}") from error
    if len(parts) != n:
        raise ValueError(f"pool {pool.name}: its rule gave {len(parts)} parts for {n} entries")
    if any(part < 0 for part in parts) or sum(parts) > 1:
        raise ValueError(
            f"pool {pool.name}: parts must be >= 0 and sum to at most 1, not {float(sum(parts))}"
        )
    return parts
