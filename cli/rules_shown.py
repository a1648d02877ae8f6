"""How a plan is shown to people: what changes, the terms, each payment, the board."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from coordinator.cli.checkpoint_output import share_text
from coordinator.cli.shared import time_text
from coordinator.cli.terminal import Console
from coordinator.streams.engine.plan import ModelChange, PeriodChange, RulesPlan

SAYS = {
    "none": "nothing changes",
    "board": "only the board changes; what is paid stays the same",
    "payout": "what is paid changes",
    "inputs": "the models would have been asked otherwise, so their answers are not known and nothing is computed",
}
TERM_CHARS_MAX = 60
PERIODS_SHOWN = 5


def print_plan(plan: RulesPlan) -> None:
    """The plan on stdout. Of many payments the first ones that differ are shown; `--json` has all."""
    console = Console(highlight=False)
    begin = time_text(plan.from_ms) if plan.from_ms else "the beginning"
    console.print(f"{begin} to {time_text(plan.until_ms)}: {SAYS[plan.change]}")
    if plan.inputs_reason:
        console.print(plan.inputs_reason, markup=False)
    _print_terms(console, plan)
    differing = [change for change in plan.periods if change.differs]
    if plan.periods:
        console.print(f"{len(differing)} of {len(plan.periods)} payments differ")
    for period in differing[:PERIODS_SHOWN]:
        _print_period(console, period)
    if len(differing) > PERIODS_SHOWN:
        console.print(f"and {len(differing) - PERIODS_SHOWN} more: --json has them")
    if plan.board:
        console.print(_board(plan.board, f"the board at {time_text(plan.board_at)}"))


def _print_terms(console: Console, plan: RulesPlan) -> None:
    if not plan.terms:
        return
    table = Table("of the rules", "old", "new")
    for change in plan.terms:
        table.add_row(change.name, Text(_short(change.old)), Text(_short(change.new)))
    console.print(table)


def _print_period(console: Console, period: PeriodChange) -> None:
    title = f"{time_text(period.period_start)} to {time_text(period.period_end)}"
    table = Table("model", "rank", "key, in units", "share", "", title=title)
    for change in period.models:
        old, new = change.old, change.new
        table.add_row(
            Text(change.model_id),
            _pair(old.rank, new.rank),
            _pair(old.units, new.units),
            _pair(share_text(old.share_frac64), share_text(new.share_frac64)),
            Text(new.unranked_reason if new.rank is None else ""),
        )
    console.print_rows(table, f"{title}: neither side ranks a model")
    for side, note in (("old", period.old_note), ("new", period.new_note)):
        if note:
            console.print(f"{side}: {note}", markup=False)


def _board(models: Sequence[ModelChange], title: str) -> Table:
    table = Table("model", "rank", "units", title=title)
    for change in models:
        table.add_row(
            Text(change.model_id),
            _pair(change.old.rank, change.new.rank),
            _pair(change.old.units, change.new.units),
        )
    return table


def _pair(old: Any, new: Any) -> str:
    """`3 -> 1`, or what both are; `-` for none."""
    before, after = (
        "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
        for value in (old, new)
    )
    return before if before == after else f"{before} -> {after}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= TERM_CHARS_MAX else f"{text[: TERM_CHARS_MAX - 2]} .."
