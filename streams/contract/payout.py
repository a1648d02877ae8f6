"""Payout by rules: pools, who is eligible in each, and what becomes of the share that a rule does not give out.

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

A pool is paid by its own key: the one that ranks the checkpoint, or another number of the entries. What it leaves is
retained, and said in the checkpoint, in prizes and in JSON lines. Pure.
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
    """Who takes what the rules do not give out."""


class Pool(_Strict):
    """A part of the whole, with the key and the rule that it is paid by."""

    name: str = Field(min_length=1, max_length=100)
    """Its name in the checkpoint and in what is said of it."""
    weight: float = Field(default=1.0, gt=0, le=1e6)
    """Its share of the whole is its weight divided by the sum of all pools' weights: 1 and 1 are halves. At most 9
    decimals. In money a pool is rounded down to the unit, and what is left of all is retained."""
    key: str = ""
    """The number that it ranks by: empty for the checkpoint's own key, else a name out of an entry's `keys` (a board, a
    window, a summary field). Who has no such number is not in the pool."""
    rule: Rule = top(10)
    """Which part each entry takes; see `payout_rules`. `(entries) -> parts`, numbers >= 0 that sum to at most 1."""
    above: float | None = None
    """Only who is better than this number is paid: more than it, or less where the ranking ascends."""
    least_count: int = Field(default=0, ge=0)
    """Only who has at least so many scores under this key in the period is paid."""
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
    """Only who is better than the best benchmark of the pool is paid. Without one in the pool all may be paid."""
    warm_up_hours: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """A player is paid in periods that end at least so long after its first round."""
    unpaid_places: Literal["passed_on", "kept"] = "passed_on"
    """Places of those who may not be paid: taken by the next one, or kept, and their share retained."""
    retained: Literal["withhold", "share_out", "prizes_only"] | Taker = "withhold"
    """What becomes on chain, where shares must sum to exactly 1,000,000,000, of the retained share. `withhold`: the
    checkpoint is withheld with that reason. `share_out`: who is paid gets it, in proportion. `Taker(model_id=..)`: that
    model. `prizes_only`: nobody; the checkpoint is offered, and paid by prizes or JSON lines alone. In prizes and JSON
    lines it is never given out."""

    @field_validator("pools")
    @classmethod
    def _names_are_distinct(cls, pools: list[Pool]) -> list[Pool]:
        names = [pool.name for pool in pools]
        if len(set(names)) != len(names):
            raise ValueError(f"two pools share a name: {names}")
        return pools


def pools_paid(payout: Payout, entries: Sequence[dict[str, Any]], direction: str) -> list[PoolPaid]:
    """Each pool in integer parts of `PARTS`; the paid ones and the retained one sum to exactly `PARTS`.

    `entries` are all that are ranked, in the order of the ranking, as `Payout` describes them; their `key` is that of
    the checkpoint. `direction` is `desc` (more is better) or `asc`. Raises ValueError where a rule gives parts that a
    pool cannot have, and whatever a function of the contract raises.
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
        placed = _placed((one for one in placed if one[0] not in why_not), direction)
    given = _as_parts(pool, pool.rule([entry for _, entry in placed]), len(placed))
    parts = [Fraction(0) if i in why_not else part for (i, _), part in zip(placed, given, strict=True)]
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
    """In the order of the pool, with competition ranks (1, 1, 3); of tied ones the order of the ranking stays."""
    sign = -1 if direction == "desc" else 1
    found: list[Placed] = []
    for place, (i, entry) in enumerate(sorted(entries, key=lambda one: sign * one[1]["key"]), start=1):
        tied = bool(found) and found[-1][1]["key"] == entry["key"]
        found.append((i, {**entry, "rank": found[-1][1]["rank"] if tied else place}))
    return found


def _why_not(payout: Payout, pool: Pool, placed: Sequence[Placed], direction: str) -> dict[int, str]:
    """Who may not be paid, by position, and why."""
    sign = -1 if direction == "desc" else 1
    mark = next((entry["key"] for _, entry in placed if entry["model_id"] in payout.benchmarks), None)
    players: set[str] = set()
    found: dict[int, str] = {}
    # The lower id first: of tied models of a player that one is paid.
    for i, entry in sorted(placed, key=lambda one: (one[1]["rank"], one[1]["model_id"])):
        key, count = entry["key"], entry["counts"].get(pool.key, entry["prediction_count"])
        if entry["model_id"] in payout.benchmarks:
            found[i] = "a benchmark"
        elif payout.beat_benchmark and mark is not None and sign * key >= sign * mark:
            found[i] = "not better than the benchmark"
        elif pool.above is not None and sign * as_written(key) >= sign * as_written(pool.above):
            found[i] = f"not better than {pool.above:g}"
        elif count < pool.least_count:
            found[i] = f"fewer than {pool.least_count} scores"
        elif entry["hours_here"] < payout.warm_up_hours:
            found[i] = f"in its first {payout.warm_up_hours:g} hours"
        elif pool.eligible is not None and (reason := str(pool.eligible(dict(entry)) or "")):
            found[i] = reason[:REASON_CHARS]
        elif payout.best_model_only and entry["player"] in players:
            found[i] = "another model of its player is better"
        else:
            players.add(entry["player"])
    return found


def _as_parts(pool: Pool, given: Any, n: int) -> list[Fraction]:
    parts: list[Fraction] = []
    for one in given:
        try:
            number = one if isinstance(one, (int, float, Fraction, Decimal)) else plain(one)
            parts.append(as_written(number) if isinstance(number, float) else Fraction(number))
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ValueError(f"pool {pool.name}: part {len(parts)} is no finite number: {one!r}") from error
    if len(parts) != n:
        raise ValueError(f"pool {pool.name}: its rule gave {len(parts)} parts for {n} entries")
    if any(part < 0 for part in parts) or sum(parts) > 1:
        raise ValueError(
            f"pool {pool.name}: parts must be >= 0 and sum to at most 1, not {float(sum(parts))}"
        )
    return parts
