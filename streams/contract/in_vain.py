"""Fields that another field leaves without effect: a contract that sets such a pair does not do what its author thinks.

A field counts as set where it differs from its default: a function that makes contracts may pass defaults on. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordinator.streams.contract.contract import CrunchContract


def set_in_vain(contract: CrunchContract) -> str:
    """The first such pair and what to change; "" where there is none."""
    return next(_pairs(contract), "")


def _pairs(contract: CrunchContract) -> Iterator[str]:
    fields = type(contract).model_fields

    def is_set(name: str) -> bool:
        return bool(getattr(contract, name) != fields[name].default)

    first, each = contract.input_records_first, contract.input_records
    if 0 < first < each:
        yield (
            f"input_records_first: {first} is less than input_records ({each}), which every tick has; give it "
            "more, or 0 for as many as any other tick"
        )
    if contract.scheduled_predictions and is_set("scope"):
        yield "scope: scheduled_predictions say what is asked, each with a scope of its own; set one of the two"
    if contract.gap_policy == "accept" and is_set("gap_wait_seconds"):
        yield "gap_wait_seconds: gap_policy 'accept' waits for no record; leave it out, or wait"
    if contract.score_round is None:
        for name in ("state_scope", "state_max_bytes"):
            if is_set(name):
                yield f"{name}: score_round alone carries state, and there is none"
    calendar = contract.calendar
    if calendar and calendar.ends_at and calendar.unpaid_until and calendar.ends_at <= calendar.unpaid_until:
        yield (
            f"calendar.unpaid_until: the last period ends before it, at {calendar.ends_at}, and none would be paid"
        )
