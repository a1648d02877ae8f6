"""Writes the report of a backtest as one HTML page that needs no network: the board, and charts for each model.

Takes a `Result`, returns HTML. The charts are made by plotly, whose script is part of the page. All text from models
and folders is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import plotly.graph_objects as go

from coordinator.streams.backtest.html_page import (
    COLORS,
    HEIGHT_PX,
    heading,
    picture,
    section,
    table,
    time_of,
    whole_page,
)
from coordinator.streams.backtest.outcome_sums import BINS, Sum
from coordinator.streams.backtest.run import ModelResult, Result


def page_of(result: Result, title: str, notes: Sequence[str] = ()) -> str:
    """The whole page. `notes`: sentences about the market."""
    unit = 10**result.score_decimals
    models = result.models
    parts = [
        _head(result, title, notes),
        _board(result),
        section(
            "Score over time",
            "The sum of all scores, and how far it stands below its highest point so far (drawdown), by the hour.",
            _over_time(models, unit),
        ),
        _calibration(models),
        section(
            "By hour of the day (UTC)",
            "The mean score of what became known in each hour.",
            _bars(models, unit, lambda model: sorted(model.of.hours_of_day.items()), "hour"),
        ),
        section(
            "By scope",
            "The mean score of each subject and scope.",
            _bars(models, unit, lambda model: sorted(model.of.scopes.items()), "scope"),
        ),
        _missing(models),
    ]
    return whole_page(title, parts)


def _head(result: Result, title: str, notes: Sequence[str]) -> str:
    span = f"{time_of(result.first_point)} to {time_of(result.until)}"
    sentences = [f"{span}: {result.rounds:,} rounds, {result.checkpoints} checkpoints.", *notes]
    return heading(title, sentences)


def _board(result: Result) -> str:
    names = (*result.columns, "p50 / p95 ms")
    rows = [
        (*result.cells(model), f"{model.p50_us / 1000:.1f} / {model.p95_us / 1000:.1f}")
        for model in result.models
    ]
    return f"<h2>Board</h2>{table(names, rows)}"


def _over_time(models: Sequence[ModelResult], unit: int) -> str:
    figure = go.Figure()
    for color, model in _colored(models):
        hours = sorted(model.of.hours.items())
        times = [datetime.fromtimestamp(hour / 1000 + 3600, UTC) for hour, _ in hours]
        sums = [total / unit for total in accumulate(of_hour[0] for _, of_hour in hours)]
        highest = accumulate(sums, max, initial=0.0)
        next(highest)
        below = [value - high for value, high in zip(sums, highest, strict=True)]
        line = {"color": color, "width": 1.5}
        figure.add_scatter(x=times, y=sums, name=model.label, legendgroup=model.model_id, line=line)
        figure.add_scatter(
            x=times,
            y=below,
            name=f"{model.label}, drawdown",
            legendgroup=model.model_id,
            showlegend=False,
            line=line,
            yaxis="y2",
        )
    figure.update_layout(
        yaxis={"domain": [0.42, 1], "title": "sum of scores"},
        yaxis2={"domain": [0, 0.26], "title": "drawdown"},
        height=HEIGHT_PX + 160,
    )
    return picture(figure, "over-time")


def _calibration(models: Sequence[ModelResult]) -> str:
    if not any(model.of.bins for model in models):
        return ""
    figure = go.Figure()
    figure.add_scatter(
        x=[-1, 1], y=[-1, 1], mode="lines", line={"color": "#999", "dash": "dot"}, name="exactly right"
    )
    for color, model in _colored(models):
        bins = [model.of.bins[number] for number in range(BINS) if number in model.of.bins]
        figure.add_scatter(
            x=[value / n for n, value, _ in bins],
            y=[came / n for n, _, came in bins],
            text=[f"{n:,.0f} answers" for n, _, _ in bins],
            mode="lines+markers",
            name=model.label,
            line={"color": color},
        )
    figure.update_layout(xaxis={"title": "what it said"}, yaxis={"title": "what came", "range": [-1, 1]})
    return section(
        "Calibration",
        "What the model said, in bins, against the mean direction that came (+1 up, -1 down). On the dotted line its "
        "confidence is exactly right; flatter is too sure of itself.",
        picture(figure, "calibration"),
    )


def _bars(models: Sequence[ModelResult], unit: int, of: Any, name: str) -> str:
    figure = go.Figure()
    for color, model in _colored(models):
        sums: list[tuple[Any, Sum]] = of(model)
        figure.add_bar(
            x=[str(key) for key, _ in sums],
            y=[total / n / unit for _, (total, n) in sums],
            name=model.label,
            marker={"color": color},
        )
    figure.update_layout(xaxis={"title": name, "type": "category"}, yaxis={"title": "mean score"})
    return picture(figure, f"by-{name}")


def _missing(models: Sequence[ModelResult]) -> str:
    rows = [
        (model.label, status, f"{count:,}", reason)
        for model in models
        for (status, reason), count in model.of.missing.most_common(20)
    ]
    if not rows:
        return "<h2>Missing answers</h2><p>None: every model answered every round.</p>"
    return f'<h2>Missing answers</h2><div class="reasons">{table(("model", "status", "count", "reason"), rows)}</div>'


def _colored(models: Sequence[ModelResult]) -> Iterable[tuple[str, ModelResult]]:
    return ((COLORS[index % len(COLORS)], model) for index, model in enumerate(models))
