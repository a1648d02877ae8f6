"""Whether two models answer alike: the rounds that are compared, and each number of the evidence.

The report finds pairs by products of matrices (`streams/audit/copies.py`). Here each number of one pair is computed
again by plain sums over the rounds that both answered. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from coordinator.streams.audit.copy_rules import (
    DIGITS,
    DISTINCT_MIN,
    LAGS,
    SCALED_MIN,
    CopyFound,
    CopyRules,
)
from coordinator.streams.audit.explain.steps import (
    Explanation,
    Source,
    Step,
    Value,
    explanation,
    fact,
    time,
)

TOLERANCE = 1e-7
"""How far sums in another order may be from those of the report, in a correlation."""


class ComparedRound(msgspec.Struct, frozen=True):
    """A round and scope: the numbers of the two models, the event of an answer, and whether the log has the same."""

    name: str
    numbers: list[list[float]]
    source: Source | None
    agrees: bool


class CopyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The answers of two models. `series` has a column of numbers for each of `pair`, NaN where it did not answer.

    `evidence` is what the report says of them; None if they are no pair.
    """

    pair: tuple[str, str]
    rounds: int
    opened: tuple[int, int]
    """When the oldest and the newest of the rounds opened, in ms."""
    series: Sequence[Sequence[float]]
    compared: Sequence[ComparedRound]
    rules: CopyRules
    evidence: CopyFound | None


class Correlated(NamedTuple):
    """A correlation of two columns over the places where both have a number, with its sums.

    It is None where one is constant.
    """

    n: int
    mean_first: float
    mean_second: float
    covariance: float
    variance_first: float
    variance_second: float

    @property
    def correlation(self) -> float | None:
        spread = math.sqrt(self.variance_first * self.variance_second)
        return max(-1.0, min(1.0, self.covariance / spread)) if spread > 0 else None

    @property
    def scale(self) -> float | None:
        """The slope of the second on the first by least squares."""
        return self.covariance / self.variance_first if self.variance_first > 0 else None


def explain_copies(facts: CopyFacts) -> Explanation:
    """The explanation of one pair."""
    first, second = facts.pair
    verdict = f"They are a pair: {facts.evidence.kind}" if facts.evidence is not None else "They are no pair"
    title = f"Whether models {first} and {second} answer alike over {facts.rounds:,} rounds. {verdict}"
    return explanation("copies", f"{first} {second}", title, _steps(facts))


def correlated(first: Sequence[float], second: Sequence[float]) -> Correlated:
    """The sums of two columns, place by place."""
    both = _both(first, second)
    n = len(both)
    if not n:
        return Correlated(n, 0.0, 0.0, 0.0, 0.0, 0.0)
    mean_x, mean_y = math.fsum(x for x, _ in both) / n, math.fsum(y for _, y in both) / n
    return Correlated(
        n,
        mean_x,
        mean_y,
        math.fsum((x - mean_x) * (y - mean_y) for x, y in both) / n,
        math.fsum((x - mean_x) ** 2 for x, _ in both) / n,
        math.fsum((y - mean_y) ** 2 for _, y in both) / n,
    )


def _steps(facts: CopyFacts) -> Iterator[Step]:
    yield _rounds(facts)
    equal, distinct = _equal(facts)
    yield equal
    at_once = correlated(*facts.series)
    yield _correlation(facts, at_once)
    lag, later_first, lagged = _best_lag(facts, at_once)
    yield _lags(facts, at_once, lag, lagged)
    yield _kind(facts, at_once, equal, distinct, (lag, later_first, lagged))


def _both(first: Sequence[float], second: Sequence[float]) -> list[tuple[float, float]]:
    """The numbers that both gave. One beyond the range of a float counts as no answer."""
    return [(x, y) for x, y in zip(first, second, strict=True) if math.isfinite(x) and math.isfinite(y)]


def _rounds(facts: CopyFacts) -> Step:
    first, second = facts.pair
    inputs: list[Value] = []
    for compared in facts.compared:
        shown = [" ".join(f"{number:g}" for number in numbers) or "no answer" for numbers in compared.numbers]
        inputs.append(
            fact(compared.name, compared.numbers, f"{shown[0]} | {shown[1]}"[:160], source=compared.source)
        )
    wrong = [compared.name for compared in facts.compared if not compared.agrees]
    return Step(
        name="rounds",
        rule="The numbers of each answer in the order of their places in its JSON, 32 at most, round by round; answers "
        "that others could still copy are left out",
        inputs=inputs,
        left_out=max(0, facts.rounds - len(inputs)),
        result=[
            fact("first_model", first),
            fact("second_model", second),
            fact("rounds_compared", facts.rounds),
            time("oldest_opened_at", facts.opened[0]),
            time("newest_opened_at", facts.opened[1]),
        ],
        agrees=not wrong,
        note=f"the log has other answers in {wrong[:5]}" if wrong else "",
    )


def _equal(facts: CopyFacts) -> tuple[Step, int]:
    """(the step, how many distinct values the poorer of the two has)."""
    both = _both(*facts.series)
    equal = sum(abs(x - y) <= 10.0**-DIGITS * max(abs(x), abs(y)) for x, y in both)
    distinct = min(len({x for x, _ in both}), len({y for _, y in both}))
    evidence = facts.evidence
    agrees = None
    if evidence is not None:
        agrees = (len(both), distinct) == (evidence.common, evidence.distinct)
        agrees = agrees and abs(equal - evidence.equal_share * len(both)) < TOLERANCE * max(1, len(both))
    step = Step(
        name="equal numbers",
        rule=f"Of the numbers that both gave, those that agree to {DIGITS} digits",
        result=[
            fact("common", len(both)),
            fact("equal", equal),
            fact("equal_share", equal / len(both) if both else 0.0),
            fact("distinct", distinct),
        ],
        agrees=agrees,
    )
    return step, distinct


