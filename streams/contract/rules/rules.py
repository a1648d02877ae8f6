"""All sections of the rules, in the order in which a participant asks for them."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from coordinator.streams.contract import CrunchContract
from coordinator.streams.contract.rules.asked_section import answer, asked
from coordinator.streams.contract.rules.paid_section import board, paid, ranked
from coordinator.streams.contract.rules.scored import absent, newcomers, scored
from coordinator.streams.contract.rules.text_parts import Section, Text, span


class Circumstances(msgspec.Struct, frozen=True):
    """What the node says beside the contract. Spans are in seconds."""

    crunch_id: str
    subjects: tuple[str, ...]
    snapshot_interval_seconds: int
    checkpoint_interval_seconds: int
    checkpoint_offset_seconds: int = 0


def rules_of(contract: CrunchContract, node: Circumstances) -> list[Section]:
    """The rules, section by section."""
    return [
        asked(contract, node.subjects),
        answer(contract),
        scored(contract),
        absent(contract),
        board(contract),
        ranked(contract),
        newcomers(contract),
        paid(contract, _periods(contract, node)),
        _changes(node),
    ]


def _periods(contract: CrunchContract, node: Circumstances) -> str:
    calendar = contract.calendar
    if calendar is None:
        offset = f", plus {span(node.checkpoint_offset_seconds)}" if node.checkpoint_offset_seconds else ""
        return (
            f"Periods are {span(node.checkpoint_interval_seconds)} long, counted from Thursday 1970-01-01 "
            f"00:00 UTC{offset}. Scores "
            f"are summed every {span(node.snapshot_interval_seconds)}."
        )
    day = f"{calendar.weekday.capitalize()}" if calendar.weekday else "day"
    warm_up = (
        f" Periods that begin before {_moment(calendar.unpaid_until)} are ranked, but not paid."
        if calendar.unpaid_until
        else ""
    )
    end = f" The last period ends at {_moment(calendar.ends_at)}." if calendar.ends_at else ""
    return (
        f"Periods begin every {day} at {calendar.hour:02}:{calendar.minute:02}, {calendar.zone} "
        f"time.{warm_up}{end} Scores are summed "
        f"every {span(node.snapshot_interval_seconds)}."
    )


def _moment(at: datetime) -> str:
    return (
        at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
        if at.tzinfo
        else f"{at:%Y-%m-%d %H:%M} in that time zone"
    )


def _changes(node: Circumstances) -> Section:
    return Section(
        "When rules change",
        (
            Text(
                "New rules apply from the end of a checkpoint period, never within one, and only after the operator "
                "has "
                "applied them. If the scoring changes, new sums begin."
            ),
            Text(
                "Every record, answer, score and share is in the log. Anybody can compute a checkpoint again with "
                f"`coordinator verify`. A page of the node explains each figure of `{node.crunch_id}` step by step."
            ),
        ),
    )
