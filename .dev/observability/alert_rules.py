"""Prometheus' alert rules, and their unit tests for promtool, from the alert guide."""

from __future__ import annotations

from typing import Any

import yaml

from coordinator.api.alert_entry import AlertGuide
from coordinator.api.alert_guide import GUIDES

HEAD = "# Made from api/alert_guide.py by `make observability`; edit that.\n"
RUNBOOK = "docs/runbook"


def alert_name(name: str) -> str:
    """`CoordinatorFeed` of `feed`."""
    return "Coordinator" + name.title()


def rules() -> str:
    """rules.yml."""
    alerts = [
        {
            "alert": alert_name(name),
            "expr": guide.expr,
            "for": guide.wait,
            "labels": {"severity": guide.severity},
            "annotations": {
                "summary": guide.title,
                "description": f"{guide.means} {guide.risk}",
                "runbook": f"{RUNBOOK}/{name}.md",
            },
        }
        for name, guide in GUIDES.items()
    ]
    return HEAD + _yaml({"groups": [{"name": "coordinator", "rules": alerts}]})


SERIES: dict[str, list[tuple[str, str]]] = {
    "down": [('up{job="coordinator"}', "0x40")],
    "unhealthy": [("coordinator_healthy", "0x40")],
    "errors": [
        ('coordinator_api_requests_total{status="500"}', "0+10x40"),
        ('coordinator_api_requests_total{status="200"}', "0+10x40"),
    ],
    "slow": [
        ('coordinator_api_request_seconds_bucket{le="1"}', "0+0x40"),
        ('coordinator_api_request_seconds_bucket{le="10"}', "0+10x40"),
        ('coordinator_api_request_seconds_bucket{le="+Inf"}', "0+10x40"),
    ],
    "board": [
        ('coordinator_truth_to_board_seconds_bucket{le="30"}', "0+0x40"),
        ('coordinator_truth_to_board_seconds_bucket{le="60"}', "0+10x40"),
        ('coordinator_truth_to_board_seconds_bucket{le="+Inf"}', "0+10x40"),
    ],
}
"""Alert -> series under which it fires; one of the node's own fires by its gauge."""

QUIET = [
    ('up{job="coordinator"}', "1x40"),
    ("coordinator_healthy", "1x40"),
    ('coordinator_api_requests_total{status="200"}', "0+10x40"),
    ('coordinator_api_request_seconds_bucket{le="1"}', "0+10x40"),
    ('coordinator_api_request_seconds_bucket{le="+Inf"}', "0+10x40"),
    ('coordinator_truth_to_board_seconds_bucket{le="30"}', "0+10x40"),
    ('coordinator_truth_to_board_seconds_bucket{le="+Inf"}', "0+10x40"),
]


def rule_tests() -> str:
    """rules_test.yml: each alert fires after its time and not before, and none fires on a quiet node."""
    quiet = [*QUIET, *((f'coordinator_alerts{{kind="{name}"}}', "0x40") for name in GUIDES)]
    tests: list[dict[str, Any]] = [
        {
            "name": "a quiet node",
            "interval": "1m",
            "input_series": _series(quiet),
            "alert_rule_test": [
                {"eval_time": "30m", "alertname": alert_name(name), "exp_alerts": []} for name in GUIDES
            ],
        }
    ]
    for name, guide in GUIDES.items():
        series = SERIES.get(name) or [(f'coordinator_alerts{{kind="{name}"}}', "1x40")]
        tests.append(
            {
                "name": name,
                "interval": "1m",
                "input_series": _series(series),
                "alert_rule_test": [
                    {"eval_time": "0m", "alertname": alert_name(name), "exp_alerts": []},
                    {
                        "eval_time": "30m",
                        "alertname": alert_name(name),
                        "exp_alerts": [
                            {"exp_labels": _labels(name, guide), "exp_annotations": _said(name, guide)}
                        ],
                    },
                ],
            }
        )
    return HEAD + _yaml({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests})


def _labels(name: str, guide: AlertGuide) -> dict[str, str]:
    labels: dict[str, str] = {"severity": guide.severity}
    if name == "down":
        labels["job"] = "coordinator"
    elif name not in SERIES:
        labels["kind"] = name
    return labels


def _said(name: str, guide: AlertGuide) -> dict[str, str]:
    return {
        "summary": guide.title,
        "description": f"{guide.means} {guide.risk}",
        "runbook": f"{RUNBOOK}/{name}.md",
    }


def _series(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"series": series, "values": values} for series, values in pairs]


def _yaml(body: Any) -> str:
    text: str = yaml.safe_dump(body, sort_keys=False, width=1000, allow_unicode=True)
    return text
