"""What a person sees of a running node: messages as lines, and below them a table that moves.

Reads the report API once a second; on a terminal it draws, else it prints one plain line now and then. What the
API does not say yet is left out: the screen never decides anything and never fails the node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import Any

import msgspec
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from coordinator.cli.lazy_groups import one_line
from coordinator.cli.terminal import Console
from coordinator.infra.processes.supervisor import ChildState
from coordinator.streams.log.finite import is_number
from coordinator.streams.settings import Settings

REFRESH_SECONDS = 1.0
LINE_SECONDS = 5.0
MODELS_SHOWN = 10
ASK_SECONDS_MAX = 2.0


class LatestAnswers(msgspec.Struct):
    """What the API said last; what it did not say keeps its last value."""

    board: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    checkpoint: dict[str, Any] = {}


class Screen:
    """The terminal, or a plain stream of lines."""

    def __init__(self, console: Console | None = None, *, fresh: bool = True) -> None:
        self.console = console or Console()
        self._fresh = fresh
        self._live: Live | None = None
        self._began = monotonic()
        self._scored_before: int | None = None
        self._scored = False

    def restart_clock(self) -> None:
        """Count seconds from here on: the set-up is over."""
        self._began = monotonic()

    def say(self, line: str) -> None:
        """One message, above the table."""
        self.console.print(one_line(line), highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the table in its last state; further lines follow below it."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    async def show(self, settings: Settings, children: Mapping[str, ChildState]) -> None:
        """Keep the table, or the lines, up to date until cancelled."""
        # Here and not above: a tenth of a second that the node's own start does not wait for.
        from coordinator.streams.net.outbound import http_client  # noqa: PLC0415

        address = f"http://{settings.api_host}:{settings.api_port}"
        news = LatestAnswers()
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=False)
            self._live.start()
        line_at = 0.0
        async with http_client(address, timeout=ASK_SECONDS_MAX) as api:
            while True:
                await self._ask(api, news)
                if self._first_score(news):
                    self.say(f"first score, {monotonic() - self._began:.1f} s after the start")
                if self._live is not None:
                    self._live.update(picture(news, children, address), refresh=True)
                elif monotonic() - line_at >= LINE_SECONDS:
                    line_at = monotonic()
                    self.say(status_line(news, children))
                await asyncio.sleep(REFRESH_SECONDS)

    def _first_score(self, news: LatestAnswers) -> bool:
        """True once: when there are more scores than an earlier run had left."""
        scored = news.summary.get("predictions", {}).get("scored")
        if scored is None or self._scored:
            return False
        if self._scored_before is None:
            self._scored_before = 0 if self._fresh else scored
        self._scored = scored > self._scored_before
        return self._scored

    async def _ask(self, api: Any, news: LatestAnswers) -> None:
        import httpx  # noqa: PLC0415

        for path, field in (
            ("/reports/leaderboard", "board"),
            ("/reports/summary", "summary"),
            ("/reports/checkpoints/latest", "checkpoint"),
        ):
            try:
                answer = await api.get(path)
                body = answer.json() if answer.status_code == httpx.codes.OK else None
            except (httpx.HTTPError, ValueError):
                continue  # it is being started again; the children's states say so
            if isinstance(body, type(getattr(news, field))):
                setattr(news, field, body)


def event_time(news: LatestAnswers) -> str:
    """The board's event time for people, `-` before there is one."""
    return str(news.board[0].get("created_at", "-")).split(".")[0].replace("T", " ") if news.board else "-"


def board_title(news: LatestAnswers) -> str:
    """The time of the board and, if a key of the snapshot summary ranks it, the period of that snapshot."""
    title = f"leaderboard at {event_time(news)}"
    as_of = news.board[0].get("ranked_as_of") if news.board else None
    if as_of is None:
        return title
    key = news.board[0]["score_ranking"]["key"]
    return f"{title}, ranked by {key} of the period that ended {as_of.split('.')[0].replace('T', ' ')}"


def counts(news: LatestAnswers) -> str:
    """Rounds and predictions by status, in one line."""
    inputs, predictions = news.summary.get("inputs", {}), news.summary.get("predictions", {})
    parts = [f"rounds {inputs.get('received', 0):,}"]
    parts += [f"{name} {predictions.get(name, 0):,}" for name in ("pending", "scored")]
    if waiting := predictions.get("no_score", 0):
        parts.append(f"no score yet {waiting:,}")
    parts += [f"{name} {predictions.get(name, 0):,}" for name in ("failed", "absent")]
    return "  ".join(parts)


def checkpoint_text(news: LatestAnswers) -> str:
    """The last checkpoint and its status."""
    checkpoint = news.checkpoint
    return (
        f"{checkpoint['id']} {checkpoint.get('status', '')} {checkpoint.get('period_start', '')}"
        if checkpoint.get("id")
        else "none offered yet"
    )


def status_line(news: LatestAnswers, children: Mapping[str, ChildState]) -> str:
    """Everything that matters, as one plain line."""
    best = news.board[0] if news.board else None
    leader = ""
    if best is not None:
        value = best.get("score_ranking", {}).get("value")
        leader = f" | best {best.get('model_name') or best.get('model_id')} {_number(value)}"
    ill = [f"{child.name} {child.state}" for child in children.values() if child.state != "running"]
    return f"event time {event_time(news)} | {counts(news)} | checkpoint {checkpoint_text(news)}{leader}" + (
        f" | {', '.join(ill)}" if ill else ""
    )


def picture(news: LatestAnswers, children: Mapping[str, ChildState], address: str) -> Group:
    """The whole screen."""
    windows = list(news.board[0].get("score_metrics", {})) if news.board else []
    table = Table("rank", "model", "cruncher", *windows, "scored", title=board_title(news))
    for row in news.board[:MODELS_SHOWN]:
        table.add_row(
            str(row.get("rank") or "-"),
            Text(str(row.get("model_name") or row.get("model_id"))),
            Text(str(row.get("cruncher_name") or "-")),
            *(_number(row.get(name)) for name in windows),
            f"{row.get('scored_count', 0):,}",
        )
    states = "  ".join(
        f"{child.name} {child.state}" + (f" ({child.restarts}x again)" if child.restarts else "")
        for child in children.values()
    )
    return Group(
        table,
        Text(counts(news)),
        Text(f"last checkpoint: {checkpoint_text(news)}"),
        Text(states),
        Text(f"page: {address}/   (Ctrl-C ends)"),
    )


def _number(value: Any) -> str:
    return f"{value:+.6f}" if is_number(value) else "-"
