"""What `coordinator status` shows of a node's health."""

from __future__ import annotations

import io

from coordinator.cli.status import print_health
from coordinator.cli.terminal import Console

HEALTH = {
    "status": "degraded",
    "crunch_id": "btc-up",
    "lag": {"feeds": 0, "inputs": 12_000},
    "error": None,
    "stages": [
        {"stage": "scores", "decided_ts": "2026-11-30T06:20:00Z", "behind_seconds": 90.0, "last_written_seconds_ago": 3.4},
        {"stage": "checkpoints", "decided_ts": None, "behind_seconds": None, "last_written_seconds_ago": None},
    ],
    "sources": [{"source": "pyth", "state": "refused", "reason": "403", "since": "2026-11-30T06:19:29Z"}],
    "alerts": [{"kind": "feed", "name": "pyth", "text": "pyth refuses us: 403"}],
}  # fmt: skip


def test_health_is_shown_in_words_and_tables():
    out = io.StringIO()
    print_health(HEALTH, Console(file=out, width=120))
    text = out.getvalue()
    assert "lag: feeds 0, inputs 12,000" in text
    assert "error: -" in text
    assert "source pyth: refused (403) since 2026-11-30T06:19:29Z" in text
    assert "90 s" in text
    assert "3 s ago" in text
    assert "pyth refuses us: 403" in text
    assert "{" not in text
