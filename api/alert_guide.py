"""Every alert, by the name of its runbook page: the node's own, and those that Prometheus sees by the node's figures.

The Prometheus rules, the Grafana dashboard and the runbook pages are made from it (`make observability`), and a test
compares them. Pure data.
"""

from __future__ import annotations

from coordinator.api.node_alerts import NODE_ALERTS, AlertGuide

OUTER_ALERTS: dict[str, AlertGuide] = {
    "down": AlertGuide(
        "Node does not answer",
        "page",
        'up{job="coordinator"} == 0',
        "The report API does not answer, so the node can tell no alert of its own.",
        "Nobody sees anything, and no checkpoint can be paid. The other workers may run on, or the whole node"
        " may have ended.",
        ("coordinator status", "coordinator doctor --skip docker"),
        (
            (
                "Read the last line that the node said (`coordinator up`, or `docker compose logs report`): it "
                "says what to change."
            ),
            "It names another Kafka at our address: end that one, start ours.",
            (
                "It names a topic that does not exist, or begins too late: delete what is left of it "
                "([how](index.md#delete-a-topic)), then `coordinator topics restore FILE` from the last backup."
            ),
            (
                "It says that workers hang: look at the disk (`iostat -x 2 3`); one that hardly takes writes "
                "stops all of them."
            ),
            "Start it: `make deploy` in the node's folder, or `coordinator up`.",
        ),
        over="`coordinator status` answers, and its table of alerts is empty.",
    ),
    "unhealthy": AlertGuide(
        "Read models stand still",
        "page",
        "coordinator_healthy == 0",
        "Records wait and none is folded: the API answers 503.",
        "The page shows old figures, and the node's other alerts may be old. Scores are not touched.",
        ("coordinator status",),
        (
            "Read the report worker's log: its last lines have the reason.",
            "Restart the report worker. It goes on where it was.",
            "It stands again at the same record: do what [Record unreadable](log.md) says.",
        ),
        over="`coordinator status` says `ok`, and the lag shrinks.",
        wait="2m",
    ),
    "errors": AlertGuide(
        "API fails",
        "ticket",
        'sum(rate(coordinator_api_requests_total{status=~"5.."}[5m]))'
        " / sum(rate(coordinator_api_requests_total[5m])) > 0.05",
        "More than 5 % of the API's answers are errors of its own.",
        "Pages and programs that ask the API fail. Scores and pay are not touched.",
        ("coordinator status",),
        (
            "503: the read models are not ready: do what [Read models stand still](unhealthy.md) says.",
            "500: the report worker's log has the traceback. File an issue with it.",
        ),
        over="The panel *Errors* of the developer's dashboard is back at zero.",
        wait="5m",
    ),
    "slow": AlertGuide(
        "API is slow",
        "ticket",
        "histogram_quantile(0.99, sum by (le) (rate(coordinator_api_request_seconds_bucket[5m]))) > 1",
        "One answer in a hundred takes longer than a second.",
        "Pages and programs wait. Scores and pay are not touched.",
        ("coordinator status",),
        (
            "The developer's dashboard says which route is slow.",
            "One route: whoever asks for whole histories should ask for pages (`limit`).",
            "All routes: give the report worker's machine more CPU, or a faster disk.",
        ),
        over="The panel *Time to the first byte* is below a second.",
        wait="10m",
    ),
    "board": AlertGuide(
        "Board is late",
        "ticket",
        "histogram_quantile(0.99, sum by (le) (rate(coordinator_truth_to_board_seconds_bucket[5m]))) > 30",
        "One round in a hundred reaches the board more than 30 s after its truth was known.",
        "Participants see their scores late. They are the same scores.",
        ("coordinator status",),
        (
            "The table of stages says which one is behind.",
            "That worker's machine has too little CPU, or a slow disk, or Kafka has: give it more.",
        ),
        over="The panel *Truth to board* is below 30 s.",
        wait="10m",
    ),
}
"""What the node cannot tell itself, or tells only by its figures."""

GUIDES: dict[str, AlertGuide] = {str(kind): guide for kind, guide in NODE_ALERTS.items()} | OUTER_ALERTS
"""Every alert by the name of its runbook page."""
