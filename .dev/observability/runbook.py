"""A runbook page per alert, from the alert guide, and a first page with what holds for all of them."""

from __future__ import annotations

from coordinator.api.alert_guide import GUIDES
from coordinator.api.node_alerts import AlertGuide

WHEN = {"page": "at once, also at night", "ticket": "on the next working day"}
BEFORE = """## Before you type

Type commands in the node's folder, where `.env` is. Of a node that `coordinator up` runs, say its directory, too:
`--data-dir DIR`. In containers type `docker compose run --rm tools` in place of the word `coordinator`.

| to | `coordinator up` | containers |
|---|---|---|
| see all alerts | `coordinator status --data-dir DIR` | `make status` |
| read a worker's log | `DIR/logs/NAME.log` | `make logs SERVICE=NAME` |
| restart a worker | `kill PID`, by the number in `DIR/node.json`: it comes up again | `docker compose restart NAME` |
| stop the node | Ctrl-C | `docker compose stop feed predict score checkpoint report`: Kafka goes on |
| start it | `coordinator up --data-dir DIR` | `make deploy` |
| restore | `coordinator topics restore FILE --data-dir DIR` | `docker compose run --rm -T tools topics restore <FILE` |

The workers are `feed`, `predict`, `score`, `checkpoint` and `report`. Each may be killed at any moment: nothing is
lost. A restore needs a node that is stopped.

## Delete a topic

Only if a page here says so, and only with a backup at hand. `CRUNCH` is your CRUNCH_ID.

- Of a node with a Kafka of its own (`coordinator up`): stop the node, and move the folder `kafka/log/CRUNCH.TOPIC-0`
  of its data directory to another place. A restore fills the topic again.
- Of any other Kafka: stop the workers, then with Kafka's tools
  `kafka-topics.sh --bootstrap-server HOST:PORT --delete --topic CRUNCH.TOPIC`.

A restore leaves a topic alone that is whole. With an old backup of a busy topic it names the topics that lost records.

## Every alert"""


def pages() -> dict[str, str]:
    """File name -> Markdown."""
    return {"index.md": _index()} | {f"{name}.md": _page(name, guide) for name, guide in GUIDES.items()}


def _page(name: str, guide: AlertGuide) -> str:
    if "coordinator_alerts" in guide.expr:
        seen = f"The node tells it: kind `{name}` in `/healthz`, on the page and in the webhook."
    else:
        seen = "Prometheus tells it, from the node's figures."
    parts = {
        "What is at risk": [guide.risk],
        "Look": [f"    {command}" for command in guide.look],
        "End it": [f"{number}. {step}" for number, step in enumerate(guide.end, start=1)],
        "How to see that it is over": [guide.over],
        "Its rule": [f"    {guide.expr}", "", f"for {guide.wait}."],
    }
    lines = [f"# {guide.title}", "", guide.means, "", f"Act {WHEN[guide.severity]}. {seen}", ""]
    lines += ["[Where to type, where logs are, how to restart a worker](index.md#before-you-type).", ""]
    for heading, text in parts.items():
        lines += [f"## {heading}", "", *text, ""]
    return "\n".join(lines)


def _index() -> str:
    rows = [
        f"| [{guide.title}]({name}.md) | {guide.severity} | {guide.means} |" for name, guide in GUIDES.items()
    ]
    return "\n".join(
        [
            "<!-- blocks not run: they are commands for a node that is in trouble -->",
            "",
            "# Runbook",
            "",
            "For an operator woken at night: what each alert means, and what ends it.",
            "`page`: act at once. `ticket`: on the next working day.",
            "",
            BEFORE,
            "",
            "| alert | act | means |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )
