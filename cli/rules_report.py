"""A plan as one page that needs no network: what changes, the terms, each payment, the board, old beside new.

Reads a kept plan; writes HTML, whole or not at all. Whatever a model or a contract says is text here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import plotly.graph_objects as go

from coordinator.cli.checkpoint_output import share_text
from coordinator.cli.rules_shown import SAYS
from coordinator.infra.plan_files import PlanFile
from coordinator.infra.whole_file import write_whole
from coordinator.streams.backtest.html_page import (
    COLORS,
    heading,
    picture,
    section,
    table,
    time_of,
    whole_page,
)
from coordinator.streams.engine.plan import ModelChange, ModelStanding, PeriodChange, RulesPlan
from coordinator.streams.log.errors import OperatorError

PERIODS_SHOWN = 50
MODELS_DRAWN = 40
PAGE = "index.html"
SIDES = ("old", "new")


def write_report(file: PlanFile, where: Path) -> Path:
    """Write the page into a folder as `index.html`, or as a file whose name ends in .html; returns the file. Raises
    OperatorError.
    """
    path = where if where.suffix in (".html", ".htm") else where / PAGE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page_of(file).encode())
    except OSError as error:
        raise OperatorError(f"--report {where}: {error.strerror or error}") from error
    return path


def page_of(file: PlanFile) -> str:
    """The whole page."""
    plan, title = file.plan, f"Plan of {file.contract} for {file.made_on.crunch_id}"
    return whole_page(title, [heading(title, _head(file)), *_parts(plan)])


def _head(file: PlanFile) -> Iterator[str]:
    plan = file.plan
    begin = time_of(plan.from_ms) if plan.from_ms else "the beginning"
    yield f"{begin} to {time_of(plan.until_ms)}: {SAYS[plan.change]}."
    if plan.inputs_reason:
        yield plan.inputs_reason
    if file.values_set:
        yield f"Set for this plan alone: {_json(file.values_set)}"
    if plan.first_affected is not None:
        yield f"The first payment that differs is that of the period from {time_of(plan.first_affected)}."
    yield (
        f"Made at {time_of(file.made_at_ms)} on contract {file.made_on.contract_hash[:12]} and the record at offset "
        f"{file.made_on.feeds_offset} of feeds: {plan.answers_count:,} recorded answers in {file.seconds:.1f} s."
    )


def _parts(plan: RulesPlan) -> Iterator[str]:
    rows = [(change.name, _json(change.old), _json(change.new)) for change in plan.terms]
    yield section(
        "Terms",
        "What the new rules say otherwise." if rows else "Both say the same.",
        f'<div class="reasons">{table(("term", *SIDES), rows)}</div>' if rows else "",
    )
    differing = [change for change in plan.periods if change.differs]
    if plan.periods:
        yield section(
            "Payments",
            f"{len(differing)} of {len(plan.periods)} differ. A share is of what the period pays.",
            _shares(differing[0]) if differing else "",
        )
    for number, period in enumerate(differing[:PERIODS_SHOWN]):
        yield _period(period, number)
    if len(differing) > PERIODS_SHOWN:
        yield f"<p>And {len(differing) - PERIODS_SHOWN} more: coordinator plan --json has them.</p>"
    if plan.board:
        at = f" at {time_of(plan.board_at)}" if plan.board_at is not None else ""
        board = [
            (
                change.model_id,
                *_pair(change.old.rank, change.new.rank),
                *_pair(change.old.units, change.new.units),
            )
            for change in plan.board
        ]
        names = ("model", "old rank", "new rank", "old units", "new units")
        yield section(f"The board{at}", "By each side's own ranking key.", _numbers(names, board))


def _period(period: PeriodChange, number: int) -> str:
    names = (
        "model",
        "old rank",
        "new rank",
        "old key, in units",
        "new key, in units",
        "old share",
        "new share",
        "why",
    )
    rows = [
        (
            change.model_id,
            *_pair(change.old.rank, change.new.rank),
            *_pair(change.old.units, change.new.units),
            share_text(change.old.share_frac64),
            share_text(change.new.share_frac64),
            _why(change.new),
        )
        for change in period.models
    ]
    notes = [
        f"{side}: {note}"
        for side, note in zip(SIDES, (period.old_note, period.new_note), strict=True)
        if note
    ]
    title = f"{time_of(period.period_start)} to {time_of(period.period_end)}"
    return section(
        title, "; ".join(notes) or f"Payment {number + 1} of those that differ.", _numbers(names, rows)
    )


def _numbers(names: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is a name and whose others are numbers."""
    return f'<div class="numbers">{table(names, rows)}</div>'


def _why(standing: ModelStanding) -> str:
    return standing.unranked_reason if standing.rank is None else ""


def _shares(period: PeriodChange) -> str:
    """The shares of the first payment that differs, side by side."""
    models = sorted(period.models, key=_most, reverse=True)[:MODELS_DRAWN]
    figure = go.Figure()
    for color, side in zip(COLORS, SIDES, strict=False):
        shares = [getattr(change, side).share_frac64 / 1e7 for change in models]
        figure.add_bar(x=[change.model_id for change in models], y=shares, name=side, marker={"color": color})
    figure.update_layout(
        xaxis={"type": "category"}, yaxis={"title": f"share in %, {time_of(period.period_start)}"}
    )
    return picture(figure, "shares")


def _most(change: ModelChange) -> int:
    return max(change.old.share_frac64, change.new.share_frac64)


def _pair(old: int | None, new: int | None) -> Sequence[str]:
    return ["-" if number is None else f"{number:,}" for number in (old, new)]


def _json(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
