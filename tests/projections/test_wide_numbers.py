"""Integers of more than 64 bits, such as a truth in the smallest unit of a currency, end no read model."""

from __future__ import annotations

from typing import Any

import pytest
from tests.api.conftest import parts_over
from tests.logs import HOUR_MS, LogBuilder
from tests.posted import Posted

from coordinator.projections.folding.projection import encode_row

WIDE = (2**63, 2**64, -(10**30), 10**400)


@pytest.mark.parametrize("number", WIDE, ids=["2**63", "2**64", "-10**30", "10**400"])
def test_a_truth_is_shown_with_all_its_digits(tmp_path, number):
    log = LogBuilder()
    log.terms()
    log.model("m1")
    posted = Posted(log)
    posted.post("week-1", "supply", closes=HOUR_MS, payload={"at_least": number})
    posted.ask("week-1", "supply", {"m1": 0.5})
    posted.close("week-1", "supply", HOUR_MS)
    truth: dict[str, Any] = {"wei": number, "parts": [{"first": number}], "other": 1}
    posted.resolve("week-1", "supply", 2 * HOUR_MS, truth, {"m1": 0.1})
    with parts_over(tmp_path, log) as parts:
        row = parts.projector.read.predictions.input("inp/questions/week-1/supply")
        assert row is not None
        ((shown, _),) = row.truths.values()
    assert shown is not None
    assert (int(shown["wei"]), int(shown["parts"][0]["first"]), shown["other"]) == (number, number, 1)


def test_a_row_with_a_wide_number_has_the_same_bytes_in_any_order():
    assert encode_row({"a": 10**30, "b": [1]}) == encode_row({"b": [1], "a": 10**30})
    assert encode_row({"a": 2**64 - 1, "b": True}) == encode_row({"b": True, "a": 2**64 - 1})
