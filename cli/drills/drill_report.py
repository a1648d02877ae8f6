"""The outcomes of drills: as lines for a terminal, and as the table of the documentation."""

from __future__ import annotations

from coordinator.cli.drills.drill import Drill, Outcome

HEAD = "| drill | what is broken | alert | after | ended after | lost | what ends it |"
HEAD_LINES = HEAD + "\n|" + "---|" * (HEAD.count("|") - 1)


def row(outcome: Outcome) -> str:
    """A row of the documentation's table."""
    alerts = ", ".join(f"[{alert}](../runbook/{alert}.md)" for alert in outcome.raised) or "none"
    cells = [
        f"`{outcome.name}`",
        outcome.breaks,
        alerts,
        _seconds(outcome.alert_after_seconds),
        _seconds(outcome.ended_after_seconds),
        ", ".join(outcome.lost) or f"0 of {outcome.acknowledged_records:,}",
        " ".join(text for text in (outcome.holds, outcome.ends_by) if text)
        + "".join(f" **Not as it must be: {fault}**" for fault in outcome.faults)
        + (f" **Not run: {outcome.not_run}**" if outcome.not_run else ""),
    ]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def line(outcome: Outcome) -> str:
    """One line for a terminal."""
    if outcome.not_run:
        return f"{outcome.name}: NOT RUN: {outcome.not_run}"
    alerts = ", ".join(outcome.raised) or "no alert"
    verdict = "as it must be" if outcome.ok else "NOT as it must be: " + "; ".join(outcome.faults)
    times = (
        f"after {_seconds(outcome.alert_after_seconds)}, ended after {_seconds(outcome.ended_after_seconds)}"
    )
    return f"{outcome.name}: {alerts} {times}; {len(outcome.lost)} topics with a loss: {verdict}"


def listed(drill: Drill) -> tuple[str, str, str]:
    """Name, alert, and what is broken."""
    return drill.name, ", ".join(drill.expected or ("none",)), drill.breaks


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f} s"
