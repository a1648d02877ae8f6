"""Tells apart three verdicts on a figure that is computed again: equal, one unit of rounding off, different.

Another processor, or another version of its mathematics library, may give another last digit of `exp` or `sin`. A
contract that calls them then gives other figures than the node recorded, by one unit:

- a score, a charge, a metric or a share: one of its units (10**-score_decimals; a share has 10**-9);
- a float of a truth, a carried state or an ensemble's answer: one of its 15th significant digit, where a float of 64
  bits has between 15 and 17.

More is different, and so is a difference of one unit in whatever is counted, summed, ranked or timed.

A unit does not spread. Each step is computed again from what is recorded of the step before: a score from the recorded
truth, a round from the recorded state, sums and ranks from the recorded scores. So a figure that is off puts no other
figure off, and nothing adds up. What it can decide is a rank where two models are closer than their figures are sure;
`Roundings.said` tells how close the ranking is, and whom the units favoured: rounding favours nobody.

Pure.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec

from coordinator.streams.events import CheckpointData

DIGITS = 15
ROUNDED = {
    "RoundScored": re.compile(r"units\.|unscored\[\d+\]\[3\]$"),
    "EnsemblesScored": re.compile(r"units\.|unscored\[\d+\]\[3\]$|weights\[|outputs\[|states\."),
    "StateCarried": re.compile(r"states\.|shared\["),
    "InputResolved": re.compile(r"truth\."),
    "SnapshotTaken": re.compile(r"summary_units\."),
    "CheckpointOpened": re.compile(r"emission\.cruncher_rewards\[\d+\]\.reward_pct$|emission_sha256$"),
    "CheckpointWithheld": re.compile(
        r"checkpoint\.emission\.cruncher_rewards\[\d+\]\.reward_pct$|checkpoint\.emission_sha256$"
    ),
}
"""Kind of event -> the fields that a contract's own arithmetic gives. All others are exact on any machine."""
JSON_FIELDS = re.compile(r"truth\.|states\.|shared\[|outputs\[")
"""Those that are the contract's own JSON. An integer there is a count or an outcome, and exact: 0 is not nearly 1."""
DIGEST = "emission_sha256"
"""It follows from the shares: `sums.py` compares it with the shares as they are recorded."""


class Roundings(msgspec.Struct):
    """The figures of one audit that differ by one unit."""

    places: dict[str, str] = {}
    """Where -> "recorded, computed"."""
    favoured: Counter[str] = msgspec.field(default_factory=Counter)
    """Model -> the sum of its scores' differences, recorded less computed, in units."""

    def near(self, place: str, recorded: Any, computed: Any, model_id: str = "") -> bool:
        """Whether two figures, or values of the same shape with figures in them, are equal or one unit apart.

        What is apart is kept under `place`; of two values that differ more, nothing.
        """
        apart = _apart(recorded, computed)
        if not apart:
            return True
        if not all(is_near(*pair) for pair in apart):
            return False
        self.places.setdefault(place, f"recorded {apart[0][0]}, computed {apart[0][1]}")
        if model_id:
            units = [(was, now) for was, now in apart if type(was) is int]
            self.favoured[model_id] += sum(was - now for was, now in units)
        return True

    def near_json(self, place: str, recorded: Any, computed: Any) -> bool:
        """As `near`, for JSON values whose integers are exact: counts, times, a truth that is no float."""
        apart = _apart(recorded, computed)
        return not apart or (
            all(type(number) is float for pair in apart for number in pair)
            and self.near(place, recorded, computed)
        )

    def since(self, count: int) -> str:
        """How many came after the first `count`, as the end of a sentence; "" if none did."""
        new = list(self.places.items())[count:]
        return (
            f", {len(new)} of them but for one unit of rounding (first: {': '.join(new[0])})" if new else ""
        )

    def said(self, checkpoint: CheckpointData) -> str:
        """All of it in words, with what it could decide; "" if every figure is equal."""
        if not self.places:
            return ""
        place, values = next(iter(self.places.items()))
        text = f"{len(self.places)} figures differ by one unit of rounding, first {place}: {values}"
        keys = [entry.key_units for entry in checkpoint.ranking]
        gap = min((abs(key - other) for key, other in pairwise(keys)), default=None)
        if gap is not None:
            text += f"; the closest neighbours of the ranking are {gap} units apart"
        if most := max(self.favoured.items(), key=lambda item: abs(item[1]), default=None):
            text += f"; summed over a model's scores they make at most {most[1]:+d} units (model {most[0]})"
        return text


def is_rounding(kind: str, field: str, recorded: Any, computed: Any) -> bool:
    """Whether a field of an event (its kind) is one that a contract's arithmetic gives, and differs by one unit."""
    fields = ROUNDED.get(kind)
    if fields is None or fields.match(field) is None:
        return False
    if JSON_FIELDS.match(field) and type(recorded) is int:
        return False
    return field.endswith(DIGEST) or is_near(recorded, computed)


def is_near(recorded: Any, computed: Any) -> bool:
    """Whether two figures are one unit apart: integers by 1, floats by 1 in the 15th significant digit."""
    if type(recorded) is int and type(computed) is int:
        return abs(recorded - computed) == 1
    if type(recorded) is not float or type(computed) is not float:
        return False
    largest = max(abs(recorded), abs(computed))
    if not math.isfinite(largest) or largest == 0:
        return False
    # Rounded to 15 digits first: so a difference of one unit and a half is two units, whatever the digits behind.
    unit = math.floor(math.log10(largest)) - DIGITS + 1
    return abs(_digits(recorded, unit) - _digits(computed, unit)) <= 1


def _digits(value: float, exponent: int) -> int:
    """The value in units of 10**exponent, rounded."""
    mantissa, shift = value.as_integer_ratio()
    power = 10 ** abs(exponent)
    numerator, denominator = (mantissa * power, shift) if exponent < 0 else (mantissa, shift * power)
    return (2 * numerator + denominator) // (2 * denominator)


def _apart(recorded: Any, computed: Any) -> list[tuple[Any, Any]]:
    """The pairs of figures that differ; [(recorded, computed)] itself where the shapes do."""
    if isinstance(recorded, dict) and isinstance(computed, dict) and recorded.keys() == computed.keys():
        pairs: Sequence[tuple[Any, Any]] = [(value, computed[name]) for name, value in recorded.items()]
    elif isinstance(recorded, list) and isinstance(computed, list) and len(recorded) == len(computed):
        pairs = list(zip(recorded, computed, strict=True))
    else:
        return [] if recorded == computed and type(recorded) is type(computed) else [(recorded, computed)]
    return [apart for pair in pairs for apart in _apart(*pair)]
