"""Drawn payouts, means and periods against plain fractions: written a second time, without the code that is tested."""

from __future__ import annotations

import math
import random
from fractions import Fraction

from tests.streams.build import T0, configured

from coordinator.streams.checkpoints.prizes import amounts_of
from coordinator.streams.contract.terms import TermsInForce
from coordinator.streams.durations import HOUR_MS
from coordinator.streams.events import CheckpointShares, PoolPaid, Window
from coordinator.streams.snapshots.windows import of_sums


def by_largest_rest(weights: list[int], total: int) -> list[int]:
    exact = [Fraction(weight * total, sum(weights)) for weight in weights]
    amounts = [math.floor(part) for part in exact]
    by_rest = sorted(range(len(weights)), key=lambda i: (amounts[i] - exact[i], i))
    for i in by_rest[: total - sum(amounts)]:
        amounts[i] += 1
    return amounts


def test_drawn_prizes_are_those_of_fractions():
    rng = random.Random(17)
    for _ in range(300):
        n, total = rng.randint(1, 12), rng.choice([1, 7, 10**9, rng.randint(1, 10**18)])
        ids = [f"m{i}" for i in range(n)]
        shares = [rng.choice([0, 1, rng.randint(0, 10**9)]) for _ in ids]
        shares[rng.randrange(n)] += 1
        paid, retained = amounts_of(CheckpointShares(ids, list(enumerate(shares))), total)
        assert (paid, retained) == (list(zip(ids, by_largest_rest(shares, total), strict=True)), 0)

        pools, amount_of = [], dict.fromkeys(ids, 0)
        weights = [rng.randint(1, 10**9) for _ in range(rng.randint(1, 3))]
        for weight in weights:
            placed = rng.sample(range(n), rng.randint(0, n))
            *parts, left = (rng.randint(1, 10**18) for _ in [*placed, ""])
            pools.append(
                PoolPaid("pool", weight, [(i, 1, part) for i, part in zip(placed, parts, strict=True)], left)
            )
            of_pool = math.floor(Fraction(total * weight, sum(weights)))
            for i, amount in zip(placed, by_largest_rest([*parts, left], of_pool)[:-1], strict=True):
                amount_of[ids[i]] += amount
        paid, retained = amounts_of(CheckpointShares(ids, [], pools), total)
        assert dict(paid) == {model_id: amount for model_id, amount in amount_of.items() if amount}
        assert retained == total - sum(amount_of.values())


def test_drawn_means_are_those_of_fractions():
    rng = random.Random(17)
    mean, total = Window(name="mean", hours=1), Window(name="sum", hours=1, rule="sum")
    for _ in range(2000):
        n = rng.randint(1, rng.choice([2, 10, 10**6]))
        sum_units = rng.randint(-(2**53) * n, 2**53 * n) if rng.random() < 0.5 else rng.randint(-3 * n, 3 * n)
        assert of_sums(mean, sum_units, n, 1).units == round(Fraction(sum_units, n))
        assert of_sums(total, sum_units, n, 1).units == sum_units


def test_drawn_terms_cut_time_into_periods_without_a_gap():
    rng = random.Random(17)
    for _ in range(30):
        terms, changes = TermsInForce(), sorted(rng.sample(range(1, 60), 3))
        for number, hour in enumerate([0, *changes]):
            hours = rng.choice([1, 2, 5, 24])
            event = configured(
                effective_from=T0 + hour * HOUR_MS * (number > 0),
                checkpoint_interval_ms=hours * HOUR_MS,
                checkpoint_offset_ms=rng.randrange(hours) * HOUR_MS,
            )
            terms.add(event)
        time = T0
        while time < T0 + 100 * HOUR_MS:
            start, end = terms.checkpoint_period(time)
            assert start <= time < end
            assert {terms.checkpoint_period(at) for at in (start, (start + end) // 2, end - 1)} == {
                (start, end)
            }
            assert not any(start < T0 + hour * HOUR_MS < end for hour in changes)
            assert terms.checkpoint_period(end)[0] == end
            time = end
