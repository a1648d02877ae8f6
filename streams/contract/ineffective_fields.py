"""Finds fields without effect: those that a contract sets although another of its fields disables them.

Such a contract does not do what its author expects, so its validation refuses it with the text from here. A field
counts as set if it differs from its default, since a function that makes contracts may pass defaults on. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coordinator.streams.contract.contract import CrunchContract


def set_in_vain(contract: CrunchContract) -> str:
    """The first field without effect and what to change; "" if there is none."""
    return next(_pairs(contract), "")


def _pairs(contract: CrunchContract) -> Iterator[str]:
    fields = type(contract).model_fields

    def is_set(name: str) -> bool:
        return bool(getattr(contract, name) != fields[name].default)

    first, usual = contract.input_records_first, contract.input_records
    if 0 < first < usual:
        yield (
            f"input_records_first: {first} is less than input_records ({usual}), which every tick has; give it "
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