def _correlation(facts: CopyFacts, at_once: Correlated) -> Step:
    evidence = facts.evidence
    agrees = None
    if evidence is not None and not evidence.lag:
        agrees = _near(at_once.correlation, evidence.correlation)
    return Step(
        name="correlation in the same round",
        rule="Pearson's: the covariance divided by the square root of the product of the variances; the scale is the "
        "covariance divided by the variance of the first",
        inputs=[
            fact("common", at_once.n),
            fact("mean_first", at_once.mean_first),
            fact("mean_second", at_once.mean_second),
            fact("covariance", at_once.covariance),
            fact("variance_first", at_once.variance_first),
            fact("variance_second", at_once.variance_second),
        ],
        result=[fact("correlation", at_once.correlation), fact("scale", at_once.scale)],
        agrees=agrees,
    )


def _best_lag(facts: CopyFacts, at_once: Correlated) -> tuple[int, bool, dict[tuple[int, bool], Correlated]]:
    """(the lag with the highest correlation that is enough, 0 for none; whether the first of the pair is the later one;
    the sums of each lag and direction).
    """
    first, second = facts.series
    lagged: dict[tuple[int, bool], Correlated] = {}
    best, best_lag, first_is_later = abs(at_once.correlation or 0.0), 0, False
    for lag in range(1, min(LAGS, len(first) - 1) + 1):
        for is_later in (False, True):
            earlier, later = (second, first) if is_later else (first, second)
            sums = lagged[lag, is_later] = correlated(earlier[: len(earlier) - lag], later[lag:])
            strength = abs(sums.correlation or 0.0)
            enough = strength >= facts.rules.correlation_min and sums.n >= facts.rules.common_min
            if at_once.correlation is not None and enough and strength > best:
                best, best_lag, first_is_later = strength, lag, is_later
    return best_lag, first_is_later, lagged


def _lags(
    facts: CopyFacts, at_once: Correlated, lag: int, lagged: dict[tuple[int, bool], Correlated]
) -> Step:
    first, second = facts.pair
    evidence = facts.evidence
    agrees = None
    if evidence is not None and evidence.kind in ("lagged", "noisy"):
        agrees = lag == evidence.lag
    return Step(
        name="correlation of later rounds",
        rule=f"The answers of one with those of the other up to {LAGS} numbers later; a lag counts if it is higher "
        "than in the same round, and high enough",
        inputs=[
            fact(
                f"{first if is_later else second} {after} after {second if is_later else first}",
                sums.correlation,
            )
            for (after, is_later), sums in lagged.items()
        ],
        result=[fact("lag", lag), fact("in_the_same_round", at_once.correlation)],
        agrees=agrees,
    )


def _kind(
    facts: CopyFacts,
    at_once: Correlated,
    equal: Step,
    distinct: int,
    best: tuple[int, bool, dict[tuple[int, bool], Correlated]],
) -> Step:
    """What kind of pair they are, by the first rule that fits."""
    rules, (lag, first_is_later, lagged) = facts.rules, best
    share = float(next(value.exact for value in equal.result if value.name == "equal_share"))
    strength = None if at_once.correlation is None else abs(at_once.correlation)
    kind = ""
    if at_once.n >= rules.common_min:
        if share >= rules.equal_share_min:
            kind = "equal"
        elif distinct < DISTINCT_MIN or strength is None:
            kind = ""
        elif strength >= SCALED_MIN:
            kind = "scaled"
        elif lag:
            kind = "lagged"
        elif strength >= rules.correlation_min:
            kind = "noisy"
    is_lagged = kind == "lagged"
    earlier, later = facts.pair[::-1] if is_lagged and first_is_later else facts.pair
    result = [fact("kind", kind or "no pair")]
    if kind:
        sums = lagged[lag, first_is_later] if is_lagged else at_once
        result += [
            fact("earlier", earlier),
            fact("later", later),
            fact("lag", lag if is_lagged else 0),
            fact("correlation", sums.correlation),
            fact("scale", sums.scale),
        ]
    evidence = facts.evidence
    agrees = kind == (evidence.kind if evidence is not None else "")
    if agrees and evidence is not None:
        agrees = (earlier, later, lag if is_lagged else 0) == (evidence.earlier, evidence.later, evidence.lag)
    return Step(
        name="kind",
        rule=f"The first that applies, over at least {rules.common_min} common numbers: equal, if at least "
        f"{rules.equal_share_min:g} of them agree; scaled, if the correlation is beyond {SCALED_MIN!r}; lagged, if a "
        f"lag counts; noisy, if the correlation is at least {rules.correlation_min:g}. With fewer than {DISTINCT_MIN} "
        "distinct values only equal is told. It is evidence, and no verdict",
        result=result,
        agrees=agrees,
        note="" if agrees else f"the report says {evidence.kind if evidence is not None else 'no pair'}",
    )


def _near(again: float | None, recorded: float | None) -> bool | None:
    if again is None or recorded is None:
        return None
    return abs(again - recorded) <= TOLERANCE
