"""A runbook page per alert, from the alert guide, and a first page with what holds for all of them."""

from __future__ import annotations

from coordinator.api.alert_entry import AlertGuide
from coordinator.api.alert_guide import GUIDES

WHEN = {"page": "at once, even at night", "ticket": "on the next working day"}
BEFORE = """## Before you type

Type commands in the node's folder, where `.env` is. If `coordinator up` runs the node, add its data directory to each
command: `--data-dir DIR`. In containers type `docker compose run --rm tools` in place of the word `coordinator`, and
`docker compose exec report coordinator` for `replay --verify`, which needs the report worker's data.

| to | `coordinator up` | containers |
|---|---|---|
| see all alerts | `coordinator status --data-dir DIR` | `make status` |
| read a worker's log | `DIR/logs/NAME.log` | `make logs SERVICE=NAME` |
| restart a worker | `kill PID`, from `DIR/node.json`: it is started again | `docker compose restart NAME` |
| stop the node | Ctrl-C | `docker compose stop feed predict score checkpoint report` (not Kafka) |
| start the node | `coordinator up --data-dir DIR` | `make deploy` |
| restore | `coordinator topics restore FILE --data-dir DIR` | `docker compose run --rm -T tools topics restore <FILE` |

The workers are `feed`, `predict`, `score`, `checkpoint` and `report`. You may kill each of them at any moment: nothing
is lost. Stop the node before you restore a backup.

## Delete a topic

Delete a topic only if a page here says so, and only with a backup at hand. `CRUNCH` stands for your CRUNCH_ID.

- The node runs its own Kafka (`coordinator up`): stop the node, and move the folder `kafka/log/CRUNCH.TOPIC-0` out of
  its data directory. A restore fills the topic again.
- Any other Kafka: stop the workers, then use Kafka's tools:
  `kafka-topics.sh --bootstrap-server HOST:PORT --delete --topic CRUNCH.TOPIC`.

A restore does not touch a topic that is complete. If the backup is older than the last records of a topic, the restore
names the topics that lost records.

A process whose data directory remembers the deleted topic does not start. It names the file that remembers it:
`topics.json`. `coordinator topics restore --data-dir` puts that file right. In containers, and on each other host,
remove the file after the restore:
`docker compose run --rm --no-deps --entrypoint rm report /data/topics.json`.

## Every alert"""


def pages() -> dict[str, str]:
    """File name -> Markdown."""
    return {"index.md": _index()} | {f"{name}.md": _page(name, guide) for name, guide in GUIDES.items()}


def _page(name: str, guide: AlertGuide) -> str:
    if "coordinator_alerts" in guide.expr:
        seen = f"The node reports this alert itself: kind `{name}` in `/healthz`, on the page and in the webhook."
    else:
        seen = "Prometheus raises this alert, from the node's metrics."
    parts = {
        "What is at risk": [guide.risk],
        "Look": [f"    {command}" for command in guide.look],
        "End it": [f"{number}. {step}" for number, step in enumerate(guide.end, start=1)],
        "How to see that it is over": [guide.over],
        "The Prometheus rule": [f"    {guide.expr}", "", f"It must hold for {guide.wait}."],
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
            "For an operator who is woken at night: what each alert means, and what ends it.",
            "`page` means: act at once. `ticket` means: act on the next working day.",
            "",
            BEFORE,
            "",
            "| alert | act | means |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )
