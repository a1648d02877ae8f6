"""Two Grafana dashboards: what an operator looks at, and what a developer looks at. From the metrics' names."""

from __future__ import annotations

import json
from typing import Any

SOURCE = {"type": "prometheus", "uid": "${source}"}
WIDTH, HEIGHT, COLUMNS = 8, 7, 3

Panel = tuple[str, str, str, str]
"""(title, unit, PromQL, legend)"""

OPERATOR: list[Panel] = [
    ("Node answers", "none", 'up{job="coordinator"}', "up"),
    ("Alerts that are on", "none", "coordinator_alerts > 0", "{{kind}}"),
    ("Invariants that hold", "none", "coordinator_invariant_ok", "{{name}}"),
    ("Stage behind the feed's clock", "s", "coordinator_stage_behind_seconds", "{{stage}}"),
    ("Since a stage last wrote", "s", "coordinator_stage_age_seconds", "{{stage}}"),
    ("Records waiting to be folded", "none", "coordinator_lag_records", "{{topic}}"),
    (
        "Predictions by status, per second",
        "ops",
        'deriv(coordinator_predictions{status!="pending"}[5m])',
        "{{status}}",
    ),
    ("Checkpoints by status", "none", "coordinator_checkpoints", "{{status}}"),
    ("Oldest checkpoint that waits", "s", "coordinator_checkpoint_age_seconds", "{{status}}"),
    (
        "Truth to board",
        "s",
        "histogram_quantile(0.99, sum by (le) (rate(coordinator_truth_to_board_seconds_bucket[5m])))",
        "p99",
    ),
    ("Records set aside", "none", "coordinator_dead_letters_total", "{{origin}}"),
    ("Webhook posts", "none", "coordinator_webhook_posts_total", "{{outcome}}"),
]
DEVELOPER: list[Panel] = [
    ("Requests", "reqps", "sum by (route) (rate(coordinator_api_requests_total[5m]))", "{{route}}"),
    (
        "Errors",
        "reqps",
        'sum by (route, status) (rate(coordinator_api_requests_total{status=~"[45].."}[5m]))',
        "{{route}} {{status}}",
    ),
    (
        "Time to the first byte, p99",
        "s",
        "histogram_quantile(0.99, sum by (le, route) (rate(coordinator_api_request_seconds_bucket[5m])))",
        "{{route}}",
    ),
    ("Refused", "reqps", "rate(coordinator_api_refused_total[5m])", "{{reason}}"),
    ("Events folded", "ops", "rate(coordinator_events_folded_total[5m])", "events"),
    ("Records folded, per second", "ops", "deriv(coordinator_next_offset[5m])", "{{topic}}"),
    ("Claims in an hour", "none", "increase(coordinator_claims_total[1h])", "{{topic}}"),
    ("Appends that do not count", "ops", "rate(coordinator_appends_uncounted_total[5m])", "appends"),
    ("Stores on disk", "bytes", "coordinator_store_bytes", "{{store}}"),
    ("Live listeners", "none", "coordinator_live_listeners", "listeners"),
    (
        "Truth to board",
        "s",
        "histogram_quantile(0.5, sum by (le) (rate(coordinator_truth_to_board_seconds_bucket[5m])))",
        "p50",
    ),
]
DASHBOARDS = {"operator": OPERATOR, "developer": DEVELOPER}


def dashboard(name: str) -> str:
    """The JSON that Grafana imports."""
    body = {
        "uid": f"coordinator-{name}",
        "title": f"Coordinator node: {name}",
        "tags": ["coordinator"],
        "timezone": "utc",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "panels": [_panel(number, *panel) for number, panel in enumerate(DASHBOARDS[name])],
    }
    return json.dumps(body, indent=2) + "\n"


def _panel(number: int, title: str, unit: str, expr: str, legend: str) -> dict[str, Any]:
    return {
        "id": number + 1,
        "title": title,
        "type": "timeseries",
        "datasource": SOURCE,
        "gridPos": {
            "x": number % COLUMNS * WIDTH, "y": number // COLUMNS * HEIGHT, "w": WIDTH, "h": HEIGHT
        },
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [{"refId": "A", "datasource": SOURCE, "expr": expr, "legendFormat": legend}],
    }  # fmt: skip
