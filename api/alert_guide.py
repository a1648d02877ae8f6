"""Every alert, by the name of its runbook page: the node's own, and those that Prometheus sees by the node's figures.

The Prometheus rules, the Grafana dashboard and the runbook pages are made from it (`make observability`), and a test
compares them. Pure data.
"""

from __future__ import annotations

from coordinator.api.alert_entry import AlertGuide
from coordinator.api.node_alerts import NODE_ALERTS

OUTER_ALERTS: dict[str, AlertGuide] = {
    "down": AlertGuide(
        "Node does not answer",
        "page",
        'up{job="coordinator"} == 0',
        "The report API does not answer, so the node cannot report its own alerts.",
        (
            "Nobody sees any figures, and no checkpoint can be paid. The other workers may still run, or "
            "the whole node may have ended."
        ),
        ("coordinator status", "coordinator doctor --skip docker"),
        (
            (
                "Read the last line of the node's output (`coordinator up`, or `docker compose logs "
                "report`): it says what to change."
            ),
            (
                "The line says that another Kafka listens on this node's address: stop that Kafka, and "
                "start this node's."
            ),
            (
                "The line names a topic that is missing or has lost its first records: delete what is "
                "left of that topic ([how](index.md#delete-a-topic)), then run `coordinator topics "
                "restore FILE` with the last backup."
            ),
            (
                "The line says that workers hang: check the disk (`iostat -x 2 3`). A disk that hardly "
                "takes writes stops all workers."
            ),
            "Start the node: `make deploy` in the node's folder, or `coordinator up`.",
        ),
        over="`coordinator status` answers, and its table of alerts is empty.",
    ),
    "unhealthy": AlertGuide(
        "Read models stand still",
        "page",
        "coordinator_healthy == 0",
        "The log has new records, but none is folded into the read models. The API answers 503.",
        (
            "The page shows stale figures, and the node's other alerts may be stale too. Scores are not "
            "affected."
        ),
        ("coordinator status",),
        (
            "Read the report worker's log: its last lines give the reason.",
            "Restart the report worker. It continues where it stopped.",
            "It stops again at the same record: do what [Record unreadable](log.md) says.",
        ),
        over="`coordinator status` shows `ok`, and the lag shrinks.",
        wait="2m",
    ),
    "errors": AlertGuide(
        "API fails",
        "ticket",
        'sum(rate(coordinator_api_requests_total{status=~"5.."}[5m]))'
        " / sum(rate(coordinator_api_requests_total[5m])) > 0.05",
        "More than 5 % of the API's answers are server errors (5xx).",
        "Pages and programs that use the API fail. Scores and payments are not affected.",
        ("coordinator status",),
        (
            (
                "503 means that the read models are not ready: do what [Read models stand "
                "still](unhealthy.md) says."
            ),
            "500 means a bug: the report worker's log has the traceback. File an issue with it.",
        ),
        over="The panel *Errors* of the developer's dashboard is back at zero.",
        wait="5m",
    ),
    "slow": AlertGuide(
        "API is slow",
        "ticket",
        "histogram_quantile(0.99, sum by (le) (rate(coordinator_api_request_seconds_bucket[5m]))) > 1",
        "At least one answer in a hundred takes longer than a second.",
        "Pages and programs wait. Scores and payments are not affected.",
        ("coordinator status",),
        (
            "The developer's dashboard shows which route is slow.",
            "One route is slow: whoever requests whole histories should request pages (`limit`).",
            "All routes are slow: give the report worker's machine more CPU, or a faster disk.",
        ),
        over="The panel *Time to the first byte* is below a second.",
        wait="10m",
    ),
    "board": AlertGuide(
        "Board is late",
        "ticket",
        "histogram_quantile(0.99, sum by (le) (rate(coordinator_truth_to_board_seconds_bucket[5m]))) > 30",
        "At least one round in a hundred reaches the leaderboard more than 30 s after its truth was known.",
        "Participants see their scores late. The scores themselves are right.",
        ("coordinator status",),
        (
            "The table of stages shows which stage is behind.",
            (
                "That stage's worker, or Kafka, has too little CPU or a slow disk: give it more CPU or a "
                "faster disk."
            ),
        ),
        over="The panel *Truth to board* is below 30 s.",
        wait="10m",
    ),
}
"""What the node cannot tell itself, or tells only by its figures."""

GUIDES: dict[str, AlertGuide] = {str(kind): guide for kind, guide in NODE_ALERTS.items()} | OUTER_ALERTS
"""Every alert by the name of its runbook page."""
