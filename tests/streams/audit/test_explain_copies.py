"""The evidence for a pair by plain sums, compared with the report's matrix products, for random series."""

from __future__ import annotations

import math
import random

import pytest

from coordinator.streams.audit.copies import find_copies
from coordinator.streams.audit.copy_rules import CopyRules
from coordinator.streams.audit.explain.copies import CopyFacts, explain_copies

RULES = CopyRules()


def drawn(chance, kind):
    """Two series of this kind with some missing answers."""
    n = chance.randrange(20, 120)
    first = [round(chance.uniform(-1, 1), 6) for _ in range(n)]
    if kind == "coins":
        first = [float(chance.randrange(2)) for _ in range(n)]
    lag = chance.randrange(1, 6)
    second = {
        "equal": lambda: list(first),
        "coins": lambda: list(first),
        "mostly equal": lambda: [x if chance.random() < 0.93 else x + 0.3 for x in first],
        "scaled": lambda: [7 - 0.25 * x for x in first],
        "noisy": lambda: [x + chance.gauss(0, 0.04) for x in first],
        "lagged": lambda: [0.0] * lag + [3 * x for x in first[: n - lag]],
        "honest": lambda: [chance.uniform(-1, 1) for _ in first],
        "constant": lambda: [0.5 for _ in first],
        "beyond a float": lambda: [math.inf if chance.random() < 0.1 else x for x in first],
    }[kind]()
    pair = [first, second]
    if kind in ("lagged", "mostly equal") and chance.random() < 0.5:
        pair.reverse()
    return [[x if chance.random() < 0.97 else math.nan for x in column] for column in pair]


@pytest.mark.parametrize(
    "kind",
    ["equal", "coins", "mostly equal", "scaled", "noisy", "lagged", "honest", "constant", "beyond a float"],
)
def test_plain_sums_agree_with_the_report(kind):
    chance = random.Random(kind)
    kinds = set()
    for _ in range(60):
        series = drawn(chance, kind)
        evidence = next(iter(find_copies(dict(zip("ab", series, strict=True)), RULES)), None)
        kinds.add(evidence.kind if evidence else "no pair")
        told = explain_copies(
            CopyFacts(
                pair=("a", "b"), rounds=len(series[0]), opened=(0, 1), series=series, compared=[], rules=RULES,
                evidence=evidence,
            )
        )  # fmt: skip
        assert told.agrees is True, (told, evidence)
    if kind not in ("honest", "constant"):
        assert len(kinds) > 1  # some are too short


def test_a_report_of_another_pair_is_reported_as_different():
    chance = random.Random(1)
    first = [chance.uniform(-1, 1) for _ in range(60)]
    (evidence,) = find_copies({"a": first, "b": first}, RULES)
    for changed in (None, evidence):
        series = [first, [chance.uniform(-1, 1) for _ in first]] if changed else [first, first]
        told = explain_copies(
            CopyFacts(
                pair=("a", "b"), rounds=60, opened=(0, 1), series=series, compared=[], rules=RULES, evidence=changed
            )
        )  # fmt: skip
        assert told.agrees is False
