"""The shape of an alert's entry in the guide: what it means, and the commands that end it. Pure data.

Each entry is read by an operator woken at night: what is wrong, what is at risk, what to type in which order, how to
see that it is over. What is true of every alert (where to type, where logs are, how to restart) is on the runbook's
first page, `.dev/observability/runbook.py`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from coordinator.api.invariant_shapes import AlertKind

Severity = Literal["page", "ticket"]
"""`page`: money or rounds are lost while nobody acts. `ticket`: it can wait until the morning."""

OVER = "`coordinator status` no longer lists the alert, and the webhook has sent `resolved`."


class AlertGuide(msgspec.Struct, frozen=True):
    """One alert. `wait` is how long its condition must hold, as Prometheus writes a duration."""

    title: str
    severity: Severity
    expr: str
    """PromQL; true while the alert is on."""
    means: str
    """What is wrong."""
    risk: str
    """What it costs while nobody acts, and what it does not touch."""
    look: tuple[str, ...]
    """Commands that show more, each whole."""
    end: tuple[str, ...]
    """What ends it, in order, as Markdown. What begins with `coordinator` in backquotes is a whole command."""
    over: str = OVER
    """How to see that it is over."""
    wait: str = "1m"


def raised_by_the_node(kind: AlertKind) -> str:
    """PromQL of an alert that the node raises itself."""
    return f'coordinator_alerts{{kind="{kind}"}} > 0'
